//! Numbers that are none: NaN and the infinities, found where a tensor is read anyway.

use rayon::prelude::*;

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
            Dtype::F32 => found(self.bytes(), 0x7f80_0000, u32::from_le_bytes),
            Dtype::F16 => found(self.bytes(), 0x7c00, u16::from_le_bytes),
            Dtype::BF16 => found(self.bytes(), 0x7f80, u16::from_le_bytes),
            // What f32 cannot hold is infinite to every network here.
            Dtype::F64 => listed(self.bytes(), |b: [u8; 8]| {
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

/// How many numbers of N bytes have an exponent of ones, and the position of the first.
fn found<const N: usize, T: Into<u32>>(
    bytes: &[u8],
    exponent: u32,
    read: impl Fn([u8; N]) -> T,
) -> Option<(usize, usize)> {
    // Eight bytes at a time: a lane whose exponent is all ones is zero after the exclusive or, and a
    // word with a zero lane is found without looking at lanes. Nearly every tensor ends here.
    let lanes = |lane: u64| (0..8 / N).fold(0, |all, i| all | lane << (8 * N * i));
    let (ones, low, high) = (
        lanes(u64::from(exponent)),
        lanes(1),
        lanes(1 << (8 * N - 1)),
    );
    let (words, rest) = bytes.as_chunks::<8>();
    let none = |b: [u8; N]| read(b).into() & exponent == exponent;
    let any = words.par_chunks(1 << 14).any(|piece| {
        let all = piece.iter().fold(0, |all, &word| {
            let lanes = (u64::from_le_bytes(word) & ones) ^ ones;
            all | (lanes.wrapping_sub(low) & !lanes & high)
        });
        all != 0
    });
    if any || rest.as_chunks::<N>().0.iter().any(|&b| none(b)) {
        listed(bytes, none)
    } else {
        None
    }
}

/// The same, number by number.
fn listed<const N: usize>(
    bytes: &[u8],
    is_none: impl Fn([u8; N]) -> bool,
) -> Option<(usize, usize)> {
    let numbers = bytes.as_chunks::<N>().0;
    let first = numbers.iter().position(|&b| is_none(b))?;
    Some((numbers.iter().filter(|&&b| is_none(b)).count(), first))
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

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// Wherever it stands, one number that is none is found, and no other is taken for one.
    #[test]
    fn one_number_among_others_is_found() {
        for n in [1, 3, 4, 7, 8, 9, 33] {
            let plain: Vec<f32> = (0..n).map(|i| [0.0, -1.5, 65504.0, -1e-7][i % 4]).collect();
            let tensor = HostTensor::from_f32([n], &plain);
            for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
                assert_eq!(
                    tensor.cast(dtype).unwrap().not_finite(),
                    None,
                    "{dtype:?} {n}"
                );
                for (i, bad) in (0..n)
                    .flat_map(|i| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|bad| (i, bad)))
                {
                    let mut numbers = plain.clone();
                    numbers[i] = bad;
                    let tensor = HostTensor::from_f32([n], &numbers).cast(dtype).unwrap();
                    let found = tensor.not_finite().unwrap();
                    assert_eq!(
                        (found.count, found.of, found.first),
                        (1, n, vec![i]),
                        "{dtype:?}"
                    );
                }
            }
        }
        // The largest numbers that there are.
        let most = HostTensor::from_f32([2], &[f32::MAX, f32::MIN]);
        assert_eq!(most.not_finite(), None);
        assert_eq!(
            (f16::MAX.to_bits() & 0x7c00, bf16::MAX.to_bits() & 0x7f80),
            (0x7800, 0x7f00)
        );
    }
}
