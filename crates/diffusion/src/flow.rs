//! Flow matching (Lipman et al. 2022, arXiv 2210.02747) on straight lines from pictures to noise
//! (rectified flow, Liu et al. 2022, arXiv 2209.03003), as Stable Diffusion 3 and FLUX are trained:
//! the noise levels of a run.
//!
//! Written with `sigma` from 0 (clean) to 1 (noise): `x = (1 - sigma) x_0 + sigma epsilon`.
//! Pictures of many pixels need more of a run at high noise, so noise levels are shifted (Esser et
//! al. 2024, arXiv 2403.03206, section 5.3.2).

mod config;

use crate::{
    error::{Error, Result},
    interpolant::{Interpolant, Output, Scales},
    time::Timestep,
};

/// The conventions of a flow-matching model, as a diffusers `scheduler_config.json` of
/// `FlowMatchEulerDiscreteScheduler` or `FlowMatchHeunDiscreteScheduler` has them.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowMatching {
    num_train_timesteps: usize,
    shift: Shift,
    spacing: Spacing,
    /// The noise level to which the last one is stretched.
    shift_terminal: Option<f64>,
}

/// How noise levels are moved towards noise: `s sigma / (1 + (s - 1) sigma)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shift {
    /// By the same s whatever is drawn.
    Static(f64),
    /// By an s made of a `mu` that depends on the size of the picture.
    Dynamic(DynamicShift),
}

/// A shift that depends on the number of tokens of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DynamicShift {
    /// `mu` at `base_image_seq_len` tokens.
    pub base_shift: f64,
    /// `mu` at `max_image_seq_len` tokens.
    pub max_shift: f64,
    /// A small number of tokens.
    pub base_image_seq_len: usize,
    /// A large number of tokens.
    pub max_image_seq_len: usize,
    /// What `mu` means.
    pub time_shift_type: TimeShift,
}

/// What the shift is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeShift {
    /// `s = exp(mu)`, as in FLUX.
    Exponential,
    /// `s = mu`.
    Linear,
}

impl DynamicShift {
    /// `mu` for a picture of so many tokens: on the line through the two that are given.
    pub fn mu(&self, image_seq_len: usize) -> f64 {
        let run = self.max_image_seq_len as f64 - self.base_image_seq_len as f64;
        let slope = (self.max_shift - self.base_shift) / run;
        self.base_shift + slope * (image_seq_len as f64 - self.base_image_seq_len as f64)
    }
}

/// How noise levels are spread before the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// As they come.
    Uniform,
    /// Between the first and the last of them as in equation 5 of Karras et al. 2022 (arXiv
    /// 2206.00364), rho = 7.
    Karras,
    /// Between the first and the last of them with equal ratios.
    Exponential,
}

/// The noise levels of a run, falling, and the label that the network sees at each.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    timesteps: Vec<Timestep>,
    sigmas: Vec<f64>,
}

impl Levels {
    /// The label of each noise level but the clean end.
    pub fn timesteps(&self) -> &[Timestep] {
        &self.timesteps
    }

    /// The noise levels; one more than there are labels, for the clean end, 0.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }
}

/// Rows and columns of latents that a transformer reads as one token, as SD 3 and FLUX do.
const PATCH: usize = 2;

impl FlowMatching {
    /// By how much a network's label exceeds the noise level.
    pub fn num_train_timesteps(&self) -> usize {
        self.num_train_timesteps
    }

    /// How noise levels are shifted.
    pub fn shift(&self) -> Shift {
        self.shift
    }

    /// The noise levels of `steps` steps: evenly spread over those of training, then shifted. `mu`
    /// is that of [`DynamicShift::mu`]; a static shift does not look at it.
    ///
    /// diffusers: `set_timesteps(steps, mu=mu)`. With a static shift its range ends at the already
    /// shifted lowest level of training, so the last step is shifted twice; Stable Diffusion 3 is
    /// drawn so.
    ///
    /// # Errors
    /// If there are no steps, or more than timesteps of training, or a `mu` is needed and there is none.
    pub fn levels(&self, steps: usize, mu: Option<f64>) -> Result<Levels> {
        self.possible(steps)?;
        let count = self.num_train_timesteps;
        let lowest = 1.0 / count as f64;
        let lowest = if let Shift::Static(shift) = self.shift {
            shifted(shift, lowest)
        } else {
            lowest
        };
        let stride = (1.0 - lowest) / (steps - 1).max(1) as f64;
        let sigmas: Vec<f64> = (0..steps).map(|i| 1.0 - i as f64 * stride).collect();
        self.levels_of(&sigmas, mu)
    }

    /// Whether a run can have so many steps.
    fn possible(&self, steps: usize) -> Result<()> {
        if steps == 0 {
            return Err(Error::input("0 steps make no picture: expected at least 1"));
        }
        let count = self.num_train_timesteps;
        if steps > count {
            return Err(Error::input(format!(
                "{steps} steps are more than the {count} timesteps of training"
            )));
        }
        Ok(())
    }

