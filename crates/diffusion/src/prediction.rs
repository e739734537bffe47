//! A network's answer to noisy latents, and the ways to read it.

use burn::tensor::Tensor;

use crate::{
    error::{Error, Result},
    interpolant::{Output, Scales, mixed},
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

    /// What would have been answered by a network that answers epsilon and finds this noise in `x`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn of_epsilon(epsilon: Tensor<4>, x: Tensor<4>, scales: Scales) -> Result<Self> {
        Self::new(epsilon, x, vec![scales], Output::Epsilon)
    }

    /// Another answer of the same network to the same latents, such as a guided one: what is the
    /// same sum of answers is the same sum of epsilons, of clean latents and of velocities, where
    /// its weights add up to 1.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn with_raw(self, raw: Tensor<4>) -> Result<Self> {
        Self::new(raw, self.x, self.scales, self.output)
    }

    /// The answer that would have meant this noise in the same latents.
    ///
    /// # Errors
    /// If the shapes differ, or nothing is left of the signal and the network does not answer
    /// epsilon.
    pub fn with_epsilon(self, epsilon: Tensor<4>) -> Result<Self> {
        let raw = self
            .output
            .raw_from_epsilon(epsilon, self.x.clone(), &self.scales)?;
        self.with_raw(raw)
    }

    /// The answers for `k` prompts of each picture, which lie one batch behind the other.
    ///
    /// # Errors
    /// If there are not `k` of equal size.
    pub fn split(&self, k: usize) -> Result<Vec<Self>> {
        let all = self.x.dims()[0];
        if k == 0 || !all.is_multiple_of(k) {
            return Err(Error::input(format!("{all} predictions are not {k} each")));
        }
        let n = all / k;
        let part = |i: usize| Self {
            raw: self.raw.clone().narrow(0, i * n, n),
            x: self.x.clone().narrow(0, i * n, n),
            scales: match self.scales.as_slice() {
                [one] => vec![*one],
                each => each[i * n..(i + 1) * n].to_vec(),
            },
            output: self.output,
        };
        Ok((0..k).map(part).collect())
    }

    /// What kind of answer it is.
    pub fn output(&self) -> Output {
        self.output
    }

    /// `of_x x + of_epsilon epsilon`: every formula of a sampler, with x_0 put in, is such a sum.
    /// `x` are the latents on the sampler's own scale; the network saw `scale x`.
    ///
    /// What multiplies `x` and the raw answer is computed in `f64`, so that nothing cancels where
    /// hardly any signal is left: of a v or a velocity, x_0 is taken directly and not from a
    /// difference of `x` and the noise that is thousands of times as large.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn sum(&self, x: Tensor<4>, scale: f64, of_x: f64, of_epsilon: f64) -> Result<Tensor<4>> {
        mixed(x, self.raw.clone(), &self.scales, |scales| {
            let (of_raw, also_of_x) = self.output.epsilon(scales);
            (of_x + of_epsilon * also_of_x * scale, of_epsilon * of_raw)
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
