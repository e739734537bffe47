//! The frozen or edited network as samplers and losses see it: noisy latents and a prompt in, a
//! prediction out.

use burn::tensor::Tensor;
use scumble_nn::{Context, UNet, Watch};

use crate::{
    error::Result,
    interpolant::{Interpolant, Scales},
    prediction::Prediction,
    samplers::Step,
    schedule::Schedule,
    time::Timestep,
};

/// A U-Net with the schedule it was trained on. Epsilon and v models look the same from here.
#[derive(Clone, Copy, Debug)]
pub struct Denoiser<'a> {
    /// The network.
    pub unet: &'a UNet,
    /// Its noise schedule, which knows what it predicts.
    pub schedule: &'a Schedule,
}

impl Denoiser<'_> {
    /// What the network answers, each picture at its own timestep.
    ///
    /// # Shapes
    /// - x: `[n, channels, h, w]`
    /// - t: n labels
    /// - context: the prompts, `[n, tokens, width]`
    ///
    /// # Errors
    /// If there are not n timesteps, or the context does not fit the network.
    pub fn predict(&self, x: Tensor<4>, t: &[Timestep], context: &Context) -> Result<Prediction> {
        self.ask(x, t, self.schedule.all_scales(t), context, None)
    }

    /// What the network answers at a sampler's step, the same for the whole batch.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn predict_at(&self, x: Tensor<4>, step: Step, context: &Context) -> Result<Prediction> {
        let n = x.dims()[0];
        self.ask(
            x,
            &vec![step.timestep; n],
            vec![Scales::preserving(step.alpha_bar)],
            context,
            None,
        )
    }

    /// As [`predict`](Self::predict), with what happens on the way.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn predict_watched(
        &self,
        x: Tensor<4>,
        t: &[Timestep],
        context: &Context,
        watch: &mut Watch,
    ) -> Result<Prediction> {
        self.ask(x, t, self.schedule.all_scales(t), context, Some(watch))
    }

    /// The noise in `x` according to the network, each picture at its own timestep.
    ///
    /// # Shapes
    /// As [`predict`](Self::predict); the result is as `x`.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn epsilon(&self, x: Tensor<4>, t: &[Timestep], context: &Context) -> Result<Tensor<4>> {
        self.predict(x, t, context)?.epsilon()
    }

    /// The noise in `x` at a sampler's step, the same for the whole batch.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn epsilon_at(&self, x: Tensor<4>, step: Step, context: &Context) -> Result<Tensor<4>> {
        self.predict_at(x, step, context)?.epsilon()
    }

    fn ask(
        &self,
        x: Tensor<4>,
        t: &[Timestep],
        scales: Vec<Scales>,
        context: &Context,
        watch: Option<&mut Watch>,
    ) -> Result<Prediction> {
        let labels: Vec<f32> = t.iter().map(|t| t.get()).collect();
        let raw = self.unet.try_forward(x.clone(), &labels, context, watch)?;
        Prediction::new(raw, x, scales, self.schedule.output())
    }
}
