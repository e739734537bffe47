//! `scumble erase`: from a concept's name to an edit, with pictures and numbers from before and
//! after.

mod after;
mod make;
mod plan;
mod print;

use std::path::Path;

use scumble_diffusion::Pipeline;
use serde_json::{Value, json};

use self::{
    after::{After, Wanted},
    plan::Plan,
};
use crate::{
    args::EraseArgs,
    failure::{Failure, Outcome},
    model::Model,
    output,
    progress::{self, Progress},
    record,
    store::{Found, RECORD, RunFolder},
};

/// The file of a run that holds its edit.
pub(crate) const EDIT: &str = "edit.safetensors";
/// The picture of both sides.
const GRID: &str = "before-after.png";

pub(crate) fn run(args: &EraseArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let progress = Progress::new(args.print.quiet).telling(args.verbose);
    let finished = perform(args, &progress);
    progress.finish();
    let (result, details) = finished?;
    print::report(args, &result, &details)?;
    Ok(Outcome::Done)
}

/// Erases, or finds that it has been done; the result and its details.
///
/// # Errors
/// If the arguments do not fit together, or the method fails.
pub(crate) fn perform(args: &EraseArgs, progress: &Progress) -> Result<(Value, Value), Failure> {
    let quiet = args.print.quiet;
    let method = plan::method(args)?;
    let model = Model::open(&args.model, None, quiet)?;
    method.works_on(model.family().id)?;
    // Prompts are worded, and pictures judged, in the miniature's world: only there are the judges
    // at home.
    let world = model.world(args.judge)?;
    let (plan, notes) = Plan::new(args, method, &model, world.as_ref())?;
    for note in &notes {
        progress.note(&format!("note: {note}"));
    }
    let pipeline = model.pipeline()?;
    let plan = plan.fitting(&pipeline)?;
    let wanted = Wanted::of(args, &model, &pipeline, world.is_some());

    let folder = args
        .output
        .output_dir
        .clone()
        .unwrap_or_else(|| plan.default_folder());
    let path = folder.join(RECORD);
    match RunFolder::open_unless(&folder, &plan.hash(), args.output.overwrite, &|record| {
        wanted.is_in(record, &folder)
    })? {
        Found::Finished(record) => {
            if !quiet {
                output::note(&format!(
                    "{} is finished; here is its result",
                    folder.display()
                ));
            }
            let _: serde_json::Map<String, Value> = record::field(&record, &path, "result")?;
            let _: String = record::field(&record, &path, "result.edit")?;
            Ok((record["result"].clone(), record["details"].clone()))
        }
        Found::ToDo(run) => {
            progress.note(&format!(
                "erasing {} from {} with {}",
                plan.names().join(", "),
                model.checkpoint.name,
                method.id
            ));
            carry_out(&plan, wanted, &model, &pipeline, &run, notes, progress)
        }
    }
}

/// Runs the plan from wherever an earlier run of it stopped.
fn carry_out(
    plan: &Plan,
    wanted: Wanted,
    model: &Model,
    pipeline: &Pipeline,
    run: &RunFolder,
    notes: Vec<String>,
    progress: &Progress,
) -> Result<(Value, Value), Failure> {
    let mut record = json!({
        "plan_hash": plan.hash(), "plan": plan.value(), "finished": false,
        "scumble": env!("CARGO_PKG_VERSION"), "model": model.checkpoint.name,
        "notes": model.checkpoint.notes.iter().chain(&notes).collect::<Vec<_>>(),
        "device": model.device_name, "profile": model.profile.id, "threads": rayon::current_num_threads(),
    });
    let edit_path = run.path.join(EDIT);
    let earlier = record::read(&run.path.join(RECORD))?;
    let wanted = wanted.and_what_is_there(earlier.as_ref());
    let parts = 1 + wanted.parts();
    let (edit, cost) = match make::earlier_edit(run, earlier.as_ref())? {
        Some(found) => found,
        None => {
            progress.part(1, parts);
            let (edit, cost) = make::edit(plan, model, pipeline, run, &mut record, progress)?;
            edit.save(&edit_path)?;
            record["cost"] = json!(cost);
            run.record(&record)?;
            run.forget_state()?;
            (edit, cost)
        }
    };
    if wanted.parts() > 0 {
        // From here on the edit can be used, whatever becomes of this run.
        progress.note(&format!(
            "edit      {} is written; what follows only looks at it",
            edit_path.display()
        ));
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
        progress,
    )
    .map_err(|failure| {
        if failure.is_interrupt() {
            left_there(failure, &edit_path)
        } else {
            failure
        }
    })?;
    if let Some(warning) = seen.warning(&edit) {
        progress.note(&format!("warning: {warning}"));
        if let Some(list) = record["notes"].as_array_mut() {
            list.push(warning.into());
        }
    }

    let result = print::result(plan, &edit_path, cost, &seen);
    let mut details = print::details(plan, &edit, &edit_path, &seen);
    if seen.judged {
        details["shown"] = seen.picture_by_picture(plan, model, &edit)?;
    }
    record["finished"] = json!(true);
    record["cost"] = json!(cost);
    record["options"] = edit.about.options.clone();
    record["result"] = result.clone();
    record["details"] = details.clone();
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
