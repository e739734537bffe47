//! A tensor as it lies in a file: dtype, shape and bytes, mapped rather than copied.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range, sync::Arc};

use burn::tensor::AllocationProperty;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;
pub use safetensors::Dtype;

/// Named tensors of one component, under their diffusers / transformers names.
pub type Tensors = BTreeMap<String, HostTensor>;

/// Bytes that are mapped from a file, owned, or part of the program.
#[derive(Clone)]
pub enum Bytes {
    /// A range of a memory-mapped file.
    Mapped(Arc<memmap2::Mmap>, Range<usize>),
    /// Bytes of our own.
    Owned(Arc<[u8]>),
    /// Numbers of our own, whose bytes are those of a file on this processor.
    Floats(Arc<Vec<f32>>),
    /// Bytes compiled into the program.
    Static(&'static [u8]),
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map, range) => &map[range.clone()],
            Self::Owned(bytes) => bytes,
            Self::Floats(numbers) => bytemuck::cast_slice(numbers),
            Self::Static(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Bytes {
    /// The same bytes for a tensor on the processor, without a copy.
    pub(crate) fn shared(&self) -> burn::tensor::Bytes {
        let kind = match self {
            Self::Mapped(..) => AllocationProperty::File,
            _ => AllocationProperty::Other,
        };
        burn::tensor::Bytes::from_shared(bytes::Bytes::from_owner(self.clone()), kind)
    }

    /// A part of these bytes, without a copy of what is mapped or static.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    pub fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Self::Mapped(map, outer) => {
                assert!(
                    range.start <= range.end && range.end <= outer.len(),
                    "slice reaches past the mapped bytes"
                );
                Self::Mapped(
                    map.clone(),
                    outer.start + range.start..outer.start + range.end,
                )
            }
            Self::Owned(bytes) => Self::Owned(bytes[range].into()),
            Self::Floats(_) => Self::Owned(self[range].into()),
            Self::Static(bytes) => Self::Static(&bytes[range]),
        }
    }
}

/// A tensor outside any device, row-major, in the dtype of its file.
#[derive(Clone)]
pub struct HostTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl fmt::Debug for HostTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.dtype, self.shape)
    }
}

