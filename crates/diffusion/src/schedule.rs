//! The noise schedule of a diffusion model: how much signal is left at each timestep.
//!
//! Written in the variance-preserving form of Ho et al. 2020 (arXiv:2006.11239):
//! `x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps`.

mod config;
mod options;

use burn::tensor::{Tensor, TensorData};

use crate::{
    error::{Error, Result},
    samplers::Sampler,
    time::Timestep,
};

/// What the network was trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise that was added.
    Epsilon,
    /// `v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0` (Salimans and Ho 2022,
    /// arXiv:2202.00512).
    V,
}

/// How a sampler's timesteps are spread over the training range (Lin et al. 2023, arXiv:2305.08891,
/// table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Whole strides from 0 upwards, plus `steps_offset`.
    Leading,
    /// Whole strides from the last timestep downwards.
    Trailing,
    /// Evenly from the first to the last timestep, both included.
    Linspace,
}

/// A noise schedule and the conventions that come with it, as a diffusers `scheduler_config.json`
/// has them.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// `alpha_bar` of every training timestep, falling; rounded to `f32` as diffusers' are.
    alphas_cumprod: Vec<f64>,
    prediction: Prediction,
    steps_offset: usize,
    /// `None` where the file does not say: false for PNDM, true for DDIM.
    set_alpha_to_one: Option<bool>,
    skip_prk_steps: bool,
    /// `None` where the file does not say: each sampler has its own default.
    timestep_spacing: Option<Spacing>,
    use_karras_sigmas: bool,
    /// The cosine schedule, whose Karras timesteps diffusers does not round.
    cosine: bool,
    /// UniPC's B(h) = h instead of e^h - 1.
    bh1: bool,
    /// What the configuration asks for and is not implemented.
    refusals: Vec<Refusal>,
}

/// Who would have to obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Whoever asks for a timestep or a sampler.
    Everything,
    /// Who draws with this sampler.
    Sampler(Sampler),
}

/// Something that a configuration asks for and that is not implemented.
#[derive(Clone, Debug)]
struct Refusal {
    of: Of,
    /// Which key asks for what.
    problem: String,
    hint: String,
}

impl Schedule {
    /// How many timesteps the model was trained on.
    pub fn num_train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// What the network predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// What is added to every timestep of the `leading` spacing.
    pub fn steps_offset(&self) -> usize {
        self.steps_offset
    }

    /// Whether the last step of DDIM and PNDM goes to `alpha_bar` 1 instead of the first training
    /// timestep's; `None` leaves it to each sampler.
    pub fn set_alpha_to_one(&self) -> Option<bool> {
        self.set_alpha_to_one
    }

    /// Whether PNDM starts with multistep formulas at once (PLMS, as Stable Diffusion ships it).
    pub fn skip_prk_steps(&self) -> bool {
        self.skip_prk_steps
    }

    /// The spacing the configuration asks for; `None` leaves it to each sampler.
    pub fn timestep_spacing(&self) -> Option<Spacing> {
        self.timestep_spacing
    }

    /// Whether the configuration asks for the noise levels of Karras et al. 2022.
    pub fn use_karras_sigmas(&self) -> bool {
        self.use_karras_sigmas
    }

    pub(crate) fn is_cosine(&self) -> bool {
        self.cosine
    }

    /// Whether UniPC is asked to use B(h) = h.
    pub(crate) fn is_bh1(&self) -> bool {
        self.bh1
    }

    /// Whether the configuration can be obeyed at all: its timesteps have their levels of noise.
    ///
    /// # Errors
    /// If it asks for a schedule that is not implemented, by key.
    pub fn usable(&self) -> Result<()> {
        self.meets(&[Of::Everything])
    }

    /// Whether a sampler does what the configuration asks of its class.
    ///
    /// # Errors
    /// If it asks for something that is not implemented, by key.
    pub fn usable_by(&self, sampler: Sampler) -> Result<()> {
        self.meets(&[Of::Everything, Of::Sampler(sampler)])
    }

