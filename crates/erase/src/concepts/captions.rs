//! What a model should go on drawing, in words: the prior that preserving methods keep, and the
//! retain set of those that train.
//!
//! Published methods take such sentences from COCO, which nobody ships. Here they come from the
//! world of the model where it has one, from a word list that is compiled in, or from the user;
//! either way their hash stands in the Edit.

use serde_json::{Value, json};

use crate::concepts::world::{Known, World};

/// Common nouns, one a line (`assets/nouns.txt`, written for this project).
const NOUNS: &str = include_str!("../../assets/nouns.txt");

/// How many captions the published priors of MACE and TRCE sum over: the training and validation
/// captions of COCO 2014 (`cache_coco.py` of MACE's code).
pub(crate) const COCO_2014: f64 = 616_767.0;

/// What a noun is put into: plain names, pictures of it, and the places and company that captions
/// of photographs mention.
const FORMS: [&str; 8] = [
    "{a}",
    "a photo of {a}",
    "a drawing of {a}",
    "a painting of {a} and {b}",
    "{a} on a table",
    "a person with {a}",
    "a close up of {a} next to {b}",
    "{a} in front of a building on a sunny day",
];

/// Prompts that do not ask for what is erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captions {
    /// Where they come from: `emoji-world`, `nouns`, or a file's name.
    pub source: String,
    /// The prompts.
    pub lines: Vec<String>,
    /// Whether the user gave them: then a method that would not look at them refuses.
    pub given: bool,
}

impl Captions {
    /// Every caption of a world that names none of the erased concepts: its objects alone and in
    /// every style.
    pub fn of_world(world: &World, erased: &[String]) -> Self {
        let gone: Vec<Known> = erased.iter().filter_map(|name| world.find(name)).collect();
        let object_gone = |object: &str| {
            gone.iter().any(|known| match known {
                Known::Object(name) => name == object,
                Known::Category { members, .. } => members.iter().any(|member| member == object),
                Known::Style(_) => false,
            })
        };
        let style_gone = |style: &str| {
            gone.iter()
                .any(|known| matches!(known, Known::Style(name) if name == style))
        };
        let objects: Vec<&String> = world
            .objects
            .iter()
            .filter(|object| !object_gone(object))
            .collect();
        let styles: Vec<Option<&str>> = [None]
            .into_iter()
            .chain(
                world
                    .styles
                    .iter()
                    .filter(|s| !style_gone(s))
                    .map(|s| Some(s.as_str())),
            )
            .collect();
        let lines = styles.iter().flat_map(|style| {
            objects
                .iter()
                .map(|object| World::caption(object, *style, None))
        });
        Self {
            source: "emoji-world".into(),
            lines: lines.collect(),
            given: false,
        }
    }

    /// Captions over the compiled-in nouns, every noun once before any twice; without those that
    /// share a word with an erased concept.
    pub fn of_nouns(erased: &[String], count: usize) -> Self {
        let nouns: Vec<&str> = NOUNS.lines().filter(|noun| !noun.is_empty()).collect();
        let all = FORMS.iter().enumerate().flat_map(|(f, form)| {
            let nouns = &nouns;
            nouns.iter().enumerate().map(move |(i, noun)| {
                // Company from further down the list, another one for every form.
                let other = nouns[(i * 7 + f * 31 + 1) % nouns.len()];
                form.replace("{a}", &World::article(noun))
                    .replace("{b}", &World::article(other))
            })
        });
        let lines = all
            .filter(|line| !erased.iter().any(|name| shares_word(line, name)))
            .take(count)
            .collect();
        Self {
            source: "nouns".into(),
            lines,
            given: false,
        }
    }

    /// The user's own.
    pub fn of_user(source: impl Into<String>, lines: Vec<String>, erased: &[String]) -> Self {
        let lines = lines
            .into_iter()
            .filter(|line| !erased.iter().any(|name| shares_word(line, name)))
            .collect();
        Self {
            source: source.into(),
            lines,
            given: true,
        }
    }

    /// The hash of the prompts.
    pub fn hash(&self) -> String {
        blake3::hash(self.lines.join("\n").as_bytes()).to_hex()[..16].to_owned()
    }

    /// What an Edit records of them.
    pub fn about(&self) -> Value {
        json!({ "source": self.source, "n": self.lines.len(), "hash": self.hash() })
    }
}

/// Words too common to say what a sentence is about.
const COMMON: [&str; 12] = [
    "a", "an", "the", "of", "in", "on", "and", "with", "style", "by", "photo", "painting",
];

/// What is left of a name without words that say nothing by themselves: `church` of `a church`,
/// `ink` of `ink style`. A name of nothing else stays as it is.
pub fn telling(name: &str) -> String {
    let words: Vec<&str> = name
        .split_whitespace()
        .filter(|w| !COMMON.contains(&w.to_lowercase().as_str()))
        .collect();
    if words.is_empty() {
        name.trim().to_owned()
    } else {
        words.join(" ")
    }
}

/// Whether a sentence contains a word of a name, plurals included.
fn shares_word(line: &str, name: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .map(|w| w.trim_end_matches('s').to_owned())
            .collect()
    };
    let named: Vec<String> = words(name)
        .into_iter()
        .filter(|w| !w.is_empty() && !COMMON.contains(&w.as_str()))
        .collect();
    words(line).iter().any(|word| named.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erased(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_worlds_captions_name_nothing_erased() {
        let world = World::emoji();
        for (names, count, gone) in [
            (vec!["church"], 31 * 7, "church"),
            (vec!["ink style"], 32 * 6, "ink"),
            (vec!["weapon"], 29 * 7, "bomb"),
            (vec!["church", "noto"], 31 * 6, "noto"),
        ] {
            let captions = Captions::of_world(&world, &erased(&names));
            assert_eq!(captions.lines.len(), count, "{names:?}");
            assert!(
                !captions
                    .lines
                    .iter()
                    .any(|line| line.split(' ').any(|word| word == gone)),
                "{names:?}"
            );
        }
    }

    #[test]
    fn names_lose_what_says_nothing() {
        for (name, expected) in [
            ("church", "church"),
            ("An Owl", "Owl"),
            ("ink style", "ink"),
            ("golf flag", "golf flag"),
            ("a style", "a style"),
        ] {
            assert_eq!(telling(name), expected);
        }
    }

    #[test]
    fn the_nouns_make_captions_without_the_concept() {
        let captions = Captions::of_nouns(&erased(&["garbage truck"]), 2000);
        assert_eq!(captions.lines.len(), 2000);
        assert!(!captions.lines.iter().any(|line| line.contains("truck")));
        let mut unique = captions.lines.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 2000, "no caption twice");
        assert!(
            Captions::of_nouns(&[], 2000)
                .lines
                .iter()
                .any(|line| line.contains("truck"))
        );
        assert_ne!(captions.hash(), Captions::of_nouns(&[], 2000).hash());
        // Plurals are the same word, common words say nothing.
        assert!(shares_word("two churches, a church", "Church") && shares_word("some cats", "cat"));
        assert!(!shares_word(
            "a photo of a dog in a house",
            "a church in noto style"
        ));
    }
}
