//! Why something was not read as an edit.

use crate::failure::Failure;

/// Why an edit was not read.
pub(super) enum Read {
    Failed(Failure),
    /// A problem, which the argument's name goes before, and a hint.
    Refused(String, &'static str),
}

impl<E: Into<Failure>> From<E> for Read {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
