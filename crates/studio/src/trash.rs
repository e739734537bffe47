//! Deleting is moving: what is thrown away lies in the studio's own folder until somebody empties it.

use std::path::{Path, PathBuf};

use scumble_study::{Failure, folder::is_held};

use crate::settings::OWN;

const TRASH: &str = "trash";
/// Between a name and how often it was thrown away.
const AGAIN: &str = " thrown again ";

fn place(folder: &Path, name: &str) -> PathBuf {
    folder.join(OWN).join(TRASH).join(name)
}

/// Throws a run away.
pub(crate) fn throw(folder: &Path, name: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    if is_held(&path) {
        return Err(Failure::new(format!("{name} is at work")).with_hint("cancel its job first"));
    }
    fs_err::create_dir_all(place(folder, ""))?;
    // Nothing that lies there is lost to a later one of the same name.
    let free = |name: &String| !place(folder, name).exists();
    let others = (2..).map(|k| format!("{name}{AGAIN}{k}"));
    let to = std::iter::once(name.to_owned()).chain(others).find(free);
    Ok(fs_err::rename(
        path,
        place(folder, &to.unwrap_or_default()),
    )?)
}

/// Brings it back.
pub(crate) fn bring_back(folder: &Path, name: &str) -> Result<(), Failure> {
    let own = name.rsplit_once(AGAIN).map_or(name, |(own, _)| own);
    let path = folder.join(own);
    if path.exists() {
        return Err(Failure::new(format!("there is a {own} in the folder"))
            .with_hint("throw that one away first"));
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

        // Thrown away twice, both are kept.
        for text in ["first", "second"] {
            fs_err::create_dir_all(&run).unwrap();
            fs_err::write(run.join("run.json"), text).unwrap();
            throw(folder.path(), "uce-church-1").unwrap();
        }
        let all = thrown(folder.path());
        assert_eq!(all, ["uce-church-1", "uce-church-1 thrown again 2"]);
        bring_back(folder.path(), &all[1]).unwrap();
        assert_eq!(
            fs_err::read_to_string(run.join("run.json")).unwrap(),
            "second"
        );
        assert!(bring_back(folder.path(), &all[0]).is_err());
    }
}
