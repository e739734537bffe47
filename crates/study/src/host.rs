//! What every run is given by whoever starts it: where things lie, what is built in, and who hears
//! of it.

use std::path::{Path, PathBuf};

use crate::{built_in::BuiltIn, listener::Listener};

/// Where a program runs: what it brings, and where things lie on its machine. A library asks no
/// environment for that.
pub struct Place {
    /// The checkpoint, the CLIP and the judges that are there without a file.
    pub built_in: BuiltIn,
    /// Where results of earlier computations lie by their content.
    pub cache: PathBuf,
    /// Where downloads of the Hugging Face Hub may lie, the first choice first.
    pub hub: Vec<PathBuf>,
}

impl Place {
    /// For a run that is heard by `listener`.
    pub fn heard_by<'a>(&'a self, listener: &'a dyn Listener) -> Host<'a> {
        Host {
            built_in: &self.built_in,
            cache: &self.cache,
            hub: &self.hub,
            listener,
        }
    }
}

/// The surroundings of one run.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// As in [`Place`].
    pub built_in: &'a BuiltIn,
    /// As in [`Place`].
    pub cache: &'a Path,
    /// As in [`Place`].
    pub hub: &'a [PathBuf],
    /// Who hears of the run and may stop it.
    pub listener: &'a dyn Listener,
}

impl<'a> Host<'a> {
    /// The same place with another listener.
    #[must_use]
    pub fn heard_by(self, listener: &'a dyn Listener) -> Self {
        Self { listener, ..self }
    }

    /// Says each of these to who listens.
    pub(crate) fn say(&self, notes: &[String]) {
        notes
            .iter()
            .for_each(|note| self.listener.note(&format!("note: {note}")));
    }

    /// Says that a finished run lies there already.
    pub(crate) fn say_finished(&self, folder: &Path) {
        self.listener.note(&format!(
            "{} is finished; here is its result",
            folder.display()
        ));
    }
}
