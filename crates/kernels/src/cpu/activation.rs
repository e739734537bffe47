//! Activations, elementwise.

use multiversion::multiversion;
use rayon::prelude::*;

use super::math::{gelu, gelu_slope, sigmoid};

/// Numbers that one task takes at a time.
const MANY: usize = 1 << 14;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x sigmoid(x)`
    Silu,
    /// `x Phi(x)`
    Gelu,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
}

/// The slope of the sigmoid in OpenAI's GELU.
const QUICK: f32 = 1.702;

pub(crate) fn forward(x: &[f32], activation: Activation) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(MANY)
        .zip(x.par_chunks(MANY))
        .for_each(|(y, x)| match activation {
            Activation::Silu => sigmoid_times(y, x, 1.0),
            Activation::QuickGelu => sigmoid_times(y, x, QUICK),
            Activation::Gelu => gelus(y, x),
        });
    y
}

/// The gradient of `x`.
pub(crate) fn backward(x: &[f32], dy: &[f32], activation: Activation) -> Vec<f32> {
    let mut dx = vec![0.0; x.len()];
    dx.par_chunks_mut(MANY)
        .zip(x.par_chunks(MANY))
        .zip(dy.par_chunks(MANY))
        .for_each(|((dx, x), dy)| match activation {
            Activation::Silu => sigmoid_times_slope(dx, x, dy, 1.0),
            Activation::QuickGelu => sigmoid_times_slope(dx, x, dy, QUICK),
            Activation::Gelu => gelu_slopes(dx, x, dy),
        });
    dx
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn sigmoid_times(y: &mut [f32], x: &[f32], slope: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x * sigmoid(slope * x);
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn sigmoid_times_slope(dx: &mut [f32], x: &[f32], dy: &[f32], slope: f32) {
    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
        let s = sigmoid(slope * x);
        *dx = dy * s * (1.0 + slope * x * (1.0 - s));
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn gelus(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = gelu(*x);
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn gelu_slopes(dx: &mut [f32], x: &[f32], dy: &[f32]) {
    for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = dy * gelu_slope(*x);
    }
}
