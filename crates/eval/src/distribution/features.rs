//! Features as every distance takes them: of one width, finite, and enough.

use crate::error::{Error, Result};

/// The width of features of which there are at least `least` rows, all of one width and finite.
pub(super) fn width_of(features: &[Vec<f32>], metric: &str, least: usize) -> Result<usize> {
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
pub(super) fn common_width(
    x: &[Vec<f32>],
    y: &[Vec<f32>],
    metric: &str,
    least: usize,
) -> Result<usize> {
    let (a, b) = (width_of(x, metric, least)?, width_of(y, metric, least)?);
    match a == b {
        true => Ok(a),
        false => Err(Error::input(format!(
            "{metric}: expected features of one network, found {a} and {b} numbers"
        ))),
    }
}