    /// The noise levels of `steps` steps for latents of this height and width, as diffusers'
    /// pipelines draw: where the shift depends on the size of the picture over 1, 1 - 1/n, ..., 1/n
    /// with `mu` of its tokens (FLUX), otherwise as [`levels`](Self::levels) (Stable Diffusion 3).
    ///
    /// # Errors
    /// As [`levels`](Self::levels).
    pub(crate) fn levels_for(&self, steps: usize, [height, width]: [usize; 2]) -> Result<Levels> {
        let Shift::Dynamic(dynamic) = self.shift else {
            return self.levels(steps, None);
        };
        self.possible(steps)?;
        let mu = dynamic.mu((height / PATCH) * (width / PATCH));
        let sigmas: Vec<f64> = (0..steps).map(|i| 1.0 - i as f64 / steps as f64).collect();
        self.levels_of(&sigmas, Some(mu))
    }

    /// The noise levels of a run over `sigmas`, which are shifted. FLUX is drawn over 1, 1 - 1/n,
    /// ..., 1/n.
    ///
    /// diffusers: `set_timesteps(sigmas=sigmas, mu=mu)`.
    ///
    /// # Errors
    /// If they do not fall within 1 and 0, or a `mu` is needed and there is none.
    pub fn levels_of(&self, sigmas: &[f64], mu: Option<f64>) -> Result<Levels> {
        let inside = sigmas
            .iter()
            .all(|sigma| (0.0..=1.0).contains(sigma) && *sigma > 0.0);
        if sigmas.is_empty() || !inside || sigmas.windows(2).any(|pair| pair[1] >= pair[0]) {
            return Err(Error::input(format!(
                "noise levels {sigmas:?}: expected falling numbers from 1 to above 0"
            )));
        }
        let shift = match (self.shift, mu) {
            (Shift::Static(shift), _) => shift,
            (Shift::Dynamic(dynamic), Some(mu)) => match dynamic.time_shift_type {
                TimeShift::Exponential => mu.exp(),
                TimeShift::Linear => mu,
            },
            (Shift::Dynamic(_), None) => {
                return Err(Error::input(
                    "this model's noise levels are shifted by the size of the picture, and no mu was given",
                ));
            }
        };
        if !(shift > 0.0 && shift.is_finite()) {
            return Err(Error::input(format!(
                "a shift of {shift}: expected a positive number"
            )));
        }
        let mut sigmas: Vec<f64> = sigmas.iter().map(|&sigma| shifted(shift, sigma)).collect();
        let last = sigmas[sigmas.len() - 1];
        // One level alone, at 1, has nothing to be stretched.
        if let Some(terminal) = self.shift_terminal
            && last < 1.0
        {
            let scale = (1.0 - last) / (1.0 - terminal);
            sigmas
                .iter_mut()
                .for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
        }
        let (first, last) = (sigmas[0], sigmas[sigmas.len() - 1]);
        match self.spacing {
            Spacing::Uniform => {}
            Spacing::Karras => respaced(&mut sigmas, |part| {
                const RHO: f64 = 7.0;
                let (high, low) = (first.powf(1.0 / RHO), last.powf(1.0 / RHO));
                (high + part * (low - high)).powf(RHO)
            }),
            Spacing::Exponential => respaced(&mut sigmas, |part| {
                (first.ln() + part * (last.ln() - first.ln())).exp()
            }),
        }
        if sigmas.windows(2).any(|pair| pair[1] >= pair[0]) {
            return Err(Error::input(format!(
                "{} steps are too many: some noise levels fall together",
                sigmas.len()
            ))
            .with_hint("take fewer steps"));
        }
        let timesteps = sigmas
            .iter()
            .map(|sigma| Timestep::from_grid(sigma * self.num_train_timesteps as f64))
            .collect();
        sigmas.push(0.0);
        Ok(Levels { timesteps, sigmas })
    }
}

impl Interpolant for FlowMatching {
    /// The network's label is the noise level times the number of training timesteps, whatever the
    /// shift.
    fn scales(&self, t: Timestep) -> Scales {
        Scales::straight((f64::from(t.get()) / self.num_train_timesteps as f64).min(1.0))
    }

    fn output(&self) -> Output {
        Output::Velocity
    }
}

/// `s sigma / (1 + (s - 1) sigma)`: equation 23 of Esser et al. 2024, with s their `sqrt(m / n)`.
fn shifted(s: f64, sigma: f64) -> f64 {
    s * sigma / (1.0 + (s - 1.0) * sigma)
}

/// Level i of n becomes `at(i / (n - 1))`.
fn respaced(sigmas: &mut [f64], at: impl Fn(f64) -> f64) {
    let last = (sigmas.len() - 1).max(1) as f64;
    for (i, sigma) in sigmas.iter_mut().enumerate() {
        *sigma = at(i as f64 / last);
    }
}
