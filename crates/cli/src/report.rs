//! `scumble report`: a report is asked for and printed. What it does is `scumble_study::report`'s.

use scumble_study::report;
use serde_json::json;

use crate::{
    args::ReportArgs,
    failure::{Failure, Outcome},
    output,
};

pub(crate) fn run(args: &ReportArgs) -> Result<Outcome, Failure> {
    let made = report::perform(&args.into())?;
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
