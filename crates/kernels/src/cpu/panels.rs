//! Weights as the microkernel of [`super::gathered`] reads them: panels of columns, each a few
//! vectors wide.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{numbers::Numbers, scratch::Scratch, winograd_transforms::kernel_transform};

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
        // AVX-512 has registers for four vectors and six rows of sums; half as many registers hold
        // three and four.
        let most = if lanes == 16 { 4 } else { 3 };
        // Wide panels reuse what they read; but columns past the last are computed for nothing.
        let wasted = |vectors: usize| n.next_multiple_of(vectors * lanes) * 8 / n.max(1);
        let vectors = (1..=most).rev().min_by_key(|&v| wasted(v)).unwrap_or(1);
        Self {
            taps,
            k,
            n,
            vectors,
            lanes,
            arch,
        }
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

/// Work that goes by tiles of M rows and V vectors of sums.
pub(crate) trait Tiled: Sized {
    /// What comes out.
    type Output;

    /// How the columns are laid out, and for which instructions.
    fn layout(&self) -> Layout;

    /// The work itself; to be inlined, as everything that is to be compiled for those instructions.
    fn run<S: Simd, const M: usize, const V: usize>(self, simd: S) -> Self::Output;
}

/// Does some work in tiles of as many sums as there are registers for, beside one row of vectors
/// and one number.
pub(crate) fn by_tiles<T: Tiled>(work: T) -> T::Output {
    struct Tiles<T>(T, usize);
    impl<T: Tiled> WithSimd for Tiles<T> {
        type Output = T::Output;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> T::Output {
            match (S::F32_LANES, self.1) {
                (16, 1) => self.0.run::<S, 16, 1>(simd),
                (16, 2) => self.0.run::<S, 12, 2>(simd),
                (16, 3) => self.0.run::<S, 8, 3>(simd),
                (16, _) => self.0.run::<S, 6, 4>(simd),
                (_, 1) => self.0.run::<S, 8, 1>(simd),
                (_, 2) => self.0.run::<S, 6, 2>(simd),
                _ => self.0.run::<S, 4, 3>(simd),
            }
        }
    }
    let Layout { arch, vectors, .. } = work.layout();
    arch.dispatch(Tiles(work, vectors))
}

