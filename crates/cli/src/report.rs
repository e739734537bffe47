//! `scumble report`: what an evaluation found, as a page to look at and as tables for other
//! programs.

use std::path::{Path, PathBuf};

use scumble_report::{Evaluation, Written, report};
use scumble_study::request::ReportRequest;
use serde_json::json;

use crate::{
    args::ReportArgs,
    failure::{Failure, Outcome},
    output,
};

/// Where the report lies in an evaluation's folder.
const FOLDER: &str = "report";

pub(crate) fn run(args: &ReportArgs) -> Result<Outcome, Failure> {
    let made = perform(&args.into())?;
    let (written, evaluation) = (&made.written, &made.evaluation);
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
    } else {
        output::data(&made.page().display().to_string())?;
    }
    Ok(Outcome::Done)
}

/// A report that was written.
pub(crate) struct Made {
    evaluation: Evaluation,
    written: Written,
    folder: PathBuf,
}

impl Made {
    /// Its page.
    pub(crate) fn page(&self) -> &Path {
        self.written.files.first().unwrap_or(&self.folder)
    }
}

/// Writes a report.
///
/// # Errors
/// If the folder holds no evaluation, or the report cannot be written.
pub(crate) fn perform(request: &ReportRequest) -> Result<Made, Failure> {
    let evaluation = Evaluation::read(&request.folder)?;
    let folder = request
        .output
        .clone()
        .unwrap_or_else(|| request.folder.join(FOLDER));
    if folder.is_file() {
        return Err(Failure::new(format!(
            "--output-dir {}: expected a folder, found a file",
            folder.display()
        )));
    }
    let written = report::write(&evaluation, &request.folder, &folder, &request.options)?;
    Ok(Made {
        evaluation,
        written,
        folder,
    })
}
