//! The CLIP that an attack is given: the user's, or the miniature's own.

use std::path::Path;

use scumble_eval::ClipModel;
use scumble_nn::files::Source;

use crate::{failure::Failure, miniature, model::Model};

/// The CLIP of this folder; without one the miniature's, where it is the miniature that is
/// attacked.
pub(crate) fn open(folder: Option<&Path>, model: &Model) -> Result<Option<ClipModel>, Failure> {
    let source = match folder {
        Some(path) => Source::dir(path),
        None if model.profile.world.is_some() => miniature::clip(),
        None => return Ok(None),
    };
    Ok(Some(
        ClipModel::load(&source, &model.device).map_err(|e| Failure::from(e).of("--clip"))?,
    ))
}

/// A hash of what a CLIP's folder holds, so that a moved folder is the same CLIP and a changed one
/// another.
pub(crate) fn hash(folder: &Path) -> Result<String, Failure> {
    let at_fault = |e| Failure::from(e).of("--clip");
    let mut names: Vec<_> = fs_err::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name()))
                .collect::<std::io::Result<_>>()
        })
        .map_err(at_fault)?;
    // Other kinds of files are not read.
    names.retain(|name| {
        Path::new(name)
            .extension()
            .is_some_and(|kind| kind == "json" || kind == "safetensors")
    });
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        let mut one = blake3::Hasher::new();
        let file = fs_err::File::open(folder.join(&name)).map_err(at_fault)?;
        one.update_reader(file).map_err(at_fault)?;
        hasher
            .update(name.as_encoded_bytes())
            .update(&[0])
            .update(one.finalize().as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
