//! How pictures that are judged are drawn: what the user says, or what the model is used to.

use scumble_attack::Drawing;
use scumble_diffusion::{
    Pipeline,
    samplers::{Sampler, timesteps},
};
use scumble_eval::judging;

use crate::{args::DrawingArgs, failure::Failure, model::Model};

/// Steps, guidance and sampler; the miniature has its own.
pub(crate) fn drawing(args: &DrawingArgs, model: &Model, pipeline: &Pipeline) -> Result<Drawing, Failure> {
    let sampler: Option<Sampler> = match &args.sampler {
        Some(name) => Some(name.parse().map_err(|e: scumble_diffusion::Error| Failure::from(e).of("--sampler"))?),
        None => model.builtin.then_some(Sampler::Ddim),
    };
    let sampler = sampler.map_or_else(|| pipeline.own_sampler(), Ok)?;
    let guidance = args.guidance_scale.unwrap_or(if model.builtin { judging::GUIDANCE_SCALE } else { 7.5 });
    if !guidance.is_finite() || guidance < 0.0 {
        return Err(Failure::new(format!("--guidance-scale {guidance}: expected a finite number from 0")));
    }
    let steps = args.steps.unwrap_or(if model.builtin { judging::STEPS } else { 50 });
    timesteps(sampler, &pipeline.schedule, steps).map_err(|e| Failure::from(e).of(&format!("--steps {steps}")))?;
    Ok(Drawing { steps, guidance, sampler: Some(sampler) })
}
