//! Random choices of a scene.

use scumble_diffusion::TorchRng;

/// A generator with the questions that scenes ask.
pub(super) struct Dice(TorchRng);

impl Dice {
    pub(super) fn new(rng: TorchRng) -> Self {
        Self(rng)
    }

    /// Uniform in [low, high).
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        let x = self.0.uniform(1).first().copied().unwrap_or_default();
        low + (high - low) * x
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, p: f32) -> bool {
        self.between(0.0, 1.0) < p
    }

    /// Below `n`; 0 where `n` is.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let drawn = self.0.integers(1, 0, n as i64);
        drawn.first().map_or(0, |&i| i as usize)
    }

    /// One of a list.
    ///
    /// # Panics
    /// If it is empty.
    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of a list that is not `this`, where there is one.
    ///
    /// # Panics
    /// If the list is empty.
    pub(super) fn another<T: Copy + PartialEq>(&mut self, of: &[T], this: T) -> T {
        let others: Vec<T> = of.iter().copied().filter(|one| *one != this).collect();
        match others.is_empty() {
            true => this,
            false => *self.one(&others),
        }
    }
}
