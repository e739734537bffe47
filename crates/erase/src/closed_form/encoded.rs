//! Prompts that have been through the text encoders.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use faer::Mat;

/// A prompt as rows, and where its last word and its end stand.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    /// A row for each token, `[tokens, width]`.
    pub(crate) rows: Mat<f64>,
    /// The token ids, of all positions.
    pub(crate) ids: Vec<u32>,
    /// The last token before the end; the start for an empty prompt.
    pub(crate) last: usize,
}

impl Encoded {
    /// The first end token, the one CLIP pools.
    pub(crate) fn end(&self) -> usize {
        self.last + 1
    }

    /// Some positions.
    pub(crate) fn at(&self, range: Range<usize>) -> Mat<f64> {
        self.rows.get(range, ..).to_owned()
    }

    /// The same positions with every row multiplied by a matrix, `[width, width]`, from the left.
    pub(crate) fn mapped(&self, map: &Mat<f64>) -> Self {
        Self {
            rows: &self.rows * map.transpose(),
            ..self.clone()
        }
    }

    /// The last word's row, `[1, width]`.
    pub(crate) fn word(&self) -> Mat<f64> {
        self.at(self.last..self.last + 1)
    }
}

/// Prompts that have been through the text encoders of a job's model. Terms of one regression ask for
/// the same few again and again, the empty one first of all, and a pass costs as much as all of the
/// encoders' weights.
#[derive(Debug, Default)]
pub struct Encodings(BTreeMap<String, Encoded>);

/// More prompts than this are not kept: a row of SDXL has 2048 numbers.
const MOST_KEPT: usize = 128;

impl Encodings {
    /// Those of some prompts that are not there yet, each once; `None` if that is more than are kept.
    pub(crate) fn missing(&self, prompts: &[String]) -> Option<Vec<String>> {
        let new = prompts
            .iter()
            .filter(|prompt| !self.0.contains_key(*prompt));
        let new: BTreeSet<&String> = new.collect();
        (self.0.len() + new.len() <= MOST_KEPT).then(|| new.into_iter().cloned().collect())
    }

    /// Keeps what the encoders made of some prompts.
    pub(crate) fn keep(&mut self, prompts: Vec<String>, rows: Vec<Encoded>) {
        self.0.extend(prompts.into_iter().zip(rows));
    }

    /// What is kept of some prompts.
    pub(crate) fn of(&self, prompts: &[String]) -> Vec<Encoded> {
        let kept = prompts.iter().filter_map(|prompt| self.0.get(prompt));
        kept.cloned().collect()
    }
}
