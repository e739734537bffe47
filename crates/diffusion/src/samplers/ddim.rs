use burn::tensor::Tensor;

use super::{
    grid,
    run::{Callback, Model, Noise, Progress, Run, Step, draw, moved, predict},
};
use crate::{
    error::{Error, Result},
    interpolant::{Interpolant, Output},
    time::StepIndex,
};

/// DDIM: Song et al. 2020, "Denoising Diffusion Implicit Models" (arXiv:2010.02502), equations 12
/// and 16.
///
/// diffusers: `DDIMScheduler`. The previous timestep is always `t - num_train_timesteps / steps`,
/// even where the spacing of the list is another. Draws noise in every step if `run.eta` is above
/// 0.
///
/// Above 1, where the root of equation 12 may be of a negative number, it is that of the number's
/// size, `sqrt(|1 - abar' - sigma^2|)`, as in the noise-based probe of Lu et al. 2025, "When Are
/// Concepts Erased From Diffusion Models?" (arXiv:2505.17013); the probe's scale of the variance is
/// a factor on the numbers that `noise` gives.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub(crate) fn ddim<E: From<Error>>(
    run: &Run<'_>,
    mut x: Tensor<4>,
    model: &mut Model<'_, E>,
    noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let schedule = run.schedule.noise()?;
    let timesteps = grid::strided(schedule, run.steps)?;
    if !(run.eta >= 0.0 && run.eta.is_finite()) {
        return Err(Error::input(format!("eta is {}, expected a number from 0", run.eta)).into());
    }
    let to_one = schedule.set_alpha_to_one().unwrap_or(true);
    let stride = (schedule.num_train_timesteps() / run.steps) as i64;
    for (i, &timestep) in timesteps
        .iter()
        .enumerate()
        .skip(run.first(timesteps.len())?)
    {
        let index = StepIndex(i);
        // Where no signal is left `DDIMScheduler` has 0 itself, of which v still tells all.
        let silent = schedule.is_silent(timestep) && schedule.output() == Output::V;
        let alpha_bar = if silent {
            0.0
        } else {
            schedule.alpha_bar(timestep)
        };
        let previous = schedule.alpha_bar_or_final(timestep.get() as i64 - stride, to_one);

        // Equation 16, then equation 12 with the predicted x_0 put in.
        let variance = (1.0 - previous) / (1.0 - alpha_bar) * (1.0 - alpha_bar / previous);
        let sigma = run.eta * variance.max(0.0).sqrt();
        let of_noise = (1.0 - previous - sigma * sigma).abs().sqrt();
        let of_x = (previous / alpha_bar).sqrt();
        let of_epsilon = of_noise - of_x * (1.0 - alpha_bar).sqrt();

        let step = Step::preserving(index, timestep, alpha_bar);
        x = moved(model, x, 1.0, step)?;
        let prediction = predict(model, x.clone(), step)?;
        x = if silent {
            let picture = prediction.x0()?.mul_scalar(previous.sqrt());
            picture.add(prediction.epsilon()?.mul_scalar(of_noise))
        } else {
            prediction.sum(x, 1.0, of_x, of_epsilon)?
        };
        if run.eta > 0.0 {
            let fresh = draw::<E>(noise, &x)?;
            x = x.add(fresh.mul_scalar(sigma));
        }
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
