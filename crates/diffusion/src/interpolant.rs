//! How signal and noise are mixed on the way from a picture to noise (an interpolant; Albergo et
//! al. 2023, arXiv 2303.08797): `x_t = alpha x_0 + sigma epsilon`.
//!
//! Diffusion models and flow matching differ in the two scales of a timestep and in what the
//! network answers; from `x_t`, the scales and the answer, the noise, the clean latents and the
//! velocity follow for both.

use burn::tensor::{Tensor, TensorData};

use crate::{
    error::{Error, Result},
    time::Timestep,
};

/// How much of the clean latents and of the noise is in noisy ones: `x = alpha x_0 + sigma
/// epsilon`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// The scale of the clean latents.
    pub alpha: f64,
    /// The scale of the noise.
    pub sigma: f64,
}

impl Scales {
    /// The variance-preserving mixture of Ho et al. 2020 (arXiv 2006.11239): `sqrt(alpha_bar)` and
    /// `sqrt(1 - alpha_bar)`.
    pub fn preserving(alpha_bar: f64) -> Self {
        Self {
            alpha: alpha_bar.sqrt(),
            sigma: (1.0 - alpha_bar).sqrt(),
        }
    }

    /// The signal's share of the variance, where clean latents have variance 1 as noise has.
    pub fn alpha_bar(self) -> f64 {
        let (signal, noise) = (self.alpha * self.alpha, self.sigma * self.sigma);
        signal / (signal + noise)
    }

    /// The straight line of rectified flow (Liu et al. 2022, arXiv 2209.03003): `1 - sigma` and
    /// `sigma`.
    pub fn straight(sigma: f64) -> Self {
        Self {
            alpha: 1.0 - sigma,
            sigma,
        }
    }
}

/// What a network was trained to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The noise.
    Epsilon,
    /// `alpha epsilon - sigma x_0`, where alpha and sigma preserve variance (Salimans and Ho 2022,
    /// arXiv 2202.00512).
    V,
    /// `epsilon - x_0`, the velocity of rectified flow.
    Velocity,
}

/// Two factors: of the first and of the second tensor of a sum.
pub(crate) type Factors = (f64, f64);

impl Output {
    /// The noise as a sum of the raw output and of x.
    pub(crate) fn epsilon(self, Scales { alpha, sigma }: Scales) -> Factors {
        match self {
            Self::Epsilon => (1.0, 0.0),
            Self::V => (alpha, sigma),
            Self::Velocity => (alpha / (alpha + sigma), 1.0 / (alpha + sigma)),
        }
    }

    /// The clean latents as a sum of the raw output and of x; not finite where epsilon is all there
    /// is.
    fn x0(self, Scales { alpha, sigma }: Scales) -> Factors {
        match self {
            Self::Epsilon => (-sigma / alpha, 1.0 / alpha),
            Self::V => (-sigma, alpha),
            Self::Velocity => (-sigma / (alpha + sigma), 1.0 / (alpha + sigma)),
        }
    }

    /// `epsilon - x_0` as a sum of the raw output and of x; not finite where epsilon is all there
    /// is.
    fn velocity(self, scales: Scales) -> Factors {
        match self {
            Self::Velocity => (1.0, 0.0),
            _ => {
                let ((e, of_x), (d, and_x)) = (self.epsilon(scales), self.x0(scales));
                (e - d, of_x - and_x)
            }
        }
    }

    /// The raw output as a sum of the noise and of x; not finite where the noise does not tell it.
    fn raw(self, Scales { alpha, sigma }: Scales) -> Factors {
        match self {
            Self::Epsilon => (1.0, 0.0),
            Self::V => (1.0 / alpha, -sigma / alpha),
            Self::Velocity => ((alpha + sigma) / alpha, -1.0 / alpha),
        }
    }

    /// What to answer for noise and clean latents: a sum of the noise and of x_0.
    fn target(self, Scales { alpha, sigma }: Scales) -> Factors {
        match self {
            Self::Epsilon => (1.0, 0.0),
            Self::V => (alpha, -sigma),
            Self::Velocity => (1.0, -1.0),
        }
    }

    /// The noise in `x` according to the network's raw output.
    ///
    /// **Shapes**: tensors [n, channels, height, width]; `scales` one, or n.
    ///
    /// # Errors
    /// If there are neither one nor n scales, or the tensors differ in shape.
    pub fn epsilon_from_raw(
        self,
        raw: Tensor<4>,
        x: Tensor<4>,
        scales: &[Scales],
    ) -> Result<Tensor<4>> {
        mixed(raw, x, scales, |s| self.epsilon(s))
    }

