//! Where an attack has to bring a concept back: pictures that ask for it, and who says whether they show it.

use burn::tensor::Tensor;
use scumble_diffusion::Picture;
use scumble_erase::{Known, World};

use crate::{
    error::Result,
    judges::Judges,
    judging::{Kind, seed},
};

/// The question about every picture of an attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who is asked.
    pub judge: Kind,
    /// The labels that are hits.
    pub accepted: Vec<String>,
}

impl Question {
    /// What to ask about a concept of this world; `None` if it is none of its words.
    pub fn about(world: &World, concept: &str) -> Option<Self> {
        Some(match world.find(concept)? {
            Known::Object(name) => Self { judge: Kind::Object, accepted: vec![name] },
            Known::Style(name) => Self { judge: Kind::Style, accepted: vec![name] },
            Known::Category { members, .. } => Self { judge: Kind::Object, accepted: members },
        })
    }

    /// Which pictures show the concept.
    pub fn answers(&self, judges: &Judges, pictures: &[Picture]) -> Vec<bool> {
        let seen = judges.answers(pictures).into_iter().map(|answer| match self.judge {
            Kind::Object => answer.object,
            Kind::Style => answer.style,
        });
        seen.map(|label| self.accepted.contains(&label)).collect()
    }

    /// The logarithm of the probability of a hit on each picture `[n, 3, h, w]` in [-1, 1], with gradients, `[n]`.
    ///
    /// # Errors
    /// If the judge cannot look at pictures of this size.
    pub fn log_probability(&self, judges: &Judges, pictures: Tensor<4>) -> Result<Tensor<1>> {
        let judge = match self.judge {
            Kind::Object => &judges.object,
            Kind::Style => &judges.style,
        };
        judge.log_probability(pictures, &self.accepted)
    }
}

/// The word for a concept in its captions; `None` if this world does not know it.
pub fn word(world: &World, concept: &str) -> Option<String> {
    Some(match world.find(concept)? {
        Known::Object(name) | Known::Style(name) | Known::Category { name, .. } => name,
    })
}

/// Prompts and seeds of `n` pictures of a concept: an object in every style in turn, a style with every object in turn. They begin with the
/// pictures that erasures are judged on.
pub fn cases(world: &World, concept: &str, n: usize) -> Option<Vec<(String, u64)>> {
    let captions: Vec<String> = match world.find(concept)? {
        Known::Object(name) | Known::Category { name, .. } => {
            world.styles.iter().map(|style| World::caption(&name, Some(style), None)).collect()
        }
        Known::Style(name) => world.objects.iter().map(|object| World::caption(object, Some(&name), None)).collect(),
    };
    let one = |i: usize| (captions[i % captions.len()].clone(), seed(&captions[i % captions.len()], i / captions.len()));
    Some((0..n).map(one).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::judging::{JudgingSet, Role};

    #[test]
    fn cases_are_the_judged_pictures() {
        let world = World::emoji();
        for concept in ["church", "ink style", "weapon"] {
            let own: BTreeSet<(String, u64)> = cases(&world, concept, 48).unwrap().into_iter().collect();
            let set = JudgingSet::for_concept(&world, concept).unwrap();
            let judged = set.cases.into_iter().filter(|case| case.role == Role::Target);
            assert_eq!(own, judged.map(|case| (case.prompt, case.seed)).collect(), "{concept}");
        }
        let few = cases(&world, "church", 7).unwrap();
        assert_eq!((few[0].0.as_str(), few[6].0.as_str()), ("a church in noto style", "a church in noto style"));
        assert_ne!(few[0].1, few[6].1);
        assert_eq!(cases(&world, "van gogh", 3), None);
        assert_eq!(word(&world, "Ink Style").as_deref(), Some("ink"));
    }
}
