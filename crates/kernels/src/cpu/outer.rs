//! Sums of outer products of gathered rows: `dw_t[n, k] = sum over rows r of dy[r, n] x[source(r,
//! t), k]`, the gradient of the weights of [`super::gathered`]'s product. Each number is summed
//! over rows in order.

#![expect(
    clippy::needless_range_loop,
    reason = "indices into fixed arrays become registers; adapters that are not inlined lose the instructions"
)]

use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use super::{
    area::{Area, Cut, Order, written},
    gathered::NOWHERE,
    panels::{Layout, SIDE, Tiled, by_tiles, transpose},
    scratch::Scratch,
};

/// Columns of `x` that one task takes; all tiles but the last then are full.
const SPAN: usize = 48;

/// Rows that all taps and tiles run over before the next ones are read: their part of `dy` stays in
/// the first cache.
const ROWS: usize = 128;

/// Rows of `x` and of `dy`, and which belong together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) dy: &'a [f32],
    pub(crate) sources: &'a [u32],
    pub(crate) taps: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
}

/// The gradient laid out `[n, k, taps]`.
pub(crate) fn outer(p: Outer<'_>) -> Vec<f32> {
    outer_on(Layout::new(p.taps, p.k, p.n), p)
}

/// The same with the instructions of a layout.
pub(crate) fn outer_on(layout: Layout, p: Outer<'_>) -> Vec<f32> {
    let (width, rows) = (layout.width(), p.sources.len() / p.taps);
    let length = p.n * p.k * p.taps;
    if rows == 0 || length == 0 {
        return vec![0.0; length];
    }
    assert!(
        p.sources
            .iter()
            .all(|&s| s == NOWHERE || (s as usize + 1) * p.k <= p.x.len()),
        "a source past the end"
    );
    assert_eq!(p.dy.len(), rows * p.n);

    // dy in panels [rows, width], zero past its last column.
    let mut panels = Scratch::of(layout.panels() * rows * width);
    panels
        .par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(panel, to)| {
            let columns = layout.columns(panel);
            for (to, from) in to.chunks_exact_mut(width).zip(p.dy.chunks_exact(p.n)) {
                to[..columns.len()].copy_from_slice(&from[columns.clone()]);
                to[columns.len()..].fill(0.0);
            }
        });
    // For each block of rows and each tap, the rows that have a source, with it.
    let blocks: Vec<Vec<Pair>> = (0..rows)
        .step_by(ROWS)
        .flat_map(|first| (0..p.taps).map(move |tap| (first, tap)))
        .map(|(first, tap)| {
            let sources = (first..(first + ROWS).min(rows))
                .map(|row| (row as u32, p.sources[row * p.taps + tap]));
            sources
                .filter(|(_, source)| *source != NOWHERE)
                .map(|(row, source)| [row, source])
                .collect()
        })
        .collect();

    // A task has some columns of dy and some of x, and so a part of the gradient of its own; where
    // that makes fewer tasks than keep all threads busy, as in narrow layers, one tap of it.
    written(length, p.k * p.taps, |to| {
        let mut cells = to.cells(Cut::every(width), Cut::every(SPAN * p.taps), Order::Rows);
        let together = match cells.len() < 4 * rayon::current_num_threads() {
            true => 1,
            false => p.taps,
        };
        cells.shared(cells.len()).for_each(|to| {
            let (panel, first) = (to.rows().start / width, to.columns().start / p.taps);
            let dy = &panels[panel * rows * width..][..rows * width];
            let count = to.width() / p.taps;
            let sums = (0..p.taps).into_par_iter().step_by(together).map(|tap| {
                by_tiles(Task {
                    p,
                    layout,
                    dy,
                    blocks: &blocks,
                    own: tap..tap + together,
                    first,
                    count,
                })
            });
            let sums: Vec<Scratch> = sums.collect();
            spread(to, &sums, &layout);
        });
    })
}

