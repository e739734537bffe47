//! The report of an evaluation.

use std::path::PathBuf;

use scumble_report::Options;

/// Which evaluation is to be shown, where, and how.
#[derive(Clone, Debug)]
pub struct ReportRequest {
    /// The evaluation's folder.
    pub folder: PathBuf,
    /// Where the report lies; `report` in that folder if `None`.
    pub output: Option<PathBuf>,
    /// How it looks.
    pub options: Options,
}

impl ReportRequest {
    /// A report as it is where nobody says otherwise.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            output: None,
            options: Options::default(),
        }
    }
}
