use burn::tensor::Tensor;

use super::{
    exploding::{alpha_bar, preserving},
    grid,
    run::{Callback, Model, Progress, Run, Step, moved, predict},
};
use crate::{
    error::{Error, Result},
    noise_schedule::NoiseSchedule,
    time::StepIndex,
};

/// DPM-Solver++(2M): Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion
/// Probabilistic Models" (arXiv:2211.01095), algorithm 2, with a first-order step at either end.
///
/// diffusers: `DPMSolverMultistepScheduler` with `use_karras_sigmas` false.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub(crate) fn dpmpp_2m<E: From<Error>>(
    run: &Run<'_>,
    x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    solve(
        run,
        grid::solver(run.schedule.noise()?, run.steps, grid::Karras::No)?,
        x,
        model,
        callback,
    )
}

/// [`dpmpp_2m`] at the noise levels of Karras et al. 2022 (arXiv:2206.00364, equation 5).
///
/// diffusers: `DPMSolverMultistepScheduler` with `use_karras_sigmas` true. The network is told
/// rounded timesteps.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub(crate) fn dpmpp_2m_karras<E: From<Error>>(
    run: &Run<'_>,
    x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let schedule = run.schedule.noise()?;
    solve(
        run,
        grid::solver(schedule, run.steps, karras(schedule))?,
        x,
        model,
        callback,
    )
}

/// diffusers rounds Karras' timesteps, except those of the cosine schedule, which then lose their
/// fraction.
pub(super) fn karras(schedule: &NoiseSchedule) -> grid::Karras {
    if schedule.is_cosine() {
        grid::Karras::Truncated
    } else {
        grid::Karras::Rounded
    }
}

fn solve<E: From<Error>>(
    run: &Run<'_>,
    levels: grid::Levels,
    mut x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let grid::Levels { timesteps, sigmas } = levels;
    let mut older: Option<Tensor<4>> = None;
    for (i, &timestep) in timesteps
        .iter()
        .enumerate()
        .skip(run.first(timesteps.len())?)
    {
        let index = StepIndex(i);
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);
        let alpha = preserving(sigma);

        let step = Step::preserving(index, timestep, alpha_bar(sigma));
        x = moved(model, x, 1.0, step)?;
        let prediction = predict(model, x.clone(), step)?;
        let x0 = prediction.sum(x.clone(), 1.0, 1.0 / alpha, -sigma)?;

        // lambda = ln(alpha / sigma) of the paper is -ln of our sigma, so exp(-h) = next / sigma.
        let of_x = next * preserving(next) / (sigma * alpha);
        let of_d = preserving(next) * (1.0 - next / sigma);
        x = x.mul_scalar(of_x);
        x = match older.take() {
            Some(before) if next > 0.0 => {
                let r = (sigmas[i - 1] / sigma).ln() / (sigma / next).ln();
                let ahead = 0.5 / r;
                x.add(x0.clone().mul_scalar(of_d * (1.0 + ahead)))
                    .sub(before.mul_scalar(of_d * ahead))
            }
            _ => x.add(x0.clone().mul_scalar(of_d)),
        };
        older = Some(x0);
        if callback(Progress {
            index,
            timestep,
            len: timesteps.len(),
            x: &x,
            scale: 1.0,
        })
        .is_break()
        {
            break;
        }
    }
    Ok(x)
}
