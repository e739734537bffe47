//! CLIP's tokenizer: text to the ids that the text encoder embeds, as transformers 5 computes them.
//!
//! Text is composed (NFC), its white space collapsed, its letters made small; it is split into
//! words, single digits and runs of signs; their bytes are merged by BPE, the last token of each
//! word ending in `</w>`. Start and end go around it, and pads after it, up to the context length.

mod builtin;
mod bytes;
mod learn;
mod pipeline;
mod special;
mod vocabulary;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokenizers::{AddedToken, NormalizedString, Normalizer as _};

use crate::error::{Error, Result};
use bytes::WORD_END;
use pipeline::Pipeline;
use special::{Source, Sources, Specials};
use vocabulary::Vocabulary;

/// No text encoder of this family has more positions; a larger number is a lie.
const LONGEST: usize = 1 << 16;

/// What fills a prompt up to the context length.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pad {
    /// The end token, as in Stable Diffusion 1.x.
    #[default]
    EndOfText,
    /// Id 0, the token `!`, as in Stable Diffusion 2.x. As in transformers, every `!` of a prompt
    /// is then this token.
    Zero,
}

/// The contents of a `tokenizer` folder's files. Either `tokenizer_json`, or `vocab_json` and
/// `merges`; with both, `tokenizer_json` is read, as transformers 5 does. The caller bounds their
/// sizes.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerData<'a> {
    /// `vocab.json`: ids by token.
    pub vocab_json: Option<&'a [u8]>,
    /// `merges.txt`: a line for each merge.
    pub merges: Option<&'a [u8]>,
    /// `tokenizer.json`: the vocabulary and merges in one file. Its pipeline must be CLIP's.
    pub tokenizer_json: Option<&'a [u8]>,
    /// `tokenizer_config.json`: special tokens.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`: special tokens.
    pub special_tokens_map: Option<&'a [u8]>,
    /// `added_tokens.json`: ids of added words, in older folders.
    pub added_tokens: Option<&'a [u8]>,
}

/// CLIP's built-in vocabulary as the two files of a `tokenizer` folder: the ids by token
/// (`vocab.json`), and the merges (`merges.txt`).
///
/// # Errors
/// Never, unless the program is damaged.
pub fn clip_files() -> Result<(String, String)> {
    Ok(files(builtin::vocabulary()?))
}

/// The same two files of a vocabulary that is learned from texts: CLIP's layout, with at most so
/// many merges.
///
/// # Errors
/// Never for texts of finite length.
pub fn learned_files<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    merges: usize,
) -> Result<(String, String)> {
    Ok(files(Vocabulary::learned(texts, merges)?))
}

/// `vocab.json` and `merges.txt`.
fn files(Vocabulary { tokens, merges }: Vocabulary) -> (String, String) {
    let ids: serde_json::Map<String, Value> = tokens
        .into_iter()
        .zip(0u32..)
        .map(|(token, id)| (token, id.into()))
        .collect();
    let mut lines = "#version: 0.2\n".to_owned();
    for (a, b) in merges {
        lines.extend([a.as_str(), " ", b.as_str(), "\n"]);
    }
    (Value::Object(ids).to_string(), lines)
}

/// A prompt as the text encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Start, text, end, pads: exactly as many as the context is long.
    pub ids: Vec<u32>,
    /// How many of them come before the pads, start and end included.
    pub length: usize,
    /// The end of the text, where the prompt is longer than the context: what the model does not
    /// see.
    pub lost: Option<String>,
}

/// CLIP's tokenizer over one vocabulary. Clones share it.
#[derive(Clone)]
pub struct Tokenizer {
    core: Arc<Core>,
    context: usize,
}

