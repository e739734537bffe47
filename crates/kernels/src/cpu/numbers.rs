//! Numbers as they lie in memory: f32, or halves that become f32 piece by piece where they are used.
//!
//! Every half is an f32, so a product over halves is to the bit what it would be over the same
//! numbers widened beforehand; it takes half the memory.

use std::{borrow::Cow, ops::Range};

use half::{bf16, f16, slice::HalfFloatSliceExt as _};

/// A slice of numbers of some kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

impl<'a> From<&'a [f32]> for Numbers<'a> {
    fn from(numbers: &'a [f32]) -> Self {
        Self::F32(numbers)
    }
}

impl Numbers<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::BF16(numbers) => numbers.len(),
        }
    }

    /// Some of them, as f32.
    pub(crate) fn widen(&self, range: Range<usize>, to: &mut [f32]) {
        match self {
            Self::F32(numbers) => to.copy_from_slice(&numbers[range]),
            Self::F16(numbers) => numbers[range].convert_to_f32_slice(to),
            Self::BF16(numbers) => numbers[range].convert_to_f32_slice(to),
        }
    }

    /// All of them, as f32.
    pub(crate) fn widened(&self) -> Cow<'_, [f32]> {
        match self {
            Self::F32(numbers) => Cow::Borrowed(numbers),
            halves => {
                let mut numbers = vec![0.0; halves.len()];
                halves.widen(0..halves.len(), &mut numbers);
                Cow::Owned(numbers)
            }
        }
    }
}
