//! The parts of a model, each with its loss.

pub(crate) mod clip;
pub(crate) mod denoiser;
pub(crate) mod judge;
mod latents;
pub(crate) mod tokenizer;
pub(crate) mod vae;

use std::ops::Range;

use rayon::prelude::*;
use scumble_diffusion::Picture;
use scumble_erase::Result;

use crate::examples::Examples;

/// Numbers of held-out examples begin here: no training gets so far.
pub const HELD_OUT: usize = 1 << 40;

/// The pictures of these examples, drawn or read side by side.
fn pictures(data: &dyn Examples, numbers: Range<usize>) -> Result<Vec<Picture>> {
    numbers.into_par_iter().map(|i| data.picture(i)).collect()
}
