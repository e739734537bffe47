//! Run-time rules: which prediction a sampler follows. A sampler asks the guidance and knows nothing
//! else.

use burn::tensor::Tensor;
use scumble_nn::{Context, Watch};

use crate::{
    denoiser::Denoiser,
    error::Result,
    prediction::Prediction,
    samplers::Step,
    time::{StepIndex, Timestep},
};

/// A rule that turns the network's predictions into the one a sampler follows.
pub trait Guidance {
    /// The guided prediction for `x`: a combination of the network's answers, in what it answers.
    ///
    /// # Shapes
    /// - x: `[n, channels, h, w]`
    ///
    /// # Errors
    /// If the network cannot take `x`.
    fn predict(&mut self, at: &At<'_>, x: Tensor<4>) -> Result<Prediction>;

    /// Whether [`latents`](Self::latents) does anything; it is not asked otherwise.
    fn moves_latents(&self) -> bool {
        false
    }

    /// The latents from which a step is to be taken instead of `x`. Asked once before each step of
    /// a sampler.
    ///
    /// # Shapes
    /// - x and result: `[n, channels, h, w]`
    ///
    /// # Errors
    /// If the network cannot take `x`.
    fn latents(&mut self, _at: &At<'_>, x: Tensor<4>) -> Result<Tensor<4>> {
        Ok(x)
    }
}

/// The network, and where in time it is asked.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The network.
    pub denoiser: &'a Denoiser<'a>,
    index: StepIndex,
    time: Time<'a>,
}

/// The timesteps of a batch.
#[derive(Clone, Copy, Debug)]
enum Time<'a> {
    Same(Step),
    Each(&'a [Timestep]),
}

impl<'a> At<'a> {
    /// At a sampler's step, the same for the whole batch.
    pub fn step(denoiser: &'a Denoiser<'a>, step: Step) -> Self {
        Self {
            denoiser,
            index: step.index,
            time: Time::Same(step),
        }
    }

    /// Each picture at its own timestep. Rules that look at the position in a run are told `index`.
    pub fn each(denoiser: &'a Denoiser<'a>, timesteps: &'a [Timestep], index: StepIndex) -> Self {
        Self {
            denoiser,
            index,
            time: Time::Each(timesteps),
        }
    }

    /// The position in a run, which begins with 0.
    pub fn index(&self) -> StepIndex {
        self.index
    }

    /// The unguided prediction for `x`. A context of `k n` prompts is one of k prompts for each
    /// picture, all the first ones first: `x` has to be stacked likewise, the timesteps are.
    ///
    /// # Shapes
    /// - x: `[k n, channels, h, w]`
    ///
    /// # Errors
    /// If `x` is not a multiple of the timesteps.
    pub fn predict(
        &self,
        x: Tensor<4>,
        context: &Context,
        watch: Option<&mut Watch>,
    ) -> Result<Prediction> {
        match self.time {
            Time::Same(step) => self.denoiser.predict_at(x, step, context, watch),
            Time::Each(timesteps) => {
                let copies = x.dims()[0].checked_div(timesteps.len()).unwrap_or(0);
                self.denoiser
                    .predict(x, &timesteps.repeat(copies), context, watch)
            }
        }
    }

    /// The signal's share of the variance in each of n pictures.
    pub fn alpha_bars(&self, n: usize) -> Vec<f64> {
        match self.time {
            Time::Same(step) => vec![step.alpha_bar; n],
            Time::Each(timesteps) => self.denoiser.schedule.alpha_bars(timesteps),
        }
    }

    /// The predictions for `k` prompts of each picture, stacked in `context` as for
    /// [`predict`](Self::predict), in one call of the network.
    ///
    /// # Errors
    /// If the network cannot take `x`.
    pub fn stacked(&self, x: Tensor<4>, context: &Context, k: usize) -> Result<Vec<Prediction>> {
        self.predict(Tensor::cat(vec![x; k], 0), context, None)?
            .split(k)
    }
}

/// `negative + scale (prompt - negative)`: classifier-free guidance (Ho and Salimans 2022, arXiv
/// 2207.12598).
pub fn guided(scale: f64, negative: Tensor<4>, prompt: Tensor<4>) -> Tensor<4> {
    negative.clone() + (prompt - negative) * scale
}
