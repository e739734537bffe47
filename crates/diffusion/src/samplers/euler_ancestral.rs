use burn::tensor::Tensor;

use super::{
    exploding::{alpha_bar, initial_scale, preserving},
    grid,
    run::{Callback, Model, Noise, Progress, Run, Step, draw, moved, predict},
};
use crate::{error::Error, time::StepIndex};

/// Ancestral Euler: an Euler step to below the next noise level, then fresh noise up to it, in the
/// proportions of DDPM's ancestral sampling (Song et al. 2020, arXiv:2011.13456, appendix F).
///
/// diffusers: `EulerAncestralDiscreteScheduler`, and k-diffusion's `sample_euler_ancestral`. Draws
/// noise in every step, the last one included, where nothing of it is added.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub(crate) fn euler_ancestral<E: From<Error>>(
    run: &Run<'_>,
    x: Tensor<4>,
    model: &mut Model<'_, E>,
    noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let schedule = run.schedule.noise()?;
    let grid::Levels { timesteps, sigmas } = grid::interpolated(schedule, run.steps, false)?;
    let first = run.first(timesteps.len())?;
    let mut x = x.mul_scalar(initial_scale(run, schedule, sigmas[first]));
    for (i, &timestep) in timesteps.iter().enumerate().skip(first) {
        let index = StepIndex(i);
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);
        let up = next * (1.0 - (next / sigma).powi(2)).sqrt();
        let down = next * next / sigma;

        let step = Step::preserving(index, timestep, alpha_bar(sigma));
        let scale = preserving(sigma);
        x = moved(model, x, scale, step)?;
        let prediction = predict(model, x.clone().mul_scalar(scale), step)?;
        let fresh = draw::<E>(noise, &x)?;
        x = prediction.sum(x, scale, 1.0, down - sigma)?;
        if up > 0.0 {
            x = x.add(fresh.mul_scalar(up));
        }
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
