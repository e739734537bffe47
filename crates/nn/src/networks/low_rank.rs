//! A low-rank path that may stand beside a linear layer: there where the weights hold tensors of
//! these names. A network without them is the plain one.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use crate::weights::Params;

/// Names of the factors of a low-rank path, below the layer's own name, as in kohya's files.
pub const LORA_DOWN: &str = "lora_down.weight";
/// The second factor.
pub const LORA_UP: &str = "lora_up.weight";

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
