//! The autoencoder between pictures and latents (`AutoencoderKL`; Rombach et al. 2022, arXiv
//! 2112.10752).

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::{
    layers::{Conv3x3, GroupNorm, Linear},
    resnet::{Downsample, ResnetBlock, ResnetShape, Upsample},
};
use crate::{
    config::VaeConfig,
    weights::{Manifest, Params, Weights},
};

/// Epsilon of every group norm in here, as in all published autoencoders.
const EPS: f64 = 1e-6;

/// An `AutoencoderKL`.
#[derive(Debug)]
pub struct Vae {
    encoder: Encoder,
    quant_conv: Linear,
    post_quant_conv: Linear,
    decoder: Decoder,
    latent_channels: usize,
}

impl Vae {
    /// The autoencoder over its tensors.
    pub fn new(config: &VaeConfig, weights: &Weights) -> Self {
        Self::build(config, &Params::new(weights))
    }

    /// The names and shapes it asks for.
    pub fn manifest(config: &VaeConfig) -> Manifest {
        Params::manifest(|p| Self::build(config, &p))
    }

    fn build(c: &VaeConfig, p: &Params<'_>) -> Self {
        let z = c.latent_channels;
        Self {
            encoder: Encoder::build(c, &p.at("encoder")),
            quant_conv: Linear::from_conv(&p.at("quant_conv"), 2 * z, 2 * z),
            post_quant_conv: Linear::from_conv(&p.at("post_quant_conv"), z, z),
            decoder: Decoder::build(c, &p.at("decoder")),
            latent_channels: z,
        }
    }

    /// The mean of the posterior over latents, before `scaling_factor`.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]` in [-1, 1]
    /// - result: `[n, z, h / f, w / f]`
    pub fn encode(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.half(self.moments(pictures), 0)
    }

    /// The posterior over latents: its mean, and the logarithm of its variance, before
    /// `scaling_factor`. diffusers clamps the latter to [-30, 20], and so is it here.
    ///
    /// # Shapes
    /// As [`encode`](Self::encode), both.
    pub fn posterior(&self, pictures: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let moments = self.moments(pictures);
        let log_variance = self.half(moments.clone(), self.latent_channels);
        (self.half(moments, 0), log_variance.clamp(-30.0, 20.0))
    }

    /// What the encoder says of pictures, `[n, h / f, w / f, 2 z]`.
    fn moments(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.quant_conv
            .forward_map(self.encoder.forward(pictures.permute([0, 2, 3, 1])))
    }

    /// The moments from channel `at` on, `[n, z, h / f, w / f]`.
    fn half(&self, moments: Tensor<4>, at: usize) -> Tensor<4> {
        moments
            .narrow(3, at, self.latent_channels)
            .permute([0, 3, 1, 2])
    }

    /// Pictures from latents, after division by `scaling_factor`; not clamped.
    ///
    /// # Shapes
    /// - latents: `[n, z, h, w]`
    /// - result: `[n, 3, f * h, f * w]`, about in [-1, 1]
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let x = self
            .post_quant_conv
            .forward_map(latents.permute([0, 2, 3, 1]));
        self.decoder.forward(x).permute([0, 3, 1, 2])
    }
}

/// Residual block, self-attention over all places, residual block.
#[derive(Debug)]
struct MidBlock {
    resnet0: ResnetBlock,
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    resnet1: ResnetBlock,
}

