//! The variance-exploding scale `x_0 + sigma epsilon`, in which several samplers compute.

use super::run::Run;
use crate::noise_schedule::{NoiseSchedule, Spacing};

/// What brings latents of the variance-exploding scale to the network's variance-preserving one.
pub(super) fn preserving(sigma: f64) -> f64 {
    (sigma * sigma + 1.0).sqrt().recip()
}

/// The signal's share of the variance at `sigma`.
pub(super) fn alpha_bar(sigma: f64) -> f64 {
    (sigma * sigma + 1.0).recip()
}

/// What brings a sampler's unit-variance input to the variance-exploding scale.
///
/// Pure noise is taken for x_0 + sigma epsilon of an x_0 that is 0 (or, with the `leading` spacing,
/// of one of variance 1): diffusers' `init_noise_sigma`.
pub(super) fn initial_scale(run: &Run<'_>, schedule: &NoiseSchedule, sigma: f64) -> f64 {
    if run.start.is_none() && spacing(schedule) != Spacing::Leading {
        sigma
    } else {
        preserving(sigma).recip()
    }
}

fn spacing(schedule: &NoiseSchedule) -> Spacing {
    schedule.timestep_spacing().unwrap_or(Spacing::Linspace)
}
