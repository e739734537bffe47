//! Who hears of a training.

use std::ops::ControlFlow;

use scumble_diffusion::{Picture, Pipeline};
use scumble_erase::Result;

use crate::calibration::Bin;

/// Hears of a training's parts and steps, and may stop it between two.
pub trait Watcher {
    /// A part of `total` steps begins, of which `done` need no work.
    fn stage(&mut self, name: &str, total: usize, done: usize);

    /// `done` steps are done, which is this share of the part's time.
    fn step(&mut self, done: usize, progress: f64, message: &str) -> ControlFlow<()>;

    /// The loss of a step, and the share of the largest step size that held.
    fn loss(&mut self, part: &str, step: usize, loss: f64, lr: f64);

    /// Whether a part is to be looked at after this step.
    fn wants_look(&mut self, part: &str, step: usize) -> bool;

    /// Pictures beside what an autoencoder makes of them.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn reconstructions(&mut self, step: usize, before: &[Picture], after: &[Picture])
    -> Result<()>;

    /// A model whose denoiser is in training.
    ///
    /// # Errors
    /// If it cannot be drawn with.
    fn model(&mut self, step: usize, model: &Pipeline) -> Result<()>;

    /// How often a judge that is done is right, by how sure it is.
    fn reliability(&mut self, part: &str, step: usize, bins: &[Bin]);

    /// A number that was measured: CLIP's accuracy, a judge's.
    fn measured(&mut self, part: &str, step: usize, name: &str, value: f64);
}
