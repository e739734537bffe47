//! Scaled dot-product attention over token layout, a block of queries at a time: the full score matrix never exists.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    layer_norm::sum,
    math::exp,
    product::{Shape, product},
};

/// Scores of one block of queries, at most; a block is then a few hundred kilobytes.
const SCORES: usize = 1 << 16;

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
        (SCORES / self.keys.max(1)).clamp(1, self.queries.max(1))
    }
}

/// - q and result: `[n, queries, width]`; k, v: `[n, keys, width]`
pub(crate) fn forward(q: &[f32], k: &[f32], v: &[f32], s: Sizes) -> Vec<f32> {
    let (d, block) = (s.head(), s.block());
    let mut y = vec![0.0; q.len()];
    y.par_chunks_mut(s.queries * s.width).enumerate().for_each(|(n, y)| {
        let (k, v) = (&k[n * s.keys * s.width..][..s.keys * s.width], &v[n * s.keys * s.width..][..s.keys * s.width]);
        let q = &q[n * s.queries * s.width..][..s.queries * s.width];
        y.par_chunks_mut(block * s.width).zip(q.par_chunks(block * s.width)).enumerate().for_each(|(b, (y, q))| {
            let rows = q.len() / s.width;
            let mut scores = vec![0.0; rows * s.keys];
            for h in 0..s.heads {
                probabilities(&mut scores, q, k, h, b * block, s);
                let value = Shape::strided(s.keys, d, s.width);
                let out = Shape::strided(rows, d, s.width);
                product(&mut y[h * d..], out, false, &scores, Shape::rows(rows, s.keys), &v[h * d..], value, 1.0);
            }
        });
    });
    y
}

/// `softmax(q k^T / sqrt(d))` of one head for a block of queries that begins at `first`.
fn probabilities(scores: &mut [f32], q: &[f32], k: &[f32], h: usize, first: usize, s: Sizes) {
    let (d, rows) = (s.head(), q.len() / s.width);
    let (query, key) = (Shape::strided(rows, d, s.width), Shape::strided(s.keys, d, s.width).transposed());
    product(scores, Shape::rows(rows, s.keys), false, &q[h * d..], query, &k[h * d..], key, s.scale());
    for (i, row) in scores.chunks_exact_mut(s.keys).enumerate() {
        let seen = if s.causal { (first + i + 1).min(s.keys) } else { s.keys };
        softmax(&mut row[..seen]);
        row[seen..].fill(0.0);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn softmax(row: &mut [f32]) {
    let most = row.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    for x in row.iter_mut() {
        *x = exp(*x - most);
    }
    let scale = 1.0 / sum(row.len(), |i| row[i]);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

/// Gradients of q, k and v; the probabilities are computed again.
pub(crate) fn backward(q: &[f32], k: &[f32], v: &[f32], dy: &[f32], s: Sizes) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
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
            head_backward(&q[of(q, s.queries)], &k[of(k, s.keys)], &v[of(v, s.keys)], &dy[of(dy, s.queries)], h, s)
        })
        .collect();
    let gather = |which: usize, tokens: usize| {
        let mut all = vec![0.0; s.n * tokens * s.width];
        all.par_chunks_mut((tokens * s.width).max(1)).enumerate().for_each(|(n, all)| {
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
    let (mut dq, mut dk, mut dv) = (vec![0.0; s.queries * d], vec![0.0; s.keys * d], vec![0.0; s.keys * d]);
    let mut scores = vec![0.0; block * s.keys];
    let mut slopes = vec![0.0; block * s.keys];
    for first in (0..s.queries).step_by(block) {
        let rows = block.min(s.queries - first);
        let (q, dy) = (&q[first * s.width..][..rows * s.width], &dy[first * s.width..][..rows * s.width]);
        let (p, dp) = (&mut scores[..rows * s.keys], &mut slopes[..rows * s.keys]);
        probabilities(p, q, k, h, first, s);
        let (all, query) = (Shape::rows(rows, s.keys), Shape::strided(rows, d, s.width));
        let (key, own) = (Shape::strided(s.keys, d, s.width), Shape::rows(s.keys, d));
        // dv += p^T dy; dp = dy v^T
        product(&mut dv, own, true, p, all.transposed(), &dy[h * d..], query, 1.0);
        product(dp, all, false, &dy[h * d..], query, &v[h * d..], key.transposed(), 1.0);
        // Through the softmax: ds = p (dp - sum(p dp)).
        for (p, dp) in p.chunks_exact(s.keys).zip(dp.chunks_exact_mut(s.keys)) {
            through_softmax(dp, p);
        }
        // dq = scale ds k; dk += scale ds^T q
        product(&mut dq[first * d..], Shape::rows(rows, d), false, dp, all, &k[h * d..], key, s.scale());
        product(&mut dk, own, true, dp, all.transposed(), &q[h * d..], query, s.scale());
    }
    [dq, dk, dv]
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn through_softmax(dp: &mut [f32], p: &[f32]) {
    let n = dp.len();
    let p = &p[..n];
    let mean = sum(n, |i| dp[i] * p[i]);
    for i in 0..n {
        dp[i] = p[i] * (dp[i] - mean);
    }
}
