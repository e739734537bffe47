//! Products with a weight matrix.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::{Weight, fuses_weight, like, ops::Fused};

/// `x W^T + b` over the last dimension.
///
/// # Shapes
/// - x: `[n, tokens, in]`
/// - weight: `[out, in]`
/// - bias: `[out]`
/// - result: `[n, tokens, out]`
pub fn linear(x: Tensor<3>, weight: impl Into<Weight<2>>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let Weight {
        tensor: weight,
        layouts,
    } = weight.into();
    let [n, tokens, width] = x.dims();
    let out = weight.dims()[0];
    let x = x.reshape([n * tokens, width]);
    let third = bias.as_ref().map_or_else(|| x.dtype(), Tensor::dtype);
    if fuses_weight(&x.device(), weight.dtype(), [x.dtype(), third]) {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        let y = match bias {
            Some(bias) => {
                <Dispatch as Fused>::fused_linear(x, weight, bias.into_dispatch(), layouts)
            }
            None => <Dispatch as Fused>::fused_product(x, weight, layouts),
        };
        return Tensor::<2>::from_dispatch(y).reshape([n, tokens, out]);
    }
    let weight = like(weight, x.dtype());
    let y = x.matmul(weight.transpose());
    let y = match bias {
        Some(bias) => y + bias.reshape([1, out]),
        None => y,
    };
    y.reshape([n, tokens, out])
}
