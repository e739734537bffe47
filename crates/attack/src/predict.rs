//! How far an attacked model is from drawing the concept: the losses that attacks share, in what the
//! network predicts.

use burn::tensor::Tensor;
use scumble_diffusion::{At, Guidance, Pipeline, Prompted, StepIndex, Timestep, guards::Guard};
use scumble_erase::{Result, data::noised::squared_error};
use serde::{Deserialize, Serialize};

use crate::{job::Drawing, prompts::repeated};

/// What an attacked model is to predict for a noisy picture of the concept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// What it was trained to, such as the noise: the model as a classifier of its own pictures
    /// (UnlearnDiffAtk, textual inversion).
    Noise,
    /// What the unedited model predicts for the prompt (P4D).
    Base,
}

/// Noisy pictures of the concept.
#[derive(Clone, Debug)]
pub struct Noisy {
    /// `[n, channels, h, w]`
    pub x: Tensor<4>,
    /// What the network was trained to predict for them (the noise, v or a velocity), like `x`.
    pub target: Tensor<4>,
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
    /// Denoising steps of the pictures.
    steps: usize,
    empty: [Prompted; 2],
}

impl<'a> Aim<'a> {
    /// Where a guard's rule acts on `victim` and is to be inside the loss, guided predictions are
    /// compared, and the goal is the unedited model's plain guidance towards the concept,
    /// `eps*(0) + g (eps*(c) - eps*(0))` (Circumventing Concept Erasure Methods, on inference
    /// guiding). What a guard makes of the prompt itself (SAFREE, AdaVD) is always inside.
    pub fn new(
        base: &'a Pipeline,
        victim: &'a Pipeline,
        goal: Goal,
        guarded: bool,
        drawing: Drawing,
    ) -> Self {
        let nothing = [String::new()];
        let empty = [base.prompted(&nothing), victim.prompted(&nothing)];
        let rule = victim.guards.iter().any(Guard::acts_on_guidance);
        let scale = if guarded && rule {
            drawing.guidance
        } else {
            1.0
        };
        Self {
            base,
            victim,
            goal,
            scale,
            steps: drawing.steps,
            empty,
        }
    }

    /// The position in a sampler's run at which a timestep is met: guards act by it.
    fn position(&self, t: Option<&Timestep>) -> StepIndex {
        let all = self.victim.schedule.num_train_timesteps() as f64;
        let clean = t.map_or(0.0, |t| f64::from(t.get())) / all;
        StepIndex(((1.0 - clean) * self.steps as f64).ceil() as usize - 1)
    }

    /// Whether guidance is inside the loss.
    pub fn guided(&self) -> bool {
        self.scale > 1.0
    }

    /// What is to be predicted for pictures of these prompts (of the unedited model), without
    /// gradient.
    ///
    /// # Errors
    /// If the network cannot take the pictures.
    pub fn wanted(&self, noisy: &Noisy, concept: &Prompted) -> Result<Tensor<4>> {
        if self.goal == Goal::Noise && !self.guided() {
            return Ok(noisy.target.clone());
        }
        let denoiser = self.base.denoiser();
        let at = At::each(&denoiser, &noisy.t, StepIndex(0));
        let negative = repeated(&self.empty[0], noisy.t.len());
        Ok(self
            .base
            .guidance(self.scale, concept, &negative)?
            .predict(&at, noisy.x.clone())?
            .raw()
            .detach())
    }

    /// The mean squared distance of each picture's prediction for `asked` (of the attacked model)
    /// to what is wanted, `[n]`.
    ///
    /// # Errors
    /// If the network cannot take the pictures.
    pub fn errors(&self, noisy: &Noisy, asked: &Prompted, wanted: Tensor<4>) -> Result<Tensor<1>> {
        self.errors_after(std::slice::from_ref(noisy), asked, wanted)
    }

    /// The same at the last of several noise levels of the same pictures, after the guidance has
    /// gone through all of them: for rules that remember (SLD's momentum). The gradient goes
    /// through all of them too.
    ///
    /// # Errors
    /// If the network cannot take the pictures, or there is no level.
    pub(crate) fn errors_after(
        &self,
        levels: &[Noisy],
        asked: &Prompted,
        wanted: Tensor<4>,
    ) -> Result<Tensor<1>> {
        let denoiser = self.victim.denoiser();
        let negative = repeated(&self.empty[1], asked.len());
        let mut guidance = self.victim.guidance(self.scale, asked, &negative)?;
        let mut last = None;
        for noisy in levels {
            let at = At::each(&denoiser, &noisy.t, self.position(noisy.t.first()));
            last = Some(guidance.predict(&at, noisy.x.clone())?.raw());
        }
        let found = last.ok_or_else(|| {
            scumble_erase::Error::input("a prediction needs at least one noise level")
        })?;
        Ok(squared_error(found, wanted))
    }
}
