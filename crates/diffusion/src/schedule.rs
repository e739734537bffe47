//! How a model's pictures are turned to noise: along the noise schedule of a diffusion model, or on
//! the straight lines of flow matching.

use std::path::Path;

use burn::tensor::Tensor;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    flow::FlowMatching,
    interpolant::{Interpolant, Output, Scales},
    noise_schedule::NoiseSchedule,
    sampler::Sampler,
    time::Timestep,
};

/// The interpolant that a model was trained on, with its conventions for timesteps.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// A diffusion model, which answers epsilon or v.
    Noise(NoiseSchedule),
    /// A flow-matching model, which answers a velocity.
    Flow(FlowMatching),
}

impl Schedule {
    /// The noise schedule of a `scheduler_config.json`: see [`NoiseSchedule::from_config`].
    ///
    /// # Errors
    /// If a key is impossible, or asks for something that is not implemented; a flow-matching
    /// scheduler is none for the families that are read here.
    pub fn from_config(path: &Path, config: &Value) -> Result<Self> {
        NoiseSchedule::from_config(path, config).map(Self::Noise)
    }

    /// The schedule of a configuration that is refused: see [`NoiseSchedule::refused`].
    #[must_use]
    pub fn refused(error: &Error) -> Self {
        Self::Noise(NoiseSchedule::refused(error))
    }

    /// What diffusers passes over in a configuration: see [`NoiseSchedule::passed_over`].
    pub fn passed_over(config: &Value) -> Vec<String> {
        NoiseSchedule::passed_over(config)
    }

    /// The noise schedule of a diffusion model.
    ///
    /// # Errors
    /// If it is a flow-matching model, which has none.
    pub fn noise(&self) -> Result<&NoiseSchedule> {
        match self {
            Self::Noise(schedule) => Ok(schedule),
            Self::Flow(_) => Err(Error::input(
                "this model is of flow matching and has no noise schedule",
            )),
        }
    }

    /// How many timesteps the model was trained on.
    pub fn num_train_timesteps(&self) -> usize {
        match self {
            Self::Noise(schedule) => schedule.num_train_timesteps(),
            Self::Flow(flow) => flow.num_train_timesteps(),
        }
    }

    /// Whether the configuration can be obeyed at all.
    ///
    /// # Errors
    /// As [`NoiseSchedule::usable`].
    pub fn usable(&self) -> Result<()> {
        match self {
            Self::Noise(schedule) => schedule.usable(),
            Self::Flow(_) => Ok(()),
        }
    }

    /// Whether a sampler does what the configuration asks of its class.
    ///
    /// # Errors
    /// As [`NoiseSchedule::usable_by`]; if the sampler needs a noise schedule and there is none.
    pub fn usable_by(&self, sampler: Sampler) -> Result<()> {
        match self {
            Self::Noise(_) if !Sampler::ALL.contains(&sampler) => Err(Error::input(format!(
                "{sampler} follows straight lines, and this model has a noise schedule"
            ))
            .with_hint("euler is its first order, dpm++2m of second order too")),
            Self::Noise(schedule) => schedule.usable_by(sampler),
            Self::Flow(_) if Sampler::FLOW.contains(&sampler) => Ok(()),
            Self::Flow(_) => Err(Error::input(format!(
                "{sampler} follows a noise schedule, and this model is of flow matching"
            ))
            .with_hint("choose euler or heun")),
        }
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
    pub fn alpha_bar(&self, t: Timestep) -> f64 {
        match self {
            Self::Noise(schedule) => schedule.alpha_bar(t),
            Self::Flow(flow) => flow.scales(t).alpha_bar(),
        }
    }

    /// `alpha_bar` of each timestep.
    pub fn alpha_bars(&self, t: &[Timestep]) -> Vec<f64> {
        t.iter().map(|&t| self.alpha_bar(t)).collect()
    }

    /// The forward process, [`q_sample`](Interpolant::q_sample), of a schedule that can be used.
    ///
    /// **Shapes**: `x0`, `noise` and the result [n, channels, height, width]; `t` one timestep, or
    /// n.
    ///
    /// # Errors
    /// If there are neither one nor n timesteps, or the schedule is not implemented.
    pub fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, t: &[Timestep]) -> Result<Tensor<4>> {
        self.usable()?;
        self.q_sample(x0, noise, t)
    }
}

impl Interpolant for Schedule {
    fn scales(&self, t: Timestep) -> Scales {
        match self {
            Self::Noise(schedule) => schedule.scales(t),
            Self::Flow(flow) => flow.scales(t),
        }
    }

    fn output(&self) -> Output {
        match self {
            Self::Noise(schedule) => schedule.output(),
            Self::Flow(flow) => flow.output(),
        }
    }
}

impl From<NoiseSchedule> for Schedule {
    fn from(schedule: NoiseSchedule) -> Self {
        Self::Noise(schedule)
    }
}

impl From<FlowMatching> for Schedule {
    fn from(flow: FlowMatching) -> Self {
        Self::Flow(flow)
    }
}
