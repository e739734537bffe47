//! What can go wrong between a model's files and a picture.

use std::path::PathBuf;

/// The result of building a schedule or running a sampler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A problem with a network or its files.
    #[error(transparent)]
    Nn(#[from] scumble_nn::Error),

    /// A configuration key that is absent, impossible or not supported.
    #[error("{}: `{key}`: {problem}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key as it stands in the file.
        key: String,
        /// What was expected and what was found.
        problem: String,
        /// What to try instead.
        hint: Option<String>,
    },

    /// A request that cannot be met, such as more steps than the schedule has.
    #[error("{problem}")]
    Input {
        /// What was expected and what was found.
        problem: String,
        /// What to try instead.
        hint: Option<String>,
    },
}

impl Error {
    /// A problem with what the user asked for.
    pub fn input(problem: impl Into<String>) -> Self {
        Self::Input {
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

    /// The same error with something to try instead.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Config { hint, .. } | Self::Input { hint, .. } => *hint = Some(text.into()),
            Self::Nn(_) => {}
        }
        self
    }

    /// What to try instead, to be printed as `hint: ...` after the error.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Config { hint, .. } | Self::Input { hint, .. } => hint.as_deref(),
            Self::Nn(inner) => inner.hint(),
        }
    }
}
