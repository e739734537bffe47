//! Which timesteps and noise levels a sampler visits.

use crate::{
    error::{Error, Result},
    noise_schedule::{NoiseSchedule, Spacing},
    time::Timestep,
};

/// Timesteps and, one longer, the noise levels `sigma = sqrt((1 - alpha_bar) / alpha_bar)`, of
/// which the last is 0.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    pub(super) timesteps: Vec<Timestep>,
    pub(super) sigmas: Vec<f64>,
}

/// Whether noise levels follow Karras et al. 2022, and what becomes of the fractional timesteps
/// they fall on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Karras {
    No,
    Rounded,
    Truncated,
}

/// Falling, whole timesteps of DDIM, DDPM and PNDM, whose default spacing is `leading`.
pub(super) fn strided(schedule: &NoiseSchedule, steps: usize) -> Result<Vec<Timestep>> {
    let spacing = schedule.timestep_spacing().unwrap_or(Spacing::Leading);
    let mut list = spread(schedule, spacing, steps, steps)?;
    round(&mut list);
    labels(schedule, &list)
}

/// Levels of the Euler family and LMS: the default spacing is `linspace`, and its timesteps stay
/// fractional.
pub(super) fn interpolated(schedule: &NoiseSchedule, steps: usize, karras: bool) -> Result<Levels> {
    let spacing = schedule.timestep_spacing().unwrap_or(Spacing::Linspace);
    let mut timesteps = labels(schedule, &spread(schedule, spacing, steps, steps)?)?;
    let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| schedule.sigma(t)).collect();
    if karras {
        sigmas = karras_sigmas(sigmas[steps - 1], sigmas[0], steps);
        timesteps = labels(
            schedule,
            &sigmas
                .iter()
                .map(|&sigma| timestep_of(schedule, sigma))
                .collect::<Vec<_>>(),
        )?;
    }
    finish(timesteps, sigmas)
}

/// Levels of DPM-Solver++ and UniPC, which count the clean end as a point of the spacing and leave
/// it out of the list.
pub(super) fn solver(schedule: &NoiseSchedule, steps: usize, karras: Karras) -> Result<Levels> {
    check(schedule, steps)?;
    let spacing = schedule.timestep_spacing().unwrap_or(Spacing::Linspace);
    let points = if spacing == Spacing::Trailing {
        steps
    } else {
        steps + 1
    };
    if karras == Karras::No {
        let mut list = spread(schedule, spacing, steps, points)?;
        round(&mut list);
        let timesteps = labels(schedule, &list)?;
        let sigmas = timesteps.iter().map(|&t| schedule.sigma(t)).collect();
        return finish(timesteps, sigmas);
    }
    let sigmas = karras_sigmas(
        single(schedule, 0),
        single(schedule, schedule.num_train_timesteps() - 1),
        steps,
    );
    let list = sigmas.iter().map(|&sigma| timestep_of(schedule, sigma));
    let list: Vec<f64> = list
        .map(|t| {
            if karras == Karras::Rounded {
                t.round_ties_even()
            } else {
                t.trunc()
            }
        })
        .collect();
    finish(labels(schedule, &list)?, sigmas)
}

fn check(schedule: &NoiseSchedule, steps: usize) -> Result<()> {
    match schedule.num_train_timesteps() {
        _ if steps == 0 => Err(Error::input("0 steps make no picture: expected at least 1")),
        most if steps > most => Err(Error::input(format!(
            "{steps} steps are more than the {most} timesteps of training"
        ))),
        _ => Ok(()),
    }
}

/// `steps` falling timesteps: the highest of `points` spread by `spacing`.
fn spread(
    schedule: &NoiseSchedule,
    spacing: Spacing,
    steps: usize,
    points: usize,
) -> Result<Vec<f64>> {
    check(schedule, steps)?;
    let count = schedule.num_train_timesteps();
    let rising = points - steps..points;
    Ok(match spacing {
        Spacing::Leading => {
            let stride = count / points;
            rising
                .rev()
                .map(|i| (i * stride + schedule.steps_offset()) as f64)
                .collect()
        }
        Spacing::Linspace => {
            // numpy's linspace of one point is its beginning.
            let stride = (count - 1) as f64 / (points - 1).max(1) as f64;
            let at = |i| {
                if i > 0 && i == points - 1 {
                    (count - 1) as f64
                } else {
                    i as f64 * stride
                }
            };
            rising.rev().map(at).collect()
        }
        Spacing::Trailing => {
            let stride = count as f64 / points as f64;
            (0..steps)
                .map(|i| (count as f64 - i as f64 * stride).round_ties_even() - 1.0)
                .collect()
        }
    })
}

fn round(list: &mut [f64]) {
    for t in list {
        *t = t.round_ties_even();
    }
}

/// Sees that all timesteps are of the training range.
fn labels(schedule: &NoiseSchedule, list: &[f64]) -> Result<Vec<Timestep>> {
    let last = schedule.num_train_timesteps() - 1;
    match list.iter().find(|t| !(0.0..=last as f64).contains(*t)) {
        None => Ok(list.iter().map(|&t| Timestep::from_grid(t)).collect()),
        Some(t) => Err(Error::input(format!(
            "{} steps reach timestep {t}, beyond the last of training, {last}",
            list.len()
        ))
        .with_hint("take fewer steps")),
    }
}

/// Appends the clean end, and sees that every step goes down: samplers divide by differences of
/// levels.
fn finish(timesteps: Vec<Timestep>, mut sigmas: Vec<f64>) -> Result<Levels> {
    if sigmas.windows(2).any(|pair| pair[1] >= pair[0]) {
        return Err(Error::input(format!(
            "{} steps are too many for this sampler: some fall together",
            sigmas.len()
        ))
        .with_hint("take fewer steps"));
    }
    sigmas.push(0.0);
    Ok(Levels { timesteps, sigmas })
}

/// Equation 5 of Karras et al. 2022 (arXiv:2206.00364), rho = 7; falling, `steps` of them.
fn karras_sigmas(lowest: f64, highest: f64, steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let (low, high) = (lowest.powf(1.0 / RHO), highest.powf(1.0 / RHO));
    let last = (steps - 1).max(1) as f64;
    (0..steps)
        .map(|i| (high + i as f64 / last * (low - high)).powf(RHO))
        .collect()
}

/// The fractional timestep at which the schedule has this noise level, log-linear between two of
/// training.
fn timestep_of(schedule: &NoiseSchedule, sigma: f64) -> f64 {
    let count = schedule.num_train_timesteps();
    let above = schedule
        .alphas_cumprod()
        .partition_point(|&alpha_bar| 1.0 / alpha_bar <= 1.0 + sigma * sigma);
    let low = above.saturating_sub(1).min(count - 2);
    let log = |t| f64::from((single(schedule, t) as f32).ln());
    let (a, b) = (log(low), log(low + 1));
    let part = (sigma.ln() - a) / (b - a);
    low as f64 + part.clamp(0.0, 1.0)
}

/// `sigma` of a training timestep computed in `f32` as diffusers does: it decides to which side a
/// timestep is rounded.
fn single(schedule: &NoiseSchedule, t: usize) -> f64 {
    let alpha_bar = schedule.alphas_cumprod()[t] as f32;
    ((1.0 - alpha_bar) / alpha_bar).sqrt().into()
}