#[derive(Clone)]
struct Core {
    pipeline: Pipeline,
    /// Index: id.
    tokens: Vec<String>,
    /// Words of several vectors: the word's own id, and the ids of `WORD_1`, `WORD_2`, ...
    groups: BTreeMap<u32, Vec<u32>>,
    start: u32,
    end: u32,
    pad: u32,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Core {
            start, end, pad, ..
        } = *self.core;
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("context", &self.context)
            .field("start", &start)
            .field("end", &end)
            .field("pad", &pad)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Puts the special tokens into the pipeline. `path` is the file that the vocabulary came from.
    fn new(path: &Path, vocabulary: Vocabulary, specials: Specials) -> Result<Self> {
        let absent = |what: &str, token: &str| {
            Error::file(
                path,
                format!("the {what} token `{token}` is not in the vocabulary"),
            )
        };
        if !vocabulary.tokens.contains(&specials.unknown) {
            return Err(absent("unknown", &specials.unknown));
        }
        let mut pipeline = pipeline::build(path, &vocabulary, &specials.unknown)?;
        let mut tokens = vocabulary.tokens;
        let named = [
            ("start", &specials.start),
            ("end", &specials.end),
            ("pad", &specials.pad),
        ];
        for (said, token) in &specials.added {
            let content = &token.content;
            let known = pipeline.token_to_id(content);
            // A token with a task has a row in the text encoder, so it cannot be one that nobody
            // gave an id.
            if let Some((what, _)) = named
                .iter()
                .find(|(_, t)| *t == content)
                .filter(|_| known.is_none() && said.is_none())
            {
                return Err(absent(what, content));
            }
            let next = u32::try_from(tokens.len())
                .map_err(|_| Error::file(path, "has more tokens than 32-bit ids"))?;
            let id = known.unwrap_or(next);
            if let Some(said) = said.filter(|said| *said != id) {
                return Err(Error::file(
                    path,
                    format!("the added token `{content}` has id {said}, expected {id}"),
                ));
            }
            if known.is_none() {
                tokens.push(content.clone());
            }
        }
        // All at once: each call goes through every token added before.
        let added: Vec<AddedToken> = specials.added.into_iter().map(|(_, token)| token).collect();
        pipeline.add_tokens(&added);
        let groups = groups(&added, &pipeline);
        let id = |what: &str, token: &str| {
            pipeline
                .token_to_id(token)
                .ok_or_else(|| absent(what, token))
        };
        let [start, end, pad] = [
            id("start", &specials.start)?,
            id("end", &specials.end)?,
            id("pad", &specials.pad)?,
        ];
        Ok(Self {
            pipeline,
            tokens,
            groups,
            start,
            end,
            pad,
        })
    }

    fn is_added(&self, id: u32) -> bool {
        self.pipeline
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .contains_key(&id)
    }

    /// Whether the next token starts a word.
    fn ends_word(&self, id: u32) -> bool {
        self.is_added(id)
            || self
                .tokens
                .get(id as usize)
                .is_some_and(|t| t.ends_with(WORD_END))
    }
}

impl Tokenizer {
    /// Reads a tokenizer. `name` is the folder, for errors; `context` the number of positions of
    /// the text encoder.
    ///
    /// # Errors
    /// Where a file is damaged, contradicts itself, or describes another tokenizer than CLIP's; where `context` is below 3.
    pub fn new(name: &Path, data: &TokenizerData, context: usize) -> Result<Self> {
        check_context(name, context)?;
        let object = |file: &str, bytes: Option<&[u8]>| {
            bytes
                .map(|b| (name.join(file), b))
                .map(|(p, b)| vocabulary::json_object(&p, b).map(|m| (p, m)))
                .transpose()
        };
        let config = object("tokenizer_config.json", data.tokenizer_config)?;
        let special_map = object("special_tokens_map.json", data.special_tokens_map)?;
        let added = object("added_tokens.json", data.added_tokens)?;
        let mut whole = object("tokenizer.json", data.tokenizer_json)?;
        // The vocabulary moves out of the file: it is most of it.
        let model = whole
            .as_mut()
            .and_then(|(_, m)| m.get_mut("model"))
            .and_then(Value::as_object_mut);
        let (vocab, merges) = model
            .map(|m| (m.remove("vocab"), m.remove("merges")))
            .unwrap_or_default();

        fn source(
            file: &Option<(std::path::PathBuf, serde_json::Map<String, Value>)>,
        ) -> Option<Source<'_>> {
            file.as_ref().map(|(path, map)| Source { path, map })
        }
        if let Some(config) = source(&config) {
            check_class(config)?;
        }
        let specials = special::read(Sources {
            config: source(&config),
            special_map: source(&special_map),
            added: source(&added),
            whole: source(&whole),
        })?;

