//! Products with a weight matrix.

use burn::tensor::Tensor;

/// `x W^T + b` over the last dimension.
///
/// # Shapes
/// - x: `[n, tokens, in]`
/// - weight: `[out, in]`
/// - bias: `[out]`
/// - result: `[n, tokens, out]`
pub fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [n, tokens, width] = x.dims();
    let out = weight.dims()[0];
    let y = x.reshape([n * tokens, width]).matmul(weight.transpose());
    let y = match bias {
        Some(bias) => y + bias.reshape([1, out]),
        None => y,
    };
    y.reshape([n, tokens, out])
}
