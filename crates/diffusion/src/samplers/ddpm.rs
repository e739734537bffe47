use burn::tensor::Tensor;

use super::{
    grid,
    run::{Callback, Model, Noise, Progress, Run, Step, draw, moved, predict},
};
use crate::{error::Error, time::StepIndex};

/// DDPM: Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239), equations 6
/// and 7 between the timesteps of the list, with the posterior's variance (`fixed_small`).
///
/// diffusers: `DDPMScheduler`. Draws noise in every step but at timestep 0. The last step goes to
/// `alpha_bar` 1.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub(crate) fn ddpm<E: From<Error>>(
    run: &Run<'_>,
    mut x: Tensor<4>,
    model: &mut Model<'_, E>,
    noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let schedule = run.schedule.noise()?;
    let timesteps = grid::strided(schedule, run.steps)?;
    for (i, &timestep) in timesteps
        .iter()
        .enumerate()
        .skip(run.first(timesteps.len())?)
    {
        let index = StepIndex(i);
        let alpha_bar = schedule.alpha_bar(timestep);
        let previous = timesteps.get(i + 1).map_or(1.0, |&t| schedule.alpha_bar(t));

        // Equation 7: the posterior's mean as a mixture of x_0 and x_t, with the predicted x_0 put
        // in.
        let alpha = alpha_bar / previous;
        let of_x0 = previous.sqrt() * (1.0 - alpha) / (1.0 - alpha_bar);
        let of_x = alpha.sqrt() * (1.0 - previous) / (1.0 - alpha_bar) + of_x0 / alpha_bar.sqrt();
        let of_epsilon = -of_x0 * ((1.0 - alpha_bar) / alpha_bar).sqrt();
        let variance = (1.0 - previous) / (1.0 - alpha_bar) * (1.0 - alpha);

        let step = Step::preserving(index, timestep, alpha_bar);
        x = moved(model, x, 1.0, step)?;
        let prediction = predict(model, x.clone(), step)?;
        x = prediction.sum(x, 1.0, of_x, of_epsilon)?;
        if timestep.get() > 0.0 {
            let fresh = draw::<E>(noise, &x)?;
            x = x.add(fresh.mul_scalar(variance.sqrt()));
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
