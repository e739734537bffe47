//! Products of gathered rows with weights: `y[r] = b + sum over taps t of x[source(r, t)] W_t`.
//!
//! A linear layer has one tap, and row r comes from row r. A convolution over channels-last maps
//! has one for each place of its kernel, and a table says which neighbour that is, so nothing is
//! copied beforehand. Every number of the result is summed in the same order whatever the tiling,
//! hence whatever the number of threads.

#![expect(
    clippy::needless_range_loop,
    clippy::manual_memcpy,
    reason = "indices into fixed arrays become registers; calls and adapters that are not inlined lose the instructions"
)]

use pulp::Simd;
use rayon::prelude::*;

use super::{
    area::{Area, Cut, Order},
    panels::{Layout, Tiled, WIDEST, Weights, by_tiles},
    scratch::Scratch,
};

/// In place of a source: a row of zeros.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Numbers of a panel that are used for all rows before the next ones are read; half of a usual
/// second-level cache.
const BLOCK: usize = 1 << 16;

/// Multiplications below which threads cost more than they bring.
const ALONE: usize = if cfg!(miri) { 1 << 10 } else { 1 << 20 };

/// What is multiplied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathered<'a> {
    /// Rows of k numbers.
    pub(crate) x: &'a [f32],
    /// For every row of the result, the row of `x` that each tap reads, or [`NOWHERE`].
    pub(crate) sources: &'a [u32],
    pub(crate) weights: Weights<'a>,
    /// `n` numbers to start from instead of zero.
    pub(crate) bias: Option<&'a [f32]>,
    /// Whether all threads share the work, or the calling one, which is one of several, does it.
    pub(crate) shared: bool,
}

/// Computes the rows of `y`, which has as many as there are sources for, of as many numbers as the
/// weights have columns.
///
/// # Panics
/// If it has not, or a source lies past the end of `x`.
pub(crate) fn product(y: Area<'_>, p: Gathered<'_>) {
    let Layout { taps, k, n, .. } = p.weights.layout();
    let rows = p.sources.len() / taps.max(1);
    let from = p.x.len() / k.max(1);
    assert!(
        p.sources
            .iter()
            .all(|&s| s == NOWHERE || (s as usize) < from),
        "a source past the end"
    );
    assert!(
        p.bias.is_none_or(|bias| bias.len() == n),
        "a bias of another width"
    );
    if rows == 0 || n == 0 {
        return;
    }
    assert!(
        [y.height(), y.width()] == [rows, n],
        "{rows} rows of {n} for {} of {}",
        y.height(),
        y.width()
    );

    let layout = p.weights.layout();
    let panels = layout.panels();
    let threads = if !p.shared || rows * taps * k * n < ALONE {
        1
    } else {
        rayon::current_num_threads()
    };
    // Weights not yet laid out are so once for every chunk of rows: large chunks then.
    let least = if matches!(p.weights, Weights::Plain(..)) {
        512
    } else {
        48
    };
    let wanted = if threads == 1 {
        1
    } else {
        (4 * threads).div_ceil(panels)
    };
    let chunk = rows.div_ceil(wanted).max(least).next_multiple_of(24);
    let (top, left) = (y.rows().start, y.columns().start);
    let zeros = vec![0.0; k];
    let task = |y: Area<'_>| {
        let (first, panel) = (
            y.rows().start - top,
            (y.columns().start - left) / layout.width(),
        );
        by_tiles(Task {
            p,
            zeros: &zeros,
            panel,
            first,
            count: y.height(),
            y,
        });
    };
    let mut cells = y.anew().cells(
        Cut::every(chunk),
        Cut::every(layout.width()),
        Order::Columns,
    );
    if threads == 1 {
        cells.in_order().for_each(task);
    } else {
        cells.shared(cells.len()).for_each(task);
    }
}

/// One panel of columns for a chunk of rows.
struct Task<'a> {
    p: Gathered<'a>,
    /// What it writes, a row for each of the chunk.
    y: Area<'a>,
    zeros: &'a [f32],
    panel: usize,
    first: usize,
    count: usize,
}

/// A block of weights: some of k, for every tap.
#[derive(Clone, Copy)]
struct Block<'a> {
    numbers: &'a [f32],
    /// How far apart the taps lie.
    stride: usize,
    first: usize,
    count: usize,
}