        let (path, vocabulary) = if let Some((path, file)) = &whole {
            let both = data.vocab_json.is_some() && data.merges.is_some();
            pipeline::check(path, file, &specials.start, &specials.end).map_err(|e| match e {
                Error::Config {
                    path, key, problem, ..
                } if both => Error::file(path, format!("`{key}`: {problem}"))
                    .with_hint("without this file, vocab.json and merges.txt beside it are read"),
                other => other,
            })?;
            let Some(Value::Object(vocab)) = vocab else {
                return Err(Error::file(
                    path,
                    "`model.vocab`: expected an object of ids by token",
                ));
            };
            let tokens = vocabulary::tokens(path, vocab)?;
            let merges = vocabulary::merges_list(path, &merges.unwrap_or_default())?;
            (path.clone(), Vocabulary::new(path, tokens, merges)?)
        } else {
            let (Some(vocab), Some(merges)) = (data.vocab_json, data.merges) else {
                return Err(Error::file(
                    name,
                    "has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt",
                ));
            };
            let (path, merges_path) = (name.join("vocab.json"), name.join("merges.txt"));
            let tokens = vocabulary::tokens(&path, vocabulary::json_object(&path, vocab)?)?;
            let vocabulary = Vocabulary::new(
                &merges_path,
                tokens,
                vocabulary::merges_text(&merges_path, merges)?,
            )?;
            (path, vocabulary)
        };
        Ok(Self {
            core: Arc::new(Core::new(&path, vocabulary, specials)?),
            context,
        })
    }

    /// CLIP's built-in vocabulary of 49408 tokens, for files that bring none. It is unpacked once.
    ///
    /// # Errors
    /// Where `context` is below 3.
    pub fn clip(pad: Pad, context: usize) -> Result<Self> {
        static CORES: [OnceLock<Arc<Core>>; 2] = [OnceLock::new(), OnceLock::new()];
        let path = Path::new(builtin::NAME);
        check_context(path, context)?;
        let (slot, word) = match pad {
            Pad::EndOfText => (&CORES[0], special::END),
            Pad::Zero => (&CORES[1], "!"),
        };
        let core = match slot.get() {
            Some(core) => core.clone(),
            None => {
                let core = Arc::new(Core::new(
                    path,
                    builtin::vocabulary()?,
                    special::clip(word),
                )?);
                slot.get_or_init(|| core).clone()
            }
        };
        Ok(Self { core, context })
    }

    /// The ids of a text, without start, end and pads, however long it is.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        // The split has no look-around and leaves no white space to the byte-level step, and the
        // unknown token is in the vocabulary: none of the steps can fail.
        let encoding = self
            .core
            .pipeline
            .encode_fast(text, false)
            .expect("CLIP's pipeline takes any text");
        let ids = encoding.get_ids();
        let Core { groups, .. } = &*self.core;
        if groups.is_empty() {
            return ids.to_vec();
        }
        let mut all = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            all.push(*id);
            // Who writes the other vectors out, `<word> <word>_1`, has them once.
            if let Some(others) = groups
                .get(id)
                .filter(|others| !ids[at + 1..].starts_with(&others[..1]))
            {
                all.extend(others);
            }
        }
        all
    }

    /// A prompt for the text encoder. Where it is too long, its first `context - 2` tokens stay, as
    /// in diffusers.
    pub fn encode(&self, prompt: &str) -> Encoded {
        let mut text = self.tokens(prompt);
        let rest = text.split_off(text.len().min(self.context - 2));
        let lost = (!rest.is_empty()).then(|| self.decode(&rest));
        let length = text.len() + 2;
        let mut ids = Vec::with_capacity(self.context);
        ids.push(self.core.start);
        ids.append(&mut text);
        ids.push(self.core.end);
        ids.resize(self.context, self.core.pad);
        Encoded { ids, length, lost }
    }

    /// The text of ids, words separated by single spaces. Special tokens are written out; ids
    /// beyond the vocabulary and bytes that are not UTF-8 are left out or replaced by U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut out = Vec::new();
        for &id in ids {
            match self.core.tokens.get(id as usize) {
                Some(token) if self.core.is_added(id) => out.extend_from_slice(token.as_bytes()),
                Some(token) => bytes::push_token(&mut out, token),
                None => {}
            }
        }
        String::from_utf8_lossy(&out).trim().into()
    }

    /// Where a phrase stands in an encoded prompt: positions that count the start token, from left
    /// to right, not overlapping, and only within the context. Whole words are compared, by their
    /// tokens: `car` is not found in `cart`, nor is a phrase that is the end of a longer word.
    ///
    /// # Errors
    /// Where the phrase has no tokens.
    pub fn span(&self, prompt: &str, phrase: &str) -> Result<Vec<Range<usize>>> {
        let phrase_tokens = self.tokens(phrase);
        if phrase_tokens.is_empty() {
            return Err(Error::input(format!(
                "expected a phrase to look for in `{prompt}`, found an empty one"
            )));
        }
        let encoded = self.encode(prompt);
        let text = &encoded.ids[1..encoded.length - 1];
        let mut spans = Vec::new();
        let mut at = 0;
        while at + phrase_tokens.len() <= text.len() {
            let starts_word = at == 0 || self.core.ends_word(text[at - 1]);
            if starts_word && text[at..].starts_with(&phrase_tokens) {
                spans.push(at + 1..at + 1 + phrase_tokens.len());
                at += phrase_tokens.len();
            } else {
                at += 1;
            }
        }
        Ok(spans)
    }

    /// Adds a word for textual inversion and returns its ids, which follow the vocabulary: one for
    /// each vector. The word is found literally (capitals aside) before the text is split, even
    /// inside another word, as transformers finds it. Vectors after the first are also known by
    /// diffusers' names, `<word>_1` and so on.
    ///
    /// # Errors
    /// Where the word exists already, is empty or holds white space, or where its vectors do not fit into the context.
    pub fn add_token(&mut self, token: &str, vectors: usize) -> Result<Range<u32>> {
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(Error::input(format!(
                "a new token has no white space and is not empty, found `{token}`"
            )));
        }
        if !(1..=self.context - 2).contains(&vectors) {
            return Err(Error::input(format!(
                "token `{token}`: expected 1 to {} vectors, as many as fit into the context, found {vectors}",
                self.context - 2
            )));
        }
        let first = self.core.tokens.len();
        let last = u32::try_from(first + vectors)
            .map_err(|_| Error::input(format!("token `{token}`: no ids are left")))?;
        let first = first as u32;
        let names: Vec<String> = (0..vectors)
            .map(|i| {
                if i == 0 {
                    token.into()
                } else {
                    format!("{token}_{i}")
                }
            })
            .collect();
        for name in &names {
            if self.exists(name) {
                return Err(
                    Error::input(format!("token `{name}` is in the vocabulary already"))
                        .with_hint("give it another name"),
                );
            }
        }
        let core = Arc::make_mut(&mut self.core);
        let added: Vec<AddedToken> = names
            .iter()
            .map(|n| AddedToken::from(n.as_str(), false))
            .collect();
        core.pipeline.add_tokens(&added);
        core.tokens.extend(names);
        if vectors > 1 {
            core.groups.insert(first, (first + 1..last).collect());
        }
        Ok(first..last)
    }

    /// Whether a word is a token, in itself or once it is normalized as prompts are.
    fn exists(&self, word: &str) -> bool {
        let pipeline = &self.core.pipeline;
        let normal = |text: &str| {
            let mut s = NormalizedString::from(text);
            // Cannot fail: see `tokens`. A word that it fails on is compared as it is.
            let _ = pipeline.get_normalizer().map(|n| n.normalize(&mut s));
            s.get().to_string()
        };
        let word_normal = normal(word);
        let known = |w: &str| {
            pipeline.token_to_id(w).is_some()
                || pipeline.token_to_id(&format!("{w}{WORD_END}")).is_some()
        };
        known(word)
            || known(&word_normal)
            || pipeline
                .get_added_vocabulary()
                .get_vocab()
                .keys()
                .any(|t| normal(t) == word_normal)
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.core.tokens.len()
    }

    /// Id of the token before the text.
    pub fn start_id(&self) -> u32 {
        self.core.start
    }

    /// Id of the token after the text.
    pub fn end_id(&self) -> u32 {
        self.core.end
    }

    /// Id of the token that fills up the context.
    pub fn pad_id(&self) -> u32 {
        self.core.pad
    }

    /// The number of ids of an encoded prompt.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Every token with its id, in order: byte-level characters, `</w>` where it ends a word;
    /// special and added ones included.
    pub fn vocabulary(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..).zip(self.core.tokens.iter().map(String::as_str))
    }
}

