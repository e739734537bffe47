//! A bottleneck that may add to what a cross-attention says: there where the weights hold tensors of
//! these names. A network without them is the plain one.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::layers::Linear;
use crate::weights::Params;

/// The name below a cross-attention of a bottleneck that adds to its output.
pub const BOTTLENECK: &str = "eraser";

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
