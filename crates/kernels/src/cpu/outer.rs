//! Sums of outer products of gathered rows: `dw_t[n, k] = sum over rows r of dy[r, n] x[source(r, t), k]`, the gradient of
//! the weights of [`super::gathered`]'s product. Each number is summed over rows in order.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{gathered::NOWHERE, panels::Layout};

/// Rows whose gradients are laid out at a time.
const ROWS: usize = 1024;

/// Columns of `x` that one task takes.
const SPAN: usize = 48;

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
    let mut dw = vec![0.0; p.n * p.k * p.taps];
    let arch = layout.arch;
    // A task owns all of some columns of dy; within it, the columns of x go by spans.
    dw.par_chunks_mut((layout.width() * p.k * p.taps).max(1)).enumerate().for_each(|(panel, dw)| {
        let columns = layout.columns(panel);
        let spans = p.k.div_ceil(SPAN);
        let parts: Vec<Vec<f32>> = (0..spans)
            .into_par_iter()
            .map(|span| arch.dispatch(Task { p, layout, panel, first: span * SPAN, count: SPAN.min(p.k - span * SPAN) }))
            .collect();
        // From [taps, count, width] to [n, k, taps].
        for (span, part) in parts.iter().enumerate() {
            let (first, count) = (span * SPAN, SPAN.min(p.k - span * SPAN));
            for column in 0..columns.len() {
                let to = &mut dw[(column * p.k + first) * p.taps..][..count * p.taps];
                for (k, to) in to.chunks_exact_mut(p.taps).enumerate() {
                    for (tap, to) in to.iter_mut().enumerate() {
                        *to = part[(tap * count + k) * layout.width() + column];
                    }
                }
            }
        }
    });
    dw
}

struct Task<'a> {
    p: Outer<'a>,
    layout: Layout,
    panel: usize,
    first: usize,
    count: usize,
}

impl WithSimd for Task<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        match (S::F32_LANES, self.layout.vectors) {
            (16, 1) => self.run::<S, 12, 1>(simd),
            (16, 2) => self.run::<S, 12, 2>(simd),
            (16, 3) => self.run::<S, 8, 3>(simd),
            (16, _) => self.run::<S, 6, 4>(simd),
            (_, 1) => self.run::<S, 8, 1>(simd),
            (_, 2) => self.run::<S, 6, 2>(simd),
            _ => self.run::<S, 4, 3>(simd),
        }
    }
}

impl Task<'_> {
    /// Sums `[taps, count, width]`.
    #[inline(always)]
    fn run<S: Simd, const M: usize, const V: usize>(&self, simd: S) -> Vec<f32> {
        let Outer { x, dy, sources, taps, k, n } = self.p;
        let width = V * S::F32_LANES;
        let columns = self.layout.columns(self.panel);
        let rows = sources.len() / taps;
        let mut sums = vec![0.0; taps * self.count * width];
        let mut packed = vec![0.0; rows.min(ROWS) * width];
        for top in (0..rows).step_by(ROWS) {
            let height = ROWS.min(rows - top);
            for (r, to) in packed.chunks_exact_mut(width).enumerate().take(height) {
                to[..columns.len()].copy_from_slice(&dy[(top + r) * n..][columns.clone()]);
            }
            for tap in 0..taps {
                for first in (0..self.count).step_by(M) {
                    let valid = M.min(self.count - first);
                    let at = (tap * self.count + first) * width;
                    let own = S::as_mut_simd_f32s(&mut sums[at..][..valid * width]).0;
                    let mut tile = [[simd.splat_f32s(0.0); V]; M];
                    for (tile, own) in tile.iter_mut().zip(own.chunks_exact(V)) {
                        tile.copy_from_slice(own);
                    }
                    let mut padded = [0.0; M];
                    for r in 0..height {
                        let source = sources[(top + r) * taps + tap];
                        if source == NOWHERE {
                            continue;
                        }
                        let x = &x[source as usize * k + self.first + first..][..valid];
                        let dy = &packed[r * width..][..width];
                        if valid == M {
                            add::<S, M, V>(simd, &mut tile, x, dy);
                        } else {
                            padded[..valid].copy_from_slice(x);
                            add::<S, M, V>(simd, &mut tile, &padded, dy);
                        }
                    }
                    for (tile, own) in tile.iter().zip(own.chunks_exact_mut(V)) {
                        own.copy_from_slice(tile);
                    }
                }
            }
        }
        sums
    }
}

/// `tile[i] += x[i] dy`.
#[inline(always)]
fn add<S: Simd, const M: usize, const V: usize>(simd: S, tile: &mut [[S::f32s; V]; M], x: &[f32], dy: &[f32]) {
    let dy = S::as_simd_f32s(dy).0;
    let mut row = [simd.splat_f32s(0.0); V];
    row.copy_from_slice(&dy[..V]);
    let x: &[f32; M] = x.try_into().expect("M numbers");
    for i in 0..M {
        let x = simd.splat_f32s(x[i]);
        for v in 0..V {
            tile[i][v] = simd.mul_add_e_f32s(x, row[v], tile[i][v]);
        }
    }
}
