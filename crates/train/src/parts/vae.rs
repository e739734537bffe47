//! The autoencoder (Kingma and Welling 2014, arXiv 1312.6114; Rombach et al. 2022, arXiv 2112.10752,
//! 3.1): pictures through few numbers and back.
//!
//! The published one has an adversarial loss for textures. Drawings have none: here the difference
//! of neighbouring pixels is held to the original's beside the pixels themselves, which keeps edges
//! sharp.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::Picture;
use scumble_erase::{
    Result,
    seeds::{Stream, stream},
};
use scumble_nn::{Vae, config::VaeConfig};

use super::{HELD_OUT, pictures};
use crate::{
    fit::{Fit, Outcome},
    init::Init,
    job::Job,
    layout::DIFFUSION_MODEL,
    part::{CONFIG, Part},
    recipe::VaeRecipe,
    watcher::Watcher,
};

/// Held-out pictures that are looked at, and that the latents' scale is measured on.
const LOOKED_AT: usize = 8;
const SCALED_BY: usize = 256;

/// Trains it and writes `vae/`.
pub(crate) fn train(job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<Outcome> {
    let (layout, part) = (job.layout(), Part::Vae.name());
    let read = |scale: f64| {
        let config = job.recipe.autoencoder_sizes().config(scale);
        VaeConfig::read(&layout.at(&format!("{part}/{CONFIG}")), &config).map(|read| (config, read))
    };
    let (_, config) = read(1.0)?;
    let mut weights = Init::Uniform.weights(&Vae::manifest(&config), job.seed, job.device);
    let training = &job.recipe.vae.training;
    let noise = stream(job.seed, "train/posterior");
    let mut fit = Fit::new(part, training, &weights, job, job.most)?;
    let outcome = fit.run(
        &mut weights,
        watcher,
        &mut |weights, step, numbers| {
            let micro = numbers.start % training.batch / training.micro();
            let x = batch(job, &pictures(job.data, numbers)?);
            let network = Vae::new(&config, weights);
            Ok(loss(
                &network,
                x,
                &job.recipe.vae,
                noise.within(step),
                micro,
            ))
        },
        &mut |weights, step, watcher| {
            let before = pictures(job.data, HELD_OUT..HELD_OUT + LOOKED_AT)?;
            let network = Vae::new(&config, weights);
            let x = batch(job, &before);
            let y = network.decode(network.encode(x.clone()));
            let error = (y.clone() - x).abs().mean().into_scalar::<f32>();
            watcher.measured(part, step, "pixel error", f64::from(error) / 2.0);
            watcher.reconstructions(step, &before, &Picture::from_batch(y))
        },
    )?;
    // What is stored is f16; the scale is that of what is stored.
    layout.weights(&format!("{part}/{DIFFUSION_MODEL}"), &weights)?;
    let (filed, _) = read(1.0 / deviation(job, &Vae::new(&config, &weights))?)?;
    layout.json(&format!("{part}/{CONFIG}"), &filed)?;
    Ok(outcome)
}

fn batch(job: &Job<'_>, pictures: &[Picture]) -> Tensor<4> {
    Picture::to_batch(pictures, [0.5; 3], [0.5; 3], job.device)
}

/// The pixels' mean error and their squared one, that of their differences to the right and below, and the divergence of
/// the posterior from a unit normal, for each channel of a pixel.
fn loss(network: &Vae, x: Tensor<4>, recipe: &VaeRecipe, noise: Stream, part: usize) -> Tensor<1> {
    let (mean, log_variance) = network.posterior(x.clone());
    let shape = mean.dims();
    let numbers = noise.rng(part).normal(shape.iter().product());
    let noise = Tensor::<4>::from_data(TensorData::new(numbers, shape), &x.device());
    let z = mean.clone() + (log_variance.clone() * 0.5).exp() * noise;
    let error = network.decode(z) - x.clone();
    let [_, _, h, w] = error.dims();
    let step = |axis: usize, n: usize| {
        let after = error.clone().narrow(axis, 1, n - 1);
        (after - error.clone().narrow(axis, 0, n - 1)).abs().mean()
    };
    let edges = step(2, h) + step(3, w);
    let divergence = mean.powi_scalar(2) + log_variance.clone().exp() - 1.0 - log_variance;
    let channels = x.dims().iter().product::<usize>() as f64;
    error.clone().abs().mean()
        + error.powi_scalar(2).mean() * recipe.squares
        + edges * recipe.edges
        + divergence.sum() * (0.5 * recipe.kl / channels)
}

/// The deviation of the latents, over all channels, as `scaling_factor` is defined.
fn deviation(job: &Job<'_>, network: &Vae) -> Result<f64> {
    let (mut sum, mut squares, mut n) = (0.0, 0.0, 0.0);
    for start in (0..SCALED_BY).step_by(32) {
        let x = batch(
            job,
            &pictures(job.data, HELD_OUT + start..HELD_OUT + start + 32)?,
        );
        for value in network.encode(x).into_data().iter::<f32>() {
            sum += f64::from(value);
            squares += f64::from(value) * f64::from(value);
            n += 1.0;
        }
    }
    let mean = sum / n;
    Ok((squares / n - mean * mean).sqrt().max(1e-6))
}
