//! What has been said of the run at work, for a page that opens in the middle of it.

use std::sync::{Arc, Mutex, PoisonError};

/// Lines that are kept.
const KEPT: usize = 60;
/// Pictures that are kept, the last of them.
const SHOWN: usize = 8;

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
    /// What the model in training draws of the concept, by steps: PNG files.
    pub(crate) pictures: Vec<(usize, Arc<Vec<u8>>)>,
    /// Seconds that the stage will still take, once that can be told.
    pub(crate) left: Option<f64>,
}

impl Live {
    /// After which steps there is a picture.
    pub(crate) fn drawn(&self) -> Vec<usize> {
        self.pictures.iter().map(|(done, _)| *done).collect()
    }
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
        let surplus = live.pictures.len().saturating_sub(SHOWN);
        live.pictures.drain(..surplus);
        live.clone()
    }

    /// As it is now.
    pub(crate) fn now(&self) -> Live {
        self.change(|_| ())
    }
}
