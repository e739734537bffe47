//! The frozen or edited network as samplers and losses see it: noisy latents and a prompt in, epsilon out.

use burn::tensor::Tensor;
use scumble_nn::{Context, UNet};

use crate::{error::Result, samplers::Step, schedule::Schedule, time::Timestep};

/// A U-Net with the schedule it was trained on. Epsilon and v models look the same from here.
#[derive(Clone, Copy, Debug)]
pub struct Denoiser<'a> {
    /// The network.
    pub unet: &'a UNet,
    /// Its noise schedule, which knows what it predicts.
    pub schedule: &'a Schedule,
}

impl Denoiser<'_> {
    /// The noise in `x` according to the network, each picture at its own timestep.
    ///
    /// # Shapes
    /// - x and result: `[n, channels, h, w]`
    /// - t: n labels
    /// - context: the prompts, `[n, tokens, width]`
    ///
    /// # Errors
    /// If there are not n timesteps.
    pub fn epsilon(&self, x: Tensor<4>, t: &[Timestep], context: &Context) -> Result<Tensor<4>> {
        let alpha_bars = self.schedule.alpha_bars(t);
        self.predict(x, t, &alpha_bars, context)
    }

    /// The noise in `x` at a sampler's step, the same for the whole batch.
    ///
    /// # Errors
    /// If the shapes do not agree.
    pub fn epsilon_at(&self, x: Tensor<4>, step: Step, context: &Context) -> Result<Tensor<4>> {
        let n = x.dims()[0];
        self.predict(x, &vec![step.timestep; n], &[step.alpha_bar], context)
    }

    fn predict(&self, x: Tensor<4>, t: &[Timestep], alpha_bars: &[f64], context: &Context) -> Result<Tensor<4>> {
        let labels: Vec<f32> = t.iter().map(|t| t.get()).collect();
        let raw = self.unet.forward(x.clone(), &labels, context);
        self.schedule.epsilon_from_raw(raw, x, alpha_bars)
    }
}
