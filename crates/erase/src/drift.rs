//! How far an edit moved the model where nobody asked for anything.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Denoiser, Error, Noise, Pipeline,
    samplers::{Run, Sampler, Step},
};

/// Trajectories of the fixed set, their seeds counted from [`SEED`].
const TRAJECTORIES: usize = 8;
/// Steps of each.
const STEPS: usize = 10;
const SEED: u64 = 7_000_000;

/// Unconditional drift: the mean of `|eps(0) - eps*(0)| / |eps*(0)|` over a fixed set of (z, t).
///
/// The set is every step of eight unguided 10-step DDIM trajectories of the frozen model with the empty prompt, so every z
/// is one that sampling meets. Norms are Euclidean, one ratio for each z.
///
/// # Errors
/// If the models cannot sample.
pub fn unconditional(frozen: &Pipeline, edited: &Pipeline) -> Result<f64, Error> {
    let empty = frozen.context(&vec![String::new(); TRAJECTORIES]);
    let empty_edited = edited.context(&vec![String::new(); TRAJECTORIES]);
    let (frozen_net, edited_net) = (frozen.unet_network(), edited.unet_network());
    let still = Denoiser { unet: &frozen_net, schedule: &frozen.schedule };
    let moved = Denoiser { unet: &edited_net, schedule: &edited.schedule };
    let start = Noise::each(SEED, TRAJECTORIES).draw(frozen.latent_shape(TRAJECTORIES, None, None)?, frozen.device());
    let mut ratios: Vec<f64> = Vec::new();
    let norm = |x: Tensor<4>| x.powi_scalar(2).sum_dim(1).sum_dim(2).sum_dim(3).sqrt();
    let mut model = |x: Tensor<4>, step: Step| -> Result<Tensor<4>, Error> {
        let reference = still.epsilon_at(x.clone(), step, &empty)?;
        let found = moved.epsilon_at(x, step, &empty_edited)?;
        let ratio = norm(found - reference.clone()) / norm(reference.clone());
        ratios.extend(ratio.into_data().iter::<f64>());
        Ok(reference)
    };
    let run = Run::new(&frozen.schedule, STEPS);
    let mut none = |shape: [usize; 4]| Tensor::zeros(shape, frozen.device());
    Sampler::Ddim.sample::<Error>(&run, start, &mut model, &mut none, &mut |_| ControlFlow::Continue(()))?;
    Ok(ratios.iter().sum::<f64>() / ratios.len().max(1) as f64)
}