/// Some rows `[taps, count, width]`, the taps in as many groups as there are `sums`, to their places
/// `[columns, count, taps]`, by squares.
fn spread(to: Area<'_>, sums: &[Scratch], layout: &Layout) {
    let (taps, width) = (layout.taps, layout.width());
    let run = to.width();
    let count = run / taps;
    let columns = to.height();
    let together = taps / sums.len();
    let row = |at: usize| {
        let tap = at % taps;
        &sums[tap / together][(tap % together * count + at / taps) * width..][..width]
    };
    for (i, mut to) in to
        .cells(Cut::WHOLE, Cut::every(SIDE), Order::Rows)
        .in_order()
        .enumerate()
    {
        let (at, size) = (i * SIDE, to.width());
        let from: [&[f32]; SIDE] = std::array::from_fn(|i| row(at + i.min(size - 1)));
        for column in (0..columns).step_by(SIDE) {
            let mut square = [[0.0; SIDE]; SIDE];
            if column + SIDE <= width {
                transpose(&mut square, &from, column);
            } else {
                for (i, from) in from.iter().enumerate() {
                    for (j, &value) in from[column..].iter().enumerate() {
                        square[j][i] = value;
                    }
                }
            }
            for line in &square[..SIDE.min(columns - column)] {
                to.append(&line[..size]);
            }
        }
    }
}

/// A row, and its source.
type Pair = [u32; 2];

struct Task<'a> {
    p: Outer<'a>,
    layout: Layout,
    /// A panel of dy, `[rows, width]`.
    dy: &'a [f32],
    /// Of every block and all taps.
    blocks: &'a [Vec<Pair>],
    /// The taps that it sums for.
    own: Range<usize>,
    first: usize,
    count: usize,
}

impl Tiled for Task<'_> {
    /// Sums `[own taps, count, width]`.
    type Output = Scratch;

    fn layout(&self) -> Layout {
        self.layout
    }

    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize>(self, simd: S) -> Scratch {
        let Outer { x, taps, k, .. } = self.p;
        let width = V * S::F32_LANES;
        let mut sums = Scratch::of(self.own.len() * self.count * width);
        sums.fill(0.0);
        let mut narrow = Vec::new();
        for blocks in self.blocks.chunks_exact(taps) {
            for (tap, pairs) in blocks[self.own.clone()].iter().enumerate() {
                for first in (0..self.count).step_by(M) {
                    let valid = M.min(self.count - first);
                    let own = &mut sums[(tap * self.count + first) * width..][..valid * width];
                    let own = S::as_mut_simd_f32s(own).0;
                    let mut tile = [[simd.splat_f32s(0.0); V]; M];
                    for i in 0..valid {
                        for v in 0..V {
                            tile[i][v] = own[i * V + v];
                        }
                    }
                    if valid == M {
                        accumulate(simd, &mut tile, &x[self.first + first..], k, self.dy, pairs);
                    } else {
                        // Too few columns are left: those there are, side by side with zeros.
                        narrow.clear();
                        narrow.resize(pairs.len() * M, 0.0);
                        let mut renamed = Vec::with_capacity(pairs.len());
                        for (i, &[row, source]) in pairs.iter().enumerate() {
                            let from = &x[source as usize * k + self.first + first..][..valid];
                            narrow[i * M..][..valid].copy_from_slice(from);
                            renamed.push([row, i as u32]);
                        }
                        accumulate(simd, &mut tile, &narrow, M, self.dy, &renamed);
                    }
                    for i in 0..valid {
                        for v in 0..V {
                            own[i * V + v] = tile[i][v];
                        }
                    }
                }
            }
        }
        sums
    }
}

/// `tile[i] += sum over pairs of x[source * k + i] dy[row]`.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "bounds are checked once, before the loop that takes all the time"
)]
fn accumulate<S: Simd, const M: usize, const V: usize>(
    simd: S,
    tile: &mut [[S::f32s; V]; M],
    x: &[f32],
    k: usize,
    dy: &[f32],
    pairs: &[Pair],
) {
    let dy = S::as_simd_f32s(dy).0;
    let (mut last_row, mut last_source) = (0, 0);
    for &[row, source] in pairs {
        last_row = last_row.max(row as usize);
        last_source = last_source.max(source as usize);
    }
    assert!(
        pairs.is_empty() || (last_row + 1) * V <= dy.len() && last_source * k + M <= x.len(),
        "a pair past the end"
    );
    let mut all = *tile;
    for &[r, source] in pairs {
        let mut row = [simd.splat_f32s(0.0); V];
        for v in 0..V {
            // SAFETY: as asserted above.
            row[v] = unsafe { *dy.get_unchecked(r as usize * V + v) };
        }
        for i in 0..M {
            // SAFETY: as asserted above.
            let x = simd.splat_f32s(unsafe { *x.get_unchecked(source as usize * k + i) });
            for v in 0..V {
                all[i][v] = simd.mul_add_e_f32s(x, row[v], all[i][v]);
            }
        }
    }
    *tile = all;
}