/// Weights in the layout of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plain<'a> {
    /// `[k, n]`
    Rows(Numbers<'a>),
    /// `[n, k, taps]`
    Kernel(Numbers<'a>),
    /// `[k, n, taps]`, the taps from last to first: what takes a gradient back through a
    /// convolution.
    Reversed(Numbers<'a>),
    /// `[n, k, 3, 3]`, transformed to 36 taps.
    Winograd(Numbers<'a>),
    /// `[k, n, 3, 3]`, turned by half a turn and transformed.
    WinogradReversed(Numbers<'a>),
}

impl Plain<'_> {
    /// Writes `rows` of every tap's `columns` as `[taps, rows, width]`.
    pub(crate) fn fill(
        &self,
        to: &mut [f32],
        layout: &Layout,
        columns: Range<usize>,
        rows: Range<usize>,
    ) {
        let (width, count, taps) = (layout.width(), rows.len(), layout.taps);
        let to = &mut to[..taps * count * width];
        if columns.len() < width {
            to.fill(0.0);
        }
        match *self {
            Self::Rows(Numbers::F32(w)) => {
                for (k, to) in rows.zip(to.chunks_exact_mut(width)) {
                    to[..columns.len()].copy_from_slice(&w[k * layout.n..][columns.clone()]);
                }
            }
            Self::Kernel(Numbers::F32(w)) => interleave(to, w, layout, columns, rows),
            Self::Reversed(Numbers::F32(w)) => {
                for (row, k) in rows.enumerate() {
                    let from = w[(k * layout.n + columns.start) * taps..][..columns.len() * taps]
                        .chunks_exact(taps);
                    for (column, from) in from.enumerate() {
                        for (tap, &value) in from.iter().rev().enumerate() {
                            to[(tap * count + row) * width + column] = value;
                        }
                    }
                }
            }
            Self::Winograd(w) => transformed(to, &Plain::Kernel(w), layout, columns, rows),
            Self::WinogradReversed(w) => {
                transformed(to, &Plain::Reversed(w), layout, columns, rows)
            }
            Self::Rows(w) => {
                let runs = rows.clone().map(|k| k * layout.n + columns.start);
                let part = widened(w, runs, columns.len());
                self.part(to, &part, layout, columns.len(), count);
            }
            Self::Kernel(w) => {
                let runs = columns.clone().map(|n| (n * layout.k + rows.start) * taps);
                let part = widened(w, runs, count * taps);
                self.part(to, &part, layout, columns.len(), count);
            }
            Self::Reversed(w) => {
                let runs = rows.clone().map(|k| (k * layout.n + columns.start) * taps);
                let part = widened(w, runs, columns.len() * taps);
                self.part(to, &part, layout, columns.len(), count);
            }
        }
    }

    /// As [`fill`](Self::fill) from the numbers of these rows and columns alone, in the same order.
    fn part(&self, to: &mut [f32], part: &[f32], layout: &Layout, columns: usize, rows: usize) {
        let part = Numbers::F32(part);
        let plain = match self {
            Self::Rows(_) => Plain::Rows(part),
            Self::Kernel(_) | Self::Winograd(_) => Plain::Kernel(part),
            Self::Reversed(_) | Self::WinogradReversed(_) => Plain::Reversed(part),
        };
        let layout = Layout {
            k: rows,
            n: columns,
            ..*layout
        };
        plain.fill(to, &layout, 0..columns, 0..rows);
    }
}

/// Runs of some numbers as f32, one behind the other; where each begins, and how long all are.
fn widened(
    numbers: Numbers<'_>,
    runs: impl ExactSizeIterator<Item = usize>,
    length: usize,
) -> Scratch {
    let mut part = Scratch::of(runs.len() * length);
    for (first, to) in runs.zip(part.chunks_exact_mut(length.max(1))) {
        numbers.widen(first..first + length, to);
    }
    part
}

/// Kernels of nine taps, laid out and then transformed, a few rows at a time.
fn transformed(
    to: &mut [f32],
    plain: &Plain<'_>,
    layout: &Layout,
    columns: Range<usize>,
    rows: Range<usize>,
) {
    const ROWS: usize = 16;
    let (width, count) = (layout.width(), rows.len());
    let nine = Layout { taps: 9, ..*layout };
    let mut taps = Scratch::of(9 * ROWS * width);
    for first in (0..count).step_by(ROWS) {
        let part = ROWS.min(count - first);
        plain.fill(
            &mut taps,
            &nine,
            columns.clone(),
            rows.start + first..rows.start + first + part,
        );
        for row in 0..part {
            kernel_transform(
                &mut to[(first + row) * width..],
                count * width,
                &taps[row * width..],
                part * width,
                width,
            );
        }
    }
}

/// Weights `[n, k, taps]` as `[taps, rows, width]`: sixteen columns at a time are read as long runs
/// and written as whole lines.
fn interleave(
    to: &mut [f32],
    w: &[f32],
    layout: &Layout,
    columns: Range<usize>,
    rows: Range<usize>,
) {
    let (taps, width, count) = (layout.taps, layout.width(), rows.len());
    let run = count * taps;
    let first = |column: usize| ((columns.start + column) * layout.k + rows.start) * taps;
    let wide = columns.len() / SIDE * SIDE;
    let mut row = Interleaved {
        tap: 0,
        k: 0,
        taps,
        count,
    };
    for column in (0..wide).step_by(SIDE) {
        row = Interleaved {
            tap: 0,
            k: 0,
            ..row
        };
        let from: [&[f32]; SIDE] = std::array::from_fn(|i| &w[first(column + i)..][..run]);
        let mut at = 0;
        while at < run {
            let mut square = [[0.0; SIDE]; SIDE];
            let size = SIDE.min(run - at);
            if size == SIDE {
                transpose(&mut square, &from, at);
            } else {
                for (i, from) in from.iter().enumerate() {
                    for (j, &value) in from[at..].iter().enumerate() {
                        square[j][i] = value;
                    }
                }
            }
            for line in &square[..size] {
                to[row.next() * width + column..][..SIDE].copy_from_slice(line);
            }
            at += size;
        }
    }
    for column in wide..columns.len() {
        row = Interleaved {
            tap: 0,
            k: 0,
            ..row
        };
        for &value in &w[first(column)..][..run] {
            to[row.next() * width + column] = value;
        }
    }
}

/// Side of the squares that are transposed.
pub(crate) const SIDE: usize = 16;

/// The rows of `[taps, count]` in the order `[count, taps]`.
struct Interleaved {
    tap: usize,
    k: usize,
    taps: usize,
    count: usize,
}

impl Interleaved {
    #[inline(always)]
    fn next(&mut self) -> usize {
        let row = self.tap * self.count + self.k;
        self.tap += 1;
        if self.tap == self.taps {
            (self.tap, self.k) = (0, self.k + 1);
        }
        row
    }
}

/// Sixteen numbers from `at` of sixteen runs, transposed.
#[cfg(target_arch = "x86_64")]
pub(crate) fn transpose(square: &mut [[f32; SIDE]; SIDE], from: &[&[f32]; SIDE], at: usize) {
    struct Eights<'a, 'b> {
        square: &'a mut [[f32; SIDE]; SIDE],
        from: &'a [&'b [f32]; SIDE],
        at: usize,
        v3: pulp::x86::V3,
    }
    impl pulp::NullaryFnOnce for Eights<'_, '_> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            use pulp::cast;
            let Self {
                square,
                from,
                at,
                v3: pulp::x86::V3 { avx, .. },
            } = self;
            for (top, left) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
                let mut a = [cast::<[f32; 8], core::arch::x86_64::__m256>([0.0; 8]); 8];
                for i in 0..8 {
                    let mut eight = [0.0; 8];
                    eight.copy_from_slice(&from[top + i][at + left..][..8]);
                    a[i] = cast(eight);
                }
                // Pairs, then fours, then halves change places.
                let mut b = a;
                for i in 0..4 {
                    b[2 * i] = avx._mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
                    b[2 * i + 1] = avx._mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
                }
                for i in 0..2 {
                    let [b0, b1, b2, b3] = [b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]];
                    a[4 * i] = avx._mm256_shuffle_ps::<0x44>(b0, b2);
                    a[4 * i + 1] = avx._mm256_shuffle_ps::<0xee>(b0, b2);
                    a[4 * i + 2] = avx._mm256_shuffle_ps::<0x44>(b1, b3);
                    a[4 * i + 3] = avx._mm256_shuffle_ps::<0xee>(b1, b3);
                }
                for i in 0..4 {
                    let low: [f32; 8] = cast(avx._mm256_permute2f128_ps::<0x20>(a[i], a[i + 4]));
                    let high: [f32; 8] = cast(avx._mm256_permute2f128_ps::<0x31>(a[i], a[i + 4]));
                    square[left + i][top..top + 8].copy_from_slice(&low);
                    square[left + 4 + i][top..top + 8].copy_from_slice(&high);
                }
            }
        }
    }
    match pulp::x86::V3::try_new() {
        Some(v3) => v3.vectorize(Eights {
            square,
            from,
            at,
            v3,
        }),
        None => transpose_plain(square, from, at),
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn transpose(square: &mut [[f32; SIDE]; SIDE], from: &[&[f32]; SIDE], at: usize) {
    transpose_plain(square, from, at);
}

fn transpose_plain(square: &mut [[f32; SIDE]; SIDE], from: &[&[f32]; SIDE], at: usize) {
    for (i, from) in from.iter().enumerate() {
        for (j, &value) in from[at..at + SIDE].iter().enumerate() {
            square[j][i] = value;
        }
    }
}

/// The most columns a panel has: four vectors of sixteen.
pub(crate) const WIDEST: usize = 64;

/// All panels of some weights, `[panels, taps, k, width]`.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) layout: Layout,
    numbers: Scratch,
}

