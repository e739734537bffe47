//! `scumble export`: an export is asked for and printed. What it does is `scumble_study::export`'s.

use scumble_study::{
    export::{self, Exported},
    request::ExportRequest,
};
use serde_json::{Value, json};

use crate::{
    args::ExportArgs,
    failure::{Failure, Outcome},
    host, output,
    progress::{self, Progress},
};

pub(crate) fn run(args: &ExportArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let (around, progress) = (host::here(), Progress::new(args.print.quiet));
    let request = ExportRequest::from(args);
    let written = export::perform(&request, around.heard_by(&progress));
    progress.finish();
    let written = written?;
    if args.print.json {
        output::json(&object(&request, &written))?;
    } else {
        output::data(&written.path.display().to_string())?;
    }
    Ok(Outcome::Done)
}

/// The one object that `--json` prints.
fn object(request: &ExportRequest, written: &Exported) -> Value {
    let (edit, strength) = &written.edits[0];
    let mut result = json!({
        "form": request.form.name(), "path": written.path, "edit": edit, "strength": strength, "card": written.card,
    });
    if written.edits.len() > 1 {
        let edits = written.edits.iter();
        result["edits"] = edits
            .map(|(edit, strength)| json!({"edit": edit, "strength": strength}))
            .collect();
    }
    if let Some((rank, error)) = written.low_rank {
        result["rank"] = rank.into();
        result["reconstruction_error"] = error.into();
    }
    if !written.left_out.is_empty() {
        let left_out = written.left_out.iter();
        result["left_out"] = left_out
            .map(|(name, share)| json!({"tensor": name, "share": share}))
            .collect();
    }
    if !written.limits.is_empty() {
        result["limits"] = json!(written.limits);
    }
    if let Some(measured) = &written.measured {
        result["measured"] = measured.clone();
    }
    result
}
