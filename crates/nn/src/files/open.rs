//! Opening a checkpoint, whatever it lies in.

use std::path::Path;

use super::{
    checkpoint::{Checkpoint, OpenOptions},
    folder, single,
    source::Source,
};
use crate::error::{Error, Result};

impl Checkpoint {
    /// Opens a diffusers folder or a single file.
    ///
    /// # Errors
    /// If something is missing, malformed, a pickle, or of another family; the error names it.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        if fs_err::metadata(path)?.is_dir() {
            if let Some(config) = &options.config {
                return Err(Error::input(format!(
                    "{} is a folder with its own configurations; {} would not be used",
                    path.display(),
                    config.display()
                )));
            }
            Self::read(&Source::dir(path), options)
        } else {
            single::read(path, options)
        }
    }

    /// Reads a diffusers folder on disk or compiled into the program.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn read(source: &Source, options: &OpenOptions) -> Result<Self> {
        folder::read(source, options)
    }
}
