//! SLD: Schramowski et al., "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in
//! Diffusion Models", CVPR 2023 (arXiv 2211.05105).
//!
//! With `eps_p`, `eps_0`, `eps_S` of the prompt, the empty prompt and the concept, element by
//! element (what guidance combines: the network's answers, be they epsilon, v or velocities, as the
//! published code has it):
//!
//! ```text
//! mu    = min(1, s_S |eps_p - eps_S|)  where  eps_p - eps_S < lambda,  else 0
//! gamma = mu (eps_S - eps_0) + s_m nu
//! nu    = beta_m nu + (1 - beta_m) gamma
//! eps   = eps_0 + g (eps_p - eps_0 - gamma)      gamma counts from step delta on
//! ```
//!
//! `nu` begins at 0 and moves during the warm-up too. The comparison is signed, and `delta` counts
//! steps, not timesteps. The paper prints `max(1, .)` where the published code has `min`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::about::{About, FROM_MINUS_ONE};
use crate::{
    options,
    options::{Presets, WEIGHT},
    presets,
    time::StepIndex,
};

/// How the elementwise scale is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// At most 1, as in the published code.
    Min,
    /// At least 1, as the paper prints it.
    Max,
}

options! {
    /// The numbers of SLD.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Sld {
        /// Steps that are guided plainly (delta).
        pub warmup: usize,
        /// The guidance scale of the concept (s_S).
        pub scale: f64 where WEIGHT,
        /// Where the prompt's prediction counts as near the concept's (lambda).
        pub threshold: f64 where FROM_MINUS_ONE,
        /// The momentum's weight (s_m).
        pub momentum: f64 where WEIGHT,
        /// The momentum's memory (beta_m).
        pub memory: f64 where WEIGHT,
        /// Whether the elementwise scale is at most or at least 1.
        pub bound: Bound,
    }
}

impl Sld {
    const fn new(warmup: usize, scale: f64, threshold: f64, momentum: f64, memory: f64) -> Self {
        Self {
            warmup,
            scale,
            threshold,
            momentum,
            memory,
            bound: Bound::Min,
        }
    }

    /// The paper prints another bound than the published code has.
    fn presets(self) -> Presets<Self> {
        presets! {
            paper: Self { bound: Bound::Max, ..self },
            reference: self,
            fixed: self,
            small: self,
        }
    }

    /// See [`Guard::no_effect`](super::Guard::no_effect).
    pub(super) fn no_effect(&self, steps: usize) -> Option<String> {
        if self.warmup >= steps {
            return Some(format!(
                "its warm-up of {} steps outlasts the run's {steps}",
                self.warmup
            ));
        }
        // At least 1, as the paper prints it, whatever the scale.
        (self.scale == 0.0 && self.bound == Bound::Min).then(|| "its scale is 0".into())
    }

    /// One step: what is taken from the guidance, and the next momentum.
    ///
    /// # Shapes
    /// - all of one shape, `[n, channels, h, w]`
    pub fn step(
        &self,
        prompt: Tensor<4>,
        empty: Tensor<4>,
        concept: Tensor<4>,
        momentum: Option<Tensor<4>>,
    ) -> (Tensor<4>, Tensor<4>) {
        let momentum = momentum.unwrap_or_else(|| prompt.clone().detach().zeros_like());
        let apart = prompt - concept.clone();
        let size = apart.clone().abs() * self.scale;
        let scale = match self.bound {
            Bound::Min => size.clamp_max(1.0),
            Bound::Max => size.clamp_min(1.0),
        };
        let far = apart.greater_equal_elem(self.threshold);
        let gamma =
            scale.mask_fill(far, 0.0) * (concept - empty) + momentum.clone() * self.momentum;
        let momentum = momentum * self.memory + gamma.clone() * (1.0 - self.memory);
        (gamma, momentum)
    }

    /// Whether what [`step`](Self::step) gives counts at this step.
    pub fn acts(&self, index: StepIndex) -> bool {
        index.0 >= self.warmup
    }
}

/// What all of them are; each has numbers of its own.
const fn about(id: &'static str) -> About {
    About {
        id,
        paper: "Schramowski et al.: Safe Latent Diffusion, CVPR 2023 (arXiv 2211.05105)",
        changes: "the guidance, element by element, where prompt and concept predict alike",
        cost: "3",
    }
}

/// The weak preset: scale 200 in the paper, 20 in diffusers.
pub const WEAK: About = about("sld-weak");
/// The medium preset.
pub const MEDIUM: About = about("sld-medium");
/// The strong preset.
pub const STRONG: About = about("sld-strong");
/// The strongest preset.
pub const MAX: About = about("sld-max");

/// The numbers of [`WEAK`].
pub(super) fn weak() -> Presets<Sld> {
    let mut presets = Sld::new(15, 200.0, 0.0, 0.0, 0.0).presets();
    presets.reference.scale = 20.0;
    presets
}

/// The numbers of [`MEDIUM`].
pub(super) fn medium() -> Presets<Sld> {
    Sld::new(10, 1000.0, 0.01, 0.3, 0.4).presets()
}

/// The numbers of [`STRONG`].
pub(super) fn strong() -> Presets<Sld> {
    Sld::new(7, 2000.0, 0.025, 0.5, 0.7).presets()
}

/// The numbers of [`MAX`].
pub(super) fn max() -> Presets<Sld> {
    Sld::new(0, 5000.0, 1.0, 0.5, 0.7).presets()
}
