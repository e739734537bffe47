//! Which prompts a closed form edits, each with what the model should make of it instead.

use serde::{Deserialize, Serialize};

use crate::concepts::{
    concept::{Concept, Synonym, renamed},
    prompt::ConceptPrompt,
};

/// A prompt that asks for a concept, and what the model should make of it instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PromptPair {
    pub(crate) asks: String,
    pub(crate) instead: String,
    /// Whether the user or the concept's kind said what to draw instead.
    pub(crate) anchored: bool,
}

impl PromptPair {
    fn of(concept: &Concept, prompt: &ConceptPrompt) -> Self {
        let asks = prompt.asks();
        // A prompt that the concept is to leave becomes itself without the concept.
        let instead = match concept.leaves_prompts() {
            true => concept
                .taken_out_of(asks)
                .unwrap_or_else(|| asks.to_owned()),
            false => prompt.instead(),
        };
        Self {
            asks: asks.to_owned(),
            instead,
            anchored: prompt.anchor.is_some(),
        }
    }

    /// Both sides in a sentence.
    fn within(&self, sentence: &str) -> Self {
        let put = |text: &str| sentence.replace("{}", text).trim().to_owned();
        Self {
            asks: put(&self.asks),
            instead: put(&self.instead),
            anchored: self.anchored,
        }
    }
}

/// The pairs of some concepts: with `captions` of all prompts, otherwise without a world's
/// captions, which say more than the concept. Prompts of `--from` always count: there are no
/// others.
pub(crate) fn prompt_pairs(concepts: &[Concept], captions: bool) -> Vec<PromptPair> {
    let prompts = concepts
        .iter()
        .flat_map(|concept| concept.prompts.iter().map(move |prompt| (concept, prompt)));
    let counts = |(concept, prompt): &(&Concept, &ConceptPrompt)| {
        captions || prompt.from.is_none() || concept.leaves_prompts()
    };
    prompts
        .filter(counts)
        .map(|(concept, prompt)| PromptPair::of(concept, prompt))
        .collect()
}

/// All prompts of some concepts, each with the one that differs from it in the concept alone.
pub(crate) fn contrasts(concepts: &[Concept]) -> Vec<PromptPair> {
    let of = |concept: &Concept, prompt: &ConceptPrompt| {
        let pair = PromptPair::of(concept, prompt);
        if concept.leaves_prompts() {
            pair
        } else {
            PromptPair {
                instead: prompt.without(),
                ..pair
            }
        }
    };
    concepts
        .iter()
        .flat_map(|concept| {
            concept
                .prompts
                .iter()
                .map(move |prompt| of(concept, prompt))
        })
        .collect()
}

/// Which further wordings of every prompt are edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expand {
    /// None.
    None,
    /// Five that ask for a picture of an object.
    Object,
    /// Five that ask for a work in an artist's style.
    Art,
}

impl Expand {
    /// The wordings that UCE's code of 2025 (`expand_prompts`) and OCE's add to a name.
    fn forms(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Object => &[
                "image of {}",
                "photo of {}",
                "portrait of {}",
                "picture of {}",
                "painting of {}",
            ],
            Self::Art => &[
                "painting by {}",
                "art by {}",
                "artwork by {}",
                "picture by {}",
                "style of {}",
            ],
        }
    }
}

/// The pairs, and each of them in further wordings, on both sides.
pub(crate) fn expanded(pairs: Vec<PromptPair>, expand: Expand) -> Vec<PromptPair> {
    let more: Vec<PromptPair> = pairs
        .iter()
        .flat_map(|pair| expand.forms().iter().map(|form| pair.within(form)))
        .collect();
    pairs.into_iter().chain(more).collect()
}

/// What kind of concept a sentence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something that can be in a picture.
    Object,
    /// An artist, or another name of a style.
    Style,
}

