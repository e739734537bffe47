use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::{
    grid,
    run::{Callback, Model, Progress, Run, Step, moved, predict},
};
use crate::{
    error::{Error, Result},
    interpolant::{Output, Scales},
    noise_schedule::NoiseSchedule,
    time::{StepIndex, Timestep},
};

/// Evaluations of the Runge-Kutta phase: three steps of four.
const PRK: usize = 12;

/// PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds"
/// (arXiv:2202.09778).
///
/// diffusers: `PNDMScheduler`. Where the configuration says `skip_prk_steps`, as Stable Diffusion's
/// do, this is PLMS: the first step is evaluated twice (a mean of both ends), the following use 2,
/// 3, then 4 predictions, and N steps take N + 1 evaluations. Otherwise three steps of the pseudo
/// Runge-Kutta method (12 evaluations) come first.
///
/// The multistep formulas are applied to the network's raw output, as diffusers does; for v models
/// that is not the same as applying them to the noise. A run that starts in the middle skips the
/// warm-up and begins with order 1; diffusers counts its steps from there and evaluates each one
/// timestep too late.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample); fewer than 4 steps with the Runge-Kutta method.
pub(crate) fn pndm<E: From<Error>>(
    run: &Run<'_>,
    mut x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let schedule = run.schedule.noise()?;
    let timesteps = list(schedule, run.steps)?;
    let stride = (schedule.num_train_timesteps() / run.steps) as i64;
    let runge_kutta = !schedule.skip_prk_steps();
    let mut first = run.first(timesteps.len())?;
    if runge_kutta && first < PRK && !first.is_multiple_of(4) {
        let problem = format!(
            "cannot start at step {first}: it is inside a Runge-Kutta step, which begin at 0, 4 and 8"
        );
        return Err(Error::input(problem).into());
    }
    // Of the warm-up's two equal timesteps the second takes the step; a run that starts there needs
    // only that one.
    first += usize::from(!runge_kutta && first == 1);
    let mut outputs: VecDeque<Tensor<4>> = VecDeque::with_capacity(4); // of whole steps, the newest first
    let mut anchor = x.clone(); // where the step under way began
    let mut mean: Option<Tensor<4>> = None; // Runge-Kutta's weighted mean so far
    for (i, &timestep) in timesteps.iter().enumerate().skip(first) {
        let index = StepIndex(i);
        let alpha_bar = schedule.alpha_bar(timestep);
        let t = timestep.get() as i64;

        let step = Step::preserving(index, timestep, alpha_bar);
        // Evaluations inside a step start from its anchor again.
        let begins = if runge_kutta && i < PRK {
            i % 4 == 0
        } else {
            runge_kutta || i != 1
        };
        if begins {
            x = moved(model, x, 1.0, step)?;
        }
        let prediction = predict(model, x.clone(), step)?;
        let (output, kind) = (prediction.raw(), prediction.output());

        // What to follow, from which timestep to which; from the anchor unless the step is a new
        // one.
        let (follow, from, to) = if runge_kutta && i < PRK {
            let begin = timesteps[i / 4 * 4].get() as i64;
            let to = if i % 2 == 0 { t - stride / 2 } else { t };
            let weight = if matches!(i % 4, 0 | 3) {
                1.0 / 6.0
            } else {
                1.0 / 3.0
            };
            let part = output.clone().mul_scalar(weight);
            let sum = match mean.take() {
                None => part,
                Some(sum) => sum.add(part),
            };
            if i % 4 == 0 {
                anchor = x;
                outputs.push_front(output.clone());
            }
            if i % 4 == 3 {
                (sum, begin, to)
            } else {
                mean = Some(sum);
                (output, begin, to)
            }
        } else if !runge_kutta && i == 1 {
            (
                output.add(outputs[0].clone()).mul_scalar(0.5),
                t + stride,
                t,
            )
        } else {
            anchor = x;
            outputs.truncate(3);
            outputs.push_front(output);
            (adams_bashforth(&outputs), t, t - stride)
        };
        x = transfer(schedule, kind, anchor.clone(), follow, [from, to]);
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

/// The timesteps of all evaluations.
pub(super) fn list(schedule: &NoiseSchedule, steps: usize) -> Result<Vec<Timestep>> {
    let mut timesteps = grid::strided(schedule, steps)?;
    if schedule.skip_prk_steps() {
        if let Some(&second) = timesteps.get(1) {
            timesteps.insert(1, second);
        }
        return Ok(timesteps);
    }
    if steps < 4 {
        return Err(Error::input(format!(
            "PNDM needs at least 4 steps for its Runge-Kutta phase, found {steps}"
        ))
        .with_hint(
            "choose another sampler, or set `skip_prk_steps` to true in scheduler_config.json",
        ));
    }
    // The first three steps visit their beginning, their middle twice, and their end.
    let half = schedule.num_train_timesteps() / steps / 2;
    let mut all = Vec::with_capacity(PRK + steps - 3);
    for pair in timesteps[..4].windows(2) {
        let middle = Timestep::from_grid(f64::from(pair[1].get()) + half as f64);
        all.extend([pair[0], middle, middle, pair[1]]);
    }
    all.extend(&timesteps[3..]);
    Ok(all)
}

/// Equation 12 of the paper: the multistep formula of the highest order that the history allows.
fn adams_bashforth(outputs: &VecDeque<Tensor<4>>) -> Tensor<4> {
    let weights: &[f64] = match outputs.len() {
        1 => &[1.0],
        2 => &[3.0 / 2.0, -1.0 / 2.0],
        3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    };
    let mut sum = outputs[0].clone().mul_scalar(weights[0]);
    for (output, &weight) in outputs.iter().zip(weights).skip(1) {
        sum = sum.add(output.clone().mul_scalar(weight));
    }
    sum
}

/// Equation 11, the transfer part: where the raw `output` leads from timestep `from` to timestep
/// `to`.
fn transfer(
    schedule: &NoiseSchedule,
    kind: Output,
    x: Tensor<4>,
    output: Tensor<4>,
    [from, to]: [i64; 2],
) -> Tensor<4> {
    let to_one = schedule.set_alpha_to_one().unwrap_or(false);
    let (a, b) = (
        schedule.alpha_bar_or_final(from, to_one),
        schedule.alpha_bar_or_final(to, to_one),
    );
    let of_x = (b / a).sqrt();
    let of_epsilon = (a - b) / (a * (1.0 - b).sqrt() + (a * (1.0 - a) * b).sqrt());
    let (of_output, also_of_x) = kind.epsilon(Scales::preserving(a));
    x.mul_scalar(of_x + of_epsilon * also_of_x)
        .add(output.mul_scalar(of_epsilon * of_output))
}
