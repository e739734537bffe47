//! Where an export goes, and under which name.

use std::path::{Path, PathBuf};

use scumble_erase::{About, Edit};

use crate::{
    edits::Loaded,
    failure::Failure,
    folder::{EDIT, slug},
    request::{ExportRequest, Form},
};

/// Where the result goes.
pub(super) struct Target {
    /// The file, or the folder of a diffusers model.
    pub(super) path: PathBuf,
    /// Its model card.
    pub(super) card: PathBuf,
    /// What is there already and will be replaced.
    pub(super) old: Option<PathBuf>,
}

impl Target {
    pub(super) fn new(
        request: &ExportRequest,
        loaded: &[Loaded],
        edit: &Edit,
    ) -> Result<Self, Failure> {
        let form = request.form.name();
        let folder = request.form == Form::Diffusers;
        let path = match &request.output {
            Some(path) if folder || path.extension().is_some_and(|e| e == "safetensors") => {
                path.clone()
            }
            Some(path) if path.is_file() => {
                return Err(Failure::new(format!(
                    "--output-dir {}: expected a folder or a name ending in .safetensors",
                    path.display()
                )));
            }
            Some(path) => path.join(format!(
                "{}-{form}.safetensors",
                named(&edit.about).unwrap_or_else(|| stem(&loaded[0]))
            )),
            None => beside(&loaded[0], &edit.about, folder, form),
        };
        if folder && path.is_file() {
            return Err(Failure::new(format!(
                "--output-dir {}: expected a folder, found a file",
                path.display()
            )));
        }
        if !folder && path.is_dir() {
            return Err(Failure::new(format!(
                "--output-dir {}: expected a file, found a folder",
                path.display()
            )));
        }
        let card = if folder {
            path.join("README.md")
        } else {
            path.with_extension("md")
        };
        let there = if folder {
            path.is_dir() && fs_err::read_dir(&path)?.next().is_some()
        } else {
            path.exists() || card.exists()
        };
        let same = |one: &Loaded| {
            path.canonicalize().is_ok_and(|p| {
                one.file
                    .canonicalize()
                    .is_ok_and(|file| file.starts_with(&p))
            })
        };
        if loaded.iter().any(same) {
            return Err(
                Failure::new(format!("{}: would replace the edit itself", path.display()))
                    .with_hint("give another --output-dir"),
            );
        }
        if there && !request.overwrite {
            return Err(
                Failure::new(format!("{}: is there already", path.display()))
                    .with_hint("give another --output-dir, or --overwrite to replace it"),
            );
        }
        if there && folder && !path.join("model_index.json").is_file() {
            return Err(Failure::new(format!(
                "{}: is not a model's folder, so it is not replaced",
                path.display()
            ))
            .with_hint("give another --output-dir"));
        }
        Ok(Self {
            old: there.then(|| path.clone()),
            path,
            card,
        })
    }

    /// Writes a folder; one that is replaced comes back if that fails.
    pub(super) fn replace_folder(
        &self,
        write: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(old) = &self.old else {
            return write(&self.path);
        };
        let name = old
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let aside = old.with_file_name(format!(".{name}.{}.old", std::process::id()));
        fs_err::rename(old, &aside)?;
        match write(&self.path) {
            Ok(()) => Ok(fs_err::remove_dir_all(&aside)?),
            Err(failure) => {
                fs_err::rename(&aside, old)?;
                Err(failure)
            }
        }
    }
}

/// `CONCEPT-METHOD`, by which people find a file among others; `None` if the edit does not say
/// them.
fn named(about: &About) -> Option<String> {
    let said = !about.method.is_empty() && !about.concepts.is_empty();
    said.then(|| slug(&format!("{} {}", about.concepts.join(" "), about.method)))
}

fn stem(loaded: &Loaded) -> String {
    loaded
        .file
        .file_stem()
        .map_or_else(|| "edit".into(), |s| s.to_string_lossy().into_owned())
}

/// `CONCEPT-METHOD-FORM` in the folder of a run; `NAME-FORM` beside any other edit.
fn beside(loaded: &Loaded, about: &About, folder: bool, form: &str) -> PathBuf {
    let run = loaded.file.file_name().is_some_and(|n| n == EDIT);
    let name = named(about).filter(|_| run).unwrap_or_else(|| stem(loaded));
    let parent = loaded.file.parent().unwrap_or(Path::new(""));
    parent.join(if folder {
        format!("{name}-{form}")
    } else {
        format!("{name}-{form}.safetensors")
    })
}