    /// The clean latents in `x` according to the network's raw output.
    ///
    /// **Shapes**: as [`epsilon_from_raw`](Self::epsilon_from_raw).
    ///
    /// # Errors
    /// As [`epsilon_from_raw`](Self::epsilon_from_raw); and for a network that answers epsilon where nothing is left of the signal.
    pub fn x0_from_raw(self, raw: Tensor<4>, x: Tensor<4>, scales: &[Scales]) -> Result<Tensor<4>> {
        mixed(raw, x, scales, |s| self.x0(s))
    }

    /// The velocity `epsilon - x_0` in `x` according to the network's raw output.
    ///
    /// **Shapes**: as [`epsilon_from_raw`](Self::epsilon_from_raw).
    ///
    /// # Errors
    /// As [`x0_from_raw`](Self::x0_from_raw).
    pub fn velocity_from_raw(
        self,
        raw: Tensor<4>,
        x: Tensor<4>,
        scales: &[Scales],
    ) -> Result<Tensor<4>> {
        mixed(raw, x, scales, |s| self.velocity(s))
    }

    /// The raw output that would have meant this noise in `x`: the inverse of
    /// [`epsilon_from_raw`](Self::epsilon_from_raw).
    ///
    /// # Errors
    /// As [`epsilon_from_raw`](Self::epsilon_from_raw); and where nothing is left of the signal, unless the network answers epsilon.
    pub fn raw_from_epsilon(
        self,
        epsilon: Tensor<4>,
        x: Tensor<4>,
        scales: &[Scales],
    ) -> Result<Tensor<4>> {
        mixed(epsilon, x, scales, |s| self.raw(s))
    }
}

/// A way from pictures to noise, and what a network trained on it answers.
pub trait Interpolant {
    /// How much of clean latents and of noise there is at `t`.
    fn scales(&self, t: Timestep) -> Scales;

    /// What the network answers.
    fn output(&self) -> Output;

    /// The forward process (q-sample): `alpha x_0 + sigma epsilon`.
    ///
    /// **Shapes**: `x0`, `noise` and the result [n, channels, height, width]; `t` one timestep, or
    /// n.
    ///
    /// # Errors
    /// If there are neither one nor n timesteps, or the tensors differ in shape.
    fn q_sample(&self, x0: Tensor<4>, noise: Tensor<4>, t: &[Timestep]) -> Result<Tensor<4>> {
        mixed(x0, noise, &self.all_scales(t), |s| (s.alpha, s.sigma))
    }

    /// What the network should answer for `x0` noised by `noise`.
    ///
    /// **Shapes**: as [`q_sample`](Self::q_sample).
    ///
    /// # Errors
    /// As [`q_sample`](Self::q_sample).
    fn regression_target(
        &self,
        x0: Tensor<4>,
        noise: Tensor<4>,
        t: &[Timestep],
    ) -> Result<Tensor<4>> {
        let output = self.output();
        mixed(noise, x0, &self.all_scales(t), |s| output.target(s))
    }

    /// The scales of each timestep.
    fn all_scales(&self, t: &[Timestep]) -> Vec<Scales> {
        t.iter().map(|&t| self.scales(t)).collect()
    }
}

/// `p a + q b` with (p, q) computed on the host in `f64` from each picture's scales.
pub(crate) fn mixed(
    a: Tensor<4>,
    b: Tensor<4>,
    scales: &[Scales],
    factors: impl Fn(Scales) -> Factors,
) -> Result<Tensor<4>> {
    let n = a.dims()[0];
    if a.dims() != b.dims() {
        return Err(Error::input(format!(
            "expected two tensors of one shape, found {:?} and {:?}",
            a.dims(),
            b.dims()
        )));
    }
    let (Some(&first), true) = (scales.first(), scales.len() == 1 || scales.len() == n) else {
        return Err(Error::input(format!(
            "expected one timestep or {n} of them, found {}",
            scales.len()
        )));
    };
    let finite = |s: Scales| match factors(s) {
        (p, q) if p.is_finite() && q.is_finite() => Ok((p, q)),
        _ => Err(Error::input(format!(
            "at alpha {} and sigma {} a prediction of the noise tells nothing else",
            s.alpha, s.sigma
        ))),
    };
    let first = finite(first)?;
    let factors = scales
        .iter()
        .map(|&s| finite(s))
        .collect::<Result<Vec<Factors>>>()?;
    if factors.iter().all(|&pair| pair == first) {
        return Ok(match first {
            (1.0, 0.0) => a,
            (1.0, q) => a.add(b.mul_scalar(q)),
            (p, q) => a.mul_scalar(p).add(b.mul_scalar(q)),
        });
    }
    let device = a.device();
    let (p, q): (Vec<f32>, Vec<f32>) = factors
        .into_iter()
        .map(|(p, q)| (p as f32, q as f32))
        .unzip();
    let column =
        |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [n, 1, 1, 1]), &device);
    Ok(a.mul(column(p)).add(b.mul(column(q))))
}