    fn meets(&self, concerned: &[Of]) -> Result<()> {
        match self
            .refusals
            .iter()
            .find(|refusal| concerned.contains(&refusal.of))
        {
            None => Ok(()),
            Some(refusal) => {
                Err(Error::input(refusal.problem.clone()).with_hint(refusal.hint.clone()))
            }
        }
    }

    /// `alpha_bar` of every training timestep, from the least noise to the most.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// The timestep `t` of training.
    ///
    /// # Errors
    /// If the model was trained on fewer timesteps, or its schedule is not implemented.
    pub fn timestep(&self, t: usize) -> Result<Timestep> {
        self.usable()?;
        if t < self.num_train_timesteps() {
            Ok(Timestep::from_grid(t as f64))
        } else {
            Err(Error::input(format!(
                "timestep {t} is not one of the 0 to {} of training",
                self.num_train_timesteps() - 1
            )))
        }
    }

    /// The share of the signal's variance at `t`.
    ///
    /// Between two training timesteps the noise level `sigma = sqrt((1 - alpha_bar) / alpha_bar)`
    /// is interpolated linearly, as diffusers does; beyond the last, the last one's value holds.
    pub fn alpha_bar(&self, t: Timestep) -> f64 {
        let last = self.alphas_cumprod.len() - 1;
        let (low, part) = (t.get() as usize, f64::from(t.get().fract()));
        if low >= last || part == 0.0 {
            return self.alphas_cumprod[low.min(last)];
        }
        let (below, above) = (self.sigma_at(low), self.sigma_at(low + 1));
        1.0 / (1.0 + (below + part * (above - below)).powi(2))
    }

    /// The noise level relative to the signal, `sqrt((1 - alpha_bar) / alpha_bar)`, at `t`.
    pub fn sigma(&self, t: Timestep) -> f64 {
        sigma(self.alpha_bar(t))
    }

    /// `sigma` of a training timestep.
    pub(crate) fn sigma_at(&self, t: usize) -> f64 {
        sigma(self.alphas_cumprod[t])
    }

    /// `alpha_bar` of a whole timestep that may lie before the first (the end of DDIM and PNDM) or
    /// after the last one.
    pub(crate) fn alpha_bar_or_final(&self, t: i64, to_one: bool) -> f64 {
        match usize::try_from(t) {
            Ok(t) => self.alphas_cumprod[t.min(self.alphas_cumprod.len() - 1)],
            Err(_) if to_one => 1.0,
            Err(_) => self.alphas_cumprod[0],
        }
    }

    /// `alpha_bar` of each timestep.
    pub fn alpha_bars(&self, t: &[Timestep]) -> Vec<f64> {
        t.iter().map(|&t| self.alpha_bar(t)).collect()
    }

