//! An edit that was read, and a model with several of them.

use std::path::{Path, PathBuf};

use scumble_diffusion::Pipeline;
use scumble_erase::Edit;
use scumble_nn::files::{Checkpoint, Kind};

use crate::{failure::Failure, folder::EDIT, record::EditRecord};

/// Something that changes a model, as it was named, and how strongly.
#[derive(Clone)]
pub struct Loaded {
    /// What it changes.
    pub edit: Edit,
    /// How strongly.
    pub strength: f64,
    /// The path as the user gave it, without the strength.
    pub path: PathBuf,
    /// The file that was read, or the folder of a text encoder.
    pub file: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Content hash of its changes.
    pub hash: String,
    /// Whether it says that it was made on the model it was opened for.
    pub at_home: bool,
}

impl Loaded {
    /// The edit that a run has left in its folder, at full strength; `None` as long as there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn of_run(folder: &Path) -> Result<Option<Self>, Failure> {
        let file = folder.join(EDIT);
        if !file.is_file() {
            return Ok(None);
        }
        let edit = Edit::open(&file)?;
        Ok(Some(Self {
            hash: edit.content_hash(),
            edit,
            strength: 1.0,
            path: folder.to_owned(),
            file,
            kind: Kind::ScumbleEdit,
            at_home: true,
        }))
    }

    /// What run.json says about it.
    pub fn record(&self) -> EditRecord {
        let about = &self.edit.about;
        let made = !about.method.is_empty();
        EditRecord {
            edit: self.path.display().to_string(),
            kind: self.kind.describe().to_string(),
            strength: self.strength,
            hash: self.hash.clone(),
            method: made.then(|| about.method.clone()),
            concepts: made.then(|| about.concepts.clone()),
        }
    }

    /// Why it does not fit a model, with what to try.
    pub(crate) fn misfit(&self, error: scumble_erase::Error) -> Failure {
        let shape = error.hint().is_some_and(|hint| hint.contains("--model"));
        let failure = Failure::from(error).of(&self.path.display().to_string());
        let about = &self.edit.about;
        if !shape {
            failure
        } else if self.at_home {
            failure.with_hint("it says that it was made on this very model, so the file is damaged or was changed since")
        } else if about.base.is_empty() {
            failure.with_hint(
                "it fits models of one shape only: give one that has these tensors with --model",
            )
        } else {
            failure
        }
    }
}

/// A model with all of them: what a plain checkpoint can hold merged into its tensors, the rest
/// beside them.
///
/// # Errors
/// If one does not fit the model.
pub fn applied(
    loaded: &[Loaded],
    base: &Checkpoint,
    pipeline: &Pipeline,
) -> Result<Pipeline, Failure> {
    let (plain, beside): (Vec<&Loaded>, Vec<&Loaded>) =
        loaded.iter().partition(|one| one.edit.merges());
    let mut edited = combined(&plain, base)?.apply_to(pipeline, 1.0)?;
    for one in beside {
        edited = one
            .edit
            .apply_to(&edited, one.strength)
            .map_err(|e| one.misfit(e))?;
    }
    Ok(edited)
}

/// Several edits as one: where two change a tensor, their differences to the model are added, so
/// that none undoes another.
///
/// # Errors
/// If one does not fit the model.
pub fn combined(loaded: &[&Loaded], base: &Checkpoint) -> Result<Edit, Failure> {
    let edits: Vec<(&Edit, f64)> = loaded.iter().map(|one| (&one.edit, one.strength)).collect();
    Edit::combined(&edits, base).map_err(|(i, error)| loaded[i].misfit(error))
}
