//! What can go wrong in an erasure.

/// The result of preparing or running an erasure.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A problem with a network or its files.
    #[error(transparent)]
    Nn(#[from] scumble_nn::Error),

    /// A problem with sampling.
    #[error(transparent)]
    Diffusion(#[from] scumble_diffusion::Error),

    /// A request that cannot be met.
    #[error("{problem}")]
    Input {
        /// What was expected and what was found.
        problem: String,
        /// What to try instead.
        hint: Option<String>,
    },

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
        Self::Input {
            problem: problem.into(),
            hint: None,
        }
    }

    /// The same error with something to try instead.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Input { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// What to try instead, to be printed as `hint: ...` after the error.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Nn(error) => error.hint(),
            Self::Diffusion(error) => error.hint(),
            Self::Input { hint, .. } => hint.as_deref(),
            Self::Diverged { .. } => Some("a smaller --lr keeps it finite"),
            Self::Interrupted => Some("the same command continues from here"),
        }
    }
}
