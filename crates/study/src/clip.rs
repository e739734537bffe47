//! The CLIP that an attack is given: the user's, or the miniature's own.

use std::path::Path;

use scumble_eval::ClipModel;
use scumble_nn::files::Source;

use crate::{content::hash_of_folder, failure::Failure, host::Host, model::Model};

/// The CLIP of this folder; without one the model's own, where it has one.
pub(crate) fn open(
    folder: Option<&Path>,
    model: &Model,
    host: Host<'_>,
) -> Result<Option<ClipModel>, Failure> {
    let source = match folder {
        Some(path) => &Source::dir(path),
        None if model.profile.world.is_some() => &model.companions(host).clip,
        None => return Ok(None),
    };
    Ok(Some(
        ClipModel::load(source, &model.device).map_err(|e| Failure::from(e).of("--clip"))?,
    ))
}

/// A hash of what a CLIP's folder holds.
pub(crate) fn hash(folder: &Path) -> Result<String, Failure> {
    hash_of_folder(folder).map_err(|e| e.of("--clip"))
}
