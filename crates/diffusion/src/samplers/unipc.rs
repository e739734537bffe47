use burn::tensor::Tensor;

use super::{
    exploding::{alpha_bar, preserving},
    grid,
    run::{Callback, Model, Progress, Run, Step, moved, predict},
};
use crate::{error::Error, noise_schedule::NoiseSchedule, time::StepIndex};

/// UniPC: Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of
/// Diffusion Models" (arXiv:2302.04867), algorithms 1 and 2, on the prediction of x_0, of order 2
/// with B(h) = e^h - 1 ("bh2"), or B(h) = h where the configuration says `solver_type` "bh1".
///
/// diffusers: `UniPCMultistepScheduler`. The corrector costs no evaluation: it improves the last
/// step with the prediction made for the next. With Karras' noise levels where the configuration
/// says `use_karras_sigmas`.
///
/// **Shapes**: `x` and the result [n, channels, height, width].
///
/// # Errors
/// See [`Sampler::sample`](super::Sampler::sample).
pub(crate) fn unipc<E: From<Error>>(
    run: &Run<'_>,
    mut x: Tensor<4>,
    model: &mut Model<'_, E>,
    callback: &mut Callback<'_>,
) -> Result<Tensor<4>, E> {
    let schedule = run.schedule.noise()?;
    let grid::Levels { timesteps, sigmas } = grid::solver(schedule, run.steps, karras(schedule))?;
    let first = run.first(timesteps.len())?;
    let bh1 = schedule.is_bh1();
    // The predictions of x_0 one and two steps back, and the latents the last step started from.
    let (mut m0, mut m1): (Option<Tensor<4>>, Option<Tensor<4>>) = (None, None);
    let mut from: Option<Tensor<4>> = None;
    for (i, &timestep) in timesteps.iter().enumerate().skip(first) {
        let index = StepIndex(i);
        let (sigma, next) = (sigmas[i], sigmas[i + 1]);

        let step = Step::preserving(index, timestep, alpha_bar(sigma));
        let shift = if model.moves_latents() {
            Some(moved(model, x.clone(), 1.0, step)?.sub(x.clone()))
        } else {
            None
        };
        if let Some(shift) = &shift {
            x = x.add(shift.clone());
        }
        let prediction = predict(model, x.clone(), step)?;
        let m = prediction.sum(x.clone(), 1.0, 1.0 / preserving(sigma), -sigma)?;

        // Corrector (algorithm 1): the last step again, now that the prediction at its end is
        // known.
        if let (Some(start), Some(m0)) = (from.take(), &m0) {
            let step = Half::new(sigmas[i - 1], sigma, bh1);
            let mut d = m.clone().sub(m0.clone());
            if let Some(m1) = &m1 {
                let r = step.ratio(sigmas[i - 2]);
                let (rho_1, rho_c) = step.solve(r);
                d = d
                    .mul_scalar(rho_c)
                    .add(m1.clone().sub(m0.clone()).mul_scalar(rho_1 / r));
            } else {
                d = d.mul_scalar(0.5);
            }
            x = start
                .mul_scalar(step.of_x)
                .add(m0.clone().mul_scalar(step.of_m))
                .add(d.mul_scalar(step.of_d));
            if let Some(shift) = shift {
                x = x.add(shift);
            }
        }

        // Predictor (algorithm 2), of order 1 in the first and the last step.
        (m1, m0) = (m0, Some(m.clone()));
        from = Some(x.clone());
        let step = Half::new(sigma, next, bh1);
        x = x.mul_scalar(step.of_x).add(m.clone().mul_scalar(step.of_m));
        if let Some(m1) = &m1
            && i + 1 < timesteps.len()
        {
            let r = step.ratio(sigmas[i - 1]);
            x = x.add(m1.clone().sub(m).mul_scalar(step.of_d * 0.5 / r));
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

/// diffusers rounds Karras' timesteps here whatever the schedule.
pub(super) fn karras(schedule: &NoiseSchedule) -> grid::Karras {
    if schedule.use_karras_sigmas() {
        grid::Karras::Rounded
    } else {
        grid::Karras::No
    }
}

/// The numbers of one half (predictor or corrector) of a step between two noise levels.
struct Half {
    /// What is left of the latents.
    of_x: f64,
    /// The weight of the prediction of x_0: `alpha (1 - e^-h)`.
    of_m: f64,
    /// The weight of differences of predictions: `-alpha B(-h)`.
    of_d: f64,
    /// The step in `lambda = ln(alpha / sigma)`, infinite at the clean end.
    h: f64,
    sigma: f64,
    bh1: bool,
}

impl Half {
    fn new(sigma: f64, next: f64, bh1: bool) -> Self {
        let (alpha, alpha_next, h) = (preserving(sigma), preserving(next), (sigma / next).ln());
        let of_m = alpha_next * (1.0 - next / sigma);
        let of_d = if bh1 { alpha_next * h } else { of_m };
        Self {
            of_x: next * alpha_next / (sigma * alpha),
            of_m,
            of_d,
            h,
            sigma,
            bh1,
        }
    }

    /// Where an older noise level lies, in steps from the start of this one: negative.
    fn ratio(&self, older: f64) -> f64 {
        (self.sigma / older).ln() / self.h
    }

    /// The weights of the older and the newest difference that match the expansion to order 2:
    /// equation 9 of the paper.
    fn solve(&self, r: f64) -> (f64, f64) {
        // With z = -h: b_1 = phi_1 / B, b_2 = 2 phi_2 / B, where phi_1 = (e^z - 1) / z - 1, phi_2 =
        // phi_1 / z - 1/2, and B is z (bh1) or e^z - 1 (bh2).
        let z = -self.h;
        let b = if self.bh1 { z } else { z.exp_m1() };
        let phi_1 = z.exp_m1() / z - 1.0;
        let phi_2 = phi_1 / z - 0.5;
        let (b_1, b_2) = (phi_1 / b, 2.0 * phi_2 / b);
        let rho_1 = (b_1 - b_2) / (1.0 - r);
        (rho_1, b_1 - rho_1)
    }
}
