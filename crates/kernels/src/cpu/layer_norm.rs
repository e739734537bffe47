//! Layer norm over rows.

use multiversion::multiversion;
use rayon::prelude::*;

use super::pieces;

/// Rows that one task takes at a time.
const ROWS: usize = 64;

/// - x and result: `[rows, width]`
pub(crate) fn forward(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) -> Vec<f32> {
    let width = gamma.len();
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).with_min_len(pieces(ROWS * width)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            forward_row(y, x, gamma, beta, eps);
        }
    });
    y
}

/// Gradients of x, gamma and beta.
pub(crate) fn backward(x: &[f32], dy: &[f32], gamma: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = gamma.len();
    let mut dx = vec![0.0; x.len()];
    // One partial sum for each block of rows, added up in order: the same whatever the number of threads.
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .zip(dy.par_chunks(ROWS * width))
        .with_min_len(pieces(ROWS * width))
        .map(|((dx, x), dy)| {
            let mut sums = vec![0.0; 2 * width];
            let (dgamma, dbeta) = sums.split_at_mut(width);
            for ((dx, x), dy) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width)) {
                backward_row(dx, dgamma, dbeta, x, dy, gamma, eps);
            }
            sums
        })
        .collect();
    let mut sums = vec![0.0f64; 2 * width];
    for block in &partial {
        sums.iter_mut().zip(block).for_each(|(s, b)| *s += f64::from(*b));
    }
    let both: Vec<f32> = sums.into_iter().map(|s| s as f32).collect();
    (dx, both[..width].to_vec(), both[width..].to_vec())
}

/// Mean and reciprocal deviation of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x.len(), |i| x[i]) / n;
    let variance = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// A sum in sixteen lanes, so that it vectorises.
#[inline(always)]
pub(crate) fn sum(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = n / 16 * 16;
    let mut i = 0;
    while i < whole {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += term(i + l);
        }
        i += 16;
    }
    let mut total: f32 = lanes.iter().sum();
    for i in whole..n {
        total += term(i);
    }
    total
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward_row(y: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let (mean, scale) = moments(x, eps);
    for (((y, x), g), b) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
        *y = (x - mean) * scale * g + b;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward_row(dx: &mut [f32], dgamma: &mut [f32], dbeta: &mut [f32], x: &[f32], dy: &[f32], gamma: &[f32], eps: f32) {
    let n = x.len();
    let (mean, scale) = moments(x, eps);
    let (x, dy, gamma) = (&x[..n], &dy[..n], &gamma[..n]);
    let mean_d = sum(n, |i| dy[i] * gamma[i]) / n as f32;
    let mean_dx = sum(n, |i| dy[i] * gamma[i] * (x[i] - mean)) * scale / n as f32;
    for i in 0..n {
        let hat = (x[i] - mean) * scale;
        dx[i] = scale * (dy[i] * gamma[i] - mean_d - hat * mean_dx);
        dgamma[i] += dy[i] * hat;
        dbeta[i] += dy[i];
    }
}
