use burn::tensor::Tensor;

use super::{
    flow::FlowRun,
    run::{Callback, Model, Progress, Step, moved, predict},
};
use crate::{error::Error, time::StepIndex};

/// Heun's method on the probability flow of a flow-matching model: Karras et al. 2022, "Elucidating
/// the Design Space of Diffusion-Based Generative Models" (arXiv:2206.00364), algorithm 1, on the
/// straight lines of Liu et al. 2022 (arXiv:2209.03003). Of second order; the step to the clean end
/// is Euler's, because the network was not trained there.
///
/// diffusers: `FlowMatchHeunDiscreteScheduler`. As there, its list of timesteps has two entries for
/// every level but the first, one for each question to the network, and the callback is called
/// after each: between the two it sees what Euler's step has led to.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// If `run.start` is no level of the run, a velocity has another shape than the latents, or the model fails.
pub fn flow_match_heun<E: From<Error>>(
    run: &FlowRun<'_>,
    mut x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let (timesteps, sigmas) = (run.levels.timesteps(), run.levels.sigmas());
    let len = 2 * timesteps.len() - 1;
    for (i, &timestep) in timesteps.iter().enumerate().skip(run.first()?) {
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);

        let index = StepIndex(2 * i);
        let step = Step::straight(index, timestep, sigma);
        x = moved(model, x, 1.0, step)?;
        let v = predict(model, x.clone(), step)?.velocity()?;
        let ahead = x.clone().add(v.clone().mul_scalar(next - sigma));
        if callback(Progress {
            index,
            timestep,
            len,
            x: &ahead,
            scale: 1.0,
        })
        .is_break()
        {
            return Ok(ahead);
        }
        let Some(&timestep) = timesteps.get(i + 1) else {
            return Ok(ahead);
        };

        let index = StepIndex(2 * i + 1);
        let v_ahead = predict(model, ahead, Step::straight(index, timestep, next))?.velocity()?;
        x = x.add(v.add(v_ahead).mul_scalar(0.5 * (next - sigma)));
        if callback(Progress {
            index,
            timestep,
            len,
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
