//! Deleting is moving: what is thrown away lies in the studio's own folder until somebody empties it.

use std::path::{Path, PathBuf};

use scumble_study::{Failure, folder::is_held};

use crate::settings::OWN;

const TRASH: &str = "trash";

fn place(folder: &Path, name: &str) -> PathBuf {
    folder.join(OWN).join(TRASH).join(name)
}

/// Throws a run away.
pub(crate) fn throw(folder: &Path, name: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    if is_held(&path) {
        return Err(Failure::new(format!("{name} is at work")).with_hint("cancel its job first"));
    }
    let to = place(folder, name);
    if to.exists() {
        // An earlier one of the same name and so of the same plan.
        fs_err::remove_dir_all(&to)?;
    }
    fs_err::create_dir_all(place(folder, ""))?;
    Ok(fs_err::rename(path, to)?)
}

/// Brings it back.
pub(crate) fn bring_back(folder: &Path, name: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    if path.exists() {
        return Err(Failure::new(format!("{name} is there again already")));
    }
    Ok(fs_err::rename(place(folder, name), path)?)
}

/// The names of what was thrown away.
pub(crate) fn thrown(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(place(folder, "")).into_iter().flatten();
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_thrown_away_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("uce-church-1");
        fs_err::create_dir_all(&run).unwrap();
        fs_err::write(run.join("run.json"), "{}").unwrap();
        throw(folder.path(), "uce-church-1").unwrap();
        assert!(!run.exists());
        assert_eq!(thrown(folder.path()), ["uce-church-1"]);
        bring_back(folder.path(), "uce-church-1").unwrap();
        assert!(run.join("run.json").is_file());
        assert!(thrown(folder.path()).is_empty());
    }
}
