//! What is to be erased: not one string, but the prompts that ask for it.

use scumble_nn::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::{
    concepts::kind::ConceptKind,
    concepts::prompt::ConceptPrompt,
    concepts::world::{Known, World},
    error::{Error, Result},
};

/// How many of a world's objects a style is erased over.
const STYLE_OBJECTS: usize = 16;

/// A concept and the prompts that ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concept {
    /// Its name, as the user gave it.
    pub name: String,
    /// The prompts that stand for it; never empty.
    pub prompts: Vec<ConceptPrompt>,
    /// What kind of thing it is, where its prompts were made of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ConceptKind>,
}

/// Another word for a concept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected one of these for each: a word, [a word, what to draw instead of it]"
)]
pub enum Synonym {
    /// The word; instead of it is drawn what is drawn instead of the concept.
    Word(String),
    /// The word, and what to draw instead of it in the same prompt.
    Replaced(String, String),
}

impl Synonym {
    /// The word.
    pub fn word(&self) -> &str {
        match self {
            Self::Word(word) | Self::Replaced(word, _) => word,
        }
    }

    /// What to draw instead of the word.
    pub(crate) fn safe(&self) -> Option<&str> {
        match self {
            Self::Word(_) => None,
            Self::Replaced(_, safe) => Some(safe),
        }
    }
}

/// A text with a word in the place of a name, whether or not the name is written in capitals there.
pub(crate) fn renamed(text: &str, name: &str, word: &str) -> String {
    let (all, name) = (text.to_ascii_lowercase(), name.to_ascii_lowercase());
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for (at, found) in all.match_indices(&name).filter(|(_, f)| !f.is_empty()) {
        out.push_str(&text[end..at]);
        out.push_str(word);
        end = at + found.len();
    }
    out + &text[end..]
}

/// How a concept's prompts are made.
#[derive(Clone, Debug, Default)]
pub struct Wording {
    /// A prompt with the places `{concept}` and `{object}`.
    pub template: Option<String>,
    /// What `{object}` stands for, one after the other.
    pub objects: Vec<String>,
    /// What to draw instead, with the same places.
    pub anchor: Option<String>,
    /// What to erase it from, with the same places.
    pub from: Option<String>,
    /// What kind of thing it is, which words what no world knows and no template or `from` says.
    pub kind: Option<ConceptKind>,
}