impl Tiled for Task<'_> {
    type Output = ();

    fn layout(&self) -> Layout {
        self.p.weights.layout()
    }

    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize>(mut self, simd: S) {
        let layout = self.p.weights.layout();
        let width = V * S::F32_LANES;
        let span = (BLOCK / (width * layout.taps)).clamp(1, layout.k.max(1));
        let columns = layout.columns(self.panel);
        let mut start = [0.0; WIDEST];
        if let Some(bias) = self.p.bias {
            start[..columns.len()].copy_from_slice(&bias[columns.clone()]);
        }
        let mut spare = [0.0; WIDEST];
        let plain = matches!(self.p.weights, Weights::Plain(..));
        let mut buffer = plain.then(|| Scratch::of(layout.taps * span * width));
        let mut first = 0;
        loop {
            let count = span.min(layout.k - first);
            let block = match self.p.weights {
                Weights::Packed(packed) => Block {
                    numbers: &packed.panel(self.panel)[first * width..],
                    stride: layout.k * width,
                    first,
                    count,
                },
                Weights::Tap(packed, tap) => {
                    let numbers = &packed.panel(self.panel)[(tap * layout.k + first) * width..];
                    Block {
                        numbers,
                        stride: layout.k * width,
                        first,
                        count,
                    }
                }
                Weights::Plain(plain, _) => {
                    let numbers = buffer.as_deref_mut().unwrap_or_default();
                    plain.fill(numbers, &layout, columns.clone(), first..first + count);
                    Block {
                        numbers,
                        stride: count * width,
                        first,
                        count,
                    }
                }
            };
            let start = (first == 0).then_some(&start[..width]);
            for row in (0..self.count).step_by(M) {
                self.tile::<S, M, V>(simd, row, M.min(self.count - row), block, start, &mut spare);
            }
            first += count;
            if first >= layout.k {
                break;
            }
        }
    }
}

impl Task<'_> {
    /// Adds one block's share to M rows of the chunk from `top`; fewer at the end, where the last
    /// one is computed several times and stored once.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        top: usize,
        valid: usize,
        block: Block<'_>,
        start: Option<&[f32]>,
        spare: &mut [f32],
    ) {
        let layout = self.p.weights.layout();
        let (taps, k, width) = (layout.taps, layout.k, V * S::F32_LANES);
        let first = self.first + top;
        let row = |i: usize| first + i.min(valid - 1);

        let mut sums = [[simd.splat_f32s(0.0); V]; M];
        match start {
            Some(start) => sums = [vectors::<S, V>(simd, start); M],
            None => {
                for (i, sums) in sums.iter_mut().enumerate().take(valid) {
                    let y = self.y.row(top + i);
                    *sums = if y.len() == width {
                        vectors::<S, V>(simd, y)
                    } else {
                        spare[..y.len()].copy_from_slice(y);
                        vectors::<S, V>(simd, spare)
                    };
                }
            }
        }
        for tap in 0..taps {
            // Where an enlarged gradient has nothing, and around a small map.
            if (0..valid).all(|i| self.p.sources[row(i) * taps + tap] == NOWHERE) {
                continue;
            }
            let mut x = [self.zeros; M];
            for (i, x) in x.iter_mut().enumerate() {
                let source = self.p.sources[row(i) * taps + tap];
                if source != NOWHERE {
                    *x = &self.p.x[source as usize * k + block.first..][..block.count];
                }
            }
            multiply(
                simd,
                &mut sums,
                x,
                &block.numbers[tap * block.stride..][..block.count * width],
            );
        }
        // The first block finds rows that nothing was written to, and comes to them in order.
        let (whole, fresh) = (self.y.width() == width, start.is_some());
        if whole && fresh {
            self.y.append_vectors(&sums, valid);
            return;
        }
        for (i, sums) in sums.iter().enumerate().take(valid) {
            if whole {
                put::<S, V>(self.y.row(top + i), sums);
                continue;
            }
            put::<S, V>(spare, sums);
            let numbers = &spare[..self.y.width()];
            if fresh {
                self.y.append(numbers);
            } else {
                self.y.row(top + i).copy_from_slice(numbers);
            }
        }
    }
}

// No closures from here on: one that is not inlined is compiled without the instructions that this
// is about.

#[inline(always)]
fn vectors<S: Simd, const V: usize>(simd: S, numbers: &[f32]) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    let numbers = &S::as_simd_f32s(numbers).0[..V];
    for v in 0..V {
        vectors[v] = numbers[v];
    }
    vectors
}

#[inline(always)]
fn put<S: Simd, const V: usize>(to: &mut [f32], vectors: &[S::f32s; V]) {
    let to = &mut S::as_mut_simd_f32s(to).0[..V];
    for v in 0..V {
        to[v] = vectors[v];
    }
}

