//! Why something could not be done: what is wrong, what to try, and how a run ends by it.

/// How a run ends that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Bad input, a file that cannot be read, a full disk.
    BadInput,
    /// It ran, and what came of it is of no use.
    Useless,
    /// Somebody asked to stop.
    Interrupted,
}

/// Why something failed: what is wrong, what to try, and how the run ends.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    end: End,
}

/// What can fail here.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Bad input, in these words.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            end: End::BadInput,
        }
    }

    /// The same with what to try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with the flag or file that it is about in front.
    #[must_use]
    pub fn of(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Somebody asked to stop.
    pub fn interrupted() -> Self {
        Self {
            message: "interrupted".into(),
            hint: Some("the same command continues from here".into()),
            end: End::Interrupted,
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// How the run ends.
    pub const fn end(&self) -> End {
        self.end
    }

    /// Whether somebody asked to stop.
    pub fn is_interrupt(&self) -> bool {
        self.end == End::Interrupted
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

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
                Self { message: error.to_string(), hint: error.hint().map(String::from), end: End::BadInput }
            }
        }
    )*};
}

from_library!(scumble_nn::Error, scumble_report::Error);

impl From<scumble_erase::Error> for Failure {
    fn from(error: scumble_erase::Error) -> Self {
        let end = match error {
            scumble_erase::Error::Interrupted => End::Interrupted,
            scumble_erase::Error::Diverged { .. } => End::Useless,
            _ => End::BadInput,
        };
        Self {
            message: error.to_string(),
            hint: error.hint().map(String::from),
            end,
        }
    }
}
