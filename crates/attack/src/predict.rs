//! How far an attacked model is from drawing the concept: the losses that attacks share.

use burn::tensor::Tensor;
use scumble_diffusion::{At, Denoiser, Guidance, Pipeline, Prompted, StepIndex, Timestep};
use scumble_erase::{Result, noised::squared_error};
use serde::{Deserialize, Serialize};

use crate::prompts::repeated;

/// What an attacked model is to predict for a noisy picture of the concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// The noise: the model as a classifier of its own pictures (UnlearnDiffAtk, textual inversion).
    Noise,
    /// What the unedited model predicts for the prompt (P4D).
    Base,
}

/// Noisy pictures of the concept.
#[derive(Clone, Debug)]
pub struct Noisy {
    /// `[n, channels, h, w]`
    pub x: Tensor<4>,
    /// The noise in them, like `x`.
    pub noise: Tensor<4>,
    /// The timestep of each.
    pub t: Vec<Timestep>,
}

/// A loss between an attacked model's predictions and the unedited model's.
#[derive(Clone, Debug)]
pub struct Aim<'a> {
    base: &'a Pipeline,
    victim: &'a Pipeline,
    goal: Goal,
    /// Strength of guidance in the loss; 1 for the prompt's prediction alone.
    scale: f64,
    empty: [Prompted; 2],
}

impl<'a> Aim<'a> {
    /// With `guidance`, the loss compares guided predictions: what a rule such as SLD makes of the network's is then inside it,
    /// and the goal is the unedited model's plain guidance towards the concept, `eps*(0) + g (eps*(c) - eps*(0))` (Circumventing
    /// Concept Erasure Methods, section on inference guiding).
    pub fn new(base: &'a Pipeline, victim: &'a Pipeline, goal: Goal, guidance: Option<f64>) -> Self {
        let nothing = [String::new()];
        let empty = [base.prompted(&nothing), victim.prompted(&nothing)];
        Self { base, victim, goal, scale: guidance.unwrap_or(1.0), empty }
    }

    /// Whether guidance is inside the loss.
    pub fn guided(&self) -> bool {
        self.scale > 1.0
    }

    /// What is to be predicted for pictures of these prompts (of the unedited model), without gradient.
    ///
    /// # Errors
    /// If the network cannot take the pictures.
    pub fn wanted(&self, noisy: &Noisy, concept: &Prompted) -> Result<Tensor<4>> {
        if self.goal == Goal::Noise && !self.guided() {
            return Ok(noisy.noise.clone());
        }
        let unet = self.base.unet_network();
        let at = At::each(Denoiser { unet: &unet, schedule: &self.base.schedule }, &noisy.t, StepIndex(0));
        let negative = repeated(&self.empty[0], noisy.t.len());
        Ok(self.base.guidance(self.scale, concept, &negative)?.epsilon(&at, noisy.x.clone())?.detach())
    }

    /// The mean squared distance of each picture's prediction for `asked` (of the attacked model) to what is wanted, `[n]`.
    ///
    /// # Errors
    /// If the network cannot take the pictures.
    pub fn errors(&self, noisy: &Noisy, asked: &Prompted, wanted: Tensor<4>) -> Result<Tensor<1>> {
        self.errors_after(std::slice::from_ref(noisy), asked, wanted)
    }

    /// The same at the last of several noise levels of the same pictures, after the guidance has gone through all of them: for
    /// rules that remember (SLD's momentum). The gradient goes through all of them too.
    ///
    /// # Errors
    /// If the network cannot take the pictures, or there is no level.
    pub fn errors_after(&self, levels: &[Noisy], asked: &Prompted, wanted: Tensor<4>) -> Result<Tensor<1>> {
        let unet = self.victim.unet_network();
        let denoiser = Denoiser { unet: &unet, schedule: &self.victim.schedule };
        let negative = repeated(&self.empty[1], asked.len());
        let mut guidance = self.victim.guidance(self.scale, asked, &negative)?;
        let mut last = None;
        for (i, noisy) in levels.iter().enumerate() {
            let at = At::each(denoiser, &noisy.t, StepIndex(i));
            last = Some(guidance.epsilon(&at, noisy.x.clone())?);
        }
        let found = last.ok_or_else(|| scumble_erase::Error::input("a prediction needs at least one noise level"))?;
        Ok(squared_error(found, wanted))
    }
}
