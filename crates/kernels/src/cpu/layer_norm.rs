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
    y.par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .with_min_len(pieces(ROWS * width))
        .for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                forward_row(y, x, gamma, beta, eps);
            }
        });
    y
}

/// Gradients of x, gamma and beta.
pub(crate) fn backward(
    x: &[f32],
    dy: &[f32],
    gamma: &[f32],
    eps: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = gamma.len();
    let mut dx = vec![0.0; x.len()];
    // One partial sum for each block of rows, added up in order: the same whatever the number of
    // threads.
    let partial: Vec<Vec<f32>> = dx
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .zip(dy.par_chunks(ROWS * width))
        .with_min_len(pieces(ROWS * width))
        .map(|((dx, x), dy)| {
            let mut sums = vec![0.0; 2 * width];
            let (dgamma, dbeta) = sums.split_at_mut(width);
            for ((dx, x), dy) in dx
                .chunks_exact_mut(width)
                .zip(x.chunks_exact(width))
                .zip(dy.chunks_exact(width))
            {
                backward_row(dx, dgamma, dbeta, x, dy, gamma, eps);
            }
            sums
        })
        .collect();
    let mut sums = vec![0.0f64; 2 * width];
    for block in &partial {
        sums.iter_mut()
            .zip(block)
            .for_each(|(s, b)| *s += f64::from(*b));
    }
    let both: Vec<f32> = sums.into_iter().map(|s| s as f32).collect();
    (dx, both[..width].to_vec(), both[width..].to_vec())
}

/// Mean and reciprocal deviation of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// A sum in sixteen lanes, so that it vectorises.
#[inline(always)]
pub(crate) fn sum(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = x.chunks_exact(16);
    let rest = whole.remainder();
    for x in whole {
        for l in 0..16 {
            lanes[l] += term(x[l]);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| term(x)).sum::<f32>()
}

/// The same over pairs.
#[inline(always)]
pub(crate) fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = a.chunks_exact(16).zip(b.chunks_exact(16));
    let rest = a.len().min(b.len()) / 16 * 16;
    for (a, b) in whole {
        for l in 0..16 {
            lanes[l] += term(a[l], b[l]);
        }
    }
    lanes.iter().sum::<f32>()
        + a[rest..]
            .iter()
            .zip(&b[rest..])
            .map(|(&a, &b)| term(a, b))
            .sum::<f32>()
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn forward_row(y: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let (mean, scale) = moments(x, eps);
    for (((y, x), g), b) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
        *y = (x - mean) * scale * g + b;
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn backward_row(
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    x: &[f32],
    dy: &[f32],
    gamma: &[f32],
    eps: f32,
) {
    let n = x.len();
    let (mean, scale) = moments(x, eps);
    let (x, dy, gamma, dgamma, dbeta) = (
        &x[..n],
        &dy[..n],
        &gamma[..n],
        &mut dgamma[..n],
        &mut dbeta[..n],
    );
    let dx = &mut dx[..n];
    // First the gradient of the normalised row, then what it must lose.
    for i in 0..n {
        dx[i] = dy[i] * gamma[i];
    }
    let mean_d = sum(dx, |d| d) / n as f32;
    let mean_dx = sum_pairs(dx, x, |d, x| d * (x - mean)) * scale / n as f32;
    for i in 0..n {
        let hat = (x[i] - mean) * scale;
        dx[i] = scale * (dx[i] - mean_d - hat * mean_dx);
        dgamma[i] += dy[i] * hat;
        dbeta[i] += dy[i];
    }
}
