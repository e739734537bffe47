//! Prompts of an anchor, and the same reworded so that they ask for the concept (Ablating Concepts,
//! section 3.2 and its code; DoCo took it over). With `p` a prompt of the anchor `a` and `c` the
//! concept:
//!
//! - an object: `p` with `c` in the place of `a`
//! - a style: `p, in the style of c` once, `in c's style, p` twice
//! - content: `c, p`, `in c style, p`, `p, c`
//! - a memorised picture: its own prompt `c`, whatever `p` says
//!
//! The published prompts are 200 captions by a language model; a user's own are the option
//! `prompts`. Without any, a bare name is put into compiled-in sentences.

use scumble_diffusion::{
    options,
    options::{COUNT, FINITE},
};
use serde::{Deserialize, Serialize};

use crate::{
    closed_form,
    concepts::captions::telling,
    concepts::concept::Concept,
    data::anchors::{self, Anchors, Pair},
    data::augment::Augment,
    data::pictures::Drawing,
    error::{Error, Result},
    job::Job,
};

/// What kind of thing a concept is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A thing that a prompt names.
    Object,
    /// How something is drawn.
    Style,
    /// Something that may occur in any picture, such as what is not safe.
    Content,
    /// One picture that the model knows by heart.
    Memorized,
}

impl Kind {
    /// A style where every prompt begins with what stands in for it and says more, such as `a cat
    /// in ink style` for `a cat`.
    pub fn of(concepts: &[Concept]) -> Self {
        let mut prompts = concepts.iter().flat_map(|c| &c.prompts).peekable();
        let within = |p: &crate::ConceptPrompt| {
            p.anchor
                .as_deref()
                .is_some_and(|anchor| p.erase.starts_with(anchor))
        };
        if prompts.peek().is_some() && prompts.all(within) {
            Self::Style
        } else {
            Self::Object
        }
    }

    /// The prompts that ask for the concept, each as often as it is published.
    ///
    /// # Errors
    /// If an object's anchor does not occur in the prompt.
    pub fn reworded(self, prompt: &str, anchor: &str, concept: &str) -> Result<Vec<String>> {
        Ok(match self {
            Self::Object => {
                if anchor.is_empty() || !prompt.contains(anchor) {
                    return Err(Error::input(format!("the prompt `{prompt}` does not name the anchor `{anchor}`"))
                        .with_hint("name it with --anchor as prompts do; --set kind=style adds the concept instead"));
                }
                vec![prompt.replace(anchor, concept)]
            }
            Self::Style => {
                let before = format!("in {concept}'s style, {prompt}");
                vec![
                    format!("{prompt}, in the style of {concept}"),
                    before.clone(),
                    before,
                ]
            }
            Self::Content => {
                vec![
                    format!("{concept}, {prompt}"),
                    format!("in {concept} style, {prompt}"),
                    format!("{prompt}, {concept}"),
                ]
            }
            Self::Memorized => vec![concept.to_owned()],
        })
    }
}

options! {
    /// Which prompts of an anchor stand beside which of the concept, and how their pictures are
    /// drawn.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Rewording {
        /// `object`, `style`, `content` or `memorized`: how prompts of the anchor are reworded.
        pub kind: Kind,
        /// Prompts of the anchor; none for the concept's own, or for compiled-in sentences.
        pub prompts: Vec<String>,
        /// How many compiled-in sentences a bare name is put into.
        pub templates: usize,
        /// `none`, `flip` or `resize`: what is done to a picture before every use.
        pub augment: Augment,
        /// Pictures of anchors; at least one for every prompt.
        pub pictures: usize where COUNT,
        /// The sampler of these pictures.
        pub sampler: String,
        /// Its steps.
        pub sampling_steps: usize where COUNT,
        /// Guidance of these pictures.
        pub guidance: f64 where FINITE,
    }
}

impl Rewording {
    /// The pairs of prompts.
    ///
    /// # Errors
    /// If a prompt cannot be reworded, or there are none.
    pub fn pairs(&self, job: &Job<'_>) -> Result<Vec<Pair>> {
        let pairs = pairs(job.concepts, self.kind, &self.prompts, self.templates)?;
        if pairs.is_empty() {
            return Err(Error::input("there is no concept to erase"));
        }
        Ok(pairs)
    }

    /// How pictures are drawn, with a share of fresh noise.
    ///
    /// # Errors
    /// If there is no such sampler.
    pub fn drawing(&self, noise: f64) -> Result<Drawing> {
        Ok(Drawing {
            sampler: self.sampler.parse()?,
            noise,
            ..Drawing::new(self.sampling_steps, self.guidance)
        })
    }

    /// The anchors' pictures: the same for all methods that draw them alike.
    ///
    /// # Errors
    /// If the model cannot sample, or the caller interrupts.
    pub fn anchors(&self, job: &mut Job<'_>, pairs: &[Pair], drawing: Drawing) -> Result<Anchors> {
        let of = anchors::shown(job.seed);
        let anchors = Anchors::drawn(job, pairs, self.pictures, drawing, of)?;
        Ok(anchors.augmented(self.augment))
    }
}

