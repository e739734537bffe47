//! Activation functions.

use std::f64::consts::FRAC_1_SQRT_2;

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
    elementwise(x, Activation::Gelu, |x| match x.is_autodiff() {
        // Off the CPU Burn's own has the gradient of the approximation by tanh, which is off by up
        // to 4e-4.
        true => x.clone() * ((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
        false => activation::gelu(x),
    })
}

/// OpenAI's `x * sigmoid(1.702 x)`, elementwise.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    elementwise(x, Activation::QuickGelu, |x| {
        x.clone() * activation::sigmoid(x * 1.702)
    })
}

fn elementwise<const D: usize>(
    x: Tensor<D>,
    activation: Activation,
    composed: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    if fuses(&x.device(), [x.dtype()]) {
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_activation(
            x.into_dispatch(),
            activation,
        ));
    }
    composed(x)
}

/// GEGLU with the exact GELU: the first half of the last dimension times the GELU of the second.
///
/// # Shapes
/// - x: `[n, tokens, 2 * c]`
/// - result: `[n, tokens, c]`
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    if fuses(&x.device(), [x.dtype()]) {
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_geglu(x.into_dispatch()));
    }
    let [_, _, c2] = x.dims();
    let value = x.clone().narrow(2, 0, c2 / 2);
    let gate = x.narrow(2, c2 / 2, c2 / 2);
    value * gelu(gate)
}
