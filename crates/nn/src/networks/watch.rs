//! What a U-Net computes on the way, for losses that look inside.

use burn::tensor::Tensor;

/// What its cross-attentions did, in the order in which a picture meets them.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Whether to keep the maps: they cost the fused kernel, and memory.
    pub wants_maps: bool,
    /// Where each looked: `softmax(q k^T / sqrt(d))`, `[n, heads, places, tokens]`.
    pub maps: Vec<Tensor<4>>,
    /// What its bottleneck added, if it has one: `[n, places, c]`.
    pub added: Vec<Tensor<3>>,
}

impl Watch {
    /// Maps and all.
    pub fn maps() -> Self {
        Self {
            wants_maps: true,
            ..Self::default()
        }
    }
}
