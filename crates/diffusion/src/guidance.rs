//! Run-time rules: what a sampler is told the noise is. A sampler asks the guidance and knows nothing else.

use burn::tensor::Tensor;
use scumble_nn::Context;

use crate::{denoiser::Denoiser, error::Result, samplers::Step};

/// A rule that turns the network's predictions into the one a sampler follows.
pub trait Guidance {
    /// The guided noise in `x` at this step.
    ///
    /// # Shapes
    /// - x and result: `[n, channels, h, w]`
    ///
    /// # Errors
    /// If the network cannot take `x`.
    fn epsilon(&mut self, denoiser: Denoiser<'_>, x: Tensor<4>, step: Step) -> Result<Tensor<4>>;
}

/// Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), `eps(neg) + g (eps(c) - eps(neg))`.
///
/// With a negative prompt in the place of the empty one it is the rule that web interfaces call by that name. At `g` of
/// 1 or less only the prompt is evaluated, as diffusers does.
#[derive(Clone, Debug)]
pub struct ClassifierFree {
    scale: f64,
    prompt: Context,
    both: Context,
}

impl ClassifierFree {
    /// Guidance of strength `scale` from `negative` to `prompt`, hidden states `[n, tokens, width]` each.
    pub fn new(scale: f64, prompt: Tensor<3>, negative: Tensor<3>) -> Self {
        let both = Tensor::cat(vec![negative, prompt.clone()], 0).into();
        Self { scale, prompt: prompt.into(), both }
    }

    /// With factors for the network's adapters, `[n, rank]`, the same with and without the prompt.
    #[must_use]
    pub fn gated(mut self, gates: Option<Tensor<2>>) -> Self {
        self.both = self.both.gated(gates.clone().map(|gates| Tensor::cat(vec![gates.clone(), gates], 0)));
        self.prompt = self.prompt.gated(gates);
        self
    }
}

impl Guidance for ClassifierFree {
    fn epsilon(&mut self, denoiser: Denoiser<'_>, x: Tensor<4>, step: Step) -> Result<Tensor<4>> {
        if self.scale <= 1.0 {
            return denoiser.epsilon_at(x, step, &self.prompt);
        }
        let (negative, prompt) = evaluate_pair(denoiser, x, step, &self.both)?;
        Ok(guided(self.scale, negative, prompt))
    }
}

/// The predictions for two contexts stacked on each other, `[2 n, tokens, width]`, in one call of the network.
///
/// # Errors
/// If the network cannot take `x`.
pub fn evaluate_pair(denoiser: Denoiser<'_>, x: Tensor<4>, step: Step, both: &Context) -> Result<(Tensor<4>, Tensor<4>)> {
    let n = x.dims()[0];
    let out = denoiser.epsilon_at(Tensor::cat(vec![x.clone(), x], 0), step, both)?;
    Ok((out.clone().narrow(0, 0, n), out.narrow(0, n, n)))
}

/// `negative + scale (prompt - negative)`.
pub fn guided(scale: f64, negative: Tensor<4>, prompt: Tensor<4>) -> Tensor<4> {
    negative.clone() + (prompt - negative) * scale
}
