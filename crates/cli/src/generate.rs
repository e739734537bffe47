//! `scumble generate`: pictures are asked for, watched and printed. What it does is
//! `scumble_study::generate`'s.

use std::path::Path;

use scumble_study::{
    generate,
    record::{GenerateRun, PictureRecord},
    request::GenerateRequest,
};
use serde_json::json;

use crate::{
    args::GenerateArgs,
    failure::{Failure, Outcome},
    host, output,
    progress::{self, Progress},
};

pub(crate) fn run(args: &GenerateArgs) -> Result<Outcome, Failure> {
    let request = GenerateRequest::try_from(args)?;
    progress::listen_for_interrupts()?;
    let progress = Progress::new(args.print.quiet);
    let around = host::here();
    let drawn = generate::perform(&request, around.heard_by(&progress));
    progress.finish();
    let (folder, record) = drawn?;
    report(args, &folder, &record)?;
    Ok(Outcome::Done)
}

/// Prints the paths of the pictures, or one object that says everything about them.
fn report(args: &GenerateArgs, folder: &Path, record: &GenerateRun) -> Result<(), Failure> {
    let body = &record.body;
    if !args.print.json {
        for picture in &body.pictures {
            output::data(&folder.join(&picture.file).display().to_string())?;
        }
        return Ok(());
    }
    // Whole paths, so that they hold wherever the reader stands.
    let whole = std::path::absolute(folder)?;
    let pictures: Vec<PictureRecord> = body
        .pictures
        .iter()
        .map(|picture| PictureRecord {
            file: whole.join(&picture.file).display().to_string(),
            ..picture.clone()
        })
        .collect();
    let plan = &record.plan;
    output::json(&json!({
        "pictures": pictures, "output_dir": folder, "model": body.model, "model_hash": body.model_hash,
        "edits": body.edits, "guards": plan.guards, "sampler": plan.sampler, "steps": plan.steps, "negative_prompt": plan.negative_prompt,
        "width": plan.width, "height": plan.height, "seconds": body.seconds, "notes": body.notes,
    }))
}
