use burn::tensor::Tensor;

use super::{
    exploding::{alpha_bar, initial_scale, preserving},
    grid,
    run::{Callback, Model, Progress, Run, Step, moved, predict},
};
use crate::{error::Error, time::StepIndex};

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
pub(crate) fn euler<E: From<Error>>(
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
