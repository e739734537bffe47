//! Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), with PyTorch's defaults.

use burn::tensor::Tensor;

/// Adam's settings beside the step size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the root of that mean.
    pub eps: f64,
    /// Weight decay; the value times it is added to the gradient, as in `torch.optim.Adam`.
    pub weight_decay: f64,
    /// Whether weights decay beside the gradient instead, as in AdamW (Loshchilov and Hutter 2019,
    /// arXiv 1711.05101).
    pub decoupled: bool,
}

impl Adam {
    /// AdamW with PyTorch's defaults.
    pub fn decoupled() -> Self {
        Self {
            weight_decay: 1e-2,
            decoupled: true,
            ..Self::default()
        }
    }
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        }
    }
}

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
        Self {
            m: x.zeros_like(),
            v: x.zeros_like(),
        }
    }

    /// One step of size `lr` with the defaults; `t` counts steps from 1. The gradient is f32 and so
    /// is everything here.
    pub fn step(&mut self, x: Tensor<1>, gradient: Tensor<1>, lr: f64, t: usize) -> Tensor<1> {
        self.step_with(Adam::default(), x, gradient, lr, t)
    }

    /// The same with other settings.
    pub fn step_with(
        &mut self,
        adam: Adam,
        x: Tensor<1>,
        gradient: Tensor<1>,
        lr: f64,
        t: usize,
    ) -> Tensor<1> {
        let Adam {
            beta1,
            beta2,
            eps,
            weight_decay,
            decoupled,
        } = adam;
        let (x, gradient) = match (weight_decay == 0.0, decoupled) {
            (true, _) => (x, gradient),
            (false, true) => (x * (1.0 - lr * weight_decay), gradient),
            (false, false) => (x.clone(), gradient + x * weight_decay),
        };
        self.m = self.m.clone() * beta1 + gradient.clone() * (1.0 - beta1);
        self.v = self.v.clone() * beta2 + gradient.powi_scalar(2) * (1.0 - beta2);
        // As torch does: the first moment's correction goes into the step size, the second's under
        // the root.
        let corrected1 = 1.0 - beta1.powi(t as i32);
        let corrected2 = (1.0 - beta2.powi(t as i32)).sqrt();
        let root = self.v.clone().sqrt() / corrected2 + eps;
        x - self.m.clone() / root * (lr / corrected1)
    }
}
