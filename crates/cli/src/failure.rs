//! How a command ends: its exit status.

use std::process::ExitCode;

use scumble_study::End;
pub(crate) use scumble_study::Failure;

/// Bad input or usage, a full disk.
pub(crate) const BAD_INPUT: u8 = 2;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done.
    Done,
    /// It ran and the answer is no.
    No,
    /// The arguments were not understood; clap has said why.
    Usage,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::No => 1,
            Outcome::Usage => BAD_INPUT,
        })
    }
}

/// The exit status of a command that failed.
pub(crate) fn status(failure: &Failure) -> ExitCode {
    ExitCode::from(match failure.end() {
        End::BadInput => BAD_INPUT,
        End::Useless => 1,
        End::Interrupted => 130,
    })
}
