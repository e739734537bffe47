//! The special tokens: which words start, end and pad a prompt, read from the files that say so.
//!
//! transformers' order of precedence: `added_tokens_decoder` in `tokenizer_config.json`; without it
//! `special_tokens_map.json` overrides `tokenizer_config.json`, and `added_tokens.json` and the
//! `added_tokens` of `tokenizer.json` count. SD 2.x relies on it: its pad token `!` stands in
//! `special_tokens_map.json` only.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::vocabulary::id;
use crate::error::{Error, Result};

/// CLIP's start token.
pub(super) const START: &str = "<|startoftext|>";
/// CLIP's end token, SD 1.x's pad token, and what an unknown byte would become.
pub(super) const END: &str = "<|endoftext|>";

/// The keys of further special tokens, without a task here.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The words with a task, and whatever else is matched before the split into words.
#[derive(Debug)]
pub(super) struct Specials {
    pub(super) start: String,
    pub(super) end: String,
    pub(super) pad: String,
    pub(super) unknown: String,
    /// In transformers' order; with an id where a file says one.
    pub(super) added: Vec<(Option<u32>, AddedToken)>,
}

/// A JSON object and the file it came from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) map: &'a Map<String, Value>,
}

impl Source<'_> {
    fn error(&self, key: &str, problem: &str) -> Error {
        Error::config(self.path, key, problem)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether the file gives a task to a token.
    fn names(&self, content: &str) -> bool {
        let is = |v: &Value| v == content || v.get("content").is_some_and(|c| c == content);
        self.map
            .iter()
            .any(|(key, v)| key.ends_with("_token") && is(v))
            || LISTS.iter().any(|key| {
                self.get(key)
                    .and_then(Value::as_array)
                    .is_some_and(|list| list.iter().any(is))
            })
    }
}

/// What the published SD folders say. Where a token is `normalized`, it is also found in capitals.
pub(super) fn clip(pad: &str) -> Specials {
    let special = |content: &str, normalized: bool| {
        (None, AddedToken::from(content, true).normalized(normalized))
    };
    let mut added = vec![special(START, true), special(END, pad != END)];
    if pad != END {
        added.push(special(pad, false));
    }
    Specials {
        start: START.into(),
        end: END.into(),
        pad: pad.into(),
        unknown: END.into(),
        added,
    }
}

/// The files that may name special tokens; any of them may be absent.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    /// `tokenizer_config.json`.
    pub(super) config: Option<Source<'a>>,
    /// `special_tokens_map.json`.
    pub(super) special_map: Option<Source<'a>>,
    /// `added_tokens.json`.
    pub(super) added: Option<Source<'a>>,
    /// `tokenizer.json`.
    pub(super) whole: Option<Source<'a>>,
}

/// Reads the special and the added tokens.
pub(super) fn read(
    Sources {
        config,
        special_map,
        added: list,
        whole,
    }: Sources,
) -> Result<Specials> {
    let mut added: Vec<(Option<u32>, AddedToken)> = Vec::new();
    let decoder = config.filter(|c| c.get("added_tokens_decoder").is_some());
    // The first one that names a token wins.
    let sources: Vec<Source> = special_map
        .filter(|_| decoder.is_none())
        .into_iter()
        .chain(config)
        .collect();
    if let Some(source) = decoder {
        let key = "added_tokens_decoder";
        let by_id = source.map[key]
            .as_object()
            .ok_or_else(|| source.error(key, "expected an object of tokens by id"))?;
        for (number, token) in by_id {
            let number = number
                .parse()
                .map_err(|_| source.error(key, &format!("expected an id, found `{number}`")))?;
            added.push((Some(number), token_of(source, key, token)?));
        }
    } else {
        let key = "added_tokens";
        if let Some(source) = whole {
            let list = source
                .get(key)
                .map(|v| {
                    v.as_array()
                        .ok_or_else(|| source.error(key, "expected a list"))
                })
                .transpose()?;
            for entry in list.into_iter().flatten() {
                let token = token_of(source, key, entry)?;
                added.push((Some(id(source.path, &token.content, &entry["id"])?), token));
            }
        }
        for (source, content, number) in list
            .iter()
            .flat_map(|s| s.map.iter().map(move |(content, id)| (s, content, id)))
        {
            let special = sources.iter().any(|s| s.names(content));
            let token = token_of(*source, key, &Value::from(content.as_str()))?
                .special(special)
                .normalized(!special);
            added.push((Some(id(source.path, content, number)?), token));
        }
    }
    added.sort_by_key(|(id, _)| *id);
    let mut contents = HashSet::new();
    added.retain(|(_, token)| contents.insert(token.content.clone()));

    let mut put = |added: &mut Vec<(Option<u32>, AddedToken)>, token: AddedToken| {
        if contents.insert(token.content.clone()) {
            added.push((None, token.special(true)));
        } else if let Some((_, old)) = added
            .iter_mut()
            .find(|(id, old)| id.is_none() && old.content == token.content)
        {
            // The end token is often the pad token too. The flags of the last one count (tokenizers
            // 0.23; before it the first one's did), unless `added` had them from a file's list.
            *old = token.special(true);
        }
    };
    let mut named = |key: &str, default: &str| -> Result<String> {
        let found = sources.iter().find_map(|s| s.get(key).map(|v| (*s, v)));
        let token = found.map_or_else(
            || Ok(AddedToken::from(default, true)),
            |(s, v)| token_of(s, key, v),
        )?;
        let content = token.content.clone();
        put(&mut added, token);
        Ok(content)
    };
    let start = named("bos_token", START)?;
    let end = named("eos_token", END)?;
    let unknown = named("unk_token", END)?;
    let pad = named("pad_token", END)?;

    for (source, key) in sources.iter().flat_map(|s| LISTS.map(|key| (s, key))) {
        for entry in source
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let token = token_of(*source, key, entry)?;
            put(&mut added, token);
        }
    }
    Ok(Specials {
        start,
        end,
        pad,
        unknown,
        added,
    })
}

/// A token as a string, or as an object with `content` and the flags of its matching.
fn token_of(source: Source, key: &str, value: &Value) -> Result<AddedToken> {
    let content = value
        .as_str()
        .or_else(|| value.get("content").and_then(Value::as_str));
    let content = content.filter(|c| !c.is_empty());
    let content = content.ok_or_else(|| {
        source.error(
            key,
            &format!("expected a token or an object with its `content`, found {value}"),
        )
    })?;
    let flag =
        |name: &str, default: bool| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", value.is_string());
    Ok(AddedToken::from(content, special)
        .normalized(flag("normalized", !special))
        .single_word(flag("single_word", false))
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false)))
}