impl HostTensor {
    /// A tensor over `bytes`; `None` if their number is not what dtype and shape ask for.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Bytes) -> Option<Self> {
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (count.checked_mul(dtype.bitsize())? == bytes.len().checked_mul(8)?).then_some(Self {
            dtype,
            shape,
            bytes,
        })
    }

    /// An f32 tensor.
    ///
    /// # Panics
    /// If `values` has not as many numbers as `shape` says.
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: &[f32]) -> Self {
        Self::of_f32(shape, values.to_vec())
    }

    /// An f32 tensor of numbers that nobody else needs.
    ///
    /// # Panics
    /// If `values` has not as many numbers as `shape` says.
    pub fn of_f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let bytes = if cfg!(target_endian = "little") {
            Bytes::Floats(Arc::new(values))
        } else {
            Bytes::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        Self::new(Dtype::F32, shape.into(), bytes).expect("as many values as the shape says")
    }

    /// An i64 tensor.
    ///
    /// # Panics
    /// If `values` has not as many numbers as `shape` says.
    pub fn from_i64(shape: impl Into<Vec<usize>>, values: &[i64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(Dtype::I64, shape.into(), Bytes::Owned(bytes.into()))
            .expect("as many values as the shape says")
    }

    /// The dtype on disk.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no number at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The raw little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where these bytes are.
    pub(crate) fn storage(&self) -> &Bytes {
        &self.bytes
    }

    /// The same numbers under another shape.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Option<Self> {
        Self::new(self.dtype, shape.into(), self.bytes.clone())
    }

    /// Some rows: a range of the first dimension. `None` if it reaches past the end, or rows are no
    /// whole bytes.
    pub fn rows(&self, range: Range<usize>) -> Option<Self> {
        let (&count, rest) = self.shape.split_first()?;
        if range.start > range.end || range.end > count {
            return None;
        }
        let bits = rest
            .iter()
            .try_fold(self.dtype.bitsize(), |n, &d| n.checked_mul(d))?;
        let row = bits.is_multiple_of(8).then_some(bits / 8)?;
        let shape = [&[range.len()], rest].concat();
        Self::new(
            self.dtype,
            shape,
            self.bytes.slice(range.start * row..range.end * row),
        )
    }

    /// Whether the numbers are f16, bf16, f32 or f64.
    pub fn is_float(&self) -> bool {
        matches!(
            self.dtype,
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64
        )
    }

    /// The numbers as f32; `None` unless they are floats.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let b = self.bytes();
        Some(match self.dtype {
            Dtype::F32 => b
                .chunks_exact(4)
                .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
                .collect(),
            Dtype::F16 => widened(b, f16::ZERO),
            Dtype::BF16 => widened(b, bf16::ZERO),
            Dtype::F64 => b
                .chunks_exact(8)
                .map(|c| {
                    f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]) as f32
                })
                .collect(),
            _ => return None,
        })
    }

    /// The numbers as i64; `None` unless they are integers of 32 or 64 bits.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let b = self.bytes();
        Some(match self.dtype {
            Dtype::I64 => b
                .chunks_exact(8)
                .map(|c| i64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
                .collect(),
            Dtype::I32 => b
                .chunks_exact(4)
                .map(|c| i64::from(i32::from_le_bytes([c[0], c[1], c[2], c[3]])))
                .collect(),
            _ => return None,
        })
    }

    /// The same numbers rounded to another float dtype; `None` unless both are f16, bf16 or f32.
    pub fn cast(&self, dtype: Dtype) -> Option<Self> {
        if dtype == self.dtype {
            return Some(self.clone());
        }
        let values = self.to_f32()?;
        let bytes: Vec<u8> = match dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values
                .iter()
                .flat_map(|&v| f16::from_f32(v).to_le_bytes())
                .collect(),
            Dtype::BF16 => values
                .iter()
                .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
                .collect(),
            _ => return None,
        };
        Self::new(dtype, self.shape.clone(), Bytes::Owned(bytes.into()))
    }

    /// As [`cast`](Self::cast), and no number may be lost: f16 ends at 65504.
    ///
    /// # Errors
    /// What was lost, in words; or that these dtypes are not rounded into each other.
    pub fn rounded(&self, dtype: Dtype) -> Result<Self, String> {
        let cast = self
            .cast(dtype)
            .ok_or_else(|| format!("{:?} cannot be written as {dtype:?}", self.dtype))?;
        if dtype == self.dtype {
            return Ok(cast);
        }
        match (cast.not_finite(), self.not_finite()) {
            (Some(found), None) => Err(format!(
                "beyond what {dtype:?} can hold: {found} as {dtype:?}"
            )),
            _ => Ok(cast),
        }
    }
}

/// Halves as f32, by all threads. A block at a time is copied to where it is aligned, so that the
/// processor's own conversion can be used: one number at a time takes as long as reading the file.
fn widened<T: Copy + Sync>(bytes: &[u8], zero: T) -> Vec<f32>
where
    [T]: HalfFloatSliceExt,
{
    const BLOCK: usize = 4096;
    let mut values = vec![0.0f32; bytes.len() / 2];
    let blocks = bytes
        .par_chunks(2 * BLOCK)
        .zip(values.par_chunks_mut(BLOCK))
        .with_min_len(16);
    blocks.for_each(|(block, values)| {
        let mut halves = [zero; BLOCK];
        let halves = &mut halves[..values.len()];
        for (bits, pair) in halves
            .reinterpret_cast_mut()
            .iter_mut()
            .zip(block.chunks_exact(2))
        {
            *bits = u16::from_le_bytes([pair[0], pair[1]]);
        }
        halves.convert_to_f32_slice(values);
    });
    values
}

impl safetensors::View for &HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
