//! What every guard has, whatever its numbers are.

use std::ops::Bound;

use crate::options::{Range, numbers};

/// What there is to say of a guard before it has a concept.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// What users type.
    pub id: &'static str,
    /// Authors, title, venue, arXiv number.
    pub paper: &'static str,
    /// What it changes.
    pub changes: &'static str,
    /// Evaluations of the U-Net at each step for each picture; guidance without guard has 2.
    pub cost: &'static str,
}

/// Where a prediction or a cosine is compared.
pub(crate) const FROM_MINUS_ONE: Range = numbers(Bound::Included(-1.0), Bound::Unbounded);
