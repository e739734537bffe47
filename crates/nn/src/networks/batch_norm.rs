//! Batch norm (Ioffe and Szegedy 2015, arXiv 1502.03167) over channels-last maps, after a
//! convolution without a bias: folded into it, or by the statistics of each batch, as in training.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use super::cnn::{Conv, ConvShape};
use crate::{
    error::Result,
    weights::{Params, Weights},
};

/// Both libraries' epsilon.
const EPS: f64 = 1e-5;

/// A convolution, and the batch norm that follows it.
#[derive(Debug)]
pub(crate) struct ConvNorm {
    conv: Conv,
    /// None where it is folded into the convolution.
    norm: Option<BatchNorm>,
}

#[derive(Debug)]
struct BatchNorm {
    /// Where its tensors lie.
    place: String,
    gamma: Tensor<1>,
    beta: Tensor<1>,
}

impl ConvNorm {
    /// By the statistics that are stored beside it.
    pub(crate) fn folded(conv: &Params<'_>, norm: &Params<'_>, shape: ConvShape) -> Self {
        Self {
            conv: Conv::normalised(conv, norm, shape, EPS),
            norm: None,
        }
    }

    /// By the statistics of the batch that goes through.
    pub(crate) fn by_batch(conv: &Params<'_>, norm: &Params<'_>, shape: ConvShape) -> Self {
        let [gamma, beta] = ["weight", "bias"].map(|name| norm.get::<1>(name, [shape.output]));
        let place = norm.place().to_owned();
        Self {
            conv: Conv::without_bias(conv, shape),
            norm: Some(BatchNorm { place, gamma, beta }),
        }
    }

    /// `[n, h, w, in]` to `[n, h', w', out]`.
    pub(crate) fn forward(&self, x: Tensor<4>, moments: &mut Moments) -> Tensor<4> {
        let x = self.conv.forward(x);
        let Some(norm) = &self.norm else {
            return x;
        };
        let [n, h, w, c] = x.dims();
        let x = x.reshape([n * h * w, c]);
        let mean = x.clone().mean_dim(0);
        let apart = x - mean.clone();
        let variance = apart.clone().powi_scalar(2).mean_dim(0);
        moments.add(&norm.place, &mean, &variance, n * h * w);
        let scale = norm.gamma.clone().reshape([1, c]) / (variance + EPS).sqrt();
        (apart * scale + norm.beta.clone().reshape([1, c])).reshape([n, h, w, c])
    }
}

/// What the batch norms of a network saw of some batches: sums over batches, by channel.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    of: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    batches: f64,
    /// Sums of the means and of the means of the squares.
    means: Vec<f64>,
    squares: Vec<f64>,
    /// The numbers that each batch had of a channel.
    count: f64,
}

impl Moments {
    fn add(&mut self, place: &str, mean: &Tensor<2>, variance: &Tensor<2>, count: usize) {
        let host = |of: &Tensor<2>| -> Vec<f64> {
            let of = of.clone().detach().into_data();
            of.iter::<f32>().map(f64::from).collect()
        };
        let (mean, variance) = (host(mean), host(variance));
        let seen = self.of.entry(place.to_owned()).or_default();
        seen.means.resize(mean.len(), 0.0);
        seen.squares.resize(mean.len(), 0.0);
        seen.batches += 1.0;
        seen.count = count as f64;
        for (i, (mean, variance)) in mean.iter().zip(&variance).enumerate() {
            seen.means[i] += mean;
            seen.squares[i] += variance + mean * mean;
        }
    }

    /// Puts the statistics of all these batches together in the place of the stored ones (Wu and
    /// Johnson 2021, arXiv 2105.07576, PreciseBN): of one network, not a trail of those that it was.
    /// The variance is that without bias, as PyTorch stores it.
    ///
    /// # Errors
    /// If the network has no such batch norms.
    pub fn store(&self, weights: &mut Weights) -> Result<()> {
        for (place, seen) in &self.of {
            let n = seen.batches * seen.count;
            let unbiased = n / (n - 1.0).max(1.0);
            let means: Vec<f64> = seen.means.iter().map(|sum| sum / seen.batches).collect();
            let squares = seen.squares.iter().zip(&means);
            let variances = squares
                .map(|(sum, mean)| ((sum / seen.batches - mean * mean) * unbiased).max(0.0))
                .collect();
            for (name, numbers) in [("running_mean", means), ("running_var", variances)] {
                let numbers: Vec<f32> = numbers.into_iter().map(|x: f64| x as f32).collect();
                let data = TensorData::new(numbers, [seen.means.len()]);
                let tensor = Tensor::from_data(data, weights.device());
                weights.replace(&format!("{place}{name}"), tensor)?;
            }
        }
        Ok(())
    }
}
