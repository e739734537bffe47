//! Hashes of what files hold, so that what was moved is the same and what was changed another.

use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;

/// What a run's plan is known by: the first 16 hexadecimal digits of its blake3 hash.
pub(crate) fn hash_of_plan(plan: &Value) -> String {
    blake3::hash(plan.to_string().as_bytes()).to_hex()[..16].to_owned()
}

/// A hash of the JSON and safetensors files of a folder.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn hash_of_folder(folder: &Path) -> Result<String, Failure> {
    let mut names: Vec<_> = fs_err::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<_>>()?;
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
        one.update_reader(fs_err::File::open(folder.join(&name))?)?;
        hasher
            .update(name.as_encoded_bytes())
            .update(&[0])
            .update(one.finalize().as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
