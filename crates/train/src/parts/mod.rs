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

/// The numbers of the examples that something is measured on, `wanted` or all that are held out, and
/// what is to be said of them: where fewer than `least` are, those that were learned from.
fn measured_on(data: &dyn Examples, wanted: usize, least: usize) -> (Range<usize>, &'static str) {
    match data.held_out().unwrap_or(wanted).min(wanted) {
        n if n >= least => (HELD_OUT..HELD_OUT + n, ""),
        _ => (0..wanted, " of those learned from"),
    }
}

/// The pictures of these examples, drawn or read side by side.
fn pictures(data: &dyn Examples, numbers: Range<usize>) -> Result<Vec<Picture>> {
    numbers.into_par_iter().map(|i| data.picture(i)).collect()
}
