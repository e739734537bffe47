//! Normalisations.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::{fuses, ops::Fused, silu};

/// Group norm over channels-last maps, optionally followed by SiLU.
///
/// # Shapes
/// - x and result: `[n, h, w, c]`
/// - gamma, beta: `[c]`
///
/// # Panics
/// If `groups` does not divide `c`.
pub fn group_norm(
    x: Tensor<4>,
    groups: usize,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    eps: f64,
    then_silu: bool,
) -> Tensor<4> {
    if fuses(&x.device(), [x.dtype(), gamma.dtype(), beta.dtype()]) {
        let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_group_norm(
            x.into_dispatch(),
            gamma,
            beta,
            groups,
            eps,
            then_silu,
        ));
    }
    let [n, h, w, c] = x.dims();
    let grouped = x.reshape([n, h * w, groups, c / groups]);
    let mean = grouped.clone().mean_dim(1).mean_dim(3);
    let centred = grouped - mean;
    let variance = centred.clone().powi_scalar(2).mean_dim(1).mean_dim(3);
    let y = (centred / (variance + eps).sqrt()).reshape([n, h, w, c]);
    let y = y * gamma.reshape([1, 1, 1, c]) + beta.reshape([1, 1, 1, c]);
    if then_silu { silu(y) } else { y }
}

/// Layer norm over the last dimension.
///
/// # Shapes
/// - x and result: `[n, tokens, c]`
/// - gamma, beta: `[c]`
pub fn layer_norm(x: Tensor<3>, gamma: Tensor<1>, beta: Tensor<1>, eps: f64) -> Tensor<3> {
    if fuses(&x.device(), [x.dtype(), gamma.dtype(), beta.dtype()]) {
        let (gamma, beta) = (gamma.into_dispatch(), beta.into_dispatch());
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_layer_norm(
            x.into_dispatch(),
            gamma,
            beta,
            eps,
        ));
    }
    burn::tensor::module::layer_norm(x, gamma, Some(beta), eps)
}
