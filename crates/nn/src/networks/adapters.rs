//! What may stand beside a network's own tensors: paths that add to what a layer computes, there
//! where the weights hold tensors of these names. A network without them is the plain one.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::layers::Linear;
use crate::weights::Params;

/// Names of the factors of a low-rank path, below the layer's own name, as in kohya's files.
pub const LORA_DOWN: &str = "lora_down.weight";
/// The second factor.
pub const LORA_UP: &str = "lora_up.weight";
/// The name below a cross-attention of a bottleneck that adds to its output.
pub const BOTTLENECK: &str = "eraser";

/// `up diag(gates) down x` beside a linear layer (LoRA, Hu et al. 2021, arXiv 2106.09685). Any
/// scale is a part of `up`.
#[derive(Debug)]
pub(crate) struct LowRank {
    /// `[rank, in]`
    down: Tensor<2>,
    /// `[out, rank]`
    up: Tensor<2>,
}

impl LowRank {
    /// The path at this place, if the weights hold one.
    pub(crate) fn of(p: &Params<'_>, input: usize, output: usize) -> Option<Self> {
        let rank = *p.shape(LORA_DOWN)?.first()?;
        Some(Self {
            down: p.get(LORA_DOWN, [rank, input]),
            up: p.get(LORA_UP, [output, rank]),
        })
    }

    /// `[n, tokens, in]` to `[n, tokens, out]`.
    pub(crate) fn forward(&self, x: Tensor<3>, gates: Option<&Tensor<2>>) -> Tensor<3> {
        let inner = kernels::linear(x, self.down.clone(), None);
        let inner = match gates {
            Some(gates) => inner * gates.clone().unsqueeze_dim(1),
            None => inner,
        };
        kernels::linear(inner, self.up.clone(), None)
    }
}

/// `up gelu(down x)` over the output of a cross-attention.
#[derive(Debug)]
pub(crate) struct Bottleneck {
    down: Linear,
    up: Linear,
}

impl Bottleneck {
    /// The bottleneck at this place, if the weights hold one.
    pub(crate) fn of(p: &Params<'_>, width: usize) -> Option<Self> {
        let p = p.at(BOTTLENECK);
        let inner = *p.at("down").shape("weight")?.first()?;
        Some(Self {
            down: Linear::new(&p.at("down"), width, inner),
            up: Linear::new(&p.at("up"), inner, width),
        })
    }

    /// `[n, tokens, c]` to the same.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.up.forward(kernels::gelu(self.down.forward(x)))
    }
}
