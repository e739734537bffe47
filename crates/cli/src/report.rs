//! `scumble report`: what an evaluation found, as a page to look at and as tables for other
//! programs.

use std::path::PathBuf;

use scumble_report::{Blur, Evaluation, Options, report};
use serde_json::json;

use crate::{
    args::{Blurred, ReportArgs},
    failure::{Failure, Outcome},
    output,
};

/// Where the report lies in an evaluation's folder.
const FOLDER: &str = "report";

pub(crate) fn run(args: &ReportArgs) -> Result<Outcome, Failure> {
    let page = perform(args)?;
    if !args.print.json {
        output::data(&page.display().to_string())?;
    }
    Ok(Outcome::Done)
}

/// Writes a report; its page.
///
/// # Errors
/// If the folder holds no evaluation, or the report cannot be written.
pub(crate) fn perform(args: &ReportArgs) -> Result<PathBuf, Failure> {
    let evaluation = Evaluation::read(&args.folder)?;
    let out = args
        .output_dir
        .clone()
        .unwrap_or_else(|| args.folder.join(FOLDER));
    if out.is_file() {
        return Err(Failure::new(format!(
            "--output-dir {}: expected a folder, found a file",
            out.display()
        )));
    }
    let options = Options {
        title: args.title.clone(),
        pictures: !args.no_pictures,
        blur: match args.blur {
            Blurred::On => Blur::On,
            Blurred::Off => Blur::Off,
            Blurred::Sensitive => Blur::Sensitive,
        },
        ratings: args.ratings.clone(),
        rating_seed: args.seed,
    };
    let written = report::write(&evaluation, &args.folder, &out, &options)?;
    if !args.print.quiet {
        if written.absent > 0 {
            let are = if written.absent == 1 {
                "picture is"
            } else {
                "pictures are"
            };
            output::note(&format!(
                "{} {are} missing or broken; the page says which",
                written.absent
            ));
        }
        if !evaluation.finished {
            output::note("the evaluation has not finished; the report says what has not run");
        }
    }
    if args.print.json {
        output::json(&json!({
            "report": written.files.first(),
            "files": &written.files,
            "rows": evaluation.rows.len(),
            "pictures": written.pictures,
            "absent": written.absent,
            "ratings": written.ratings,
            "finished": evaluation.finished,
        }))?;
    }
    Ok(written.files.into_iter().next().unwrap_or(out))
}
