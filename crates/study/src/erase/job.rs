//! A plan as the job that a method is given, on the model or on its outline.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use scumble_diffusion::Pipeline;
use scumble_erase::{Event, Job, Store, job::Count};

use super::plan::Plan;
use crate::{failure::Failure, model::Model};

/// The user's pictures and masks, in a model's size.
pub(super) struct Shown {
    pictures: Option<Tensor<4>>,
    masks: Option<Tensor<4>>,
}

impl Shown {
    /// Those of a plan.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn of(plan: &Plan, pipeline: &Pipeline) -> Result<Self, Failure> {
        let (photos, masks) = (plan.photos.as_ref(), plan.masks.as_ref());
        Ok(Self {
            pictures: photos.map(|photos| photos.batch(pipeline)).transpose()?,
            masks: masks.map(|masks| masks.batch(pipeline)).transpose()?,
        })
    }
}

/// The erasure that a plan wants, with this store and this listener.
pub(super) fn job<'a>(
    plan: &'a Plan,
    model: &'a Model,
    pipeline: &'a Pipeline,
    shown: &'a Shown,
    count: Option<&'a Count<'a>>,
    store: &'a dyn Store,
    listen: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Job<'a> {
    Job {
        pipeline,
        base: &model.checkpoint.name,
        base_hash: &model.hash,
        family: model.checkpoint.family.name(),
        profile: model.profile,
        concepts: &plan.concepts,
        preserve: &plan.preserve,
        captions: &plan.captions,
        encoded: Default::default(),
        pictures: shown.pictures.as_ref(),
        masks: shown.masks.as_ref(),
        count,
        options: plan.options.clone(),
        seed: plan.seed,
        store,
        listen,
    }
}
