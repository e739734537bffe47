use burn::tensor::Tensor;

use super::{
    flow::FlowRun,
    run::{Callback, Model, Progress, Step, moved, predict},
};
use crate::{error::Error, time::StepIndex};

/// Euler's method on the probability flow of a flow-matching model: Lipman et al. 2022, "Flow
/// Matching for Generative Modeling" (arXiv:2210.02747), equation 1, with the straight lines of Liu
/// et al. 2022 (arXiv:2209.03003). Of first order.
///
/// diffusers: `FlowMatchEulerDiscreteScheduler`.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// If `run.start` is no level of the run, a velocity has another shape than the latents, or the model fails.
pub fn flow_match_euler<E: From<Error>>(
    run: &FlowRun<'_>,
    mut x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let (timesteps, sigmas) = (run.levels.timesteps(), run.levels.sigmas());
    for (i, &timestep) in timesteps.iter().enumerate().skip(run.first()?) {
        let index = StepIndex(i);
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);

        // x = x_0 + sigma (epsilon - x_0), so the velocity is the derivative of x by sigma.
        let step = Step::straight(index, timestep, sigma);
        x = moved(model, x, 1.0, step)?;
        let v = predict(model, x.clone(), step)?.velocity()?;
        x = x.add(v.mul_scalar(next - sigma));
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
