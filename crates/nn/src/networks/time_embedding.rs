//! The sinusoidal embedding of numbers (`Timesteps` of diffusers) and the two layers after it
//! (`TimestepEmbedding`).

use burn::tensor::{Device, Tensor, TensorData};
use scumble_kernels as kernels;

use super::layers::Linear;
use crate::weights::Params;

/// Longest period, in timesteps.
const MAX_PERIOD: f32 = 10_000.0;

/// Cosines and sines of a number times falling frequencies (Vaswani et al. 2017, arXiv 1706.03762,
/// section 3.5).
#[derive(Debug)]
pub(crate) struct Timesteps {
    frequencies: Vec<f32>,
    cosine_first: bool,
}

impl Timesteps {
    /// Of an even `width`.
    pub(crate) fn new(width: usize, cosine_first: bool, freq_shift: f64) -> Self {
        let half = width / 2;
        let frequency = |i| (-MAX_PERIOD.ln() * i as f32 / (half as f32 - freq_shift as f32)).exp();
        Self {
            frequencies: (0..half).map(frequency).collect(),
            cosine_first,
        }
    }

    /// n numbers to `[n, width]`.
    pub(crate) fn forward(&self, numbers: &[f32], device: &Device) -> Tensor<2> {
        let (n, half) = (numbers.len(), self.frequencies.len());
        let mut values = Vec::with_capacity(n * 2 * half);
        for &t in numbers {
            let angles = self.frequencies.iter().map(|f| t * f);
            if self.cosine_first {
                values.extend(angles.clone().map(f32::cos));
                values.extend(angles.map(f32::sin));
            } else {
                values.extend(angles.clone().map(f32::sin));
                values.extend(angles.map(f32::cos));
            }
        }
        Tensor::from_data(TensorData::new(values, [n, 2 * half]), device)
    }
}

/// Two linear layers with SiLU between them.
#[derive(Debug)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub(crate) fn new(p: &Params<'_>, input: usize, width: usize) -> Self {
        Self {
            linear_1: Linear::new(&p.at("linear_1"), input, width),
            linear_2: Linear::new(&p.at("linear_2"), width, width),
        }
    }

    /// `[n, in]` to `[n, width]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2
            .forward_rows(kernels::silu(self.linear_1.forward_rows(x)))
    }
}
