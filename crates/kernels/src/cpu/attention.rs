//! Scaled dot-product attention over token layout, a block of queries at a time: the full score
//! matrix never exists.

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    area::{Area, Cut, Order, written},
    gathered::{Gathered, product as gathered},
    layer_norm::{sum, sum_pairs},
    math::exp,
    numbers::Numbers,
    panels::{Layout, Packed, Plain, Weights},
    product::{Shape, product},
    scratch::Scratch,
};

/// Scores of one block of queries: they stay in the second cache, unless there are very many keys.
const SCORES: usize = 1 << 17;

/// Queries in one block, at least: keys and values are read once for all of them.
const QUERIES: usize = 24;

/// Sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) n: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) causal: bool,
}

impl Sizes {
    fn head(&self) -> usize {
        self.width / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }

    /// Queries in one block; depends on sizes alone.
    fn block(&self) -> usize {
        (SCORES / self.keys.max(1))
            .max(QUERIES)
            .min(self.queries.max(1))
    }
}

/// - q and result: `[n, queries, width]`; k, v: `[n, keys, width]`
pub(crate) fn forward(q: &[f32], k: &[f32], v: &[f32], s: Sizes) -> Vec<f32> {
    let (d, block) = (s.head(), s.block());
    written(s.n * s.queries * s.width, s.width, |y| {
        let mut heads = y.cells(Cut::every(s.queries.max(1)), Cut::every(d), Order::Rows);
        heads.shared(heads.len()).for_each(|y| {
            let (n, h) = (y.rows().start / s.queries, y.columns().start / d);
            // The head's keys and values, laid out once for all queries.
            let keys = head(k, n * s.keys..(n + 1) * s.keys, h, s, s.scale());
            let keys = Packed::new(
                Plain::Kernel(Numbers::F32(&keys)),
                Layout::new(1, d, s.keys),
            );
            let values = head(v, n * s.keys..(n + 1) * s.keys, h, s, 1.0);
            let values = Packed::new(
                Plain::Rows(Numbers::F32(&values)),
                Layout::new(1, s.keys, d),
            );
            let mut blocks = y.cells(Cut::every(block), Cut::WHOLE, Order::Rows);
            blocks.shared(blocks.len()).for_each(|mut y| {
                let (at, rows) = (y.rows(), y.height());
                let sources: Vec<u32> = (0..rows as u32).collect();
                let multiply = |x: &[f32], packed: &Packed, to: &mut [f32]| {
                    let weights = Weights::Packed(packed);
                    let p = Gathered {
                        x,
                        sources: &sources,
                        weights,
                        bias: None,
                        shared: false,
                    };
                    gathered(Area::of(to, packed.layout.n), p);
                };
                let (mut scores, mut out) = (Scratch::of(rows * s.keys), Scratch::of(rows * d));
                multiply(&head(q, at.clone(), h, s, 1.0), &keys, &mut scores);
                for (i, row) in scores.chunks_exact_mut(s.keys).enumerate() {
                    normalise(row, at.start - n * s.queries + i, s);
                }
                multiply(&scores, &values, &mut out);
                for out in out.chunks_exact(d) {
                    y.append(out);
                }
            });
        });
    })
}

/// One head's part of some rows, `[rows, d]`, scaled.
fn head(x: &[f32], rows: Range<usize>, h: usize, s: Sizes, scale: f32) -> Scratch {
    let d = s.head();
    let mut part = Scratch::of(rows.len() * d);
    for (to, row) in part.chunks_exact_mut(d).zip(rows) {
        for (to, x) in to.iter_mut().zip(&x[row * s.width + h * d..][..d]) {
            *to = scale * x;
        }
    }
    part
}

/// Scores of one query as probabilities.
fn normalise(row: &mut [f32], query: usize, s: Sizes) {
    let seen = if s.causal {
        (query + 1).min(s.keys)
    } else {
        s.keys
    };
    softmax(&mut row[..seen]);
    row[seen..].fill(0.0);
}

