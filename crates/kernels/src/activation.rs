//! Activation functions.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::{
    backend::Dispatch,
    tensor::{Tensor, activation},
};

use crate::{fuses, ops::Fused};

/// `x * sigmoid(x)`, elementwise.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// The exact GELU, `x * Phi(x)`, elementwise.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() && !fuses(&x.device()) {
        // Off the CPU Burn's own has the gradient of the approximation by tanh, which is off by up to 4e-4.
        return x.clone() * ((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    }
    activation::gelu(x)
}

/// OpenAI's `x * sigmoid(1.702 x)`, elementwise.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * activation::sigmoid(x * 1.702)
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
