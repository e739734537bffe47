//! Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), with PyTorch's defaults.

use burn::tensor::Tensor;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// The moments of one tensor.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Running mean of the gradient.
    pub m: Tensor<1>,
    /// Running mean of its square.
    pub v: Tensor<1>,
}

impl Moments {
    /// No gradient seen yet.
    pub fn zeros_like(x: &Tensor<1>) -> Self {
        Self { m: x.zeros_like(), v: x.zeros_like() }
    }

    /// One step of size `lr`; `t` counts steps from 1. The gradient is f32 and so is everything here.
    pub fn step(&mut self, x: Tensor<1>, gradient: Tensor<1>, lr: f64, t: usize) -> Tensor<1> {
        self.m = self.m.clone() * BETA1 + gradient.clone() * (1.0 - BETA1);
        self.v = self.v.clone() * BETA2 + gradient.powi_scalar(2) * (1.0 - BETA2);
        // As torch does: the first moment's correction goes into the step size, the second's under the root.
        let corrected1 = 1.0 - BETA1.powi(t as i32);
        let corrected2 = (1.0 - BETA2.powi(t as i32)).sqrt();
        let root = self.v.clone().sqrt() / corrected2 + EPS;
        x - self.m.clone() / root * (lr / corrected1)
    }
}