    /// The forward process: `sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise`.
    ///
    /// **Shapes**: `x0`, `noise` and the result [n, channels, height, width]; `t` one timestep, or
    /// n.
    ///
    /// # Errors
    /// If there are neither one nor n timesteps, or the schedule is not implemented.
    pub fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, t: &[Timestep]) -> Result<Tensor<4>> {
        self.usable()?;
        let alpha_bar = self.alpha_bars(t);
        combine(x0, noise, &alpha_bar, |a| (a.sqrt(), (1.0 - a).sqrt()))
    }

    /// What the network should predict for `x0` noised by `noise`: the noise, or v.
    ///
    /// **Shapes**: as [`add_noise`](Self::add_noise).
    ///
    /// # Errors
    /// If there are neither one nor n timesteps.
    pub fn training_target(
        &self,
        x0: Tensor<4>,
        noise: Tensor<4>,
        t: &[Timestep],
    ) -> Result<Tensor<4>> {
        match self.prediction {
            Prediction::Epsilon => Ok(noise),
            Prediction::V => combine(noise, x0, &self.alpha_bars(t), |a| {
                (a.sqrt(), -(1.0 - a).sqrt())
            }),
        }
    }

    /// The noise in `x` according to the network's raw output: the one place where epsilon and v
    /// models differ.
    ///
    /// `alpha_bar` is that of the sampler's [`Step`](crate::samplers::Step) rather than of a
    /// timestep, since the timesteps of Karras' noise levels are rounded. `x` is what the network
    /// saw.
    ///
    /// **Shapes**: tensors [n, channels, height, width]; `alpha_bar` one value, or n.
    ///
    /// # Errors
    /// If there are neither one nor n values of `alpha_bar`.
    pub fn epsilon_from_raw(
        &self,
        raw: Tensor<4>,
        x: Tensor<4>,
        alpha_bar: &[f64],
    ) -> Result<Tensor<4>> {
        match self.prediction {
            Prediction::Epsilon => Ok(raw),
            Prediction::V => combine(raw, x, alpha_bar, |a| (a.sqrt(), (1.0 - a).sqrt())),
        }
    }

    /// The raw output the network would have given for this noise: the inverse of
    /// [`epsilon_from_raw`](Self::epsilon_from_raw).
    ///
    /// # Errors
    /// If there are neither one nor n values of `alpha_bar`.
    pub fn raw_from_epsilon(
        &self,
        epsilon: Tensor<4>,
        x: Tensor<4>,
        alpha_bar: &[f64],
    ) -> Result<Tensor<4>> {
        match self.prediction {
            Prediction::Epsilon => Ok(epsilon),
            Prediction::V => combine(epsilon, x, alpha_bar, |a| {
                (1.0 / a.sqrt(), -((1.0 - a) / a).sqrt())
            }),
        }
    }

    /// The clean latents that `x` holds if its noise is `epsilon`: `(x - sqrt(1 - alpha_bar)
    /// epsilon) / sqrt(alpha_bar)`.
    ///
    /// **Shapes**: tensors [n, channels, height, width]; `alpha_bar` one value, or n.
    ///
    /// # Errors
    /// If there are neither one nor n values of `alpha_bar`.
    pub fn x0_from_epsilon(
        &self,
        epsilon: Tensor<4>,
        x: Tensor<4>,
        alpha_bar: &[f64],
    ) -> Result<Tensor<4>> {
        combine(x, epsilon, alpha_bar, |a| {
            (1.0 / a.sqrt(), -((1.0 - a) / a).sqrt())
        })
    }
}

fn sigma(alpha_bar: f64) -> f64 {
    ((1.0 - alpha_bar) / alpha_bar).sqrt()
}

/// `p a + q b` with (p, q) computed on the host from each picture's `alpha_bar`.
fn combine(
    a: Tensor<4>,
    b: Tensor<4>,
    alpha_bar: &[f64],
    weights: impl Fn(f64) -> (f64, f64),
) -> Result<Tensor<4>> {
    let n = a.dims()[0];
    if a.dims() != b.dims() {
        return Err(Error::input(format!(
            "expected two tensors of one shape, found {:?} and {:?}",
            a.dims(),
            b.dims()
        )));
    }
    let (Some(&first), true) = (
        alpha_bar.first(),
        alpha_bar.len() == 1 || alpha_bar.len() == n,
    ) else {
        return Err(Error::input(format!(
            "expected one timestep or {n} of them, found {}",
            alpha_bar.len()
        )));
    };
    if alpha_bar.iter().all(|&value| value == first) {
        let (p, q) = weights(first);
        return Ok(a.mul_scalar(p).add(b.mul_scalar(q)));
    }
    let device = a.device();
    let (p, q): (Vec<f32>, Vec<f32>) = alpha_bar
        .iter()
        .map(|&value| weights(value))
        .map(|(p, q)| (p as f32, q as f32))
        .unzip();
    let column =
        |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [n, 1, 1, 1]), &device);
    Ok(a.mul(column(p)).add(b.mul(column(q))))
}
