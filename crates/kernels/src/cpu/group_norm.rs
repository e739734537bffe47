//! Group norm over channels-last maps, with SiLU after it if wanted.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{math::sigmoid, pieces};

/// Places (rows of channels) that one task takes at a time.
const ROWS: usize = 256;

/// What the norm needs to know beside its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) silu: bool,
}

/// - x and result: `[pictures, places, channels]`; gamma, beta: `[channels]`
pub(crate) fn forward(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    pictures: usize,
    norm: Norm,
) -> Vec<f32> {
    let c = gamma.len();
    let picture = x.len() / pictures.max(1);
    let mut y = vec![0.0; x.len()];
    let least = pieces(picture);
    y.par_chunks_mut(picture.max(1))
        .zip(x.par_chunks(picture.max(1)))
        .with_min_len(least)
        .for_each(|(y, x)| {
            let (mean, scale) = statistics(x, c, norm);
            // y = a x + b, channel by channel.
            let a: Vec<f32> = gamma.iter().zip(&scale).map(|(g, s)| g * s).collect();
            let b: Vec<f32> = beta
                .iter()
                .zip(&mean)
                .zip(&a)
                .map(|((b, m), a)| b - m * a)
                .collect();
            y.par_chunks_mut(ROWS * c)
                .zip(x.par_chunks(ROWS * c))
                .with_min_len(pieces(2 * ROWS * c))
                .for_each(|(y, x)| {
                    if norm.silu {
                        scale_rows_silu(y, x, &a, &b)
                    } else {
                        scale_rows(y, x, &a, &b)
                    }
                });
        });
    y
}

/// Gradients of x, gamma and beta.
pub(crate) fn backward(
    x: &[f32],
    dy: &[f32],
    gamma: &[f32],
    beta: &[f32],
    pictures: usize,
    norm: Norm,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let c = gamma.len();
    let picture = (x.len() / pictures.max(1)).max(1);
    let places = picture / c;
    let size = c / norm.groups;
    let mut dx = vec![0.0; x.len()];
    let sums: Vec<(Vec<f64>, Vec<f64>)> = dx
        .par_chunks_mut(picture)
        .zip(x.par_chunks(picture))
        .zip(dy.par_chunks(picture))
        .with_min_len(pieces(2 * picture))
        .map(|((dx, x), dy)| {
            let (mean, scale) = statistics(x, c, norm);
            let rows = Rows {
                mean: &mean,
                scale: &scale,
                gamma,
                beta,
                silu: norm.silu,
            };
            // By channel: the sum of the gradient before the SiLU, and of it times the normalised
            // input.
            let blocks: Vec<(Vec<f32>, Vec<f32>)> = x
                .par_chunks(ROWS * c)
                .zip(dy.par_chunks(ROWS * c))
                .map(|(x, dy)| {
                    let (mut first, mut second) = (vec![0.0; c], vec![0.0; c]);
                    gather(&mut first, &mut second, x, dy, rows);
                    (first, second)
                })
                .collect();
            let (first, second) = (
                total(blocks.iter().map(|b| &b.0), c),
                total(blocks.iter().map(|b| &b.1), c),
            );
            // By group: the means that the gradient must lose.
            let (mut lose, mut lose_hat) = (vec![0.0f32; c], vec![0.0f32; c]);
            let n = (places * size) as f64;
            for g in 0..norm.groups {
                let range = g * size..(g + 1) * size;
                let mean_of = |s: &[f64]| {
                    range
                        .clone()
                        .map(|i| f64::from(gamma[i]) * s[i])
                        .sum::<f64>()
                        / n
                };
                lose[range.clone()].fill(mean_of(&first) as f32);
                lose_hat[range.clone()].fill(mean_of(&second) as f32);
            }
            dx.par_chunks_mut(ROWS * c)
                .zip(x.par_chunks(ROWS * c))
                .zip(dy.par_chunks(ROWS * c))
                .for_each(|((dx, x), dy)| spread(dx, x, dy, &lose, &lose_hat, rows));
            (first, second)
        })
        .collect();
    let add = |parts: &mut dyn Iterator<Item = &Vec<f64>>| -> Vec<f32> {
        let mut all = vec![0.0f64; c];
        for part in parts {
            all.iter_mut().zip(part).for_each(|(a, b)| *a += b);
        }
        all.into_iter().map(|v| v as f32).collect()
    };
    let dbeta = add(&mut sums.iter().map(|(first, _)| first));
    let dgamma = add(&mut sums.iter().map(|(_, second)| second));
    (dx, dgamma, dbeta)
}

