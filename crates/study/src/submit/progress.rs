//! How far a part of some work is, written down for whoever asks elsewhere.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{failure::Result, folder::write_file};

const FILE: &str = "progress.json";

/// How far a part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units of work that are done, and all of them.
    pub done: usize,
    /// All of them.
    pub total: usize,
    /// Of those that are done, how many were so when this run began.
    pub before: usize,
    /// Seconds that this run has taken.
    pub seconds: f64,
    /// When this was written, in seconds since 1970.
    pub at: u64,
}

impl Progress {
    /// Writes it down, in the folder of its part.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let stamped = Self {
            at: now.map_or(0, |now| now.as_secs()),
            ..*self
        };
        let text = serde_json::to_vec(&stamped).unwrap_or_default();
        fs_err::create_dir_all(folder)?;
        write_file(&folder.join(FILE), &text)
    }

    /// Takes away what was written down.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub(super) fn forget(folder: &Path) -> Result<()> {
        match fs_err::remove_file(folder.join(FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What was written down last; `None` if nothing was, or it cannot be read.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let text = fs_err::read(folder.join(FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether all of it is done.
    pub fn finished(&self) -> bool {
        self.done >= self.total
    }

    /// Seconds that the rest will take at the pace of this run; `None` before anything is done in it.
    pub fn seconds_left(&self) -> Option<f64> {
        let own = self.done.saturating_sub(self.before);
        let each = self.seconds / own as f64;
        (own > 0 && each.is_finite()).then(|| each * self.total.saturating_sub(self.done) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_this_run_did() {
        let at = |done, before| Progress {
            done,
            total: 10,
            before,
            seconds: 6.0,
            at: 0,
        };
        assert_eq!(at(7, 4).seconds_left(), Some(6.0));
        assert_eq!(at(4, 4).seconds_left(), None);
        assert!(at(10, 4).finished() && !at(9, 4).finished());
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let progress = Progress {
            done: 3,
            total: 9,
            before: 1,
            seconds: 2.5,
            at: 0,
        };
        progress.write(folder.path()).unwrap();
        let read = Progress::read(folder.path()).unwrap();
        assert!(read.at > 1_700_000_000);
        assert_eq!(Progress { at: 0, ..read }, progress);
    }
}