/// Sentences that the name of an object is put into, so that more than one wording is edited.
const SENTENCES: [&str; 30] = [
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a painting of {}",
    "a close up of {}",
    "a photo of the {}",
    "{} in the background",
    "a small {}",
    "a large {}",
    "the {} in a city",
    "a beautiful picture of {}",
    "a black and white photo of {}",
    "people looking at {}",
    "a sketch of {}",
    "{} at night",
    "a bright photo of {}",
    "a blurry photo of {}",
    "many pictures of {}",
    "a poster with {}",
    "{} seen from above",
    "a postcard of {}",
    "a detailed rendering of {}",
    "{} on a white background",
    "a cartoon of {}",
    "{} in the morning light",
    "a film still with {}",
    "a print of {}",
    "a story about {}",
];

/// The same for an artist.
const STYLE_SENTENCES: [&str; 30] = [
    "{}",
    "a painting by {}",
    "a picture by {}",
    "in the style of {}",
    "a house in the style of {}",
    "a portrait in the style of {}",
    "a landscape by {}",
    "a drawing by {}",
    "a still life by {}",
    "a woman painted by {}",
    "trees painted by {}",
    "a city as {} saw it",
    "an early work by {}",
    "a late work by {}",
    "a well known work by {}",
    "a sketch by {}",
    "a print after {}",
    "a copy of a picture by {}",
    "the art of {}",
    "the colours of {}",
    "a poster inspired by {}",
    "a photo that looks like {}",
    "a room full of pictures by {}",
    "a detail of a painting by {}",
    "a large canvas by {}",
    "a watercolour by {}",
    "a dog in the manner of {}",
    "flowers in the manner of {}",
    "a harbour at night by {}",
    "a museum wall with {}",
];

/// Pairs of sentences: all of a concept's prompts where it has several, otherwise its prompt in
/// `templates` of the compiled-in sentences. Then the same with each synonym in the place of the
/// concept's name.
pub(crate) fn sentences(
    concepts: &[Concept],
    synonyms: &[Synonym],
    templates: usize,
) -> Vec<PromptPair> {
    in_sentences(concepts, synonyms, templates, Kind::Object)
}

