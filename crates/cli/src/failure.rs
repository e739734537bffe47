//! How a command ends: its exit status and what it says.

use std::process::ExitCode;

use crate::output;

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

/// Why a command failed: what is wrong, what to try, and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    status: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            status: BAD_INPUT,
        }
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with the flag or file that it is about in front.
    #[must_use]
    pub(crate) fn of(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    pub(crate) fn interrupted() -> Self {
        Self {
            message: "interrupted".into(),
            hint: Some("the same command continues from here".into()),
            status: 130,
        }
    }

    /// What to try.
    #[cfg(test)]
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the user stopped the program.
    pub(crate) fn is_interrupt(&self) -> bool {
        self.status == 130
    }

    pub(crate) fn report(&self) -> ExitCode {
        output::error(&self.message, self.hint.as_deref());
        ExitCode::from(self.status)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let failure = Self::new(error.to_string());
        match error.kind() {
            std::io::ErrorKind::StorageFull => {
                failure.with_hint("free some space and run the same command again")
            }
            _ => failure,
        }
    }
}

macro_rules! from_library {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { message: error.to_string(), hint: error.hint().map(String::from), status: BAD_INPUT }
            }
        }
    )*};
}

from_library!(scumble_nn::Error, scumble_report::Error);

impl From<scumble_erase::Error> for Failure {
    fn from(error: scumble_erase::Error) -> Self {
        let status = match error {
            scumble_erase::Error::Interrupted => 130,
            scumble_erase::Error::Diverged { .. } => 1,
            _ => BAD_INPUT,
        };
        Self {
            message: error.to_string(),
            hint: error.hint().map(String::from),
            status,
        }
    }
}
