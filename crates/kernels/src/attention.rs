//! Scaled dot-product attention over token layout.

use burn::{
    backend::Dispatch,
    tensor::{Tensor, module, ops::AttentionModuleOptions},
};

use crate::{fuses, ops::Fused};

/// `softmax(q k^T / sqrt(c / heads)) v`, head by head.
///
/// # Shapes
/// - q: `[n, tokens, c]`
/// - k, v: `[n, keys, c]`
/// - result: `[n, tokens, c]`
///
/// # Panics
/// If `heads` does not divide `c`.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    causal: bool,
) -> Tensor<3> {
    if fuses(&q.device(), [q.dtype(), k.dtype(), v.dtype()]) {
        let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_attention(q, k, v, heads, causal));
    }
    let [n, tokens, c] = q.dims();
    let split = |x: Tensor<3>| {
        let [n, l, c] = x.dims();
        x.reshape([n, l, heads, c / heads]).swap_dims(1, 2)
    };
    let options = AttentionModuleOptions {
        is_causal: causal,
        ..Default::default()
    };
    let y = module::attention(split(q), split(k), split(v), None, None, options);
    y.swap_dims(1, 2).reshape([n, tokens, c])
}
