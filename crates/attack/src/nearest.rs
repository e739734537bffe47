//! Words under free vectors: PEZ's and P4D's variable.
//!
//! Each place holds a vector that moves freely. What a model is shown is the word nearest to it by
//! angle, and the gradient found there moves the free vector (Wen et al., NeurIPS 2023, arXiv
//! 2302.03668, algorithm 1).

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::TorchRng;
use scumble_erase::{
    Result,
    seeds::stream,
    training::adam::{Adam, Moments},
    training::snapshot::{Snapshot, Stored},
};

use crate::{
    search::Search,
    simplex::{Rule, Vocabulary},
};

/// One case's words.
#[derive(Clone, Debug)]
pub(crate) struct Nearest {
    vocabulary: Vocabulary,
    /// The vocabulary's vectors at length 1, `[words, width]`.
    directions: Tensor<2>,
    /// `[tokens, width]`
    free: Tensor<2>,
    moments: Moments,
    rule: Rule,
}

impl Nearest {
    /// `tokens` places that begin at words drawn from the seed, moved by AdamW.
    pub(crate) fn new(vocabulary: Vocabulary, tokens: usize, rule: Rule, seed: u64) -> Self {
        let first =
            stream(seed, "nearest/start")
                .rng(0)
                .integers(tokens, 0, vocabulary.len() as i64);
        let free = pick(&vocabulary.vectors, first);
        let width = free.dims()[1];
        let moments = Moments::zeros_like(&free.clone().reshape([tokens * width]));
        Self {
            directions: directions(vocabulary.vectors.clone()),
            vocabulary,
            free,
            moments,
            rule,
        }
    }

    /// Where in the vocabulary the nearest words are.
    fn nearest(&self) -> Vec<i64> {
        let angles = directions(self.free.clone()).matmul(self.directions.clone().transpose());
        angles.argmax(1).into_data().iter::<i64>().collect()
    }
}

impl Search for Nearest {
    fn leaf(&mut self, _: &mut TorchRng) -> Tensor<2> {
        self.found()
    }

    fn vectors(&self, leaf: Tensor<2>) -> Tensor<2> {
        leaf
    }

    fn step(&mut self, gradient: Tensor<2>, step: usize) {
        let shape = gradient.dims();
        let n = shape[0] * shape[1];
        let adam = Adam {
            weight_decay: self.rule.weight_decay,
            ..Adam::decoupled()
        };
        let flat = self.free.clone().reshape([n]);
        self.free = self
            .moments
            .step_with(adam, flat, gradient.reshape([n]), self.rule.lr, step)
            .reshape(shape);
    }

    fn tokens(&self) -> Option<Vec<u32>> {
        Some(
            self.nearest()
                .into_iter()
                .map(|word| self.vocabulary.ids[word as usize])
                .collect(),
        )
    }

    fn found(&self) -> Tensor<2> {
        pick(&self.vocabulary.vectors, self.nearest())
    }

    fn keep(&self, to: &mut Snapshot, at: &str) {
        let [tokens, width] = self.free.dims();
        to.tensor(at, &self.free.clone().reshape([tokens * width]));
        to.moments(at, &self.moments);
    }

    fn restore(&mut self, from: &mut Stored, at: &str) -> Result<()> {
        let (shape, device) = (self.free.dims(), self.free.device());
        let n = shape[0] * shape[1];
        self.free = from.tensor(at, n, &device)?.reshape(shape);
        self.moments = from.moments(at, n, &device)?;
        Ok(())
    }
}

fn pick(vectors: &Tensor<2>, rows: Vec<i64>) -> Tensor<2> {
    let n = rows.len();
    vectors.clone().select(
        0,
        Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &vectors.device()),
    )
}

/// Each row at length 1; a row of zeros stays.
fn directions(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    x / norm
}