/// The words of several vectors among added tokens: diffusers saves `<word>`, `<word>_1`,
/// `<word>_2`, ... and puts all of them where a prompt says `<word>`
/// (`TextualInversionLoaderMixin.maybe_convert_prompt`).
fn groups(added: &[AddedToken], pipeline: &Pipeline) -> BTreeMap<u32, Vec<u32>> {
    let known: BTreeMap<&str, u32> = added
        .iter()
        .filter_map(|token| {
            Some((
                token.content.as_str(),
                pipeline.token_to_id(&token.content)?,
            ))
        })
        .collect();
    let others = |word: &str| {
        (1..)
            .map_while(|i| known.get(format!("{word}_{i}").as_str()).copied())
            .collect::<Vec<u32>>()
    };
    known
        .iter()
        .map(|(word, id)| (*id, others(word)))
        .filter(|(_, others)| !others.is_empty())
        .collect()
}

fn check_context(path: &Path, context: usize) -> Result<()> {
    if (3..=LONGEST).contains(&context) {
        return Ok(());
    }
    Err(Error::file(
        path,
        format!(
            "expected a context of 3 (start, one token, end) to {LONGEST} tokens, found {context}"
        ),
    ))
}

/// Other tokenizers come as vocab.json and merges.txt too (GPT-2, RoBERTa) and would give wrong ids
/// without a word.
fn check_class(config: Source) -> Result<()> {
    const KNOWN: [&str; 4] = [
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    ];
    match config.map.get("tokenizer_class") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(class)) if KNOWN.contains(&class.as_str()) => Ok(()),
        Some(other) => Err(Error::config(
            config.path,
            "tokenizer_class",
            format!("{other} is not supported, only CLIPTokenizer"),
        )),
    }
}