/// `softmax(q k^T / sqrt(d))` of one head for a block of queries that begins at `first`.
fn probabilities(scores: &mut [f32], q: &[f32], k: &[f32], h: usize, first: usize, s: Sizes) {
    let (d, rows) = (s.head(), q.len() / s.width);
    let (query, key) = (
        Shape::strided(rows, d, s.width),
        Shape::strided(s.keys, d, s.width).transposed(),
    );
    product(
        scores,
        Shape::rows(rows, s.keys),
        false,
        &q[h * d..],
        query,
        &k[h * d..],
        key,
        s.scale(),
    );
    for (i, row) in scores.chunks_exact_mut(s.keys).enumerate() {
        normalise(row, first + i, s);
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn softmax(row: &mut [f32]) {
    let most = largest(row);
    for x in row.iter_mut() {
        *x = exp(*x - most);
    }
    let scale = 1.0 / sum(row, |x| x);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

/// The largest of some numbers, in lanes, so that it vectorises; one that is NaN is passed over.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 64];
    let whole = row.chunks_exact(64);
    let rest = whole.remainder();
    for x in whole {
        for l in 0..64 {
            lanes[l] = larger(lanes[l], x[l]);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// Gradients of q, k and v; the probabilities are computed again.
pub(crate) fn backward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dy: &[f32],
    s: Sizes,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let d = s.head();
    // One task for each picture and head, each with its own gradients, put together afterwards.
    let parts: Vec<[Vec<f32>; 3]> = (0..s.n * s.heads)
        .into_par_iter()
        .map(|i| {
            let (n, h) = (i / s.heads, i % s.heads);
            let of = |x: &'_ [f32], tokens: usize| -> std::ops::Range<usize> {
                let start = n * tokens * s.width;
                debug_assert!(start + tokens * s.width <= x.len());
                start..start + tokens * s.width
            };
            head_backward(
                &q[of(q, s.queries)],
                &k[of(k, s.keys)],
                &v[of(v, s.keys)],
                &dy[of(dy, s.queries)],
                h,
                s,
            )
        })
        .collect();
    let gather = |which: usize, tokens: usize| {
        let mut all = vec![0.0; s.n * tokens * s.width];
        all.par_chunks_mut((tokens * s.width).max(1))
            .enumerate()
            .for_each(|(n, all)| {
                for h in 0..s.heads {
                    let part = &parts[n * s.heads + h][which];
                    for (row, part) in all.chunks_exact_mut(s.width).zip(part.chunks_exact(d)) {
                        row[h * d..][..d].copy_from_slice(part);
                    }
                }
            });
        all
    };
    (gather(0, s.queries), gather(1, s.keys), gather(2, s.keys))
}

/// Gradients of one head of one picture, each `[tokens, d]`.
fn head_backward(q: &[f32], k: &[f32], v: &[f32], dy: &[f32], h: usize, s: Sizes) -> [Vec<f32>; 3] {
    let (d, block) = (s.head(), s.block());
    let (mut dq, mut dk, mut dv) = (
        vec![0.0; s.queries * d],
        vec![0.0; s.keys * d],
        vec![0.0; s.keys * d],
    );
    let mut scores = vec![0.0; block * s.keys];
    let mut slopes = vec![0.0; block * s.keys];
    for first in (0..s.queries).step_by(block) {
        let rows = block.min(s.queries - first);
        let (q, dy) = (
            &q[first * s.width..][..rows * s.width],
            &dy[first * s.width..][..rows * s.width],
        );
        let (p, dp) = (&mut scores[..rows * s.keys], &mut slopes[..rows * s.keys]);
        probabilities(p, q, k, h, first, s);
        let (all, query) = (Shape::rows(rows, s.keys), Shape::strided(rows, d, s.width));
        let (key, own) = (Shape::strided(s.keys, d, s.width), Shape::rows(s.keys, d));
        // dv += p^T dy; dp = dy v^T
        product(
            &mut dv,
            own,
            true,
            p,
            all.transposed(),
            &dy[h * d..],
            query,
            1.0,
        );
        product(
            dp,
            all,
            false,
            &dy[h * d..],
            query,
            &v[h * d..],
            key.transposed(),
            1.0,
        );
        // Through the softmax: ds = p (dp - sum(p dp)).
        for (p, dp) in p.chunks_exact(s.keys).zip(dp.chunks_exact_mut(s.keys)) {
            through_softmax(dp, p);
        }
        // dq = scale ds k; dk += scale ds^T q
        product(
            &mut dq[first * d..],
            Shape::rows(rows, d),
            false,
            dp,
            all,
            &k[h * d..],
            key,
            s.scale(),
        );
        product(
            &mut dk,
            own,
            true,
            dp,
            all.transposed(),
            &q[h * d..],
            query,
            s.scale(),
        );
    }
    [dq, dk, dv]
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn through_softmax(dp: &mut [f32], p: &[f32]) {
    let n = dp.len();
    let p = &p[..n];
    let mean = sum_pairs(dp, p, |dp, p| dp * p);
    for i in 0..n {
        dp[i] = p[i] * (dp[i] - mean);
    }
}
