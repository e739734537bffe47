//! The pre-norm encoder layer that CLIP's towers and ViT share.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::layers::{LayerNorm, Linear};
use crate::{config::Activation, weights::Params};

/// Width, heads and the like of an encoder's layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerShape {
    pub(crate) width: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) act: Activation,
    pub(crate) eps: f64,
}

/// What a family of models calls the parts of a layer.
pub(crate) struct LayerNames {
    pub(crate) norm1: &'static str,
    pub(crate) q: &'static str,
    pub(crate) k: &'static str,
    pub(crate) v: &'static str,
    pub(crate) out: &'static str,
    pub(crate) norm2: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) qkv_bias: bool,
}

/// One layer: attention and a feed-forward part, each after a layer norm and added to its input.
#[derive(Debug)]
pub(crate) struct EncoderLayer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
    heads: usize,
    act: Activation,
}

impl EncoderLayer {
    pub(crate) fn new(p: &Params<'_>, names: &LayerNames, s: LayerShape) -> Self {
        let projection = |name| {
            let p = p.at(name);
            if names.qkv_bias {
                Linear::new(&p, s.width, s.width)
            } else {
                Linear::without_bias(&p, s.width, s.width)
            }
        };
        Self {
            norm1: LayerNorm::new(&p.at(names.norm1), s.width, s.eps),
            q: projection(names.q),
            k: projection(names.k),
            v: projection(names.v),
            out: Linear::new(&p.at(names.out), s.width, s.width),
            norm2: LayerNorm::new(&p.at(names.norm2), s.width, s.eps),
            up: Linear::new(&p.at(names.up), s.width, s.inner),
            down: Linear::new(&p.at(names.down), s.inner, s.width),
            heads: s.heads,
            act: s.act,
        }
    }

    /// What the attention adds to `x`, `[n, tokens, width]`.
    pub(crate) fn attended(&self, x: Tensor<3>, causal: bool) -> Tensor<3> {
        let y = self.norm1.forward(x);
        let (q, k, v) = (
            self.q.forward(y.clone()),
            self.k.forward(y.clone()),
            self.v.forward(y),
        );
        self.out
            .forward(kernels::attention(q, k, v, self.heads, causal))
    }

    /// Its attention's keys, `[n, tokens, width]`, all heads side by side.
    pub(crate) fn keys(&self, x: Tensor<3>) -> Tensor<3> {
        self.k.forward(self.norm1.forward(x))
    }

    pub(crate) fn forward(&self, x: Tensor<3>, causal: bool) -> Tensor<3> {
        let x = x.clone() + self.attended(x, causal);
        let y = self
            .act
            .forward(self.up.forward(self.norm2.forward(x.clone())));
        x + self.down.forward(y)
    }
}
