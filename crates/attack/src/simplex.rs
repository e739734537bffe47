//! Words as points of a simplex: UnlearnDiffAtk's variable.
//!
//! Each place holds a distribution over the vocabulary. A step draws a word from it, follows the
//! gradient with respect to the one-hot vector as if it were the distribution's (straight through),
//! and projects back.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::TorchRng;
use scumble_erase::{
    Error, Result,
    training::adam::{Adam, Moments},
    training::snapshot::{Snapshot, Stored},
};

use crate::search::Search;

/// The words that may stand in a place, and their vectors.
#[derive(Clone, Debug)]
pub(crate) struct Vocabulary {
    /// Their ids.
    pub ids: Vec<u32>,
    /// Their vectors, `[words, width]`.
    pub vectors: Tensor<2>,
}

impl Vocabulary {
    /// All tokens of a model but the start, end and padding token.
    pub(crate) fn of(pipeline: &scumble_diffusion::Pipeline) -> Self {
        Self::tokens(pipeline, false)
    }

    /// All tokens of a model; the start, end and padding token only with `specials`.
    pub(crate) fn tokens(pipeline: &scumble_diffusion::Pipeline, specials: bool) -> Self {
        let tokenizer = &pipeline.tokenizer;
        let special = [tokenizer.start_id(), tokenizer.end_id(), tokenizer.pad_id()];
        let ids: Vec<u32> = tokenizer
            .vocabulary()
            .map(|(id, _)| id)
            .filter(|id| specials || !special.contains(id))
            .collect();
        let vectors = pipeline.text_network().vectors(&ids);
        Self { ids, vectors }
    }

    /// The words of a model, all or only those that are read back as themselves.
    ///
    /// # Errors
    /// If none is.
    pub(crate) fn words(pipeline: &scumble_diffusion::Pipeline, whole: bool) -> Result<Self> {
        let words = Self::of(pipeline).read_back(pipeline, whole);
        if words.is_empty() {
            return Err(
                Error::input("no word of the tokenizer is read back as itself")
                    .with_hint("whole_words=false tries all tokens"),
            );
        }
        Ok(words)
    }

    /// Those alone that are read back as themselves when they are written as text, if `whole` asks
    /// for it.
    #[must_use]
    pub(crate) fn read_back(self, pipeline: &scumble_diffusion::Pipeline, whole: bool) -> Self {
        if !whole {
            return self;
        }
        let tokenizer = &pipeline.tokenizer;
        let same = |id: u32| {
            let text = tokenizer.decode(&[id]);
            // Between two others, so that pieces of words do not pass.
            tokenizer.tokens(&text) == [id]
                && tokenizer.tokens(&format!("{text} {text}")) == [id, id]
                && !text.contains(' ')
        };
        let rows: Vec<i64> = (0..self.ids.len())
            .filter(|&row| same(self.ids[row]))
            .map(|row| row as i64)
            .collect();
        let ids = rows.iter().map(|&row| self.ids[row as usize]).collect();
        let n = rows.len();
        let index = Tensor::from_data(TensorData::new(rows, [n]), &self.vectors.device());
        Self {
            ids,
            vectors: self.vectors.select(0, index),
        }
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// The nearest point of the probability simplex (Duchi et al. 2008, the sorting form of the
/// projection).
///
/// The published code finds the threshold by bisection, to 1e-5; this is exact up to rounding.
pub(crate) fn project(row: &mut [f32]) {
    let mut sorted: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let (mut sum, mut threshold) = (0.0, 0.0);
    for (i, &value) in sorted.iter().enumerate() {
        sum += value;
        let candidate = (sum - 1.0) / (i + 1) as f64;
        if value - candidate <= 0.0 {
            break;
        }
        threshold = candidate;
    }
    row.iter_mut()
        .for_each(|x| *x = (f64::from(*x) - threshold).max(0.0) as f32);
}

/// How a distribution moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rule {
    /// Adam's step size.
    pub lr: f64,
    /// Its weight decay, added to the gradient.
    pub weight_decay: f64,
}

/// One case's words.
#[derive(Clone, Debug)]
pub(crate) struct Simplex {
    vocabulary: Vocabulary,
    /// `tokens` rows of as many probabilities as there are words.
    rows: Vec<f32>,
    tokens: usize,
    moments: Moments,
    rule: Rule,
}

impl Simplex {
    /// `tokens` places, each word as likely as any other.
    pub(crate) fn new(vocabulary: Vocabulary, tokens: usize, rule: Rule) -> Self {
        let words = vocabulary.len();
        let rows = vec![1.0 / words as f32; tokens * words];
        let flat = Tensor::<1>::from_floats(rows.as_slice(), &vocabulary.vectors.device());
        Self {
            moments: Moments::zeros_like(&flat),
            vocabulary,
            rows,
            tokens,
            rule,
        }
    }

