//! What a method says of itself, and how it is asked.

use scumble_diffusion::Variant;

use crate::{edit::Edit, error::Result, job::Job};

/// An eraser.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// What users type after `--method`.
    pub id: &'static str,
    /// Authors, title, venue, arXiv number.
    pub paper: &'static str,
    /// Which tensors it changes.
    pub moves: &'static str,
    /// What it needs beside the model and the concept's name.
    pub needs: &'static str,
    /// Whether it takes several concepts at once.
    pub several: bool,
    /// Whether it takes concepts and captions to keep.
    pub preserves: bool,
    /// Whether it learns from pictures, which the user may give.
    pub pictures: bool,
    /// Seconds for `church` on the miniature, without the judging (2 cores;
    /// bench/study/methods measures it).
    pub seconds: Option<f64>,
    /// Peak memory of that run, in MiB.
    pub peak_mb: Option<f64>,
    /// Sample-evaluations of the U-Net that the published settings ask for one object, a training
    /// sample counting 3, as the method's page describes the published loop; pictures that the
    /// published code finds ready are not counted. `None` where no code is public.
    pub published_evaluations: Option<u64>,
    /// What the numbers of `fixed` rest on where a model is not small.
    pub fixed: &'static str,
    /// The method itself.
    pub erase: fn(&mut Job<'_>, Variant) -> Result<Edit>,
}
