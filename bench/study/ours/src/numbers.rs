//! Numbers that both sides of a comparison compute alike: weights and inputs from a formula, and
//! fingerprints of results.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// FNV-1a of a name, 32 bits.
pub(crate) fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    })
}

/// `count` numbers in [-1, 1) that belong to `name`, times `scale`, plus `offset`.
pub(crate) fn uniform(name: &str, count: usize, scale: f32, offset: f32) -> Vec<f32> {
    let seed = hash(name);
    let one = |i: usize| {
        let mut x = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        let u = (x >> 8) as f32 * (1.0 / 16_777_216.0);
        offset + (2.0 * u - 1.0) * scale
    };
    (0..count)
        .into_par_iter()
        .with_min_len(1 << 16)
        .map(one)
        .collect()
}

/// A weight: kernels and matrices by their fan-in, scales about 1, the rest about 0.
pub(crate) fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if name.ends_with("token_embedding.weight") || name.ends_with("position_embedding.weight") {
        return uniform(name, count, 0.02, 0.0);
    }
    match shape {
        [_] if name.ends_with(".weight") => uniform(name, count, 0.1, 1.0),
        [_] => uniform(name, count, 0.1, 0.0),
        _ => uniform(
            name,
            count,
            (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32,
            0.0,
        ),
    }
}

/// An input of that name and shape.
pub(crate) fn input<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    tensor(
        uniform(&format!("input.{name}"), shape.iter().product(), 1.0, 0.0),
        shape,
        device,
    )
}

/// A weight of a single operation.
pub(crate) fn input_weight<const D: usize>(
    name: &str,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    tensor(weight(&format!("input.{name}"), &shape), shape, device)
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Mean, mean of absolute values, and six elements spread over the tensor.
pub(crate) fn fingerprint<const D: usize>(result: Tensor<D>) -> Vec<f64> {
    let values: Vec<f64> = result.into_data().iter::<f64>().collect();
    let n = values.len().max(1);
    let mean = values.iter().sum::<f64>() / n as f64;
    let size = values.iter().map(|v| v.abs()).sum::<f64>() / n as f64;
    let spread = (0..6).filter_map(|k| values.get(k * (n - 1) / 5).copied());
    [mean, size].into_iter().chain(spread).collect()
}
