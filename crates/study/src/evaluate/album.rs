//! Pictures to draw, each once, and the questions that they answer.

use std::{collections::HashMap, ops::Range};

use scumble_eval::protocol::Asked;

/// One picture to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// Its prompt.
    pub prompt: String,
    /// The seed of its noise.
    pub seed: u64,
    /// Its own guidance scale.
    pub guidance: Option<f64>,
}

impl Shot {
    /// The picture that a question is about.
    pub fn of(asked: &Asked) -> Self {
        Self {
            prompt: asked.prompt.clone(),
            seed: asked.seed,
            guidance: asked.guidance,
        }
    }
}

/// The pictures of one subject.
pub struct Album {
    /// Each picture once.
    pub shots: Vec<Shot>,
    /// Every question, with its picture.
    pub asked: Vec<(Asked, usize)>,
}

impl Album {
    /// The pictures that some questions are about, each once.
    pub fn of(asked: Vec<Asked>) -> Self {
        let mut places: HashMap<(String, u64, Option<u64>), usize> = HashMap::new();
        let mut shots = Vec::new();
        let asked = asked
            .into_iter()
            .map(|one| {
                let place = *places
                    .entry((one.prompt.clone(), one.seed, one.guidance.map(f64::to_bits)))
                    .or_insert_with(|| {
                        shots.push(Shot::of(&one));
                        shots.len() - 1
                    });
                (one, place)
            })
            .collect();
        Self { shots, asked }
    }

    /// For each picture of a range, one of the questions that it was drawn for.
    pub(crate) fn first_asked(&self, range: Range<usize>) -> Vec<&Asked> {
        let mut first: Vec<Option<&Asked>> = vec![None; range.len()];
        for (asked, picture) in &self.asked {
            if range.contains(picture) {
                first[picture - range.start].get_or_insert(asked);
            }
        }
        first.into_iter().flatten().collect()
    }
}
