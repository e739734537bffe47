//! What can be wrong with a model's files or with what is asked of it, said so that a person can act
//! on it. Every crate above that reads files or takes requests has this error.

use std::path::PathBuf;

/// The result of reading, building, writing or using a model.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused; the message names the path.
    #[error("{0}")]
    Io(#[from] std::io::Error),

    /// A file that is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
        /// What to try instead.
        hint: Option<String>,
    },

    /// A configuration key that is absent, impossible or not supported.
    #[error("{}: `{key}`: {problem}", path.display())]
    Config {
        /// The configuration file, or the component it describes.
        path: PathBuf,
        /// The key as it stands in the file.
        key: String,
        /// What was expected and what was found.
        problem: String,
        /// What to try instead.
        hint: Option<String>,
    },

    /// The tensors of a component are not the ones its configuration asks for.
    #[error("{component}: {}", .problems.join("\n  "))]
    Tensors {
        /// Where the tensors came from: a file, or a component of a checkpoint.
        component: String,
        /// One line for each tensor that is missing, left over, or of another shape or dtype.
        problems: Vec<String>,
        /// What to try instead.
        hint: Option<String>,
    },

    /// A request that cannot be met, such as an unknown token or more steps than a schedule has.
    #[error("{problem}")]
    Input {
        /// What was expected and what was found.
        problem: String,
        /// What to try instead.
        hint: Option<String>,
    },
}

impl Error {
    /// A problem with a file.
    pub fn file(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// A problem with one key of a configuration.
    pub fn config(
        path: impl Into<PathBuf>,
        key: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Config {
            path: path.into(),
            key: key.into(),
            problem: problem.into(),
            hint: None,
        }
    }

    /// A problem with what the user asked for.
    pub fn input(problem: impl Into<String>) -> Self {
        Self::Input {
            problem: problem.into(),
            hint: None,
        }
    }

    /// The same error with something to try instead.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::File { hint, .. }
        | Self::Config { hint, .. }
        | Self::Tensors { hint, .. }
        | Self::Input { hint, .. } = &mut self
        {
            *hint = Some(text.into());
        }
        self
    }

    /// What to try instead, to be printed as `hint: ...` after the error.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::File { hint, .. }
            | Self::Config { hint, .. }
            | Self::Tensors { hint, .. }
            | Self::Input { hint, .. } => hint.as_deref(),
            Self::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space and run the same command again")
            }
            _ => None,
        }
    }
}
