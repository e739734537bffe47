//! What the studio remembers of its user: the model that is worked on.

use std::path::{Path, PathBuf};

use scumble_study::{Failure, folder::write_file};
use serde::{Deserialize, Serialize};

/// Where the studio keeps what is its own.
pub(crate) const OWN: &str = ".studio";
const FILE: &str = "settings.json";
/// Models that are remembered.
const MODELS: usize = 12;

/// The model that is worked on, and those that were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// The present one; the built-in one if `None`.
    pub(crate) model: Option<PathBuf>,
    /// Others, the last one first.
    pub(crate) models: Vec<PathBuf>,
}

impl Settings {
    /// What was remembered; nothing if there is nothing yet.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(OWN).join(FILE);
        match fs_err::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Failure::new(format!("{}: {e}", path.display()))
                    .with_hint("remove the file; only the choice of a model is in it")
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e.into()),
        }
    }

    /// Chooses a model, and remembers it.
    pub(crate) fn choose(&mut self, folder: &Path, model: Option<PathBuf>) -> Result<(), Failure> {
        if let Some(path) = &model {
            self.models.retain(|other| other != path);
            self.models.insert(0, path.clone());
            self.models.truncate(MODELS);
        }
        self.model = model;
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        fs_err::create_dir_all(folder.join(OWN))?;
        write_file(&folder.join(OWN).join(FILE), &text)
    }
}
