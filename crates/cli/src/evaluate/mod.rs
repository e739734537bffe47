//! `scumble evaluate`: an evaluation is asked for, watched and printed. What it does is
//! `scumble_study::evaluate`'s.

mod listed;
mod submit;
mod summary;

use std::path::Path;

use scumble_study::{
    evaluate::{Evaluation, make_edits},
    report,
    request::{EvaluateRequest, ReportRequest},
};
use serde_json::json;

use crate::{
    args::EvaluateArgs,
    failure::{Failure, Outcome},
    host, output,
    progress::{self, Progress},
};

pub(crate) fn run(args: &EvaluateArgs) -> Result<Outcome, Failure> {
    let request = EvaluateRequest::try_from(args)?;
    progress::listen_for_interrupts()?;
    let (around, progress) = (host::here(), Progress::new(args.print.quiet));
    let host = around.heard_by(&progress);
    if let Some(scheduler) = &args.submit {
        let submitted = submit::submit(args, scheduler, request, host);
        progress.finish();
        return submitted;
    }
    if args.edits_only {
        let made = make_edits(request, host);
        progress.finish();
        return made.map(|()| Outcome::Done);
    }
    let evaluation = Evaluation::open(request, args.plan, host)?;
    if args.plan {
        return listed::list(&evaluation.study(), &evaluation.pending, args.print.json);
    }
    let finished = evaluation.carry_out(host);
    progress.finish();
    finished?;
    let folder = &evaluation.folder;
    print(args, folder)?;
    if args.report {
        let page = report::perform(&ReportRequest::new(folder))?;
        if !args.print.json {
            output::data(&format!("report    {}", page.page().display()))?;
        }
    }
    Ok(Outcome::Done)
}

/// Prints what is in the folder.
fn print(args: &EvaluateArgs, folder: &Path) -> Result<(), Failure> {
    let evaluation = scumble_report::Evaluation::read(folder)?;
    if args.print.json {
        for row in &evaluation.rows {
            output::json(&json!(row))?;
        }
        return Ok(());
    }
    output::data(&summary::text(&evaluation))?;
    output::data(&format!(
        "rows      {}",
        folder.join(scumble_report::RESULTS).display()
    ))?;
    if args.report {
        return Ok(());
    }
    output::data(&format!("look at   scumble report {}", folder.display()))
}
