//! The residual block of the U-Net and of the AutoencoderKL (`ResnetBlock2D`).

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::{
    layers::{Conv3x3, GroupNorm, Linear},
    part::{Part, flat, rows},
};
use crate::weights::Params;

/// What residual blocks of one network have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetShape {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    /// Width of the time embedding, in the U-Net.
    pub(crate) time: Option<usize>,
}

/// Two 3x3 convolutions, each after group norm and SiLU, added to the input; the time embedding
/// enters between them.
#[derive(Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv3x3,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv3x3,
    conv_shortcut: Option<Linear>,
}

impl ResnetBlock {
    pub(crate) fn new(p: &Params<'_>, s: ResnetShape, input: usize, output: usize) -> Self {
        Self {
            norm1: GroupNorm::new(&p.at("norm1"), s.groups, input, s.eps),
            conv1: Conv3x3::new(&p.at("conv1"), input, output),
            time_emb_proj: s
                .time
                .map(|width| Linear::new(&p.at("time_emb_proj"), width, output)),
            norm2: GroupNorm::new(&p.at("norm2"), s.groups, output, s.eps),
            conv2: Conv3x3::new(&p.at("conv2"), output, output),
            conv_shortcut: (input != output)
                .then(|| Linear::from_conv(&p.at("conv_shortcut"), input, output)),
        }
    }

    /// `[n, h, w, in]` to `[n, h, w, out]`; `time` is the SiLU of the time embedding, `[n, t]` or,
    /// for all pictures, `[1, t]`.
    pub(crate) fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        let mut y = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        if let (Some(project), Some(time)) = (&self.time_emb_proj, time) {
            let (rows, c) = (time.dims()[0], y.dims()[3]);
            y = y + project.forward_rows(time.clone()).reshape([rows, 1, 1, c]);
        }
        let y = self.conv2.forward(self.norm2.forward_silu(y));
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward_map(x) + y,
            None => x + y,
        }
    }
}

impl Part<ResnetBlock> {
    /// The block itself, as [`ResnetBlock::forward`].
    pub(crate) fn forward(&self, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        if !self.recomputes() {
            return self.built().forward(x, Some(time));
        }
        let [n, h, w, c] = x.dims();
        self.in_pieces(n, h * w * c, |range| {
            let (x, time) = (rows(&x, &range), rows(time, &range));
            let (map, embedding) = (x.dims(), time.dims());
            self.apply(vec![flat(x), flat(time)], move |block, inputs| {
                let time = inputs[1].clone().reshape(embedding);
                block.forward(inputs[0].clone().reshape(map), Some(&time))
            })
        })
    }
}

/// Halves height and width with a strided 3x3 convolution.
#[derive(Debug)]
pub(crate) struct Downsample {
    conv: Conv3x3,
    padding: kernels::Padding,
}

impl Downsample {
    pub(crate) fn new(p: &Params<'_>, width: usize, padding: kernels::Padding) -> Self {
        Self {
            conv: Conv3x3::new(&p.at("downsamplers.0.conv"), width, width),
            padding,
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward_strided(x, 2, self.padding)
    }
}

/// Enlarges to a size by nearest neighbours, then convolves.
#[derive(Debug)]
pub(crate) struct Upsample {
    conv: Conv3x3,
}

impl Upsample {
    pub(crate) fn new(p: &Params<'_>, width: usize) -> Self {
        Self {
            conv: Conv3x3::new(&p.at("upsamplers.0.conv"), width, width),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        self.conv.forward_enlarged(x, size)
    }
}
