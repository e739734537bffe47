//! Running the method, and what that costs.

use std::{ops::ControlFlow, time::Instant};

use scumble_diffusion::Pipeline;
use scumble_erase::{Edit, Event, job::Count};
use serde_json::json;

use super::{
    job::{Shown, job},
    looks::Looks,
    plan::Plan,
};
use crate::{
    failure::Failure,
    folder::{EDIT, RunFolder, write_file},
    host::Host,
    judging, memory,
    model::Model,
    record::{self, Cost, EraseRun},
    store::RunStore,
};

/// The edit of a run that was interrupted after it, with what it cost.
///
/// # Errors
/// If the edit is damaged.
pub(super) fn earlier_edit(
    run: &RunFolder,
    record: Option<&EraseRun>,
) -> Result<Option<(Edit, Cost)>, Failure> {
    let path = run.path.join(EDIT);
    match record.and_then(|record| record.body.cost) {
        Some(cost) if path.is_file() => Ok(Some((Edit::open(&path)?, cost))),
        _ => Ok(None),
    }
}

/// Runs the method. The cost of interrupted parts is kept beside its state and added up; what the
/// method notes goes into `record`.
///
/// # Errors
/// If the method fails, or the user interrupts.
pub(super) fn edit(
    plan: &Plan,
    model: &Model,
    pipeline: &Pipeline,
    run: &RunFolder,
    record: &mut EraseRun,
    host: Host<'_>,
) -> Result<(Edit, Cost), Failure> {
    let listener = host.listener;
    let store = RunStore::new(run.state(), host);
    let bill = run.state().join("cost.json");
    let before: Cost = record::state(&bill)?.unwrap_or_default();
    memory::forget_peak();
    let (began, asked) = (
        Instant::now(),
        pipeline.denoiser.weights.evaluations().so_far(),
    );
    let mut looks = Looks::at(plan, model);
    // The folder becomes this plan's once the method has accepted its options and begins to work.
    let (mut claimed, mut written) = (Ok(()), false);
    let mut listen = |event: Event<'_>| {
        if matches!(event, Event::Stage { .. }) && !written {
            written = true;
            claimed = run.record(record);
        }
        match event {
            Event::Note(text) => {
                listener.note(text);
                record.body.notes.push(text.to_owned());
            }
            Event::Detail(text) => listener.detail(text),
            Event::Stage { name, total, done } => {
                looks.begin(total, done);
                listener.stage(name, total, done);
                if (1..total).contains(&done) {
                    listener.note(&format!(
                        "{name}: continuing at step {} of {total}",
                        done + 1
                    ));
                }
            }
            Event::Step { done, loss } => {
                looks.step(done);
                listener.step(done, loss.map(|l| format!("loss {l:.4}")));
            }
            Event::Halfway(halfway) => looks.look(&halfway, listener),
        }
        if listener.interrupted() || claimed.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let shown = Shown::of(plan, pipeline)?;
    // Judges are loaded when somebody counts.
    let judges = std::cell::OnceCell::new();
    let count = |edited: &Pipeline, prompt: &str, attributes: &[String], n: usize, seed: u64| {
        if judges.get().is_none() {
            let loaded = model.companions(host).judges(&model.device).map_err(|_| {
                scumble_erase::Error::input("the miniature's judges cannot be loaded")
            })?;
            let _ = judges.set(loaded);
        }
        let judges = judges.get().ok_or_else(|| {
            scumble_erase::Error::input("the miniature's judges cannot be loaded")
        })?;
        judging::count_attributes(judges, edited, prompt, attributes, n, seed)
    };
    let count = plan.home.then_some(&count as &Count<'_>);
    let mut job = job(plan, model, pipeline, &shown, count, &store, &mut listen);
    let made = (plan.method.erase)(&mut job, plan.variant);
    claimed?;
    let cost = Cost {
        seconds: before.seconds + began.elapsed().as_secs_f64(),
        evaluations: before.evaluations + pipeline.denoiser.weights.evaluations().so_far() - asked,
        memory: memory::peak().max(before.memory),
    };
    if made.is_err() && store.state.is_dir() {
        write_file(&bill, json!(cost).to_string().as_bytes())?;
    }
    Ok((made?, cost))
}
