//! `value * gelu(gate)`, where a row holds the values first and the gates after them.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    math::{gelu, gelu_slope},
    pieces,
};

/// Rows that one task takes at a time.
const ROWS: usize = 64;

/// - x: `[rows, 2 * width]`; result: `[rows, width]`
pub(crate) fn forward(x: &[f32], width: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len() / 2];
    y.par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(2 * ROWS * width))
        .with_min_len(pieces(4 * ROWS * width))
        .for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
                let (value, gate) = x.split_at(width);
                forward_row(y, value, gate);
            }
        });
    y
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn forward_row(y: &mut [f32], value: &[f32], gate: &[f32]) {
    for ((y, v), g) in y.iter_mut().zip(value).zip(gate) {
        *y = v * gelu(*g);
    }
}

/// The gradient of `x`, in its shape.
pub(crate) fn backward(x: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let mut dx = vec![0.0; x.len()];
    dx.par_chunks_mut(2 * ROWS * width)
        .zip(x.par_chunks(2 * ROWS * width))
        .zip(dy.par_chunks(ROWS * width))
        .with_min_len(pieces(8 * ROWS * width))
        .for_each(|((dx, x), dy)| {
            for ((dx, x), dy) in dx
                .chunks_exact_mut(2 * width)
                .zip(x.chunks_exact(2 * width))
                .zip(dy.chunks_exact(width))
            {
                let ((dvalue, dgate), (value, gate)) = (dx.split_at_mut(width), x.split_at(width));
                backward_row(dvalue, dgate, value, gate, dy);
            }
        });
    dx
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn backward_row(dvalue: &mut [f32], dgate: &mut [f32], value: &[f32], gate: &[f32], dy: &[f32]) {
    for ((dv, g), d) in dvalue.iter_mut().zip(gate).zip(dy) {
        *dv = d * gelu(*g);
    }
    for (((dg, v), g), d) in dgate.iter_mut().zip(value).zip(gate).zip(dy) {
        *dg = d * v * gelu_slope(*g);
    }
}