impl Concept {
    /// The prompts of `name`.
    ///
    /// With a template, the template over its objects. Without one, a world that knows the name
    /// words it as its captions do: an object with its article, alone and taken out of its caption
    /// in every style; a style over sixteen objects with the bare objects as anchors. Otherwise its
    /// kind does, if it is said, and else the name is the prompt.
    ///
    /// # Errors
    /// If the name is empty, or an anchor says the same as the concept.
    pub fn new(name: &str, wording: &Wording, world: Option<&World>) -> Result<Self> {
        let name = name.trim();
        if wording.from.is_some() && wording.anchor.is_some() {
            return Err(Error::input("--from and --anchor exclude each other").with_hint(
                "--from trains another prompt to lose the concept, --anchor says what the concept's prompts draw instead",
            ));
        }
        if name.is_empty() {
            return Err(Error::input("the concept is empty")
                .with_hint("name what to erase, such as `church` or `ink style`"));
        }
        let known = world.and_then(|world| world.find(name).map(|known| (world, known)));
        if let (None, None, None, Some(kind)) =
            (&wording.template, &wording.from, &known, wording.kind)
        {
            return Self {
                name: name.to_owned(),
                prompts: kind.prompts(name, wording.anchor.as_deref(), &wording.objects),
                kind: Some(kind),
            }
            .checked();
        }
        let (template, objects, default_anchor) = match (&wording.template, known.clone()) {
            (Some(template), _) => (template.clone(), wording.objects.clone(), None),
            (None, Some((_, Known::Object(object)))) => (World::article(&object), vec![], None),
            (None, Some((_, Known::Category { name, .. }))) => {
                (World::article(&name), vec![], None)
            }
            (None, Some((world, Known::Style(style)))) => {
                let objects = if wording.objects.is_empty() {
                    &world.objects[..STYLE_OBJECTS.min(world.objects.len())]
                } else {
                    &wording.objects
                };
                let objects = objects.iter().map(|o| World::article(o)).collect();
                (
                    format!("{{object}} in {style} style"),
                    objects,
                    Some("{object}".to_owned()),
                )
            }
            (None, None) => (name.to_owned(), wording.objects.clone(), None),
        };
        let anchor = wording
            .anchor
            .clone()
            .or(default_anchor.filter(|_| wording.from.is_none()));
        if template.contains("{object}") && objects.is_empty() {
            return Err(
                Error::input(format!("the template `{template}` needs objects"))
                    .with_hint("give some with --objects \"a cat; a house\""),
            );
        }
        let fill =
            |text: &str, object: &str| text.replace("{concept}", name).replace("{object}", object);
        let one = |object: &str| ConceptPrompt {
            erase: fill(&template, object),
            anchor: anchor.as_deref().map(|text| fill(text, object)),
            from: wording.from.as_deref().map(|text| fill(text, object)),
        };
        let mut prompts: Vec<ConceptPrompt> = if template.contains("{object}") {
            objects.iter().map(|o| one(o)).collect()
        } else {
            vec![one("")]
        };
        if let (
            None,
            None,
            Some((world, Known::Object(noun) | Known::Category { name: noun, .. })),
        ) = (&wording.template, &wording.from, known)
        {
            // An erasure of the bare caption alone leaves the concept in captions that say more.
            prompts.extend(world.styles.iter().map(|style| match &anchor {
                None => ConceptPrompt {
                    erase: World::article(&noun),
                    anchor: None,
                    from: Some(World::caption(&noun, Some(style), None)),
                },
                Some(anchor) => ConceptPrompt {
                    erase: World::caption(&noun, Some(style), None),
                    anchor: Some(format!("{} in {style} style", fill(anchor, ""))),
                    from: None,
                },
            }));
        }
        Self {
            name: name.to_owned(),
            prompts,
            kind: None,
        }
        .checked()
    }

    /// The concept, unless an anchor says the same as it.
    fn checked(self) -> Result<Self> {
        let same = |p: &&ConceptPrompt| {
            let anchor = p.anchor.as_deref();
            anchor.is_some_and(|a| a.trim().eq_ignore_ascii_case(p.erase.trim()))
        };
        match self.prompts.iter().find(same) {
            Some(p) => Err(
                Error::input(format!("--anchor `{}` is the concept itself", p.erase))
                    .with_hint("name something else"),
            ),
            None => Ok(self),
        }
    }

    /// Its prompts with another word in the place of its name; what is drawn instead stays.
    ///
    /// # Errors
    /// If the word is empty, or the name stands in none of the prompts.
    pub(crate) fn renamed(&self, word: &str) -> Result<Vec<ConceptPrompt>> {
        if word.trim().is_empty() {
            return Err(Error::input("a synonym is empty"));
        }
        let put = |text: &String| renamed(text, &self.name, word);
        let one = |prompt: &ConceptPrompt| ConceptPrompt {
            erase: put(&prompt.erase),
            anchor: prompt.anchor.clone(),
            from: prompt.from.as_ref().map(put),
        };
        let prompts: Vec<ConceptPrompt> = self.prompts.iter().map(one).collect();
        if prompts == self.prompts {
            return Err(Error::input(format!(
                "the synonym `{word}` changes no prompt of {}: `{}`",
                self.name,
                self.prompts.first().map_or("", ConceptPrompt::asks)
            ))
            .with_hint(
                "it takes the place of the concept's name, which has to stand in its prompts",
            ));
        }
        Ok(prompts)
    }

