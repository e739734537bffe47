//! What can go wrong in an erasure.

/// The result of preparing or running an erasure.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A problem with the model, its files, or what was asked of it.
    #[error(transparent)]
    Model(#[from] scumble_nn::Error),

    /// Training left the finite numbers; what was stored before stays as it is.
    #[error("training diverged at step {step}, the loss is {loss}")]
    Diverged {
        /// The step, counted from 1.
        step: usize,
        /// What the loss was; finite where the step after it broke the weights.
        loss: f32,
    },

    /// The caller asked to stop; what was done so far is stored.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// A problem with what the user asked for.
    pub fn input(problem: impl Into<String>) -> Self {
        scumble_nn::Error::input(problem).into()
    }

    /// The same error with something to try instead.
    #[must_use]
    pub fn with_hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Model(error) => error.with_hint(text).into(),
            other => other,
        }
    }

    /// What to try instead, to be printed as `hint: ...` after the error.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Diverged { .. } => Some("a smaller --lr keeps it finite"),
            Self::Interrupted => Some("the same command continues from here"),
        }
    }
}
