//! Weights as the microkernel of [`super::gathered`] reads them: panels of columns, each a few vectors wide.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::winograd::kernel_transform;

/// A product's weights: one matrix `[k, n]` for each tap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) taps: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Vectors in a panel's width.
    pub(crate) vectors: usize,
    lanes: usize,
    /// The instructions it is made for.
    pub(crate) arch: Arch,
}

/// Numbers in one vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

impl Layout {
    pub(crate) fn new(taps: usize, k: usize, n: usize) -> Self {
        Self::on(Arch::new(), taps, k, n)
    }

    /// For other instructions than this processor's best.
    pub(crate) fn on(arch: Arch, taps: usize, k: usize, n: usize) -> Self {
        let lanes = arch.dispatch(Lanes);
        // AVX-512 has registers for four vectors and six rows of sums; half as many registers hold three and four.
        let most = if lanes == 16 { 4 } else { 3 };
        // Wide panels reuse what they read; but columns past the last are computed for nothing.
        let wasted = |vectors: usize| n.next_multiple_of(vectors * lanes) * 8 / n.max(1);
        let vectors = (1..=most).rev().min_by_key(|&v| wasted(v)).unwrap_or(1);
        Self { taps, k, n, vectors, lanes, arch }
    }

    /// Columns in a panel; those past `n` are zero.
    pub(crate) fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(self.width())
    }

    /// The columns of one panel.
    pub(crate) fn columns(&self, panel: usize) -> Range<usize> {
        panel * self.width()..((panel + 1) * self.width()).min(self.n)
    }
}

/// Weights in the layout of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plain<'a> {
    /// `[k, n]`
    Rows(&'a [f32]),
    /// `[n, k]`
    Columns(&'a [f32]),
    /// `[n, k, taps]`
    Kernel(&'a [f32]),
    /// `[k, n, taps]`, the taps from last to first: what takes a gradient back through a convolution.
    Reversed(&'a [f32]),
    /// `[n, k, 3, 3]`, transformed to 36 taps.
    Winograd(&'a [f32]),
    /// `[k, n, 3, 3]`, turned by half a turn and transformed.
    WinogradReversed(&'a [f32]),
}

impl Plain<'_> {
    /// Writes `rows` of every tap's `columns` as `[taps, rows, width]`.
    pub(crate) fn fill(&self, to: &mut [f32], layout: &Layout, columns: Range<usize>, rows: Range<usize>) {
        let (width, count, taps) = (layout.width(), rows.len(), layout.taps);
        let to = &mut to[..taps * count * width];
        if columns.len() < width {
            to.fill(0.0);
        }
        match *self {
            Self::Rows(w) => {
                for (k, to) in rows.zip(to.chunks_exact_mut(width)) {
                    to[..columns.len()].copy_from_slice(&w[k * layout.n..][columns.clone()]);
                }
            }
            // A few rows at a time, so that the lines written stay in the first cache.
            Self::Columns(w) => {
                for first in (0..count).step_by(16) {
                    let part = rows.start + first..rows.start + (first + 16).min(count);
                    for (column, n) in columns.clone().enumerate() {
                        let from = &w[n * layout.k..][part.clone()];
                        for (to, &value) in to[first * width..].chunks_exact_mut(width).zip(from) {
                            to[column] = value;
                        }
                    }
                }
            }
            Self::Kernel(w) => {
                for first in (0..count).step_by(4) {
                    let part = (rows.start + first) * taps..(rows.start + (first + 4).min(count)) * taps;
                    for (column, n) in columns.clone().enumerate() {
                        let from = w[n * layout.k * taps..][part.clone()].chunks_exact(taps);
                        for (k, from) in (first..).zip(from) {
                            for (tap, &value) in from.iter().enumerate() {
                                to[(tap * count + k) * width + column] = value;
                            }
                        }
                    }
                }
            }
            Self::Winograd(w) => {
                for (row, k) in rows.enumerate() {
                    let from = columns.clone().map(|n| &w[(n * layout.k + k) * 9..][..9]);
                    winograd(&mut to[row * width..], count * width, width, from, |tap| tap);
                }
            }
            Self::WinogradReversed(w) => {
                for (row, k) in rows.enumerate() {
                    let from = columns.clone().map(|n| &w[(k * layout.n + n) * 9..][..9]);
                    winograd(&mut to[row * width..], count * width, width, from, |tap| 8 - tap);
                }
            }
            Self::Reversed(w) => {
                for (row, k) in rows.enumerate() {
                    let from = w[(k * layout.n + columns.start) * taps..][..columns.len() * taps].chunks_exact(taps);
                    for (column, from) in from.enumerate() {
                        for (tap, &value) in from.iter().rev().enumerate() {
                            to[(tap * count + row) * width + column] = value;
                        }
                    }
                }
            }
        }
    }
}

/// One row of every transformed tap, from kernels of nine numbers side by side.
fn winograd<'a>(
    to: &mut [f32],
    stride: usize,
    width: usize,
    kernels: impl Iterator<Item = &'a [f32]>,
    tap: impl Fn(usize) -> usize,
) {
    let mut side_by_side = [0.0; 9 * WIDEST];
    for (column, kernel) in kernels.enumerate() {
        for (i, &value) in kernel.iter().enumerate() {
            side_by_side[tap(i) * width + column] = value;
        }
    }
    kernel_transform(to, stride, &side_by_side[..9 * width], width);
}

/// The most columns a panel has: four vectors of sixteen.
const WIDEST: usize = 64;

/// All panels of some weights, `[panels, taps, k, width]`.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) layout: Layout,
    numbers: Vec<f32>,
}

impl Packed {
    pub(crate) fn new(plain: Plain<'_>, layout: Layout) -> Self {
        let size = layout.taps * layout.k * layout.width();
        let mut numbers = vec![0.0; layout.panels() * size];
        numbers
            .par_chunks_mut(size.max(1))
            .enumerate()
            .for_each(|(panel, to)| plain.fill(to, &layout, layout.columns(panel), 0..layout.k));
        Self { layout, numbers }
    }

    /// One panel, `[taps, k, width]`.
    pub(crate) fn panel(&self, panel: usize) -> &[f32] {
        let size = self.layout.taps * self.layout.k * self.layout.width();
        &self.numbers[panel * size..][..size]
    }
}

/// The ways in which weights are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Forward,
    Backward,
    Winograd,
    WinogradBackward,
    /// Four kernels of four taps, for an input that is doubled.
    Doubled,
}

/// Layouts of one tensor's numbers, made when first asked for.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<BTreeMap<Way, Arc<[Packed]>>>);

impl Store {
    /// The layouts of that way; from the room if there is one, else just made.
    pub(crate) fn get(room: Option<&Self>, way: Way, make: impl FnOnce() -> Vec<Packed>) -> Arc<[Packed]> {
        let Some(Self(map)) = room else { return make().into() };
        // The lock is not held while it is made: that is done by many threads, and one of them may want another layout.
        let locked = || map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = locked().get(&way).cloned() {
            return found;
        }
        let made: Arc<[Packed]> = make().into();
        locked().entry(way).or_insert(made).clone()
    }
}

/// Weights that a product can read: laid out before, or panel by panel while it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights<'a> {
    Packed(&'a Packed),
    /// One tap of them.
    Tap(&'a Packed, usize),
    Plain(Plain<'a>, Layout),
}

impl Weights<'_> {
    pub(crate) fn layout(&self) -> Layout {
        match self {
            Self::Packed(packed) => packed.layout,
            Self::Tap(packed, _) => Layout { taps: 1, ..packed.layout },
            Self::Plain(_, layout) => *layout,
        }
    }
}