    /// The prompts that ask for it.
    pub fn asked(&self) -> impl Iterator<Item = String> + '_ {
        self.prompts.iter().map(|p| p.asks().to_owned())
    }

    /// Whether the user named the prompts that it is to leave (`--from`), so that none of its
    /// prompts asks for the concept alone. The captions of a world have a `from` too, beside a
    /// prompt that has none.
    pub(crate) fn leaves_prompts(&self) -> bool {
        self.prompts.iter().all(|p| p.from.is_some())
    }

    /// A prompt without the words that name the concept: its own prompt (`a church`), or else its
    /// name; `None` if neither stands in it.
    pub(crate) fn taken_out_of(&self, text: &str) -> Option<String> {
        let prompts = self.prompts.iter().map(|p| p.erase.as_str());
        prompts
            .chain([self.name.as_str()])
            .find_map(|words| without_words(text, words))
    }

    /// What is to be kept beside what is to be erased: preserved concepts without the prompts that
    /// an erased one asks for too, such as `a church in ink style` where ink is erased and the
    /// church kept.
    ///
    /// # Errors
    /// If nothing is left of a preserved concept: it is what is to be erased.
    pub fn apart(erased: &[Self], preserved: Vec<Self>) -> Result<Vec<Self>> {
        let plain = |text: &str| text.trim().to_lowercase();
        let asked = |prompt: &str| {
            erased
                .iter()
                .find(|e| e.prompts.iter().any(|p| plain(p.asks()) == plain(prompt)))
        };
        let keep = |mut concept: Self| {
            let twin = erased
                .iter()
                .find(|e| plain(&e.name) == plain(&concept.name));
            let shared = concept.prompts.iter().find_map(|p| asked(p.asks()));
            concept.prompts.retain(|p| asked(p.asks()).is_none());
            match twin.or(shared.filter(|_| concept.prompts.is_empty())) {
                Some(e) => Err(Error::input(format!(
                    "--preserve `{}` is what is to be erased (`{}`)",
                    concept.name, e.name
                ))
                .with_hint("name it on one side only")),
                None => Ok(concept),
            }
        };
        preserved.into_iter().map(keep).collect()
    }

    /// Checks that every prompt fits the context of a text encoder.
    ///
    /// # Errors
    /// If one is longer; the error names the words that would be lost.
    pub fn fits(&self, tokenizer: &Tokenizer) -> Result<()> {
        for p in &self.prompts {
            for text in [Some(&p.erase), p.anchor.as_ref(), p.from.as_ref()]
                .into_iter()
                .flatten()
            {
                if let Some(lost) = tokenizer.encode(text).lost {
                    return Err(Error::input(format!(
                        "`{text}` does not fit the text encoder's {} tokens: `{lost}` would be lost",
                        tokenizer.context()
                    ))
                    .with_hint("use fewer words"));
                }
            }
        }
        Ok(())
    }
}

/// A text without some words, which stand in it as a whole; capitals do not matter.
fn without_words(text: &str, words: &str) -> Option<String> {
    let words = words.trim();
    let at = text.char_indices().map(|(at, _)| at).find(|&at| {
        let Some(here) = text.get(at..at + words.len()) else {
            return false;
        };
        here.eq_ignore_ascii_case(words)
            && !text[..at].ends_with(char::is_alphanumeric)
            && !text[at + words.len()..].starts_with(char::is_alphanumeric)
    });
    let at = at.filter(|_| !words.is_empty())?;
    let rest = format!("{} {}", &text[..at], &text[at + words.len()..]);
    Some(rest.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_out_as_a_whole() {
        for (text, words, rest) in [
            ("a Church in ink style", "a church", Some("in ink style")),
            (
                "people before a church at night",
                "a church",
                Some("people before at night"),
            ),
            ("a churchyard", "a church", None),
            ("a dog", "a church", None),
            ("a dog", " ", None),
            ("Straße church", "church", Some("Straße")),
        ] {
            assert_eq!(without_words(text, words).as_deref(), rest, "{text}");
        }
        let wording = Wording {
            from: Some("people before the church".into()),
            ..Wording::default()
        };
        let concept = Concept::new("church", &wording, Some(&World::emoji())).unwrap();
        assert!(concept.leaves_prompts());
        assert_eq!(
            concept.taken_out_of("people before the church").unwrap(),
            "people before the",
            "by its name"
        );
        assert!(
            !Concept::new("church", &Wording::default(), Some(&World::emoji()))
                .unwrap()
                .leaves_prompts()
        );
    }
}
