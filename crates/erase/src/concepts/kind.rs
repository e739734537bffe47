//! What kind of thing a concept is, and the sentences that ask for such a thing where no world of captions is
//! known.
//!
//! Which wording an erasure sees decides what it erases: the bare name alone leaves the concept in prompts that say
//! more. The lists are in the manner of those published with textual inversion (Gal et al. 2022), UCE and MACE, and
//! say no more than that there is a picture.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::prompt::ConceptPrompt;
use crate::error::{Error, Result};

/// What kind of thing a concept is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConceptKind {
    /// A thing that a prompt names.
    Object,
    /// How something is drawn: an artist, a manner.
    Style,
    /// Somebody.
    Person,
    /// Something that may occur in any picture, such as what is not safe.
    Content,
}

/// Where the name goes.
const NAME: &str = "{}";
/// What a style is asked for with, one after the other.
const SUBJECTS: [&str; 16] = [
    "a house",
    "a woman",
    "trees",
    "a dog",
    "fruit",
    "a harbour",
    "a street",
    "flowers",
    "a man",
    "a lake",
    "a cat",
    "a ship",
    "a garden",
    "a room",
    "a bridge",
    "a field",
];
/// How a style is named behind a subject.
const STYLES: [&str; 3] = [
    "{object} in the style of {}",
    "{object} by {}",
    "{object}, {}",
];
const OBJECTS: [&str; 8] = [
    "a photo of {}",
    "a picture of {}",
    "a painting of {}",
    "a close up of {}",
    "{} in a city",
    "{} on a white background",
    "people looking at {}",
    "{} at night",
];
const PERSONS: [&str; 8] = [
    "a photo of {}",
    "a portrait of {}",
    "a painting of {}",
    "a close up of {}",
    "{} smiling",
    "{} in the street",
    "{} giving a speech",
    "a drawing of {}",
];
const CONTENTS: [&str; 8] = [
    "a photo of {}",
    "a picture that shows {}",
    "a painting of {}",
    "a drawing of {}",
    "a film still with {}",
    "people, {}",
    "a scene of {}",
    "{} in a room",
];

impl ConceptKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Object, Self::Style, Self::Person, Self::Content];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Style => "style",
            Self::Person => "person",
            Self::Content => "content",
        }
    }

    /// What it is, for people.
    pub fn about(self) -> &'static str {
        match self {
            Self::Object => "a thing that a prompt names",
            Self::Style => "an artist or a manner of drawing",
            Self::Person => "somebody",
            Self::Content => "something that may be in any picture",
        }
    }

    /// The prompts of a concept of this kind: its bare name, and sentences with it.
    ///
    /// A style is asked for behind subjects, which are also what is drawn instead, as a world's styles are; with an
    /// anchor the same behind the anchor's name. A thing leaves sentences as a world's objects do; with an anchor
    /// each sentence becomes the same sentence about the anchor.
    pub(super) fn prompts(
        self,
        name: &str,
        anchor: Option<&str>,
        objects: &[String],
    ) -> Vec<ConceptPrompt> {
        let sentences = match self {
            Self::Style => return style(name, anchor, objects),
            Self::Object => &OBJECTS,
            Self::Person => &PERSONS,
            Self::Content => &CONTENTS,
        };
        let bare = ConceptPrompt {
            erase: name.to_owned(),
            anchor: anchor.map(str::to_owned),
            from: None,
        };
        let within = |sentence: &&str| match anchor {
            Some(anchor) => ConceptPrompt {
                erase: sentence.replace(NAME, name),
                anchor: Some(sentence.replace(NAME, anchor)),
                from: None,
            },
            None => ConceptPrompt {
                erase: name.to_owned(),
                anchor: None,
                from: Some(sentence.replace(NAME, name)),
            },
        };
        std::iter::once(bare)
            .chain(sentences.iter().map(within))
            .collect()
    }
}

fn style(name: &str, anchor: Option<&str>, objects: &[String]) -> Vec<ConceptPrompt> {
    let own: Vec<&str> = objects.iter().map(String::as_str).collect();
    let subjects = if own.is_empty() { &SUBJECTS } else { &own[..] };
    let one = |(i, subject): (usize, &&str)| {
        let form = STYLES[i % STYLES.len()].replace("{object}", subject);
        let instead = match anchor {
            Some(anchor) => form.replace(NAME, anchor),
            None => (*subject).to_owned(),
        };
        ConceptPrompt {
            erase: form.replace(NAME, name),
            anchor: Some(instead),
            from: None,
        }
    };
    subjects.iter().enumerate().map(one).collect()
}

impl FromStr for ConceptKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::input(format!("there is no kind `{text}`"))
                .with_hint(format!("choose one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        concepts::concept::{Concept, Wording},
        concepts::rewording,
        concepts::world::World,
    };

    fn of(kind: ConceptKind, anchor: Option<&str>) -> Concept {
        let wording = Wording {
            kind: Some(kind),
            anchor: anchor.map(str::to_owned),
            ..Wording::default()
        };
        Concept::new("Ada", &wording, None).unwrap()
    }

    #[test]
    fn a_style_stands_behind_subjects_which_are_drawn_instead() {
        let ada = of(ConceptKind::Style, None);
        assert_eq!(ada.prompts[0].erase, "a house in the style of Ada");
        assert_eq!(ada.prompts[0].anchor.as_deref(), Some("a house"));
        assert_eq!(ada.prompts[1].erase, "a woman by Ada");
        assert_eq!(rewording::Kind::of(&[ada]), rewording::Kind::Style);
        let art = of(ConceptKind::Style, Some("art"));
        assert_eq!(art.prompts[2].erase, "trees, Ada");
        assert_eq!(art.prompts[2].anchor.as_deref(), Some("trees, art"));
    }

    #[test]
    fn a_thing_is_asked_for_alone_and_in_sentences() {
        for kind in [
            ConceptKind::Object,
            ConceptKind::Person,
            ConceptKind::Content,
        ] {
            let bare = of(kind, None);
            assert_eq!(bare.prompts[0].asks(), "Ada");
            assert_eq!(bare.prompts[1].asks(), "a photo of Ada");
            assert!(!bare.leaves_prompts());
            let anchored = of(kind, Some("somebody"));
            assert_eq!(anchored.prompts[0].anchor.as_deref(), Some("somebody"));
            assert_eq!(anchored.prompts[1].instead(), "a photo of somebody");
            assert_eq!(bare.prompts.len(), anchored.prompts.len());
        }
    }

    #[test]
    fn what_a_world_knows_or_the_user_words_is_no_matter_of_kind() {
        let wording = Wording {
            kind: Some(ConceptKind::Style),
            ..Wording::default()
        };
        let world = World::emoji();
        let plain = Concept::new("church", &Wording::default(), Some(&world)).unwrap();
        assert_eq!(
            Concept::new("church", &wording, Some(&world)).unwrap(),
            plain
        );
        let template = Wording {
            template: Some("a {concept}".into()),
            ..wording
        };
        let own = Concept::new("Ada", &template, None).unwrap();
        assert_eq!((own.prompts[0].asks(), own.kind), ("a Ada", None));
    }
}
