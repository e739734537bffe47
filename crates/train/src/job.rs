//! What a training is given.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::{examples::Examples, layout::Layout, part::Part, recipe::Recipe};

/// A training.
pub struct Job<'a> {
    /// What is trained.
    pub recipe: &'a Recipe,
    /// What it learns from.
    pub data: &'a dyn Examples,
    /// The model's folder.
    pub folder: &'a Path,
    /// The parts to train, in their order.
    pub parts: &'a [Part],
    /// Seconds after which it ends, shared among the parts.
    pub seconds: Option<f64>,
    /// Of all random numbers.
    pub seed: u64,
    /// Where it computes.
    pub device: &'a Device,
    /// Whether it is a trial, of whose state nobody wants more than how large it is.
    pub trial: bool,
    /// Seconds of the part that is at work.
    pub(crate) most: Option<f64>,
}

impl<'a> Job<'a> {
    /// A training of these parts.
    pub fn new(
        recipe: &'a Recipe,
        data: &'a dyn Examples,
        folder: &'a Path,
        parts: &'a [Part],
        device: &'a Device,
    ) -> Self {
        Self {
            recipe,
            data,
            folder,
            parts,
            seconds: None,
            seed: 0,
            device,
            trial: false,
            most: None,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.folder)
    }

    /// Where states lie that a stopped training continues from.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("train/state")
    }
}
