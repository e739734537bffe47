//! What has been said of the run at work, for a page that opens in the middle of it.

use std::sync::{Mutex, PoisonError};

/// Lines that are kept.
const KEPT: usize = 60;

/// How far the job at work is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    pub(crate) job: u64,
    pub(crate) stage: String,
    pub(crate) done: usize,
    pub(crate) total: usize,
    pub(crate) message: String,
    /// The losses of this stage, thinned.
    pub(crate) losses: Vec<f64>,
    pub(crate) notes: Vec<String>,
    /// Seconds that the stage will still take, once that can be told.
    pub(crate) left: Option<f64>,
}

/// The present one.
#[derive(Default)]
pub(crate) struct Notes {
    live: Mutex<Live>,
}

impl Notes {
    /// Changes it; what it is then.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Live)) -> Live {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut live);
        let surplus = live.notes.len().saturating_sub(KEPT);
        live.notes.drain(..surplus);
        live.clone()
    }

    /// As it is now.
    pub(crate) fn now(&self) -> Live {
        self.change(|_| ())
    }
}