    /// The distributions, `tokens` rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.rows.chunks_exact(self.vocabulary.len())
    }

    fn one_hot(&self, words: &[usize]) -> Tensor<2> {
        let n = self.vocabulary.len();
        let mut values = vec![0f32; self.tokens * n];
        words
            .iter()
            .enumerate()
            .for_each(|(row, &word)| values[row * n + word] = 1.0);
        Tensor::from_data(
            TensorData::new(values, [self.tokens, n]),
            &self.vocabulary.vectors.device(),
        )
    }

    fn likeliest(&self) -> Vec<usize> {
        let best = |row: &[f32]| {
            (0..row.len())
                .max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
                .unwrap_or(0)
        };
        self.rows().map(best).collect()
    }
}

impl Search for Simplex {
    fn leaf(&mut self, rng: &mut TorchRng) -> Tensor<2> {
        let drawn = rng.uniform(self.tokens);
        let words: Vec<usize> = self
            .rows()
            .zip(drawn)
            .map(|(row, u)| {
                let mut left = f64::from(u);
                // Rounding may leave a little at the end: then it is the last word that can be
                // drawn at all.
                let last = row.iter().rposition(|&p| p > 0.0).unwrap_or(0);
                row.iter()
                    .position(|&p| {
                        left -= f64::from(p);
                        left < 0.0
                    })
                    .unwrap_or(last)
            })
            .collect();
        self.one_hot(&words)
    }

    fn vectors(&self, leaf: Tensor<2>) -> Tensor<2> {
        leaf.matmul(self.vocabulary.vectors.clone())
    }

    fn step(&mut self, gradient: Tensor<2>, step: usize) {
        let n = self.rows.len();
        let flat = Tensor::<1>::from_floats(self.rows.as_slice(), &gradient.device());
        let adam = Adam {
            weight_decay: self.rule.weight_decay,
            ..Adam::default()
        };
        let moved = self.moments.step_with(
            adam,
            flat,
            gradient.clamp(-1.0, 1.0).reshape([n]),
            self.rule.lr,
            step,
        );
        self.rows = moved.into_data().iter::<f32>().collect();
        let words = self.vocabulary.len();
        self.rows.chunks_exact_mut(words).for_each(project);
    }

    fn tokens(&self) -> Option<Vec<u32>> {
        Some(
            self.likeliest()
                .into_iter()
                .map(|word| self.vocabulary.ids[word])
                .collect(),
        )
    }

    fn found(&self) -> Tensor<2> {
        self.vectors(self.one_hot(&self.likeliest()))
    }

    fn keep(&self, to: &mut Snapshot, at: &str) {
        to.numbers(at, &self.rows);
        to.moments(at, &self.moments);
    }

    fn restore(&mut self, from: &mut Stored, at: &str) -> Result<()> {
        let n = self.rows.len();
        self.rows = from.numbers(at, n)?;
        self.moments = from.moments(at, n, &self.vocabulary.vectors.device())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projections_lie_on_the_simplex_and_are_nearest() {
        let mut rng = TorchRng::new(5);
        for n in [1, 2, 7, 300] {
            let start = rng.normal(n);
            let mut row = start.clone();
            project(&mut row);
            assert!(
                (row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row.iter().all(|&x| x >= 0.0),
                "{n}"
            );
            let again = {
                let mut again = row.clone();
                project(&mut again);
                again
            };
            assert!(
                row.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-6),
                "idempotent"
            );
            // Nearest: the angle to any other point of the simplex is at least right (variational
            // inequality).
            for corner in 0..n {
                let slope: f32 = (0..n)
                    .map(|j| (start[j] - row[j]) * (f32::from(u8::from(j == corner)) - row[j]))
                    .sum();
                assert!(slope < 1e-4, "{n} {corner} {slope}");
            }
        }
    }
}
