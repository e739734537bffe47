//! What a model's folder says of the training that made it.

use std::path::Path;

use crate::{failure::Result, folder::RECORD, record::TrainRun};

/// The concepts that a model of `scumble train` never saw; `None` of any other model.
///
/// # Errors
/// If the record of its training is damaged.
pub(crate) fn without(model: &Path) -> Result<Option<Vec<String>>> {
    let run = TrainRun::read(&model.join("train").join(RECORD))?;
    Ok(run.map(|run| run.plan.without))
}
