//! A number with an interval, and what computing one needs everywhere.

use crate::error::{Error, Result};

/// A number and its two-sided 95% interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The number itself.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The mean of some numbers, of which there is at least one.
pub(super) fn average(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Whether two lists can be of the same pictures.
///
/// # Errors
/// If their lengths differ.
pub(super) fn same_length(a: usize, b: usize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::input(format!(
        "paired values must be of the same pictures, found {a} and {b} of them"
    ))
    .with_hint("compare subjects on the prompts and seeds that both have"))
}
