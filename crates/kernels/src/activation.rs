//! Activation functions.

use burn::{
    backend::Dispatch,
    tensor::{Tensor, activation},
};

use crate::{cpu::activation::Activation, fuses, ops::Fused};

/// `x * sigmoid(x)`, elementwise.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    elementwise(x, Activation::Silu, activation::silu)
}

/// The exact GELU, `x * Phi(x)`, elementwise.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    elementwise(x, Activation::Gelu, activation::gelu)
}

/// OpenAI's `x * sigmoid(1.702 x)`, elementwise.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    elementwise(x, Activation::QuickGelu, |x| x.clone() * activation::sigmoid(x * 1.702))
}

fn elementwise<const D: usize>(x: Tensor<D>, activation: Activation, composed: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    if fuses(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_activation(x.into_dispatch(), activation));
    }
    composed(x)
}

/// GEGLU with the exact GELU: the first half of the last dimension times the GELU of the second.
///
/// # Shapes
/// - x: `[n, tokens, 2 * c]`
/// - result: `[n, tokens, c]`
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    if fuses(&x.device()) {
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_geglu(x.into_dispatch()));
    }
    let [_, _, c2] = x.dims();
    let value = x.clone().narrow(2, 0, c2 / 2);
    let gate = x.narrow(2, c2 / 2, c2 / 2);
    value * gelu(gate)
}
