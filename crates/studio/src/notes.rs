//! What has been said of the runs at work, for a page that opens in the middle of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Lines that are kept.
const KEPT: usize = 60;
/// Pictures that are kept, the last of them.
const SHOWN: usize = 8;

/// How far a job at work is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
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
    /// The run whose edit is there already, while it is still looked at.
    pub(crate) made: Option<String>,
}

impl Live {
    /// After which steps there is a picture.
    pub(crate) fn drawn(&self) -> Vec<usize> {
        self.pictures.iter().map(|(done, _)| *done).collect()
    }
}

/// What is said of each job at work, by its number.
#[derive(Default)]
pub(crate) struct Notes {
    live: Mutex<BTreeMap<u64, Live>>,
}

impl Notes {
    /// Changes what is said of a job; what it is then.
    pub(crate) fn change(&self, job: u64, change: impl FnOnce(&mut Live)) -> Live {
        let mut all = self.all();
        let live = all.entry(job).or_default();
        change(live);
        let surplus = live.notes.len().saturating_sub(KEPT);
        live.notes.drain(..surplus);
        let surplus = live.pictures.len().saturating_sub(SHOWN);
        live.pictures.drain(..surplus);
        live.clone()
    }

    /// As it is now, of a job at work.
    pub(crate) fn now(&self, job: u64) -> Option<Live> {
        self.all().get(&job).cloned()
    }

    /// Drops what was said of a job that has ended.
    pub(crate) fn forget(&self, job: u64) {
        self.all().remove(&job);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
