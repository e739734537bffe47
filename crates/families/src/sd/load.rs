//! A Stable Diffusion 1.x or 2.x from its checkpoint.

use burn::tensor::Device;
use scumble_diffusion::{Model, Result};
use scumble_nn::files::Checkpoint;
use serde_json::Value;

use crate::{family::Family, load::parts};

/// The model.
pub(super) fn load(family: &Family, checkpoint: &Checkpoint, device: &Device) -> Result<Model> {
    let scheduler = as_pipeline_reads(&checkpoint.scheduler);
    Model::new(parts(family, checkpoint, &scheduler)?, device)
}

/// diffusers' Stable Diffusion pipeline overrules two keys of a scheduler's configuration on
/// loading, because the first published files had them wrong. The same picture needs the same two.
fn as_pipeline_reads(scheduler: &Value) -> Value {
    let mut scheduler = scheduler.clone();
    if let Value::Object(map) = &mut scheduler {
        map.insert("steps_offset".into(), 1.into());
        map.insert("clip_sample".into(), false.into());
    }
    scheduler
}
