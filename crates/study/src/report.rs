//! What an evaluation found, as a page to look at and as tables for other programs.

use std::path::{Path, PathBuf};

use scumble_report::{Evaluation, Written, report};

use crate::{failure::Failure, request::ReportRequest};

/// Where the report lies in an evaluation's folder.
const FOLDER: &str = "report";

/// A report that was written.
pub struct Made {
    /// What it is about.
    pub evaluation: Evaluation,
    /// Its files.
    pub written: Written,
    folder: PathBuf,
}

impl Made {
    /// Its page.
    pub fn page(&self) -> &Path {
        self.written.files.first().unwrap_or(&self.folder)
    }
}

/// Writes a report.
///
/// # Errors
/// If the folder holds no evaluation, or the report cannot be written.
pub fn perform(request: &ReportRequest) -> Result<Made, Failure> {
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
