//! The noise schedule of a diffusion model: how much signal is left at each timestep.
//!
//! Written in the variance-preserving form of Ho et al. 2020 (arXiv:2006.11239):
//! `x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps`.

mod config;
mod options;

use crate::{
    error::{Error, Result},
    interpolant::{Interpolant, Output, Scales},
    sampler::Sampler,
    time::Timestep,
};

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
pub struct NoiseSchedule {
    /// `alpha_bar` of every training timestep, falling; rounded to `f32` as diffusers' are.
    alphas_cumprod: Vec<f64>,
    output: Output,
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

impl NoiseSchedule {
    /// How many timesteps the model was trained on.
    pub fn num_train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
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

    /// Whether no signal is left at `t`: the end of a schedule with zero terminal SNR.
    pub(crate) fn is_silent(&self, t: Timestep) -> bool {
        self.alpha_bar(t) <= config::ALMOST_ZERO
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
}

fn sigma(alpha_bar: f64) -> f64 {
    ((1.0 - alpha_bar) / alpha_bar).sqrt()
}

impl Interpolant for NoiseSchedule {
    fn scales(&self, t: Timestep) -> Scales {
        Scales::preserving(self.alpha_bar(t))
    }

    fn output(&self) -> Output {
        self.output
    }
}
