//! The rule of a pipeline: classifier-free guidance and whatever guards it has.

use burn::tensor::Tensor;
use scumble_nn::Context;

use crate::{
    error::Result,
    guidance::{At, Guidance, guided},
    pipeline::Pipeline,
    prompted::Prompted,
};

/// Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), `eps(neg) + g (eps(c) - eps(neg))`, under a pipeline's
/// guards.
///
/// With a negative prompt in the place of the empty one it is the rule that web interfaces call by that name. At `g` of
/// 1 or less only the prompt is evaluated, as diffusers does. Gradients flow from the prompt to the prediction.
#[derive(Clone, Debug)]
pub struct Guided {
    scale: f64,
    prompt: Context,
    both: Context,
}

impl Pipeline {
    /// The rule by which this model follows `prompt` and leaves `negative`, both of n prompts, with strength `scale`.
    ///
    /// # Errors
    /// If a guard cannot be applied to these prompts.
    pub fn guidance(&self, scale: f64, prompt: &Prompted, negative: &Prompted) -> Result<Guided> {
        let gates = self.gates(&prompt.texts, &prompt.hidden);
        let both = Context::from(Tensor::cat(vec![negative.hidden.clone(), prompt.hidden.clone()], 0))
            .gated(gates.clone().map(|gates| Tensor::cat(vec![gates.clone(), gates], 0)));
        Ok(Guided { scale, prompt: Context::from(&prompt.hidden).gated(gates), both })
    }
}

impl Guided {
    /// Classifier-free guidance alone, from `negative` to `prompt`, hidden states `[n, tokens, width]` each.
    pub fn plain(scale: f64, prompt: Tensor<3>, negative: Tensor<3>) -> Self {
        let both = Tensor::cat(vec![negative, prompt.clone()], 0).into();
        Self { scale, prompt: prompt.into(), both }
    }
}

impl Guidance for Guided {
    fn epsilon(&mut self, at: &At<'_>, x: Tensor<4>) -> Result<Tensor<4>> {
        if self.scale <= 1.0 {
            return at.epsilon(x, &self.prompt);
        }
        let mut parts = at.stacked(x, &self.both, 2)?.into_iter();
        match (parts.next(), parts.next()) {
            (Some(negative), Some(prompt)) => Ok(guided(self.scale, negative, prompt)),
            _ => Err(crate::Error::input("two predictions were expected")),
        }
    }
}
