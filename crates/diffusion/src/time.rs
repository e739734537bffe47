//! The two kinds of time, which must not be mixed up.

use std::fmt;

/// The label the network sees: 0 is (almost) clean, 999 is (almost) pure noise.
///
/// Held as an `f32` because it is not always whole: with the `linspace` spacing, which is
/// diffusers' default for its Euler and LMS schedulers, 20 steps on Stable Diffusion 1.4 visit 999,
/// 946.421, 893.842, ..., and the network's time embedding takes those numbers as they are. Whole
/// labels below 2^24 are exact.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Timestep(f32);

impl Timestep {
    /// The label `value`, or `None` if it is negative or not finite.
    pub fn new(value: f32) -> Option<Self> {
        (value.is_finite() && value >= 0.0).then_some(Self(value))
    }

    /// The label nearest to `value`; what a schedule has computed and checked.
    pub(crate) fn from_grid(value: f64) -> Self {
        Self(value as f32)
    }

    /// The number the network's time embedding takes.
    pub fn get(self) -> f32 {
        self.0
    }

    /// The label as an index into a table, if it is whole.
    pub fn whole(self) -> Option<usize> {
        (self.0.fract() == 0.0).then_some(self.0 as usize)
    }
}

impl From<u16> for Timestep {
    fn from(label: u16) -> Self {
        Self(label.into())
    }
}

impl fmt::Display for Timestep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in a sampler's list of timesteps; 0 is the first step taken, at the highest noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIndex(pub usize);

impl fmt::Display for StepIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