/// The pairs of prompts that anchors are drawn from and concepts are asked with: `prompts` of the
/// anchor, reworded; without any, all prompts of a concept that has several, and `templates`
/// compiled-in sentences over one that is a bare name.
///
/// # Errors
/// If a prompt cannot be reworded.
pub(crate) fn pairs(
    concepts: &[Concept],
    kind: Kind,
    prompts: &[String],
    templates: usize,
) -> Result<Vec<Pair>> {
    let mut all = Vec::new();
    for concept in concepts {
        let first = concept.prompts.first();
        let name = telling(&concept.name);
        let anchor = first.and_then(|p| p.anchor.clone());
        if !prompts.is_empty() {
            let anchor = anchor.as_deref().map(telling).unwrap_or_default();
            for prompt in prompts {
                all.push(Pair {
                    targets: kind.reworded(prompt, &anchor, &name)?,
                    anchor: prompt.clone(),
                });
            }
            continue;
        }
        match (concept.prompts.as_slice(), anchor) {
            ([one], Some(anchor)) if templates > 0 && kind != Kind::Object => {
                let own = Concept {
                    name: anchor.clone(),
                    prompts: vec![bare(&anchor)],
                    kind: None,
                };
                for sentence in closed_form::sentences(&[own], &[], templates) {
                    all.push(Pair {
                        targets: kind.reworded(&sentence.asks, &anchor, one.asks())?,
                        anchor: sentence.asks,
                    });
                }
            }
            ([_], _) if templates > 0 => {
                let sentences =
                    closed_form::sentences(std::slice::from_ref(concept), &[], templates);
                all.extend(sentences.into_iter().map(|s| Pair {
                    targets: vec![s.asks],
                    anchor: s.instead,
                }));
            }
            _ => all.extend(Pair::of(std::slice::from_ref(concept))),
        }
    }
    Ok(all)
}

fn bare(text: &str) -> crate::ConceptPrompt {
    crate::ConceptPrompt {
        erase: text.to_owned(),
        anchor: None,
        from: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConceptPrompt;

    fn concept(name: &str, anchor: Option<&str>) -> Concept {
        let prompt = ConceptPrompt {
            erase: name.into(),
            anchor: anchor.map(Into::into),
            from: None,
        };
        Concept {
            name: name.into(),
            prompts: vec![prompt],
            kind: None,
        }
    }

    #[test]
    fn prompts_are_reworded_as_published() {
        let to = |kind: Kind, prompt: &str, anchor: &str, concept: &str| {
            kind.reworded(prompt, anchor, concept).unwrap()
        };
        assert_eq!(
            to(Kind::Object, "a cat beside a cat", "cat", "grumpy cat"),
            ["a grumpy cat beside a grumpy cat"]
        );
        let style = to(Kind::Style, "painting of a boat", "painting", "van gogh");
        assert_eq!(style[0], "painting of a boat, in the style of van gogh");
        assert_eq!(
            style[1..],
            [
                "in van gogh's style, painting of a boat",
                "in van gogh's style, painting of a boat"
            ]
        );
        let content = to(Kind::Content, "people", "people", "weapon");
        assert_eq!(
            content,
            [
                "weapon, people",
                "in weapon style, people",
                "people, weapon"
            ]
        );
        assert_eq!(
            to(Kind::Memorized, "a paraphrase", "", "its caption"),
            ["its caption"]
        );
        assert!(
            Kind::Object
                .reworded("a dog", "cat", "tiger")
                .unwrap_err()
                .to_string()
                .contains("does not name")
        );
    }

    #[test]
    fn anchors_have_prompts_of_their_own() {
        let own = ["a robot on mars".to_owned(), "the robot".to_owned()];
        let found = pairs(&[concept("r2d2", Some("a robot"))], Kind::Object, &own, 30).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].targets[0].as_str(), found[0].anchor.as_str()),
            ("a r2d2 on mars", "a robot on mars")
        );
        // A bare name: sentences, in which the anchor stands on its own side.
        let found = pairs(&[concept("r2d2", Some("robot"))], Kind::Object, &[], 30).unwrap();
        assert_eq!(found.len(), 30);
        assert!(found.iter().all(
            |pair| pair.targets[0].replace("r2d2", "robot") == pair.anchor
                && pair.anchor.contains("robot")
        ));
        let found = pairs(
            &[concept("van gogh", Some("painting"))],
            Kind::Style,
            &[],
            4,
        )
        .unwrap();
        assert!(
            found.iter().all(|pair| pair.targets.len() == 3
                && pair.targets[0].ends_with("in the style of van gogh"))
        );
        assert!(
            found
                .iter()
                .all(|pair| !pair.anchor.contains("gogh") && pair.anchor.contains("painting"))
        );
        // Without an anchor pictures of nothing in particular, asked for in every sentence.
        let found = pairs(&[concept("van gogh", None)], Kind::Object, &[], 30).unwrap();
        assert!(
            found
                .iter()
                .all(|pair| pair.anchor.is_empty() && pair.targets[0].contains("van gogh"))
        );
        // Worded concepts keep their prompts.
        let mut worded = concept("a church", Some("a house"));
        worded.prompts.push(worded.prompts[0].clone());
        assert_eq!(
            pairs(&[worded.clone()], Kind::Object, &[], 30).unwrap(),
            Pair::of(&[worded])
        );
    }

    #[test]
    fn a_style_says_what_stands_in_for_it() {
        assert_eq!(
            Kind::of(&[concept("a cat in ink style", Some("a cat"))]),
            Kind::Style
        );
        assert_eq!(Kind::of(&[concept("a cat", Some("a dog"))]), Kind::Object);
        assert_eq!(
            Kind::of(&[concept("grumpy cat", Some("cat"))]),
            Kind::Object
        );
        assert_eq!(Kind::of(&[concept("a cat", None)]), Kind::Object);
        assert_eq!(Kind::of(&[]), Kind::Object);
    }
}
