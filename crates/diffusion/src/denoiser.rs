//! The frozen or edited network as samplers and losses see it: noisy latents and a prompt in, a
//! prediction out. Whoever asks a network asks here.

use burn::tensor::Tensor;
use scumble_nn::{Context, Manifest, UNet, Watch, config::UNetConfig};

use crate::{
    error::{Error, Result},
    interpolant::{Interpolant, Scales},
    prediction::Prediction,
    samplers::Step,
    schedule::Schedule,
    time::Timestep,
};

/// A U-Net with the schedule it was trained on. Epsilon and v models look the same from here.
///
/// Building one puts a network together from its weights, so a loop builds it once.
#[derive(Debug)]
pub struct Denoiser<'a> {
    network: UNet,
    /// Its noise schedule, which knows what it predicts.
    pub schedule: &'a Schedule,
}

impl<'a> Denoiser<'a> {
    /// A network and the schedule it was trained on.
    pub fn new(network: UNet, schedule: &'a Schedule) -> Self {
        Self { network, schedule }
    }

    /// The names and shapes of a network's tensors.
    pub fn manifest(config: &UNetConfig) -> Manifest {
        UNet::manifest(config)
    }

    /// What the network answers, each picture at its own timestep.
    ///
    /// What changes the answer on the way (gates of adapters, a hook on keys and values) stands in
    /// `context`; a `watch` records the attention maps and what bottlenecks added.
    ///
    /// # Shapes
    /// - x: `[n, channels, h, w]`
    /// - t: n labels
    /// - context: the prompts, `[n, tokens, width]`
    ///
    /// # Errors
    /// If there are not n timesteps, or the context does not fit the network.
    pub fn predict(
        &self,
        x: Tensor<4>,
        t: &[Timestep],
        context: &Context,
        watch: Option<&mut Watch>,
    ) -> Result<Prediction> {
        self.ask(x, t, self.schedule.all_scales(t), context, watch)
    }

    /// What the network answers at a sampler's step, the same for the whole batch.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn predict_at(
        &self,
        x: Tensor<4>,
        step: Step,
        context: &Context,
        watch: Option<&mut Watch>,
    ) -> Result<Prediction> {
        let t = vec![step.timestep; x.dims()[0]];
        self.ask(x, &t, vec![step.scales], context, watch)
    }

    fn ask(
        &self,
        x: Tensor<4>,
        t: &[Timestep],
        scales: Vec<Scales>,
        context: &Context,
        watch: Option<&mut Watch>,
    ) -> Result<Prediction> {
        let n = x.dims()[0];
        if t.len() != n {
            return Err(Error::input(format!(
                "{} timesteps for {n} pictures",
                t.len()
            )));
        }
        let labels: Vec<f32> = t.iter().map(|t| t.get()).collect();
        let raw = self
            .network
            .try_forward(x.clone(), &labels, context, watch)?;
        Prediction::new(raw, x, scales, self.schedule.output())
    }
}
