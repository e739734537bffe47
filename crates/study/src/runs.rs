//! Erasures and attacks, each a run in a folder of its own.

use std::path::{Path, PathBuf};

use crate::{
    failure::Failure,
    folder::RECORD,
    record::EraseRun,
    request::{AttackRequest, EraseRequest},
    subjects::slug,
};

/// Who performs the erasures and attacks that an evaluation asks for. What has been done before is
/// found again and not done twice.
pub trait Runs {
    /// Makes an edit.
    ///
    /// # Errors
    /// If the method fails, or somebody asked to stop.
    fn erase(&self, request: &EraseRequest) -> Result<(), Failure>;

    /// Carries out an attack.
    ///
    /// # Errors
    /// If the attack fails, or somebody asked to stop.
    fn attack(&self, request: &AttackRequest) -> Result<(), Failure>;
}

/// The folder of a finished erasure of one concept by a method's defaults, below `root`, where there
/// is one. `model` is the model's content hash.
///
/// # Errors
/// If the record of a run that is called like it is damaged.
pub fn find_erasure(
    root: &Path,
    method: &str,
    concept: &str,
    model: &str,
) -> Result<Option<PathBuf>, Failure> {
    let start = format!("{method}-{}-", slug(concept));
    let Ok(entries) = fs_err::read_dir(root) else {
        return Ok(None);
    };
    let mut called: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .map(|entry| entry.path())
        .collect();
    called.sort();
    for folder in called {
        let run = EraseRun::of_command(&folder.join(RECORD), "erase")?;
        let fits = run.filter(|run| run.finished).is_some_and(|run| {
            let plan = &run.plan;
            plan.method == method
                && plan.model == model
                && plan.seed == 0
                && plan.options.is_empty()
                && plan.preserve.is_empty()
                && matches!(plan.concepts.as_slice(), [one] if one.name == concept)
        });
        if fits {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}
