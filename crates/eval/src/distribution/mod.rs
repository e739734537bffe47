//! How far two sets of pictures are from each other, by features that a network makes of them.
//!
//! A set is a slice of features, one row for each picture; which network made them names the number
//! ([docs/metrics.md](../../../../docs/metrics.md)). All sums are in f64.

mod gaussian;
mod kernel;
mod neighbours;
pub mod npz;

pub use gaussian::{Frechet, Gaussian, frechet, frechet_to};
pub use kernel::{KID_SUBSET, KID_SUBSETS, Kid, kid};
pub use neighbours::{NEIGHBOURS, PrecisionRecall, precision_recall};

use crate::error::{Error, Result};

/// The width of features of which there are at least `least` rows, all of one width and finite.
fn width_of(features: &[Vec<f32>], metric: &str, least: usize) -> Result<usize> {
    if features.len() < least {
        return Err(Error::input(format!(
            "{metric}: expected at least {least} pictures in a set, found {}",
            features.len()
        ))
        .with_hint("draw more pictures, or leave this metric out"));
    }
    let width = features.first().map_or(0, Vec::len);
    if width == 0 {
        return Err(Error::input(format!(
            "{metric}: expected features, found rows without numbers"
        )));
    }
    if let Some((row, other)) = features
        .iter()
        .enumerate()
        .find(|(_, other)| other.len() != width)
    {
        return Err(Error::input(format!(
            "{metric}: expected features of one width, found {width}, and {} at {row}",
            other.len()
        )));
    }
    if let Some(row) = features
        .iter()
        .position(|row| !row.iter().all(|v| v.is_finite()))
    {
        return Err(Error::input(format!(
            "{metric}: expected finite features, found others at picture {row}"
        )));
    }
    Ok(width)
}

/// The one width of two sets.
fn common_width(x: &[Vec<f32>], y: &[Vec<f32>], metric: &str, least: usize) -> Result<usize> {
    let (a, b) = (width_of(x, metric, least)?, width_of(y, metric, least)?);
    match a == b {
        true => Ok(a),
        false => Err(Error::input(format!(
            "{metric}: expected features of one network, found {a} and {b} numbers"
        ))),
    }
}

#[cfg(test)]
mod tests {
    /// Features that Python makes again: `np.array([[np.sin(a*(i+1)*(j+2) + b*(j+1)) + c*j for j in
    /// range(d)] for i in range(n)], np.float32)`.
    pub(super) fn waves(n: usize, d: usize, a: f64, b: f64, c: f64) -> Vec<Vec<f32>> {
        let one = |i: usize, j: usize| {
            (a * ((i + 1) * (j + 2)) as f64 + b * (j + 1) as f64).sin() + c * j as f64
        };
        (0..n)
            .map(|i| (0..d).map(|j| one(i, j) as f32).collect())
            .collect()
    }
}