#[inline(always)]
#[expect(
    unsafe_code,
    reason = "bounds are checked once, before the loop that takes all the time"
)]
fn multiply<S: Simd, const M: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; M],
    x: [&[f32]; M],
    w: &[f32],
) {
    let w = S::as_simd_f32s(w).0;
    let count = w.len() / V;
    for x in &x {
        assert!(x.len() >= count, "a row is too short");
    }
    let mut all = *sums;
    for j in 0..count {
        let mut row = [simd.splat_f32s(0.0); V];
        for v in 0..V {
            // SAFETY: j < count, w has count * V vectors, every row at least count numbers.
            row[v] = unsafe { *w.get_unchecked(j * V + v) };
        }
        for i in 0..M {
            // SAFETY: as above.
            let x = simd.splat_f32s(unsafe { *x[i].get_unchecked(j) });
            for v in 0..V {
                all[i][v] = simd.mul_add_e_f32s(x, row[v], all[i][v]);
            }
        }
    }
    *sums = all;
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;
    use crate::cpu::{
        area::written,
        outer::{Outer, outer_on},
        panels::{Packed, Plain},
    };

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Every set of instructions that this processor has.
    fn archs() -> Vec<Arch> {
        let mut archs = vec![Arch::Scalar, Arch::new()];
        #[cfg(target_arch = "x86_64")]
        archs.extend(pulp::x86::V3::try_new().map(Arch::V3));
        archs
    }

    /// A product whose rows go to places of a buffer; what that held is written over.
    fn product_at(y: &mut [f32], places: &[u32], p: Gathered<'_>) {
        let n = p.weights.layout().n;
        let made = written(y.len(), n, |area| {
            let [area] = area.scattered([places]);
            product(area, p);
        });
        y.copy_from_slice(&made);
    }

    /// Rows from anywhere or nowhere, to places in any order, over widths that fill no vector.
    #[test]
    fn all_instructions_agree_with_plain_sums() {
        for arch in archs() {
            // Miri takes a thousand times as long.
            let large: &[(usize, usize, usize, usize)] = if cfg!(miri) {
                &[(101, 1, 3, 17)]
            } else {
                &[(61, 2, 33, 70), (5, 9, 400, 48), (130, 1, 2100, 17)]
            };
            for (rows, taps, k, n) in [(1, 1, 1, 1), (7, 4, 5, 3)].iter().chain(large).copied() {
                let from = 11;
                let (x, w, bias) = (
                    numbers(from * k, 1),
                    numbers(n * k * taps, 2),
                    numbers(n, 3),
                );
                let sources: Vec<u32> = (0..rows * taps)
                    .map(|i| {
                        if i % 5 == 3 {
                            NOWHERE
                        } else {
                            (i * 7 % from) as u32
                        }
                    })
                    .collect();
                let places: Vec<u32> = (0..rows as u32).rev().collect();
                let layout = Layout::on(arch, taps, k, n);
                let packed = Packed::new(Plain::Kernel(w.as_slice().into()), layout);
                for weights in [
                    Weights::Packed(&packed),
                    Weights::Plain(Plain::Kernel(w.as_slice().into()), layout),
                ] {
                    let mut y = vec![f32::NAN; rows * n];
                    let p = Gathered {
                        x: &x,
                        sources: &sources,
                        weights,
                        bias: Some(&bias),
                        shared: rows > 100,
                    };
                    product_at(&mut y, &places, p);
                    for (r, o) in (0..rows).flat_map(|r| (0..n).map(move |o| (r, o))) {
                        let mut sum = f64::from(bias[o]);
                        for (t, &s) in sources[r * taps..][..taps]
                            .iter()
                            .enumerate()
                            .filter(|(_, s)| **s != NOWHERE)
                        {
                            sum += (0..k)
                                .map(|i| {
                                    f64::from(x[s as usize * k + i])
                                        * f64::from(w[(o * k + i) * taps + t])
                                })
                                .sum::<f64>();
                        }
                        let y = f64::from(y[places[r] as usize * n + o]);
                        assert!(
                            (y - sum).abs() < 1e-4,
                            "{arch:?} {rows} {taps} {k} {n}: {y}, not {sum}"
                        );
                    }
                }

                let dy = numbers(rows * n, 4);
                let dw = outer_on(
                    layout,
                    Outer {
                        x: &x,
                        dy: &dy,
                        sources: &sources,
                        taps,
                        k,
                        n,
                    },
                );
                for (o, i, t) in
                    (0..n).flat_map(|o| [(o, 0, 0), (o, k - 1, taps - 1), (o, k / 2, taps / 2)])
                {
                    let sum: f64 = (0..rows)
                        .filter(|r| sources[r * taps + t] != NOWHERE)
                        .map(|r| {
                            f64::from(dy[r * n + o])
                                * f64::from(x[sources[r * taps + t] as usize * k + i])
                        })
                        .sum();
                    let found = f64::from(dw[(o * k + i) * taps + t]);
                    assert!(
                        (found - sum).abs() < 1e-4,
                        "{arch:?} {rows} {taps} {k} {n}: gradient {found}, not {sum}"
                    );
                }
            }
        }
    }
}
