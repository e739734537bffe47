//! The samplers: each one function, named after its paper.
//!
//! A sampler asks a denoiser for a [`Prediction`] for its latents and knows nothing else: not the
//! prompt, not the guidance, not what the network answers, not where random numbers come from. Its
//! numbers are those of the diffusers scheduler of the same name created `from_config` of the
//! model's `scheduler_config.json`.
//!
//! Latents go in and come out in the scale of the model's [`Schedule`] (variance-preserving, or on
//! straight lines), whatever a sampler uses inside; they are expected in `f32`. All coefficients are computed in `f64` on the host; a
//! step reads nothing back from the device.

mod ddim;
mod ddpm;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod flow;
mod flow_match_euler;
mod flow_match_heun;
mod grid;
mod lms;
mod pndm;
mod unipc;

use std::ops::ControlFlow;

use burn::tensor::Tensor;

pub use self::{
    ddim::ddim, ddpm::ddpm, dpmpp_2m::dpmpp_2m, dpmpp_2m::dpmpp_2m_karras, euler::euler,
    euler_ancestral::euler_ancestral, flow::FlowRun, flow_match_euler::flow_match_euler,
    flow_match_heun::flow_match_heun, lms::lms, pndm::pndm, unipc::unipc,
};
pub use crate::sampler::Sampler;
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
    x: &'a Tensor<4>,
    scale: f64,
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
    fn first(&self, len: usize) -> Result<usize> {
        match self.start {
            None => Ok(0),
            Some(StepIndex(first)) if first < len => Ok(first),
            Some(first) => Err(Error::input(format!(
                "cannot start at step {first}: the list has {len} steps, counted from 0"
            ))),
        }
    }
}

impl Sampler {
    /// Runs the sampler from `x`, which has unit variance: see [`Run::start`] for what it holds. On
    /// the straight lines of flow matching DDIM's step, `alpha' x_0 + sigma' epsilon`, is Euler's
    /// ([`flow_match_euler`]).
    ///
    /// **Shapes**: `x` and the result [n, channels, height, width].
    ///
    /// # Errors
    /// If the number of steps, `start` or `eta` does not fit the schedule, the schedule's configuration asks for what is not
    /// implemented, a prediction has another shape than the latents, or the model fails.
    pub fn sample<E: From<Error>>(
        self,
        run: &Run<'_>,
        x: Tensor<4>,
        model: &mut Model<'_, E>,
        noise: &mut Noise<'_>,
        callback: &mut Callback<'_>,
    ) -> Result<Tensor<4>, E> {
        run.schedule.usable_by(self)?;
        if let Schedule::Flow(flow) = run.schedule {
            if run.eta != 0.0 {
                let problem = format!("eta is {}: flow matching draws no fresh noise", run.eta);
                return Err(Error::input(problem).into());
            }
            let levels = flow.levels(run.steps, None)?;
            let mut straight = FlowRun::new(&levels);
            straight.start = run.start;
            return flow_match_euler(&straight, x, model, callback);
        }
        match self {
            Self::Ddim => ddim(run, x, model, noise, callback),
            Self::Ddpm => ddpm(run, x, model, noise, callback),
            Self::Pndm => pndm(run, x, model, callback),
            Self::Lms => lms(run, x, model, callback),
            Self::Euler => euler(run, x, model, callback),
            Self::EulerAncestral => euler_ancestral(run, x, model, noise, callback),
            Self::DpmPp2m => dpmpp_2m(run, x, model, callback),
            Self::DpmPp2mKarras => dpmpp_2m_karras(run, x, model, callback),
            Self::UniPc => unipc(run, x, model, callback),
        }
    }
}

/// The timesteps a sampler visits, in its order: one for every prediction it asks for.
///
/// # Errors
/// If the number of steps does not fit the schedule, or its configuration asks for what is not implemented.
pub fn timesteps(sampler: Sampler, schedule: &Schedule, steps: usize) -> Result<Vec<Timestep>> {
    schedule.usable_by(sampler)?;
    if let Schedule::Flow(flow) = schedule {
        return Ok(flow.levels(steps, None)?.timesteps().to_vec());
    }
    let schedule = schedule.noise()?;
    match sampler {
        Sampler::Ddim | Sampler::Ddpm => grid::strided(schedule, steps),
        Sampler::Pndm => pndm::list(schedule, steps),
        Sampler::Lms | Sampler::Euler => {
            Ok(grid::interpolated(schedule, steps, schedule.use_karras_sigmas())?.timesteps)
        }
        Sampler::EulerAncestral => Ok(grid::interpolated(schedule, steps, false)?.timesteps),
        Sampler::DpmPp2m => Ok(grid::solver(schedule, steps, grid::Karras::No)?.timesteps),
        Sampler::DpmPp2mKarras => {
            Ok(grid::solver(schedule, steps, dpmpp_2m::karras(schedule))?.timesteps)
        }
        Sampler::UniPc => Ok(grid::solver(schedule, steps, unipc::karras(schedule))?.timesteps),
    }
}

/// Asks the model for its prediction for `x`, and sees that it has `x`'s shape.
fn predict<E: From<Error>>(
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
fn moved<E: From<Error>>(
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
fn draw<E: From<Error>>(noise: &mut Noise<'_>, x: &Tensor<4>) -> Result<Tensor<4>, E> {
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
