//! A model with what keeps it from concepts: the pipeline that draws, is judged and is attacked.

use std::ops::{ControlFlow, Deref, DerefMut};

use burn::tensor::Tensor;

use crate::{
    drawing::Request,
    error::Result,
    gates::{self, Opened},
    guards::Guard,
    guided::Guided,
    model::Model,
    prompted::Prompted,
    samplers::Progress,
};

/// A [`Model`] with the gates of its adapters and with guards. Clones share all tensors.
///
/// It reads as the model that it holds, for all that guards have no part in: tensors, tokens,
/// hidden states, single predictions. A model by itself makes no guidance, so where it takes the
/// place of a pipeline nothing is drawn as if there were no guards.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) model: Model,
    /// When the denoiser's adapters act.
    pub(crate) gates: Vec<Opened>,
    /// What keeps it from concepts while it draws.
    pub guards: Vec<Guard>,
}

impl Pipeline {
    /// A model without gates and guards.
    pub fn new(model: Model) -> Self {
        Self {
            model,
            gates: Vec::new(),
            guards: Vec::new(),
        }
    }

    /// The same with no tensor tracked, for sampling with a model that is being trained.
    #[must_use]
    pub fn without_gradients(&self) -> Self {
        Self {
            model: self.model.without_gradients(),
            gates: self.gates.clone(),
            guards: self.guards.clone(),
        }
    }

    /// How far prompts with these hidden states open the denoiser's adapters, `[n, rank]`; `None`
    /// if there are no gates.
    pub fn gates(&self, prompts: &[String], hidden: &Tensor<3>) -> Option<Tensor<2>> {
        gates::factors(&self.gates, prompts, hidden, &self.model.tokenizer)
    }

    /// The rule by which this model follows `prompt` and leaves `negative`, both of n prompts, with
    /// strength `scale`: what [`guards`](Self::guards) say is in it. A rule is for one run from its
    /// first step; it remembers.
    ///
    /// # Errors
    /// If two guards want one place.
    pub fn guidance(&self, scale: f64, prompt: &Prompted, negative: &Prompted) -> Result<Guided> {
        let guided = Guided::under(&self.guards, &self.model, scale, prompt, negative)?;
        Ok(guided.gated(self.gates(&prompt.texts, &prompt.conditioning.tokens)))
    }

    /// Final latents for a request, `[n, channels, h, w]`, one for each of its prompts.
    ///
    /// # Errors
    /// If the request does not fit the model.
    pub fn sample(
        &self,
        request: &Request,
        callback: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor<4>> {
        let negative = vec![request.negative_prompt.clone(); request.prompts.len()];
        let (prompt, negative) = (self.prompted(&request.prompts), self.prompted(&negative));
        let mut guidance = self.guidance(request.guidance_scale, &prompt, &negative)?;
        self.sample_guided(request, &mut guidance, callback)
    }
}

impl Deref for Pipeline {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

impl DerefMut for Pipeline {
    fn deref_mut(&mut self) -> &mut Model {
        &mut self.model
    }
}