impl MidBlock {
    fn build(p: &Params<'_>, shape: ResnetShape, width: usize) -> Self {
        let a = p.at("attentions.0");
        Self {
            resnet0: ResnetBlock::new(&p.at("resnets.0"), shape, width, width),
            group_norm: GroupNorm::new(&a.at("group_norm"), shape.groups, width, EPS),
            to_q: Linear::new(&a.at("to_q"), width, width),
            to_k: Linear::new(&a.at("to_k"), width, width),
            to_v: Linear::new(&a.at("to_v"), width, width),
            to_out: Linear::new(&a.at("to_out.0"), width, width),
            resnet1: ResnetBlock::new(&p.at("resnets.1"), shape, width, width),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.resnet0.forward(x, None);
        let [n, h, w, c] = x.dims();
        let y = self.group_norm.forward(x.clone()).reshape([n, h * w, c]);
        let (q, k, v) = (
            self.to_q.forward(y.clone()),
            self.to_k.forward(y.clone()),
            self.to_v.forward(y),
        );
        let y = self
            .to_out
            .forward(kernels::attention(q, k, v, 1, false))
            .reshape([n, h, w, c]);
        self.resnet1.forward(x + y, None)
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv3x3,
    down_blocks: Vec<(Vec<ResnetBlock>, Option<Downsample>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv3x3,
}

impl Encoder {
    fn build(c: &VaeConfig, p: &Params<'_>) -> Self {
        let shape = ResnetShape {
            groups: c.norm_num_groups,
            eps: EPS,
            time: None,
        };
        let widths = &c.block_out_channels;
        let last = widths.len() - 1;
        let down_blocks = widths.iter().enumerate().map(|(i, &width)| {
            let p = p.at("down_blocks").at(i);
            let input = widths[i.saturating_sub(1)];
            let resnets = (0..c.layers_per_block)
                .map(|j| {
                    ResnetBlock::new(
                        &p.at("resnets").at(j),
                        shape,
                        if j == 0 { input } else { width },
                        width,
                    )
                })
                .collect();
            (
                resnets,
                (i != last).then(|| Downsample::new(&p, width, kernels::Padding::BelowRight)),
            )
        });
        Self {
            conv_in: Conv3x3::new(&p.at("conv_in"), c.in_channels, widths[0]),
            down_blocks: down_blocks.collect(),
            mid_block: MidBlock::build(&p.at("mid_block"), shape, widths[last]),
            conv_norm_out: GroupNorm::new(
                &p.at("conv_norm_out"),
                c.norm_num_groups,
                widths[last],
                EPS,
            ),
            conv_out: Conv3x3::new(&p.at("conv_out"), widths[last], 2 * c.latent_channels),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self
            .down_blocks
            .iter()
            .fold(self.conv_in.forward(x), |x, (resnets, down)| {
                let x = resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
                down.as_ref().map_or(x.clone(), |down| down.forward(x))
            });
        self.conv_out
            .forward(self.conv_norm_out.forward_silu(self.mid_block.forward(x)))
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv3x3,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<ResnetBlock>, Option<Upsample>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv3x3,
}

impl Decoder {
    fn build(c: &VaeConfig, p: &Params<'_>) -> Self {
        let shape = ResnetShape {
            groups: c.norm_num_groups,
            eps: EPS,
            time: None,
        };
        let widths: Vec<usize> = c.block_out_channels.iter().rev().copied().collect();
        let last = widths.len() - 1;
        let up_blocks = widths.iter().enumerate().map(|(i, &width)| {
            let p = p.at("up_blocks").at(i);
            let input = widths[i.saturating_sub(1)];
            let resnets = (0..=c.layers_per_block)
                .map(|j| {
                    ResnetBlock::new(
                        &p.at("resnets").at(j),
                        shape,
                        if j == 0 { input } else { width },
                        width,
                    )
                })
                .collect();
            (resnets, (i != last).then(|| Upsample::new(&p, width)))
        });
        Self {
            conv_in: Conv3x3::new(&p.at("conv_in"), c.latent_channels, widths[0]),
            mid_block: MidBlock::build(&p.at("mid_block"), shape, widths[0]),
            up_blocks: up_blocks.collect(),
            conv_norm_out: GroupNorm::new(
                &p.at("conv_norm_out"),
                c.norm_num_groups,
                widths[last],
                EPS,
            ),
            conv_out: Conv3x3::new(&p.at("conv_out"), widths[last], c.out_channels),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.mid_block.forward(self.conv_in.forward(x));
        let x = self.up_blocks.iter().fold(x, |x, (resnets, up)| {
            let x = resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
            let [_, h, w, _] = x.dims();
            up.as_ref()
                .map_or(x.clone(), |up| up.forward(x, [2 * h, 2 * w]))
        });
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}
