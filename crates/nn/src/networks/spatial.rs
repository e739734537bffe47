//! The transformer between the U-Net's residual blocks (`Transformer2DModel`): self-attention over places,
//! cross-attention to the prompt, feed-forward.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::{
    context::KeysValues,
    layers::{GroupNorm, LayerNorm, Linear},
};
use crate::weights::Params;

/// Epsilon of the group norm before a transformer; the residual blocks have their own.
const GROUP_NORM_EPS: f64 = 1e-6;
const LAYER_NORM_EPS: f64 = 1e-5;

/// What the transformers of one U-Net have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpatialShape {
    pub(crate) groups: usize,
    pub(crate) context: usize,
    pub(crate) linear_projection: bool,
}

/// Queries from one sequence, keys and values from the same or another; only the output has a bias.
#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    fn new(p: &Params<'_>, width: usize, context: usize, heads: usize) -> Self {
        Self {
            to_q: Linear::without_bias(&p.at("to_q"), width, width),
            to_k: Linear::without_bias(&p.at("to_k"), context, width),
            to_v: Linear::without_bias(&p.at("to_v"), context, width),
            to_out: Linear::new(&p.at("to_out.0"), width, width),
            heads,
        }
    }

    fn keys_values(&self, from: &Tensor<3>) -> KeysValues {
        KeysValues { keys: self.to_k.forward(from.clone()), values: self.to_v.forward(from.clone()) }
    }

    fn forward(&self, x: Tensor<3>, seen: KeysValues) -> Tensor<3> {
        self.to_out.forward(kernels::attention(self.to_q.forward(x), seen.keys, seen.values, self.heads, false))
    }
}

/// A `Transformer2DModel` with one `BasicTransformerBlock`.
#[derive(Debug)]
pub(crate) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    proj_out: Linear,
}

impl SpatialTransformer {
    pub(crate) fn new(p: &Params<'_>, s: SpatialShape, width: usize, heads: usize) -> Self {
        let projection = |name| {
            let p = p.at(name);
            if s.linear_projection { Linear::new(&p, width, width) } else { Linear::from_conv(&p, width, width) }
        };
        let b = p.at("transformer_blocks.0");
        Self {
            norm: GroupNorm::new(&p.at("norm"), s.groups, width, GROUP_NORM_EPS),
            proj_in: projection("proj_in"),
            norm1: LayerNorm::new(&b.at("norm1"), width, LAYER_NORM_EPS),
            attn1: Attention::new(&b.at("attn1"), width, width, heads),
            norm2: LayerNorm::new(&b.at("norm2"), width, LAYER_NORM_EPS),
            attn2: Attention::new(&b.at("attn2"), width, s.context, heads),
            norm3: LayerNorm::new(&b.at("norm3"), width, LAYER_NORM_EPS),
            ff_in: Linear::new(&b.at("ff.net.0.proj"), width, 8 * width),
            ff_out: Linear::new(&b.at("ff.net.2"), 4 * width, width),
            proj_out: projection("proj_out"),
        }
    }

    /// What its cross-attention makes of a prompt, `[n, tokens, width of the prompt]`.
    pub(crate) fn prompt(&self, hidden: &Tensor<3>) -> KeysValues {
        self.attn2.keys_values(hidden)
    }

    /// - x and result: `[n, h, w, c]`
    /// - prompt: what [`prompt`](Self::prompt) gave
    pub(crate) fn forward(&self, x: Tensor<4>, prompt: KeysValues) -> Tensor<4> {
        let [n, h, w, c] = x.dims();
        let mut y = self.proj_in.forward(self.norm.forward(x.clone()).reshape([n, h * w, c]));
        let own = self.norm1.forward(y.clone());
        let seen = self.attn1.keys_values(&own);
        y = y + self.attn1.forward(own, seen);
        y = y.clone() + self.attn2.forward(self.norm2.forward(y), prompt);
        y = y.clone() + self.ff_out.forward(kernels::geglu(self.ff_in.forward(self.norm3.forward(y))));
        x + self.proj_out.forward(y).reshape([n, h, w, c])
    }
}
