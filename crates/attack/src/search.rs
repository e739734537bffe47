//! What a search in lockstep searches, and how: the interface of the searches and their plan.

use burn::tensor::Tensor;
use scumble_diffusion::TorchRng;
use scumble_erase::{
    Result,
    training::snapshot::{Snapshot, Stored},
};

use crate::predict::Goal;

/// The adversarial tokens of one case, however they are searched for.
pub(crate) trait Search {
    /// What this step differentiates with respect to, `[tokens, columns]`.
    fn leaf(&mut self, rng: &mut TorchRng) -> Tensor<2>;
    /// The vectors that a leaf stands for, `[tokens, width]`.
    fn vectors(&self, leaf: Tensor<2>) -> Tensor<2>;
    /// Follows a gradient like the leaf; `step` counts from 1.
    fn step(&mut self, gradient: Tensor<2>, step: usize);
    /// What is found so far as words, where it is words.
    fn tokens(&self) -> Option<Vec<u32>>;
    /// What is found so far as vectors, `[tokens, width]`.
    fn found(&self) -> Tensor<2>;
    /// Keeps all that a continued run needs under names that begin with `at`.
    fn keep(&self, to: &mut Snapshot, at: &str);
    /// Takes over what [`keep`](Self::keep) kept.
    ///
    /// # Errors
    /// If it is missing, of another size or not finite.
    fn restore(&mut self, from: &mut Stored, at: &str) -> Result<()>;
}

/// Which timesteps a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One after the other, from the middle of the first of equal parts to that of the last, clean
    /// to noisy.
    InTurn,
    /// Any, drawn for every step; all cases see the same.
    Random,
    /// Any, drawn for every step and every case.
    RandomEach,
}

/// What the picture that is drawn of every case after each round decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The judge looks at it, and a case that shows the concept is closed.
    FirstHit,
    /// Nobody judges it. Of all rounds a case keeps the words whose picture a CLIP finds most like
    /// its target ([`closest`](crate::closest)), and of these words the judge sees so many
    /// pictures.
    Closest {
        /// Pictures of a case that the judge sees.
        pictures: usize,
    },
}

/// How cases are searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lockstep {
    /// Tokens in each prompt's places.
    pub tokens: usize,
    /// Rounds; after each, a picture of every open case is drawn.
    pub rounds: usize,
    /// What this picture decides.
    pub stop: Stop,
    /// Steps in a round.
    pub iterations: usize,
    /// The timesteps.
    pub order: Order,
    /// What is to be predicted.
    pub goal: Goal,
    /// Whether the guard's rule is inside the loss, where there is one.
    pub guarded: bool,
}
