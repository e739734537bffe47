//! Vectors that need not be words: the variable of the attacks in embedding space.

use burn::tensor::Tensor;
use scumble_diffusion::TorchRng;
use scumble_erase::{
    Result,
    training::adam::{Adam, Moments},
    training::snapshot::{Snapshot, Stored},
};
use serde::{Deserialize, Serialize};

use crate::search::Search;

/// How vectors move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Adam's steps.
    Adam,
    /// Steps of the gradient's sign.
    Sign,
}

/// One case's vectors.
#[derive(Clone, Debug)]
pub(crate) struct Soft {
    /// `[tokens, width]`
    vectors: Tensor<2>,
    start: Tensor<2>,
    moments: Moments,
    rule: Rule,
    lr: f64,
    /// How far a number may move from where it began.
    radius: Option<f64>,
}

impl Soft {
    /// Vectors `[tokens, width]` that move by `rule` with steps of `lr`, none of their numbers
    /// further than `radius`.
    pub(crate) fn new(start: Tensor<2>, rule: Rule, lr: f64, radius: Option<f64>) -> Self {
        let [tokens, width] = start.dims();
        let moments = Moments::zeros_like(&start.clone().reshape([tokens * width]));
        Self {
            vectors: start.clone(),
            start,
            moments,
            rule,
            lr,
            radius,
        }
    }
}

impl Search for Soft {
    fn leaf(&mut self, _: &mut TorchRng) -> Tensor<2> {
        self.vectors.clone()
    }

    fn vectors(&self, leaf: Tensor<2>) -> Tensor<2> {
        leaf
    }

    fn step(&mut self, gradient: Tensor<2>, step: usize) {
        let shape = gradient.dims();
        let n = shape[0] * shape[1];
        let moved = match self.rule {
            Rule::Adam => {
                let flat = self.vectors.clone().reshape([n]);
                self.moments
                    .step_with(Adam::default(), flat, gradient.reshape([n]), self.lr, step)
                    .reshape(shape)
            }
            Rule::Sign => self.vectors.clone() - gradient.sign() * self.lr,
        };
        self.vectors = match self.radius {
            Some(radius) => {
                self.start.clone() + (moved - self.start.clone()).clamp(-radius, radius)
            }
            None => moved,
        };
    }

    fn tokens(&self) -> Option<Vec<u32>> {
        None
    }

    fn found(&self) -> Tensor<2> {
        self.vectors.clone()
    }

    fn keep(&self, to: &mut Snapshot, at: &str) {
        let [tokens, width] = self.vectors.dims();
        to.tensor(at, &self.vectors.clone().reshape([tokens * width]));
        to.moments(at, &self.moments);
    }

    fn restore(&mut self, from: &mut Stored, at: &str) -> Result<()> {
        let (shape, device) = (self.vectors.dims(), self.vectors.device());
        let n = shape[0] * shape[1];
        self.vectors = from.tensor(at, n, &device)?.reshape(shape);
        self.moments = from.moments(at, n, &device)?;
        Ok(())
    }
}
