//! The samplers: each one function, named after its paper.
//!
//! A sampler asks a denoiser for a [`Prediction`](crate::Prediction) for its latents and knows nothing else: not the
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
mod exploding;
mod flow;
mod flow_match_euler;
mod flow_match_heun;
mod grid;
mod lms;
mod pndm;
mod run;
mod unipc;

use burn::tensor::Tensor;

use self::{
    ddim::ddim,
    ddpm::ddpm,
    dpmpp_2m::{dpmpp_2m, dpmpp_2m_karras},
    euler::euler,
    euler_ancestral::euler_ancestral,
    lms::lms,
    pndm::pndm,
    unipc::unipc,
};
pub use self::{
    flow::FlowRun,
    flow_match_euler::flow_match_euler,
    flow_match_heun::flow_match_heun,
    run::{Callback, Model, Noise, Predict, Progress, Run, Step},
};
pub use crate::sampler::Sampler;
use crate::{
    error::{Error, Result},
    schedule::Schedule,
    time::{StepIndex, Timestep},
};

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
            let [_, _, height, width] = x.dims();
            let levels = flow.levels_for(run.steps, [height, width])?;
            let mut straight = FlowRun::new(&levels);
            straight.start = run.start;
            return match self {
                Self::Heun => {
                    // Its list has two entries for every level but the first.
                    let level = |at: StepIndex| StepIndex(at.0.div_ceil(2));
                    straight.start = run.start.map(level);
                    flow_match_heun(&straight, x, model, callback)
                }
                _ => flow_match_euler(&straight, x, model, callback),
            };
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
            // Not usable by a noise schedule, as said above.
            Self::Heun => Err(Error::input("heun follows straight lines").into()),
        }
    }
}

/// The timesteps a sampler visits, in its order: one for every prediction it asks for.
///
/// # Errors
/// If noise levels are shifted by the size of the picture, which is not said here;
/// If the number of steps does not fit the schedule, or its configuration asks for what is not implemented.
pub fn timesteps(sampler: Sampler, schedule: &Schedule, steps: usize) -> Result<Vec<Timestep>> {
    schedule.usable_by(sampler)?;
    if let Schedule::Flow(flow) = schedule {
        let levels = flow.levels(steps, None)?.timesteps().to_vec();
        let (first, rest) = levels.split_at(1);
        return Ok(match sampler {
            // Two questions at every level but the first.
            Sampler::Heun => first
                .iter()
                .chain(rest.iter().flat_map(|t| [t, t]))
                .copied()
                .collect(),
            _ => levels,
        });
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
        Sampler::Heun => Err(Error::input("heun follows straight lines")),
    }
}
