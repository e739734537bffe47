//! The numbers that a training begins with.

use burn::tensor::Device;
use scumble_diffusion::TorchRng;
use scumble_erase::seeds::stream;
use scumble_families::sd::sizes::DenoiserSizes;
use scumble_nn::{Manifest, Weights};

/// How the numbers of a network are drawn, by the names and shapes of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// PyTorch's own for convolutions and linear layers: uniform within `1 / sqrt(fan in)`.
    Uniform,
    /// The same, but the last layer of every residual branch begins at 0, as in ADM and LDM
    /// (`zero_module`): the network begins as if it had no layers.
    Residual,
    /// For networks of rectified units with batch norms: normal with variance `2 / fan out` (He et al.
    /// 2015, arXiv 1502.01852, as torchvision has it), the classifier as PyTorch's own.
    Rectified,
    /// Transformers: normal with deviation 0.02, and the layers that write into the residual stream
    /// smaller by the root of how many there are (CLIP's and GPT-2's way).
    Transformer {
        /// Layers of a tower.
        layers: usize,
    },
}

/// Scale of CLIP's logits at the beginning: the logarithm of 1 / 0.07 (Radford et al. 2021, 2.5).
const LOGIT_SCALE: f32 = 2.6592;

/// Logarithm of the variance of an autoencoder's first posteriors.
const FIRST_LOG_VARIANCE: f32 = -6.0;

impl Init {
    /// The first numbers of a network, a function of the seed, the names and the shapes.
    pub(crate) fn weights(self, manifest: &Manifest, seed: u64, device: &Device) -> Weights {
        let numbers = stream(seed, "train/init");
        let order: Vec<&String> = manifest.keys().collect();
        Weights::generate(manifest, device, |name, shape| {
            let at = order.iter().position(|of| *of == name).unwrap_or_default();
            self.tensor(name, shape, &mut numbers.rng(at))
        })
    }

    fn tensor(self, name: &str, shape: &[usize], rng: &mut TorchRng) -> Vec<f32> {
        let n: usize = shape.iter().product();
        let ends = |all: &[&str]| all.iter().any(|end| name.ends_with(end));
        if name == "logit_scale" {
            return vec![LOGIT_SCALE; n];
        }
        if name == "quant_conv.bias" {
            // Means and logarithms of variances: a posterior as wide as the prior would drown the
            // first means, and a decoder that sees noise learns to look at brightness alone.
            let mut bias = vec![0.0; n];
            bias[n / 2..].fill(FIRST_LOG_VARIANCE);
            return bias;
        }
        if name.ends_with(".bias") || name.ends_with(".running_mean") {
            return vec![0.0; n];
        }
        if shape.len() == 1 && ends(&[".weight", ".running_var"]) {
            return vec![1.0; n];
        }
        if self == Self::Residual && ends(&DenoiserSizes::LAST_OF_BRANCHES) {
            return vec![0.0; n];
        }
        match self {
            Self::Rectified if shape.len() == 4 => {
                let fan_out = shape[0] * shape[2] * shape[3];
                let std = (2.0 / fan_out.max(1) as f32).sqrt();
                let mut drawn = rng.normal(n.max(16));
                drawn.truncate(n);
                drawn.iter().map(|z| z * std).collect()
            }
            Self::Uniform | Self::Residual | Self::Rectified => {
                let fan_in: usize = shape.iter().skip(1).product();
                let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
                rng.uniform(n)
                    .iter()
                    .map(|u| (2.0 * u - 1.0) * bound)
                    .collect()
            }
            Self::Transformer { layers } => {
                let into_stream = ends(&[".out_proj.weight", "fc2.weight", "output.dense.weight"]);
                let fan_in: usize = shape.iter().skip(1).product();
                let std = if into_stream {
                    0.02 / (2.0 * layers.max(1) as f32).sqrt()
                } else if shape.len() == 4 || ends(&["projection.weight"]) {
                    // A patch or a projection reads numbers of unit variance.
                    1.0 / (fan_in.max(1) as f32).sqrt()
                } else {
                    0.02
                };
                let mut drawn = rng.normal(n.max(16));
                drawn.truncate(n);
                drawn.iter().map(|z| z * std).collect()
            }
        }
    }
}
