//! What can go wrong with pictures, evaluations and reports.

use std::path::PathBuf;

/// The result of reading or writing pictures, evaluations and reports.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong. Who knows the name of a picture's file adds it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are no whole PNG, or one that is larger than a picture with text can sensibly be.
    #[error("not a readable PNG: {0}")]
    Png(#[from] ::png::DecodingError),

    /// A picture or a text that a PNG cannot hold.
    #[error("cannot be written as a PNG: {0}")]
    Encode(#[from] ::png::EncodingError),

    /// Pixels that are not as many as the picture's sides say.
    #[error("expected {expected} bytes for a picture of {width} x {height}, found {found}")]
    Pixels {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// `3 * width * height`.
        expected: usize,
        /// The bytes there are.
        found: usize,
    },

    /// A file or folder that cannot be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),

    /// A file that does not hold what it should.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
        /// What to try instead.
        hint: Option<String>,
    },

    /// A template that does not fit what is put into it, which is a bug.
    #[error("the page cannot be written: {0}")]
    Template(#[from] minijinja::Error),
}

impl Error {
    /// A problem with what a file holds.
    pub fn file(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// The same error with something to try instead.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::File { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// What to try instead, to be printed as `hint: ...` after the error.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::File { hint, .. } => hint.as_deref(),
            Self::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space and run the same command again")
            }
            _ => None,
        }
    }
}
