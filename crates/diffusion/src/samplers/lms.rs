use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::{
    exploding::{alpha_bar, initial_scale, preserving},
    grid,
    run::{Callback, Model, Progress, Run, Step, moved, predict},
};
use crate::{error::Error, time::StepIndex};

/// How many past predictions a step looks at.
const ORDER: usize = 4;

/// LMS: the linear multistep method of Adams and Bashforth with uneven steps, of order 4, on the
/// ODE of Karras et al. 2022 (arXiv:2206.00364, equation 4).
///
/// diffusers: `LMSDiscreteScheduler`, and k-diffusion's `sample_lms`. With Karras' noise levels
/// where the configuration says `use_karras_sigmas`. A run that starts in the middle begins with
/// order 1; diffusers takes there the coefficients of a higher order without the predictions that
/// belong to them.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub(crate) fn lms<E: From<Error>>(
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
    // Of the steps before, the newest first.
    let mut derivatives: VecDeque<Tensor<4>> = VecDeque::with_capacity(ORDER);
    for (i, &timestep) in timesteps.iter().enumerate().skip(first) {
        let index = StepIndex(i);
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);

        let step = Step::preserving(index, timestep, alpha_bar(sigma));
        let scale = preserving(sigma);
        x = moved(model, x, scale, step)?;
        let prediction = predict(model, x.clone().mul_scalar(scale), step)?;
        derivatives.truncate(ORDER - 1);
        let nodes: Vec<f64> = (0..=derivatives.len()).map(|k| sigmas[i - k]).collect();
        x = prediction.sum(x, scale, 1.0, coefficient(&nodes, 0, next))?;
        for (k, derivative) in derivatives.iter().enumerate() {
            let weight = coefficient(&nodes, k + 1, next);
            x = x.add(derivative.clone().mul_scalar(weight));
        }
        derivatives.push_front(prediction.epsilon()?);
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

/// The integral from `nodes[0]` to `end` of the Lagrange polynomial that is 1 at `nodes[k]` and 0
/// at the others.
///
/// Gauss and Legendre's two points are exact for polynomials up to degree 3, which is `ORDER - 1`.
fn coefficient(nodes: &[f64], k: usize, end: f64) -> f64 {
    let (middle, half) = ((nodes[0] + end) / 2.0, (end - nodes[0]) / 2.0);
    let reach = half / 3f64.sqrt();
    let polynomial = |tau: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|&(j, _)| j != k);
        others
            .map(|(_, node)| (tau - node) / (nodes[k] - node))
            .product()
    };
    half * (polynomial(middle - reach) + polynomial(middle + reach))
}