/// The mean and the reciprocal deviation of each channel's group, in one pass: sums are taken of
/// the distance to the first row, so that no digits are lost where the mean is large.
fn statistics(x: &[f32], c: usize, norm: Norm) -> (Vec<f32>, Vec<f32>) {
    let size = c / norm.groups;
    let places = (x.len() / c) as f64;
    let near = &x[..c.min(x.len())];
    let parts: Vec<(Vec<f32>, Vec<f32>)> = x
        .par_chunks(ROWS * c)
        .with_min_len(pieces(ROWS * c))
        .map(|x| {
            let (mut sums, mut squares) = (vec![0.0; c], vec![0.0; c]);
            sum_distances(&mut sums, &mut squares, x, near);
            (sums, squares)
        })
        .collect();
    let (sums, squares) = (
        total(parts.iter().map(|p| &p.0), c),
        total(parts.iter().map(|p| &p.1), c),
    );
    let (mut mean, mut scale) = (Vec::with_capacity(c), Vec::with_capacity(c));
    for channels in (0..c).step_by(size).map(|first| first..first + size) {
        let n = places * size as f64;
        let at = |i: usize| f64::from(near[i]);
        let middle = channels
            .clone()
            .map(|i| places * at(i) + sums[i])
            .sum::<f64>()
            / n;
        // sum (x - m)^2 = sum (x - a)^2 + 2 (a - m) sum (x - a) + n (a - m)^2
        let around =
            |i: usize| squares[i] + (at(i) - middle) * (2.0 * sums[i] + places * (at(i) - middle));
        let variance = (channels.map(around).sum::<f64>() / n).max(0.0);
        mean.extend(std::iter::repeat_n(middle as f32, size));
        scale.extend(std::iter::repeat_n(
            (1.0 / (variance + norm.eps).sqrt()) as f32,
            size,
        ));
    }
    (mean, scale)
}

/// Adds up partial sums in f64, in order.
fn total<'a>(parts: impl Iterator<Item = &'a Vec<f32>>, c: usize) -> Vec<f64> {
    let mut all = vec![0.0f64; c];
    for part in parts {
        all.iter_mut()
            .zip(part)
            .for_each(|(a, p)| *a += f64::from(*p));
    }
    all
}

#[derive(Clone, Copy)]
struct Rows<'a> {
    mean: &'a [f32],
    scale: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    silu: bool,
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn sum_rows(sums: &mut [f32], x: &[f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (s, x) in sums.iter_mut().zip(row) {
            *s += x;
        }
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn sum_distances(sums: &mut [f32], squares: &mut [f32], x: &[f32], near: &[f32]) {
    let c = sums.len();
    let (squares, near) = (&mut squares[..c], &near[..c]);
    for row in x.chunks_exact(c) {
        for i in 0..c {
            let distance = row[i] - near[i];
            sums[i] += distance;
            squares[i] += distance * distance;
        }
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn scale_rows(y: &mut [f32], x: &[f32], a: &[f32], b: &[f32]) {
    for (y, x) in y.chunks_exact_mut(a.len()).zip(x.chunks_exact(a.len())) {
        for (((y, x), a), b) in y.iter_mut().zip(x).zip(a).zip(b) {
            *y = a * x + b;
        }
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn scale_rows_silu(y: &mut [f32], x: &[f32], a: &[f32], b: &[f32]) {
    for (y, x) in y.chunks_exact_mut(a.len()).zip(x.chunks_exact(a.len())) {
        for (((y, x), a), b) in y.iter_mut().zip(x).zip(a).zip(b) {
            let v = a * x + b;
            *y = v * sigmoid(v);
        }
    }
}

/// The gradient before the SiLU.
#[inline(always)]
fn before_silu(dy: f32, hat: f32, gamma: f32, beta: f32, silu: bool) -> f32 {
    if silu {
        let v = hat * gamma + beta;
        let s = sigmoid(v);
        dy * s * (1.0 + v * (1.0 - s))
    } else {
        dy
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn gather(first: &mut [f32], second: &mut [f32], x: &[f32], dy: &[f32], r: Rows<'_>) {
    let c = first.len();
    let (mean, scale, gamma, beta, second) = (
        &r.mean[..c],
        &r.scale[..c],
        &r.gamma[..c],
        &r.beta[..c],
        &mut second[..c],
    );
    for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
        for i in 0..c {
            let hat = (x[i] - mean[i]) * scale[i];
            let d = before_silu(dy[i], hat, gamma[i], beta[i], r.silu);
            first[i] += d;
            second[i] += d * hat;
        }
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn spread(dx: &mut [f32], x: &[f32], dy: &[f32], lose: &[f32], lose_hat: &[f32], r: Rows<'_>) {
    let c = lose.len();
    let (mean, scale, gamma, beta, lose_hat) = (
        &r.mean[..c],
        &r.scale[..c],
        &r.gamma[..c],
        &r.beta[..c],
        &lose_hat[..c],
    );
    for ((dx, x), dy) in dx
        .chunks_exact_mut(c)
        .zip(x.chunks_exact(c))
        .zip(dy.chunks_exact(c))
    {
        for i in 0..c {
            let hat = (x[i] - mean[i]) * scale[i];
            let d = before_silu(dy[i], hat, gamma[i], beta[i], r.silu);
            dx[i] = scale[i] * (gamma[i] * d - lose[i] - hat * lose_hat[i]);
        }
    }
}
