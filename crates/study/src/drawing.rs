//! How pictures are drawn: what the user says, or what the model is used to.

use scumble_attack::Drawing;
use scumble_diffusion::{
    Pipeline,
    samplers::{Sampler, timesteps},
};

use crate::{failure::Failure, model::Model, request::DrawingRequest};

/// The sampler that `--sampler` names, or `usual`, or the checkpoint's own; it must be able to take
/// that many steps.
pub(crate) fn sampler(
    name: Option<&str>,
    usual: Option<Sampler>,
    steps: usize,
    pipeline: &Pipeline,
) -> Result<Sampler, Failure> {
    let named = name
        .map(str::parse)
        .transpose()
        .map_err(|e: scumble_diffusion::Error| Failure::from(e).of("--sampler"))?;
    let sampler = named.or(usual).map_or_else(|| pipeline.own_sampler(), Ok)?;
    timesteps(sampler, &pipeline.schedule, steps)
        .map_err(|e| Failure::from(e).of(&format!("--steps {steps}")))?;
    Ok(sampler)
}

/// Steps, guidance and sampler of pictures that are judged; a profile has its own.
pub(crate) fn drawing(
    args: &DrawingRequest,
    model: &Model,
    pipeline: &Pipeline,
) -> Result<Drawing, Failure> {
    let guidance = args.guidance_scale.unwrap_or_else(|| model.guidance());
    if !guidance.is_finite() || guidance < 0.0 {
        return Err(Failure::new(format!(
            "--guidance-scale {guidance}: expected a finite number from 0"
        )));
    }
    let usual = model.profile.drawing;
    let steps = args.steps.unwrap_or(usual.steps);
    let sampler = sampler(args.sampler.as_deref(), usual.sampler, steps, pipeline)?;
    Ok(Drawing {
        steps,
        guidance,
        sampler: Some(sampler),
    })
}