impl Packed {
    pub(crate) fn new(plain: Plain<'_>, layout: Layout) -> Self {
        let size = layout.taps * layout.k * layout.width();
        let mut numbers = Scratch::of(layout.panels() * size);
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
    pub(crate) fn get(
        room: Option<&Self>,
        way: Way,
        make: impl FnOnce() -> Vec<Packed>,
    ) -> Arc<[Packed]> {
        let Some(Self(map)) = room else {
            return make().into();
        };
        // The lock is not held while it is made: that is done by many threads, and one of them may
        // want another layout.
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

/// Weights up to this size, in numbers, are laid out as a whole and by all threads, if only for one
/// product.
const SMALL: usize = 1 << 20;

/// Has `multiply` read some weights: as they are kept, laid out for this once, or laid out panel by
/// panel.
pub(crate) fn laid_out<T>(
    plain: Plain<'_>,
    layout: Layout,
    room: Option<&Store>,
    way: Way,
    multiply: impl FnOnce(Weights<'_>) -> T,
) -> T {
    if room.is_some() || layout.taps * layout.k * layout.n <= SMALL {
        return multiply(Weights::Packed(
            &Store::get(room, way, || vec![Packed::new(plain, layout)])[0],
        ));
    }
    multiply(Weights::Plain(plain, layout))
}

impl Weights<'_> {
    pub(crate) fn layout(&self) -> Layout {
        match self {
            Self::Packed(packed) => packed.layout,
            Self::Tap(packed, _) => Layout {
                taps: 1,
                ..packed.layout
            },
            Self::Plain(_, layout) => *layout,
        }
    }
}
