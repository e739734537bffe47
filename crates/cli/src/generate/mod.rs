//! `scumble generate`: pictures from prompts, by the model itself or an edited one.

mod draw;
mod notes;
mod plan;

use std::{path::Path, time::Instant};

use scumble_diffusion::guards::check as check_guards;
use scumble_erase::profile::BuiltInWorld;
use serde_json::{Map, Value, json};

use self::plan::Plan;
use crate::{
    args::GenerateArgs,
    edits,
    failure::{Failure, Outcome},
    guards,
    model::Model,
    output,
    progress::{self, Progress},
    prompts::{self, Case, Seeds},
    record,
    store::{Found, RECORD, RunFolder},
};

/// Most pictures of one prompt: they may share one block of noise, which is held at once.
const MOST_OF_A_PROMPT: usize = 10_000;

/// Most pictures of one run.
const MOST: usize = 1_000_000;

pub(crate) fn run(args: &GenerateArgs) -> Result<Outcome, Failure> {
    let mut file_notes = Vec::new();
    let cases = cases(args, &mut file_notes)?;
    check(args)?;
    let quiet = args.print.quiet;
    let model = Model::open(&args.model, None, quiet)?;
    let mut notes = model.checkpoint.notes.clone();
    let mut loaded = edits::open_all(&args.edits.edit, &args.edits.lora, &model, &mut notes)?;
    let world = model.profile.world.map(BuiltInWorld::open);
    let guards = guards::open_all(&args.guard, &args.set, &mut loaded, world.as_ref())?;
    notes.extend(guards::unknown(&args.guard, world.as_ref()));
    let mut pipeline = model.pipeline()?;
    if !loaded.is_empty() {
        pipeline = edits::applied(&loaded, &model, &pipeline)?;
    }
    if let Some(said) = args.size_condition {
        pipeline.set_size_condition(Some(said.original), said.crop)?;
    }
    pipeline.guards.extend(guards.iter().cloned());
    check_guards(&pipeline.guards)?;
    let embeddings = edits::add_embeddings(&args.embedding, &mut pipeline)?;
    let plan = Plan {
        guards,
        ..plan::plan(args, cases, &model, &pipeline, &loaded, embeddings)?
    };
    notes.extend(file_notes);
    edits::say(&notes[model.checkpoint.notes.len()..], quiet);
    let warnings = notes::warnings(&plan, args, &pipeline);
    // A picture that is not what it seems to be is said even to those who want quiet.
    warnings
        .iter()
        .for_each(|text| output::note(&format!("warning: {text}")));
    notes.extend(warnings);

    let folder = args
        .output
        .output_dir
        .clone()
        .unwrap_or_else(|| plan.default_folder(args));
    let Some((run, resumed)) = open_folder(&folder, &plan, args.output.overwrite)? else {
        if !quiet {
            output::note(&format!(
                "{} is finished; here is its result",
                folder.display()
            ));
        }
        let path = folder.join(RECORD);
        let record = record::read(&path)?
            .ok_or_else(|| Failure::new(format!("{}: has gone meanwhile", path.display())))?;
        report(args, &folder, &record)?;
        return Ok(Outcome::Done);
    };
    progress::listen_for_interrupts()?;
    let progress = Progress::new(quiet);
    let began = Instant::now();
    let mut record = plan.record(args, &model, &loaded, &notes);
    let earlier = if resumed { seconds_of(&folder)? } else { 0.0 };
    run.record(&record)?;
    let drawn = draw::draw_all(args, &plan, &model, &pipeline, &loaded, &folder, &progress);
    progress.finish();
    record["seconds"] = json!(earlier + began.elapsed().as_secs_f64());
    record["finished"] = drawn.is_ok().into();
    run.record(&record)?;
    drawn?;
    report(args, &folder, &record)?;
    Ok(Outcome::Done)
}

/// The prompts asked for.
fn cases(args: &GenerateArgs, notes: &mut Vec<String>) -> Result<Vec<Case>, Failure> {
    if args.n == 0 || args.n > MOST_OF_A_PROMPT {
        return Err(Failure::new(format!(
            "--n {}: expected 1 to {MOST_OF_A_PROMPT} pictures of each prompt",
            args.n
        )));
    }
    let cases = match &args.prompts {
        Some(path) => prompts::read(path, args.seed, notes)?,
        None => {
            let case = |prompt: &String| Case {
                number: None,
                prompt: prompt.clone(),
                seeds: Seeds::Each(args.seed),
                guidance: None,
                labels: vec![],
                scene: None,
            };
            args.prompt.iter().map(case).collect()
        }
    };
    if cases.is_empty() {
        return Err(Failure::new("no prompt to draw").with_hint(
            "give one, such as `scumble generate \"a church in ink style\"`, or --prompts FILE",
        ));
    }
    if cases.len().saturating_mul(args.n) > MOST {
        return Err(Failure::new(format!(
            "{} prompts with --n {} are more than {MOST} pictures",
            cases.len(),
            args.n
        )));
    }
    Ok(cases)
}

/// Refuses numbers that make no picture, before anything is read.
fn check(args: &GenerateArgs) -> Result<(), Failure> {
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
    if let Some(guidance) = args.guidance_scale {
        scale("--guidance-scale", guidance)?;
    }
    if !(0.0..=1.0).contains(&args.eta) {
        return Err(Failure::new(format!("--eta {}: expected 0 to 1", args.eta)));
    }
    if args.batch == Some(0) {
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
    let old = match record::read(&folder.join(RECORD)) {
        // What is to be replaced need not be understood.
        Err(_) if overwrite => Value::Null,
        other => other?.unwrap_or_default(),
    };
    let run = match RunFolder::open(folder, &hash, overwrite)? {
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
        Found::Finished(_) => match RunFolder::open(folder, &hash, true)? {
            Found::ToDo(run) => run,
            Found::Finished(_) => return Ok(None),
        },
    };
    let same = !overwrite && old["plan_hash"] == hash.as_str();
    if !same {
        // Pictures of another plan must not be taken for this one's.
        let of_old = old["pictures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["file"].as_str());
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
    let path = folder.join(RECORD);
    match record::read(&path)? {
        Some(record) if !record["seconds"].is_null() => record::field(&record, &path, "seconds"),
        _ => Ok(0.0),
    }
}

/// Prints the paths of the pictures, or one object that says everything about them.
fn report(args: &GenerateArgs, folder: &Path, record: &Value) -> Result<(), Failure> {
    let pictures: Vec<Map<String, Value>> =
        record::field(record, &folder.join(RECORD), "pictures")?;
    let of = |picture: &Map<String, Value>| {
        picture
            .get("file")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if !args.print.json {
        for picture in &pictures {
            output::data(&folder.join(of(picture)).display().to_string())?;
        }
        return Ok(());
    }
    // Whole paths, so that they hold wherever the reader stands.
    let whole = std::path::absolute(folder)?;
    let pictures: Vec<Value> = pictures
        .into_iter()
        .map(|mut picture| {
            picture.insert(
                "file".into(),
                whole.join(of(&picture)).display().to_string().into(),
            );
            picture.into()
        })
        .collect();
    let plan = &record["plan"];
    output::json(&json!({
        "pictures": pictures, "output_dir": folder, "model": record["model"], "model_hash": record["model_hash"],
        "edits": record["edits"], "guards": record["plan"]["guards"], "sampler": plan["sampler"], "steps": plan["steps"], "negative_prompt": plan["negative_prompt"],
        "width": plan["width"], "height": plan["height"], "seconds": record["seconds"], "notes": record["notes"],
    }))
}
