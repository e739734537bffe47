//! Models by the name they have on the Hugging Face Hub, where they have been downloaded already.
//! Nothing here uses the network.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// How the cache names a model's folder, `--` standing for `/`.
const PREFIX: &str = "models--";
/// Addresses that are taken for the name in them.
const SITES: [&str; 4] = [
    "https://huggingface.co/",
    "http://huggingface.co/",
    "huggingface.co/",
    "https://hf.co/",
];

/// The file or folder that an argument means (`flag` is what stands before it): itself, a snapshot in one of the cache's own folders,
/// or that of `org/name` in one of the caches (`roots`).
///
/// # Errors
/// If there is none; the error says how to get it.
pub fn located(given: &Path, flag: &str, roots: &[PathBuf]) -> Result<PathBuf, Failure> {
    let called = format!("{flag} {}", given.display());
    let called = called.trim_start();
    if given.exists() {
        let cached = given
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        return if cached && given.join("snapshots").is_dir() {
            snapshot(given).map_err(|problem| Failure::new(format!("{called}: {problem}")))
        } else {
            Ok(given.into())
        };
    }
    let text = given.to_string_lossy();
    let address = SITES.iter().find_map(|site| text.strip_prefix(site));
    if address.is_none() && text.contains("://") {
        return Err(Failure::new(format!(
            "{called}: is an address, and scumble never uses the network"
        ))
        .with_hint("download the model, and give the file or folder"));
    }
    let Some(name) = name_of(address.unwrap_or(&text)) else {
        return Err(Failure::new(format!(
            "{called}: there is no such file or folder"
        )));
    };
    let folder = |root: &PathBuf| root.join(format!("{PREFIX}{}", name.replace('/', "--")));
    match roots
        .iter()
        .map(folder)
        .find(|path| path.join("snapshots").is_dir())
    {
        Some(path) => snapshot(&path)
            .map_err(|problem| Failure::new(format!("{called}: {}: {problem}", path.display()))),
        None => {
            let looked: Vec<String> = roots
                .iter()
                .map(|root| root.display().to_string())
                .collect();
            Err(Failure::new(format!(
                "{called}: there is no such file or folder, and no such model in the local Hugging Face cache ({})",
                looked.join(", ")
            ))
            .with_hint(format!("`hf download {name}` puts it there; scumble itself never uses the network")))
        }
    }
}

/// `org/name`, if a text is one; what stands behind it in an address, such as `/tree/main`, is left
/// out.
fn name_of(text: &str) -> Option<String> {
    let plain = |part: &&str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let mut parts = text.trim_end_matches('/').split('/');
    let (org, name) = (parts.next().filter(plain)?, parts.next().filter(plain)?);
    match parts.next() {
        None | Some("tree") => Some(format!("{org}/{name}")),
        Some(_) => None,
    }
}

/// The snapshot that `refs/main` names, or the only one; a single checkpoint in it that is no
/// diffusers folder.
fn snapshot(model: &Path) -> Result<PathBuf, String> {
    let snapshots = model.join("snapshots");
    let listed = fs_err::read_dir(&snapshots)
        .map_err(|e| e.to_string())?
        .flatten()
        .map(|entry| entry.path());
    let all: Vec<PathBuf> = listed.filter(|path| path.is_dir()).collect();
    let main = fs_err::read_to_string(model.join("refs/main")).unwrap_or_default();
    let main = main.trim();
    let named = (!main.is_empty() && !main.contains(['/', '\\', '.']))
        .then(|| snapshots.join(main))
        .filter(|path| path.is_dir());
    let folder = match (named, all.as_slice()) {
        (Some(folder), _) => folder,
        (None, [only]) => only.clone(),
        (None, []) => {
            return Err(
                "the cache holds no snapshot of it; the download may not have ended".into(),
            );
        }
        (None, _) => {
            return Err(
                "the cache holds several snapshots of it, and refs/main names none of them".into(),
            );
        }
    };
    if folder.join("model_index.json").exists() {
        return Ok(folder);
    }
    let inside = fs_err::read_dir(&folder)
        .map_err(|e| e.to_string())?
        .flatten()
        .map(|entry| entry.path());
    let files: Vec<PathBuf> = inside
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    match files.as_slice() {
        [only] => Ok(only.clone()),
        _ => Ok(folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_hub() {
        let name = |text: &str| name_of(text);
        assert_eq!(
            name("runwayml/stable-diffusion-v1-5").as_deref(),
            Some("runwayml/stable-diffusion-v1-5")
        );
        assert_eq!(name("org/name/").as_deref(), Some("org/name"));
        assert_eq!(name("org/name/tree/main").as_deref(), Some("org/name"));
        for text in [
            "name",
            "/org/name",
            "../name",
            "org/../x",
            "a/b/c",
            "org/na me",
            "./model",
            "",
            "org/",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }

    #[test]
    fn the_snapshot_that_main_names() {
        let home = tempfile::tempdir().unwrap();
        let model = home.path().join("models--org--name");
        assert!(snapshot(&model).is_err());
        fs_err::create_dir_all(model.join("snapshots/aaa")).unwrap();
        assert_eq!(snapshot(&model).unwrap(), model.join("snapshots/aaa"));
        fs_err::create_dir_all(model.join("snapshots/bbb")).unwrap();
        assert!(snapshot(&model).unwrap_err().contains("several"));
        fs_err::create_dir_all(model.join("refs")).unwrap();
        fs_err::write(model.join("refs/main"), "bbb\n").unwrap();
        assert_eq!(snapshot(&model).unwrap(), model.join("snapshots/bbb"));
        fs_err::write(model.join("snapshots/bbb/v1.safetensors"), "").unwrap();
        assert_eq!(
            snapshot(&model).unwrap(),
            model.join("snapshots/bbb/v1.safetensors")
        );
        fs_err::write(model.join("snapshots/bbb/model_index.json"), "{}").unwrap();
        assert_eq!(snapshot(&model).unwrap(), model.join("snapshots/bbb"));
        fs_err::write(model.join("refs/main"), "../../elsewhere").unwrap();
        assert!(snapshot(&model).is_err());
    }
}
