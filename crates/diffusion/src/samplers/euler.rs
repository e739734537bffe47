use burn::tensor::Tensor;

use super::{Callback, Model, Progress, Run, Step, grid, moved, predict};
use crate::{
    error::Error,
    noise_schedule::{NoiseSchedule, Spacing},
    time::StepIndex,
};

/// Euler: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"
/// (arXiv:2206.00364), algorithm 2 without churn and without the second-order correction.
///
/// diffusers: `EulerDiscreteScheduler`, and k-diffusion's `sample_euler`. With Karras' noise levels
/// where the configuration says `use_karras_sigmas`.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub fn euler<E: From<Error>>(
    run: &Run<'_>,
    x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let schedule = run.schedule.noise()?;
    let grid::Levels { timesteps, sigmas } =
        grid::interpolated(schedule, run.steps, schedule.use_karras_sigmas())?;
    let first = run.first(timesteps.len())?;
    let mut x = x.mul_scalar(initial_scale(run, schedule, sigmas[first]));
    for (i, &timestep) in timesteps.iter().enumerate().skip(first) {
        let index = StepIndex(i);
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);

        // In this scale x = x_0 + sigma epsilon, so the noise is the derivative of x by sigma.
        let step = Step::preserving(index, timestep, alpha_bar(sigma));
        let scale = preserving(sigma);
        x = moved(model, x, scale, step)?;
        let prediction = predict(model, x.clone().mul_scalar(scale), step)?;
        x = prediction.sum(x, scale, 1.0, next - sigma)?;
        if callback(Progress {
            index,
            timestep,
            len: timesteps.len(),
            x: &x,
            scale: preserving(next),
        })
        .is_break()
        {
            return Ok(x.mul_scalar(preserving(next)));
        }
    }
    Ok(x)
}

/// What brings latents of the variance-exploding scale to the network's variance-preserving one.
pub(super) fn preserving(sigma: f64) -> f64 {
    (sigma * sigma + 1.0).sqrt().recip()
}

/// The signal's share of the variance at `sigma`.
pub(super) fn alpha_bar(sigma: f64) -> f64 {
    (sigma * sigma + 1.0).recip()
}

/// What brings a sampler's unit-variance input to the variance-exploding scale.
///
/// Pure noise is taken for x_0 + sigma epsilon of an x_0 that is 0 (or, with the `leading` spacing,
/// of one of variance 1): diffusers' `init_noise_sigma`.
pub(super) fn initial_scale(run: &Run<'_>, schedule: &NoiseSchedule, sigma: f64) -> f64 {
    if run.start.is_none() && spacing(schedule) != Spacing::Leading {
        sigma
    } else {
        preserving(sigma).recip()
    }
}

fn spacing(schedule: &NoiseSchedule) -> Spacing {
    schedule.timestep_spacing().unwrap_or(Spacing::Linspace)
}
