//! Numbers that are none: NaN and the infinities, found where a tensor is read anyway.

use super::{
    problems::tensor_error,
    tensor::{Dtype, HostTensor, Tensors},
};
use crate::error::Result;

/// How much of a tensor is not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// How many of its numbers are NaN or infinite.
    pub count: usize,
    /// How many numbers it has.
    pub of: usize,
    /// Where the first of them stands, one index for each dimension.
    pub first: Vec<usize>,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} numbers are NaN or infinite, the first at {:?}",
            self.count, self.of, self.first
        )
    }
}

impl HostTensor {
    /// What is not finite in it; `None` if every number is, or it holds no floats.
    pub fn not_finite(&self) -> Option<NotFinite> {
        // An exponent of ones is an infinity or no number at all.
        let (count, first) = match self.dtype() {
            Dtype::F32 => found(self.bytes(), |b: [u8; 4]| {
                u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000
            }),
            Dtype::F16 => found(self.bytes(), |b: [u8; 2]| {
                u16::from_le_bytes(b) & 0x7c00 == 0x7c00
            }),
            Dtype::BF16 => found(self.bytes(), |b: [u8; 2]| {
                u16::from_le_bytes(b) & 0x7f80 == 0x7f80
            }),
            // What f32 cannot hold is infinite to every network here.
            Dtype::F64 => found(self.bytes(), |b: [u8; 8]| {
                !(f64::from_le_bytes(b) as f32).is_finite()
            }),
            _ => None,
        }?;
        let mut rest = first;
        let mut place: Vec<usize> = self
            .shape()
            .iter()
            .rev()
            .map(|&d| (rest % d.max(1), rest /= d.max(1)).0)
            .collect();
        place.reverse();
        Some(NotFinite {
            count,
            of: self.len(),
            first: place,
        })
    }
}

/// How many numbers of N bytes are none, and the position of the first.
fn found<const N: usize>(
    bytes: &[u8],
    is_none: impl Fn([u8; N]) -> bool,
) -> Option<(usize, usize)> {
    // Counting without a branch is what a compiler makes vectors of; nearly every tensor ends here.
    let count = bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|&b| usize::from(is_none(b)))
        .sum::<usize>();
    let first = || bytes.as_chunks::<N>().0.iter().position(|&b| is_none(b));
    (count > 0)
        .then(first)
        .flatten()
        .map(|first| (count, first))
}

/// The line of an error about a tensor, if something in it is not finite.
pub(crate) fn problem(what: &str, tensor: &HostTensor) -> Option<String> {
    tensor
        .not_finite()
        .map(|found| format!("not finite: {what}: {found}"))
}

/// Refuses tensors with numbers that are none; `place` is the file or folder, `component` what the
/// tensors belong to.
///
/// # Errors
/// A line for each such tensor, with how many and where the first.
pub fn expect_finite(place: &str, component: &str, tensors: &Tensors) -> Result<()> {
    let problems: Vec<String> = tensors
        .iter()
        .filter_map(|(name, tensor)| problem(format!("{component} {name}").trim_start(), tensor))
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(tensor_error(place, problems))
    }
}
