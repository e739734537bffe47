//! What every sampler is given, and what it asks and tells on the way.

use std::ops::ControlFlow;

use burn::tensor::Tensor;

use crate::{
    error::{Error, Result},
    interpolant::Scales,
    prediction::Prediction,
    schedule::Schedule,
    time::{StepIndex, Timestep},
};

/// What a sampler follows. A function of latents and step is one that leaves the latents alone.
pub trait Predict<E> {
    /// The prediction for latents in the model's own scale, [n, channels, height, width], after
    /// guidance. One timestep for the whole batch.
    ///
    /// # Errors
    /// The model's own.
    fn predict(&mut self, x: Tensor<4>, step: Step) -> Result<Prediction, E>;

    /// Whether [`latents`](Self::latents) does anything; it is not asked otherwise.
    fn moves_latents(&self) -> bool {
        false
    }

    /// The latents from which a step is to be taken instead of `x`, in the same scale. Asked once
    /// before each step.
    ///
    /// # Errors
    /// The model's own.
    fn latents(&mut self, x: Tensor<4>, _step: Step) -> Result<Tensor<4>, E> {
        Ok(x)
    }
}

impl<E, F: FnMut(Tensor<4>, Step) -> Result<Prediction, E>> Predict<E> for F {
    fn predict(&mut self, x: Tensor<4>, step: Step) -> Result<Prediction, E> {
        self(x, step)
    }
}

/// What a sampler follows, whatever it is.
pub type Model<'a, E> = dyn Predict<E> + 'a;

/// Fresh standard normal noise of a shape, on the latents' device. Asked for exactly when diffusers
/// draws some.
pub type Noise<'a> = dyn FnMut([usize; 4]) -> Tensor<4> + 'a;

/// Called after every step; `Break` ends the sampling, and the sampler returns the latents it has.
pub type Callback<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// Where a sampler stands when it asks for a prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Position in the sampler's list of timesteps.
    pub index: StepIndex,
    /// The label for the network.
    pub timestep: Timestep,
    /// The signal's share of the variance in the latents. Not always the timestep's: Karras'
    /// timesteps are rounded.
    pub alpha_bar: f64,
    /// How much of the clean latents and of the noise the latents hold.
    pub scales: Scales,
}

impl Step {
    /// A step of a noise schedule, at this share of the signal.
    pub fn preserving(index: StepIndex, timestep: Timestep, alpha_bar: f64) -> Self {
        Self {
            index,
            timestep,
            alpha_bar,
            scales: Scales::preserving(alpha_bar),
        }
    }

    /// A step of flow matching, at this noise level from 0 to 1.
    pub fn straight(index: StepIndex, timestep: Timestep, sigma: f64) -> Self {
        let scales = Scales::straight(sigma);
        Self {
            index,
            timestep,
            alpha_bar: scales.alpha_bar(),
            scales,
        }
    }
}

/// What a callback learns after a step.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The step just done.
    pub index: StepIndex,
    /// Its timestep.
    pub timestep: Timestep,
    /// How many steps the list has.
    pub len: usize,
    pub(super) x: &'a Tensor<4>,
    /// What brings `x` to the model's own scale.
    pub(super) scale: f64,
}

impl Progress<'_> {
    /// The latents after the step, [n, channels, height, width], in the model's own scale.
    pub fn latents(&self) -> Tensor<4> {
        if self.scale == 1.0 {
            self.x.clone()
        } else {
            self.x.clone().mul_scalar(self.scale)
        }
    }
}

/// What to run: a schedule, a number of steps, and what differs from the usual.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The model's noise schedule.
    pub schedule: &'a Schedule,
    /// Number of denoising steps, 1 to the schedule's number of timesteps.
    pub steps: usize,
    /// DDIM's share of fresh noise, 0 (deterministic) to 1 (as much as DDPM) and beyond; no other
    /// sampler reads it.
    pub eta: f64,
    /// `None`: the latents are pure noise. `Some`: they are noised pictures at the level of this
    /// position in the list.
    pub start: Option<StepIndex>,
}

impl<'a> Run<'a> {
    /// A deterministic run from pure noise.
    pub fn new(schedule: &'a Schedule, steps: usize) -> Self {
        Self {
            schedule,
            steps,
            eta: 0.0,
            start: None,
        }
    }

    /// Position of the first step; an error if the list of `len` steps has no such position.
    pub(super) fn first(&self, len: usize) -> Result<usize> {
        match self.start {
            None => Ok(0),
            Some(StepIndex(first)) if first < len => Ok(first),
            Some(first) => Err(Error::input(format!(
                "cannot start at step {first}: the list has {len} steps, counted from 0"
            ))),
        }
    }
}

/// Asks the model for its prediction for `x`, and sees that it has `x`'s shape.
pub(super) fn predict<E: From<Error>>(
    model: &mut Model<'_, E>,
    x: Tensor<4>,
    step: Step,
) -> Result<Prediction, E> {
    let shape = x.dims();
    let prediction = model.predict(x, step)?;
    let found = prediction.raw().dims();
    if found == shape {
        Ok(prediction)
    } else {
        Err(Error::input(format!(
            "expected a prediction of shape {shape:?}, found {found:?}"
        ))
        .into())
    }
}

/// Lets the model move the latents before a step. `scale` brings `x` to the network's scale.
pub(super) fn moved<E: From<Error>>(
    model: &mut Model<'_, E>,
    x: Tensor<4>,
    scale: f64,
    step: Step,
) -> Result<Tensor<4>, E> {
    if !model.moves_latents() {
        return Ok(x);
    }
    let shape = x.dims();
    let x = if scale == 1.0 {
        model.latents(x, step)?
    } else {
        model
            .latents(x.mul_scalar(scale), step)?
            .mul_scalar(1.0 / scale)
    };
    if x.dims() == shape {
        Ok(x)
    } else {
        Err(Error::input(format!(
            "expected latents of shape {shape:?}, found {:?}",
            x.dims()
        ))
        .into())
    }
}

/// Draws noise of the shape of `x`.
pub(super) fn draw<E: From<Error>>(noise: &mut Noise<'_>, x: &Tensor<4>) -> Result<Tensor<4>, E> {
    let fresh = noise(x.dims());
    if fresh.dims() == x.dims() {
        Ok(fresh)
    } else {
        Err(Error::input(format!(
            "expected noise of shape {:?}, found {:?}",
            x.dims(),
            fresh.dims()
        ))
        .into())
    }
}
