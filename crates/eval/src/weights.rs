//! Weights that the user brings, looked at before anything is computed with them.

use burn::tensor::Device;
use scumble_nn::{
    Manifest, Weights,
    files::{Tensors, finite::expect_finite},
};

use crate::error::Result;

/// The weights of a network from the file of this name.
///
/// # Errors
/// If they are not exactly those of the manifest, or a number is not finite.
pub(crate) fn loaded(
    file: &str,
    tensors: &Tensors,
    manifest: &Manifest,
    device: &Device,
) -> Result<Weights> {
    let weights = Weights::load(file, tensors, manifest, device)?;
    expect_finite(file, "", tensors)?;
    Ok(weights)
}
