//! An erasure: from a concept's name to an edit, with pictures and numbers from before and after.

mod after;
mod counted;
mod detected;
mod job;
mod looks;
mod make;
mod plan;
mod result;

use std::path::Path;

use scumble_diffusion::Pipeline;

use self::{
    after::{After, Wanted},
    counted::counted,
    plan::Plan,
};
use crate::{
    estimate,
    failure::Failure,
    folder::{EDIT, Found, RECORD, RunFolder},
    host::Host,
    model::Model,
    record::{self, Details, EraseOutcome, EraseResult, EraseRun, Estimate},
    request::{EraseRequest, JudgingRequest},
};

/// What an erasure is made with.
struct Opened {
    model: Model,
    pipeline: Pipeline,
    plan: Plan,
    /// Whether the words it erases are of a world whose judges can look at its pictures.
    at_home: bool,
    /// What was said about the plan.
    notes: Vec<String>,
}

impl Opened {
    /// Opens the model, and plans; says what there is to say of the plan.
    ///
    /// # Errors
    /// If the request's parts do not fit together.
    fn of(request: &EraseRequest, host: Host<'_>) -> Result<Self, Failure> {
        let model = Model::open(&request.model, host)?;
        request.method.works_on(model.family().id)?;
        // Prompts are worded, and pictures judged, in the miniature's world: only there are the
        // judges at home.
        let world = model.world(request.judging == JudgingRequest::Always, host.built_in)?;
        let (plan, notes) = Plan::new(request, &model, world.as_ref())?;
        host.say(&notes);
        let pipeline = model.pipeline()?;
        let plan = plan.fitting(&pipeline)?;
        Ok(Self {
            model,
            pipeline,
            plan,
            at_home: world.is_some(),
            notes,
        })
    }

    /// What it will take on this machine.
    fn estimate(&self, host: Host<'_>) -> Result<Estimate, Failure> {
        let counted = counted(&self.plan, &self.model, &self.pipeline, host)?;
        counted.on(&self.model, &self.pipeline)
    }
}

/// Erases, or finds that it has been done; the result and its details.
///
/// # Errors
/// If the request's parts do not fit together, or the method fails.
pub fn perform(request: &EraseRequest, host: Host<'_>) -> Result<(EraseResult, Details), Failure> {
    let listener = host.listener;
    let opened = Opened::of(request, host)?;
    let Opened {
        model,
        pipeline,
        plan,
        ..
    } = &opened;
    let wanted = Wanted::of(request, model, pipeline, opened.at_home)?;

    let folder = request.output.place(&plan.folder_name());
    match RunFolder::open_unless(
        &folder,
        &plan.hash(),
        request.output.overwrite,
        &|run: &EraseRun| wanted.is_in(run, &folder),
    )? {
        Found::Finished(run) => {
            host.say_finished(&folder);
            let missing = |name: &str| record::missing(&folder.join(RECORD), name);
            let result = run.body.result.ok_or_else(|| missing("result"))?;
            if result.edit.as_os_str().is_empty() {
                return Err(missing("result.edit"));
            }
            Ok((result, run.body.details.unwrap_or_default()))
        }
        Found::ToDo(run) => {
            listener.note(&format!(
                "erasing {} from {} with {}",
                plan.names().join(", "),
                model.checkpoint.name,
                request.method.id
            ));
            carry_out(request, &opened, wanted, &run, host)
        }
    }
}

/// What an erasure would take on this machine: nothing is drawn or trained, and nothing written.
///
/// # Errors
/// If the request's parts do not fit together, the method refuses them, or it would need more than
/// it may.
pub fn estimate(request: &EraseRequest, host: Host<'_>) -> Result<Estimate, Failure> {
    let found = Opened::of(request, host)?.estimate(host)?;
    estimate::keep_to(request.memory, &found, host)?;
    Ok(found)
}

/// Runs the plan from wherever an earlier run of it stopped.
fn carry_out(
    request: &EraseRequest,
    opened: &Opened,
    wanted: Wanted,
    run: &RunFolder,
    host: Host<'_>,
) -> Result<(EraseResult, Details), Failure> {
    let listener = host.listener;
    let Opened {
        model,
        pipeline,
        plan,
        ..
    } = opened;
    let mut record = EraseRun {
        plan_hash: Some(plan.hash()),
        plan: plan.stored(),
        finished: false,
        scumble: env!("CARGO_PKG_VERSION").into(),
        body: EraseOutcome {
            model: model.checkpoint.name.clone(),
            notes: [&model.checkpoint.notes[..], &opened.notes].concat(),
            device: model.device_name.clone(),
            profile: Some(model.profile.id.into()),
            threads: rayon::current_num_threads(),
            ..EraseOutcome::default()
        },
    };
    let edit_path = run.path.join(EDIT);
    let earlier = EraseRun::read(&run.path.join(RECORD))?;
    record.body.estimate = earlier.as_ref().and_then(|run| run.body.estimate);
    let wanted = wanted.and_what_is_there(earlier.as_ref());
    let parts = 1 + wanted.parts();
    let (edit, cost) = match make::earlier_edit(run, earlier.as_ref())? {
        Some(found) => found,
        None => {
            listener.part(1, parts);
            record.body.estimate =
                estimate::foretold(request.foretold, request.memory, model, host, || {
                    opened.estimate(host)
                })?;
            let (mut edit, cost) = make::edit(plan, model, pipeline, run, &mut record, host)?;
            plan.say_prompt_file(&mut edit);
            edit.save(&edit_path)?;
            record.body.cost = Some(cost);
            run.record(&record)?;
            run.forget_state()?;
            (edit, cost)
        }
    };
    if wanted.parts() > 0 {
        // From here on the edit can be used, whatever becomes of this run.
        listener.note(&format!(
            "edit      {} is written; what follows only looks at it",
            edit_path.display()
        ));
        listener.edit(&edit_path);
    }
    let seen = After::measure(
        wanted,
        plan,
        model,
        pipeline,
        &edit,
        run,
        earlier.as_ref(),
        parts,
        host,
    )
    .map_err(|failure| {
        if failure.is_interrupt() {
            left_there(failure, &edit_path)
        } else {
            failure
        }
    })?;
    if let Some(warning) = seen.warning(&edit) {
        listener.note(&format!("warning: {warning}"));
        record.body.notes.push(warning);
    }

    let result = result::result(plan, &edit_path, cost, record.body.estimate, &seen);
    let mut details = result::details(plan, &edit, &edit_path, &seen);
    if seen.judged {
        details.shown = Some(seen.picture_by_picture(plan, model, &edit, host)?);
    }
    record.finished = true;
    record.body.cost = Some(cost);
    record.body.options = Some(edit.about.options.clone());
    record.body.result = Some(result.clone());
    record.body.details = Some(details.clone());
    run.record(&record)?;
    Ok((result, details))
}

/// Stopped while it was only looked at.
fn left_there(failure: Failure, edit: &Path) -> Failure {
    failure.with_hint(format!(
        "the edit is finished and stays: {}; the same command goes on looking at it",
        edit.display()
    ))
}
