//! What an erasure will take: the method, run on an outline of the model.

use scumble_diffusion::Pipeline;
use scumble_erase::{Change, Edit, Event};

use super::{
    job::{Shown, job},
    plan::Plan,
};
use crate::{
    estimate::{self, Counted, Counting, Patience},
    failure::Failure,
    host::Host,
    model::Model,
};

/// What the method asks of an outline, and changes in it.
///
/// # Errors
/// If the method refuses the job, or the user interrupts.
pub(super) fn counted(
    plan: &Plan,
    model: &Model,
    pipeline: &Pipeline,
    host: Host<'_>,
) -> Result<Counted, Failure> {
    let outline = Pipeline::new(pipeline.outline());
    let store = Counting::default();
    let patience = Patience::new();
    let mut listen = |event: Event<'_>| patience.hears(&event, host.listener);
    let shown = Shown::of(plan, &outline)?;
    let mut job = job(plan, model, &outline, &shown, None, &store, &mut listen);
    let made = (plan.method.erase)(&mut job, plan.variant);
    if host.listener.interrupted() {
        return Err(Failure::interrupted());
    }
    let edit = match made {
        Ok(edit) => edit,
        // Counted long enough.
        Err(_) if patience.share() < 1.0 => Edit::default(),
        Err(error) => return Err(error.into()),
    };
    let (numbers, moved) = sizes(pipeline, &edit);
    Ok(Counted {
        denoiser: outline.denoiser.weights.evaluations().asked(),
        prompts: estimate::prompts(&outline),
        numbers,
        moved,
        kept: (store.bytes() as f64 * estimate::larger(pipeline, &outline)?) as u64,
        share: patience.share(),
    })
}

/// How many numbers of a model an edit of its outline stands for, and which tensors of the denoiser
/// have new values.
fn sizes(pipeline: &Pipeline, edit: &Edit) -> (u64, Vec<String>) {
    let count = |component: &str, name: &str| -> Option<(u64, u64)> {
        let shape = &pipeline.weights(component)?.get(name)?.shape;
        let rows = *shape.first()? as u64;
        Some((shape.iter().product::<usize>() as u64, rows))
    };
    let (mut numbers, mut moved) = (0, Vec::new());
    for ((component, name), change) in &edit.changes {
        numbers += match change {
            Change::Value(_) | Change::Difference(_) => {
                if component == pipeline.denoiser.id {
                    moved.push(name.clone());
                }
                count(component, name).map_or(0, |(all, _)| all)
            }
            Change::LowRank(low) => {
                let rank = low.down.shape().first().copied().unwrap_or(1) as u64;
                let layer = count(component, &format!("{}.weight", low.module));
                layer.map_or(0, |(all, rows)| rank * (rows + all / rows.max(1)))
            }
            // Beside a layer: as many numbers for each of its outputs as the outline's has.
            Change::Added(value) => 40 * value.len() as u64,
        };
    }
    (numbers, moved)
}
