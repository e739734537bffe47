//! Whether a method's options are in their ranges.

use scumble_diffusion::Sampler;

use crate::{
    error::{Error, Result},
    job::Job,
};

/// Checks counts, each 1 to a million.
///
/// # Errors
/// If one is not; the error names it.
pub fn counts(named: &[(&str, usize)]) -> Result<()> {
    match named
        .iter()
        .find(|(_, value)| !(1..=1_000_000).contains(value))
    {
        Some((name, value)) => Err(Error::input(format!(
            "{name} is {value}, expected 1 to 1000000"
        ))),
        None => Ok(()),
    }
}

/// Checks numbers that have to be finite and above 0.
///
/// # Errors
/// If one is not; the error names it.
pub fn above_zero(named: &[(&str, f64)]) -> Result<()> {
    match named
        .iter()
        .find(|(_, value)| !(value.is_finite() && *value > 0.0))
    {
        Some((name, value)) => Err(Error::input(format!(
            "{name} is {value}, expected a finite number above 0"
        ))),
        None => Ok(()),
    }
}

/// Checks weights: finite and not below 0.
///
/// # Errors
/// If one is not; the error names it.
pub fn weights(named: &[(&str, f64)]) -> Result<()> {
    match named
        .iter()
        .find(|(_, value)| !(value.is_finite() && *value >= 0.0))
    {
        Some((name, value)) => Err(Error::input(format!(
            "{name} is {value}, expected a finite number of at least 0"
        ))),
        None => Ok(()),
    }
}

/// Checks numbers that only have to be finite.
///
/// # Errors
/// If one is not; the error names it.
pub fn finite(named: &[(&str, f64)]) -> Result<()> {
    match named.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(Error::input(format!(
            "{name} is {value}, expected a finite number"
        ))),
        None => Ok(()),
    }
}

/// Checks the name of a sampler, and DDIM's share of fresh noise, 0 to 1.
///
/// # Errors
/// If there is no such sampler, or the share is none or another sampler's.
pub fn sampling(sampler: &str, eta: f64) -> Result<()> {
    let sampler: Sampler = sampler.parse()?;
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::input(format!(
            "sampling_eta is {eta}, expected 0 to 1"
        )));
    }
    if eta > 0.0 && sampler != Sampler::Ddim {
        return Err(Error::input(format!(
            "sampling_eta is {eta}, and {sampler} does not read it"
        ))
        .with_hint("it is DDIM's share of fresh noise: --set sampler=ddim"));
    }
    Ok(())
}

/// Checks that what the user wants preserved is, with the options as they are.
///
/// # Errors
/// If it would not be; the hint says which options it takes.
pub fn preserving(job: &Job<'_>, does: bool, takes: &str) -> Result<()> {
    effective("--preserve", does || job.preserve.is_empty(), takes)
}

/// Checks that captions which the user gave count, with the options as they are.
///
/// # Errors
/// If they would not; the hint says which options it takes.
pub fn captioned(job: &Job<'_>, does: bool, takes: &str) -> Result<()> {
    effective("--captions", does || !job.captions.given, takes)
}

/// Both, where the same options decide.
///
/// # Errors
/// As [`preserving`] and [`captioned`].
pub fn keeping(job: &Job<'_>, does: bool, takes: &str) -> Result<()> {
    preserving(job, does, takes)?;
    captioned(job, does, takes)
}

fn effective(flag: &str, fine: bool, takes: &str) -> Result<()> {
    if fine {
        return Ok(());
    }
    Err(
        Error::input(format!("{flag} has no effect with these options"))
            .with_hint(format!("it takes {takes}")),
    )
}
