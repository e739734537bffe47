//! Layers that every network is made of.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::low_rank::LowRank;
use crate::{config::Activation, weights::Params};

/// A product with a weight matrix, with or without bias, and with a low-rank path beside it where
/// the weights hold one.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: kernels::Weight<2>,
    bias: Option<Tensor<1>>,
    adapter: Option<LowRank>,
}

impl Linear {
    pub(crate) fn new(p: &Params<'_>, input: usize, output: usize) -> Self {
        let bias = Some(p.get("bias", [output]));
        Self {
            weight: p.weight("weight", [output, input]),
            bias,
            adapter: LowRank::of(p, input, output),
        }
    }

    pub(crate) fn without_bias(p: &Params<'_>, input: usize, output: usize) -> Self {
        Self {
            weight: p.weight("weight", [output, input]),
            bias: None,
            adapter: LowRank::of(p, input, output),
        }
    }

    /// The same product stored as a 1x1 convolution.
    pub(crate) fn from_conv(p: &Params<'_>, input: usize, output: usize) -> Self {
        let kernels::Weight { tensor, layouts } = p.weight("weight", [output, input, 1, 1]);
        let [out, inp, ..] = tensor.dims();
        let weight = kernels::Weight {
            tensor: tensor.reshape([out, inp]),
            layouts,
        };
        Self {
            weight,
            bias: Some(p.get("bias", [output])),
            adapter: LowRank::of(p, input, output),
        }
    }

    /// `[n, tokens, in]` to `[n, tokens, out]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_gated(x, None)
    }

    /// The same, with a factor for each of the n and each column of its low-rank path, `[n, rank]`.
    pub(crate) fn forward_gated(&self, x: Tensor<3>, gates: Option<&Tensor<2>>) -> Tensor<3> {
        match &self.adapter {
            None => kernels::linear(x, self.weight.clone(), self.bias.clone()),
            Some(adapter) => {
                kernels::linear(x.clone(), self.weight.clone(), self.bias.clone())
                    + adapter.forward(x, gates)
            }
        }
    }

    /// `[n, in]` to `[n, out]`.
    pub(crate) fn forward_rows(&self, x: Tensor<2>) -> Tensor<2> {
        self.forward(x.unsqueeze_dim(0)).squeeze_dim(0)
    }

    /// `[n, h, w, in]` to `[n, h, w, out]`.
    pub(crate) fn forward_map(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, h, w, c] = x.dims();
        let y = self.forward(x.reshape([n, h * w, c]));
        let out = y.dims()[2];
        y.reshape([n, h, w, out])
    }
}

/// Layer norm over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(p: &Params<'_>, width: usize, eps: f64) -> Self {
        Self {
            weight: p.get("weight", [width]),
            bias: p.get("bias", [width]),
            eps,
        }
    }

    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        kernels::layer_norm(x, self.weight.clone(), self.bias.clone(), self.eps)
    }
}

/// Group norm over channels-last maps.
#[derive(Debug)]
pub(crate) struct GroupNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn new(p: &Params<'_>, groups: usize, width: usize, eps: f64) -> Self {
        Self {
            weight: p.get("weight", [width]),
            bias: p.get("bias", [width]),
            groups,
            eps,
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::group_norm(
            x,
            self.groups,
            self.weight.clone(),
            self.bias.clone(),
            self.eps,
            false,
        )
    }

    pub(crate) fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::group_norm(
            x,
            self.groups,
            self.weight.clone(),
            self.bias.clone(),
            self.eps,
            true,
        )
    }
}

/// A 3x3 convolution over channels-last maps.
#[derive(Debug)]
pub(crate) struct Conv3x3 {
    weight: kernels::Weight<4>,
    bias: Tensor<1>,
}

impl Conv3x3 {
    pub(crate) fn new(p: &Params<'_>, input: usize, output: usize) -> Self {
        Self {
            weight: p.weight("weight", [output, input, 3, 3]),
            bias: p.get("bias", [output]),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_strided(x, 1, kernels::Padding::Around)
    }

    pub(crate) fn forward_strided(
        &self,
        x: Tensor<4>,
        stride: usize,
        padding: kernels::Padding,
    ) -> Tensor<4> {
        kernels::conv3x3(x, self.weight.clone(), self.bias.clone(), stride, padding)
    }

    /// After enlargement to `size` by nearest neighbours.
    pub(crate) fn forward_enlarged(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        kernels::upsample_conv3x3(x, self.weight.clone(), self.bias.clone(), size)
    }
}

impl Activation {
    /// The activation itself, elementwise.
    pub(crate) fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::QuickGelu => kernels::quick_gelu(x),
            Self::Gelu => kernels::gelu(x),
            Self::Silu => kernels::silu(x),
        }
    }
}