/// [`sentences`] about a kind of concept.
pub(crate) fn in_sentences(
    concepts: &[Concept],
    synonyms: &[Synonym],
    templates: usize,
    kind: Kind,
) -> Vec<PromptPair> {
    let forms = match kind {
        Kind::Object => &SENTENCES,
        Kind::Style => &STYLE_SENTENCES,
    };
    let mut pairs = Vec::new();
    for concept in concepts {
        let own = prompt_pairs(std::slice::from_ref(concept), true);
        let own: Vec<PromptPair> = match own.as_slice() {
            [one] if templates > 0 && !concept.leaves_prompts() => {
                let put = |form: &&str| {
                    let pair = one.within(form);
                    // Without an anchor the sentence says nothing: a photo of nothing is not asked
                    // for.
                    if one.anchored {
                        pair
                    } else {
                        PromptPair {
                            instead: String::new(),
                            ..pair
                        }
                    }
                };
                forms.iter().take(templates).map(put).collect()
            }
            _ => own,
        };
        let renamed = |synonym: &Synonym| -> Vec<PromptPair> {
            let one = |pair: &PromptPair| {
                let named = |word: &str| renamed(&pair.asks, &concept.name, word);
                PromptPair {
                    asks: named(synonym.word()),
                    instead: synonym.safe().map_or_else(|| pair.instead.clone(), named),
                    anchored: pair.anchored || synonym.safe().is_some(),
                }
            };
            own.iter().map(one).collect()
        };
        let others: Vec<PromptPair> = synonyms.iter().flat_map(renamed).collect();
        pairs.extend(own);
        pairs.extend(others);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{concepts::concept::Wording, concepts::world::World};

    fn texts(pairs: &[PromptPair]) -> Vec<(&str, &str)> {
        pairs
            .iter()
            .map(|pair| (pair.asks.as_str(), pair.instead.as_str()))
            .collect()
    }

    #[test]
    fn expanded_prompts_are_the_published_five() {
        let wording = Wording {
            anchor: Some("art".into()),
            ..Wording::default()
        };
        let concept = Concept::new("Van Gogh", &wording, None).unwrap();
        let pairs = || prompt_pairs(std::slice::from_ref(&concept), false);
        let found = expanded(pairs(), Expand::Art);
        assert_eq!(
            texts(&found)[..2],
            [
                ("Van Gogh", "art"),
                ("painting by Van Gogh", "painting by art")
            ]
        );
        assert_eq!(texts(&found)[5], ("style of Van Gogh", "style of art"));
        assert_eq!((found.len(), expanded(pairs(), Expand::None).len()), (6, 1));
        let bare = Concept::new("airplane", &Wording::default(), None).unwrap();
        let found = expanded(prompt_pairs(&[bare], false), Expand::Object);
        assert_eq!(texts(&found)[1], ("image of airplane", "image of"));
    }

    #[test]
    fn a_prompt_to_leave_becomes_itself_without_the_concept() {
        let wording = Wording {
            from: Some("people before the church".into()),
            ..Wording::default()
        };
        let concept = Concept::new("church", &wording, Some(&World::emoji())).unwrap();
        let wanted = [("people before the church", "people before the")];
        for captions in [false, true] {
            assert_eq!(
                texts(&prompt_pairs(std::slice::from_ref(&concept), captions)),
                wanted
            );
        }
        assert_eq!(texts(&contrasts(std::slice::from_ref(&concept))), wanted);
        assert_eq!(
            texts(&sentences(&[concept], &[], 30)),
            wanted,
            "it is a sentence already"
        );
        // A world's captions count if they are asked for.
        let world = Concept::new("church", &Wording::default(), Some(&World::emoji())).unwrap();
        assert_eq!(prompt_pairs(std::slice::from_ref(&world), false).len(), 1);
        assert!(prompt_pairs(&[world], true).len() > 1);
    }

    #[test]
    fn a_synonym_may_have_a_safe_phrase_of_its_own() {
        let synonyms = [
            Synonym::Word("a sabre".into()),
            Synonym::Replaced("a grenade".into(), "an apple".into()),
        ];
        let bare = Concept::new("a gun", &Wording::default(), None).unwrap();
        let found = sentences(&[bare], &synonyms, 2);
        let wanted = [
            ("a gun", ""),
            ("a photo of a gun", ""),
            ("a sabre", ""),
            ("a photo of a sabre", ""),
            ("a grenade", "an apple"),
            ("a photo of a grenade", "a photo of an apple"),
        ];
        assert_eq!(texts(&found), wanted);
        let anchored = Wording {
            anchor: Some("a rose".into()),
            ..Wording::default()
        };
        let found = sentences(
            &[Concept::new("a gun", &anchored, None).unwrap()],
            &synonyms,
            2,
        );
        assert_eq!(
            texts(&found)[3..],
            [
                ("a photo of a sabre", "a photo of a rose"),
                ("a grenade", "an apple"),
                ("a photo of a grenade", "a photo of an apple")
            ]
        );
    }

    #[test]
    fn sentences_fit_the_kind_and_are_all_different() {
        let concept = [Concept::new(
            "monet",
            &Wording {
                anchor: Some("art".into()),
                ..Wording::default()
            },
            None,
        )
        .unwrap()];
        for kind in [Kind::Object, Kind::Style] {
            let mut found = in_sentences(&concept, &[], 30, kind);
            assert!(
                found
                    .iter()
                    .all(|pair| pair.asks.replace("monet", "art") == pair.instead)
            );
            found.sort_by(|a, b| a.asks.cmp(&b.asks));
            found.dedup();
            assert_eq!(found.len(), 30);
        }
        assert_eq!(
            in_sentences(&concept, &[], 2, Kind::Style)[1].asks,
            "a painting by monet"
        );
    }
}
