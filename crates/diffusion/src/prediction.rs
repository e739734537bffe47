//! A network's answer to noisy latents, and the ways to read it.

use burn::tensor::Tensor;

use crate::{
    error::{Error, Result},
    interpolant::{Output, Scales},
};

/// What a network answered to noisy latents. It knows the latents and how much noise they hold, so
/// that the noise, the clean latents and the velocity can be read from it whatever the network was
/// trained to answer.
///
/// # Shapes
/// All tensors: `[n, channels, h, w]`.
#[derive(Clone, Debug)]
pub struct Prediction {
    raw: Tensor<4>,
    x: Tensor<4>,
    /// One, or one for each of the n.
    scales: Vec<Scales>,
    output: Output,
}

impl Prediction {
    /// A raw answer to `x`, whose noise is given by one pair of scales, or one for each picture.
    ///
    /// # Errors
    /// If the shapes differ, or there are neither one nor n scales.
    pub fn new(raw: Tensor<4>, x: Tensor<4>, scales: Vec<Scales>, output: Output) -> Result<Self> {
        let (n, found) = (x.dims()[0], scales.len());
        if raw.dims() != x.dims() {
            return Err(Error::input(format!(
                "expected a prediction of shape {:?}, found {:?}",
                x.dims(),
                raw.dims()
            )));
        }
        if found != 1 && found != n {
            return Err(Error::input(format!(
                "expected one timestep or {n} of them, found {found}"
            )));
        }
        Ok(Self {
            raw,
            x,
            scales,
            output,
        })
    }

    /// The answer itself: what losses that imitate a network compare.
    pub fn raw(&self) -> Tensor<4> {
        self.raw.clone()
    }

    /// The noise in the latents.
    ///
    /// # Errors
    /// Never for scales of finite numbers.
    pub fn epsilon(&self) -> Result<Tensor<4>> {
        self.output
            .epsilon_from_raw(self.raw.clone(), self.x.clone(), &self.scales)
    }

    /// The clean latents.
    ///
    /// # Errors
    /// If the network answers epsilon and nothing is left of the signal.
    pub fn x0(&self) -> Result<Tensor<4>> {
        self.output
            .x0_from_raw(self.raw.clone(), self.x.clone(), &self.scales)
    }

    /// `epsilon - x_0`: the direction from the clean latents to the noise.
    ///
    /// # Errors
    /// As [`x0`](Self::x0).
    pub fn velocity(&self) -> Result<Tensor<4>> {
        self.output
            .velocity_from_raw(self.raw.clone(), self.x.clone(), &self.scales)
    }
}
