//! Whether a method's options are in their ranges.

use crate::{
    error::{Error, Result},
    job::Job,
};

/// Checks counts, each 1 to a million.
///
/// # Errors
/// If one is not; the error names it.
pub fn counts(named: &[(&str, usize)]) -> Result<()> {
    match named.iter().find(|(_, value)| !(1..=1_000_000).contains(value)) {
        Some((name, value)) => Err(Error::input(format!("{name} is {value}, expected 1 to 1000000"))),
        None => Ok(()),
    }
}

/// Checks numbers that have to be finite and above 0.
///
/// # Errors
/// If one is not; the error names it.
pub fn above_zero(named: &[(&str, f64)]) -> Result<()> {
    match named.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
        Some((name, value)) => Err(Error::input(format!("{name} is {value}, expected a finite number above 0"))),
        None => Ok(()),
    }
}

/// Checks weights: finite and not below 0.
///
/// # Errors
/// If one is not; the error names it.
pub fn weights(named: &[(&str, f64)]) -> Result<()> {
    match named.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
        Some((name, value)) => Err(Error::input(format!("{name} is {value}, expected a finite number of at least 0"))),
        None => Ok(()),
    }
}

/// Checks numbers that only have to be finite.
///
/// # Errors
/// If one is not; the error names it.
pub fn finite(named: &[(&str, f64)]) -> Result<()> {
    match named.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(Error::input(format!("{name} is {value}, expected a finite number"))),
        None => Ok(()),
    }
}

/// Checks that what the user wants preserved is, with the options as they are.
///
/// # Errors
/// If it would not be; the hint says which options it takes.
pub fn preserving(job: &Job<'_>, does: bool, takes: &str) -> Result<()> {
    if does || job.preserve.is_empty() {
        return Ok(());
    }
    Err(Error::input("--preserve has no effect with these options").with_hint(format!("it takes {takes}")))
}
