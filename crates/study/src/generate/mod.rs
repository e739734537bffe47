//! Pictures from prompts, by the model itself or an edited one.

mod draw;
mod notes;
mod plan;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use scumble_diffusion::guards::check as check_guards;
use scumble_erase::profile::BuiltInWorld;

use self::plan::Plan;
use crate::{
    edits,
    failure::Failure,
    folder::{Found, RECORD, RunFolder},
    guards,
    host::Host,
    model::Model,
    prompts::{self, Case, Seeds},
    record::{self, GenerateRun},
    request::GenerateRequest,
};

/// Most pictures of one prompt: they may share one block of noise, which is held at once.
const MOST_OF_A_PROMPT: usize = 10_000;

/// Most pictures of one run.
const MOST: usize = 1_000_000;

/// Draws, or finds that it has been done; the run's folder and its record.
///
/// # Errors
/// If the request's parts do not fit together, or the model cannot draw.
pub fn perform(
    request: &GenerateRequest,
    host: Host<'_>,
) -> Result<(PathBuf, GenerateRun), Failure> {
    let listener = host.listener;
    let mut file_notes = Vec::new();
    let cases = cases(request, &mut file_notes)?;
    check(request)?;
    let model = Model::open(&request.model, host)?;
    let mut notes = model.checkpoint.notes.clone();
    let mut loaded = edits::open_all(&request.edits, &request.loras, &model, &mut notes)?;
    let world = model.profile.world.map(BuiltInWorld::open);
    let guards = guards::open_all(
        &request.guards,
        &request.guard_options,
        &mut loaded,
        world.as_ref(),
    )?;
    notes.extend(guards::unknown(&request.guards, world.as_ref()));
    let mut pipeline = model.pipeline()?;
    if !loaded.is_empty() {
        pipeline = edits::applied(&loaded, &model.checkpoint, &pipeline)?;
    }
    if let Some(said) = request.size_condition {
        pipeline.set_size_condition(Some(said.original), said.crop)?;
    }
    pipeline.guards.extend(guards.iter().cloned());
    check_guards(&pipeline.guards)?;
    let embeddings = edits::add_embeddings(&request.embeddings, &mut pipeline)?;
    let plan = Plan {
        guards,
        ..plan::plan(request, cases, &model, &pipeline, &loaded, embeddings)?
    };
    notes.extend(file_notes);
    host.say(&notes[model.checkpoint.notes.len()..]);
    let warnings = notes::warnings(&plan, request, &pipeline);
    // A picture that is not what it seems to be is said even to those who want quiet.
    warnings
        .iter()
        .for_each(|text| listener.warn(&format!("warning: {text}")));
    notes.extend(warnings);

    let folder = request.output.place(&plan.folder_name(request));
    let Some((run, resumed)) = open_folder(&folder, &plan, request.output.overwrite)? else {
        host.say_finished(&folder);
        let path = folder.join(RECORD);
        let record = GenerateRun::read(&path)?
            .ok_or_else(|| Failure::new(format!("{}: has gone meanwhile", path.display())))?;
        return Ok((folder, record));
    };
    let began = Instant::now();
    let mut record = plan.record(request, &model, &loaded, &notes);
    let earlier = if resumed { seconds_of(&folder)? } else { 0.0 };
    run.record(&record)?;
    let drawn = draw::draw_all(
        request, &plan, &model, &pipeline, &loaded, &folder, listener,
    );
    record.body.seconds = earlier + began.elapsed().as_secs_f64();
    record.finished = drawn.is_ok();
    run.record(&record)?;
    drawn?;
    Ok((folder, record))
}

/// The prompts asked for.
fn cases(request: &GenerateRequest, notes: &mut Vec<String>) -> Result<Vec<Case>, Failure> {
    if request.n == 0 || request.n > MOST_OF_A_PROMPT {
        return Err(Failure::new(format!(
            "--n {}: expected 1 to {MOST_OF_A_PROMPT} pictures of each prompt",
            request.n
        )));
    }
    let cases = match &request.file {
        Some(path) => prompts::read(path, request.seed, notes)?,
        None => {
            let case = |prompt: &String| Case {
                number: None,
                prompt: prompt.clone(),
                seeds: Seeds::Each(request.seed),
                guidance: None,
                labels: vec![],
                scene: None,
            };
            request.prompts.iter().map(case).collect()
        }
    };
    if cases.is_empty() {
        return Err(Failure::new("no prompt to draw").with_hint(
            "give one, such as `scumble generate \"a church in ink style\"`, or --prompts FILE",
        ));
    }
    if cases.len().saturating_mul(request.n) > MOST {
        return Err(Failure::new(format!(
            "{} prompts with --n {} are more than {MOST} pictures",
            cases.len(),
            request.n
        )));
    }
    Ok(cases)
}

/// Refuses numbers that make no picture, before anything is read.
fn check(request: &GenerateRequest) -> Result<(), Failure> {
    let scale = |what: &str, scale: f64| {
        let fine = scale.is_finite() && scale >= 0.0;
        if fine {
            Ok(())
        } else {
            Err(Failure::new(format!(
                "{what} {scale}: expected a finite number from 0"
            )))
        }
    };
    if let Some(guidance) = request.guidance_scale {
        scale("--guidance-scale", guidance)?;
    }
    if !(0.0..=1.0).contains(&request.eta) {
        return Err(Failure::new(format!(
            "--eta {}: expected 0 to 1",
            request.eta
        )));
    }
    if request.batch == Some(0) {
        return Err(Failure::new("--batch 0: expected at least 1"));
    }
    Ok(())
}

/// The run's folder, and whether pictures in it belong to this plan; `None` if all is done.
fn open_folder(
    folder: &Path,
    plan: &Plan,
    overwrite: bool,
) -> Result<Option<(RunFolder, bool)>, Failure> {
    let hash = plan.hash();
    let place = folder.join(RECORD);
    let same = !overwrite
        && record::head(&place)?.is_some_and(|head| head.plan_hash.as_ref() == Some(&hash));
    // What is to be replaced need not be understood.
    let old = GenerateRun::read(&place).ok().flatten().unwrap_or_default();
    let done: Found<GenerateRun> = RunFolder::open(folder, &hash, overwrite)?;
    let run = match done {
        Found::ToDo(run) => run,
        Found::Finished(_)
            if plan
                .pictures
                .iter()
                .all(|shot| folder.join(&shot.file).is_file()) =>
        {
            return Ok(None);
        }
        // Pictures were taken away since: they are drawn again.
        Found::Finished(_) => {
            let again: Found<GenerateRun> = RunFolder::open(folder, &hash, true)?;
            match again {
                Found::ToDo(run) => run,
                Found::Finished(_) => return Ok(None),
            }
        }
    };
    if !same {
        // Pictures of another plan must not be taken for this one's.
        let of_old = old.body.pictures.iter().map(|p| p.file.as_str());
        let names: Vec<&str> = of_old
            .chain(plan.pictures.iter().map(|shot| shot.file.as_str()))
            .collect();
        for name in names {
            // Only plain names of pictures: the record is a file that anybody may have written.
            let path = folder.join(name);
            if name.ends_with(".png") && !name.contains(['/', '\\']) && path.is_file() {
                fs_err::remove_file(path)?;
            }
        }
    }
    Ok(Some((run, same)))
}

/// The seconds that an earlier part of the run took.
fn seconds_of(folder: &Path) -> Result<f64, Failure> {
    let record = GenerateRun::read(&folder.join(RECORD))?;
    Ok(record.map_or(0.0, |record| record.body.seconds))
}
