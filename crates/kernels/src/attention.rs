//! Scaled dot-product attention over token layout.

use burn::tensor::{Tensor, module, ops::AttentionModuleOptions};

/// `softmax(q k^T / sqrt(c / heads)) v`, head by head.
///
/// # Shapes
/// - q: `[n, tokens, c]`
/// - k, v: `[n, keys, c]`
/// - result: `[n, tokens, c]`
///
/// # Panics
/// If `heads` does not divide `c`.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    let [n, tokens, c] = q.dims();
    let split = |x: Tensor<3>| {
        let [n, l, c] = x.dims();
        x.reshape([n, l, heads, c / heads]).swap_dims(1, 2)
    };
    let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
    let y = module::attention(split(q), split(k), split(v), None, None, options);
    y.swap_dims(1, 2).reshape([n, tokens, c])
}
