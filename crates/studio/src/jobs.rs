//! The queue: a file for each job, so that whoever kills the studio loses nothing. A job that was at
//! work when it was killed is one that waits, and its run continues from what it kept.

#![expect(
    clippy::disallowed_types,
    reason = "the lock is std's; the file is opened through fs_err"
)]

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use scumble_study::{Failure, folder::write_file};
use serde::{Deserialize, Serialize};

use crate::{forms::Work, settings::OWN};

const JOBS: &str = "jobs";
const LOCK: &str = "lock";
/// Jobs that are kept: the oldest that have ended are forgotten, their runs stay.
const KEPT: usize = 200;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It waits for its turn.
    Waiting,
    /// It is at work.
    Running,
    /// It has done what was asked.
    Done,
    /// It could not.
    Failed,
    /// Somebody took it back.
    Cancelled,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) work: Work,
    pub(crate) state: State,
    /// What went wrong, and what to try.
    #[serde(default)]
    pub(crate) error: Option<(String, Option<String>)>,
    /// The run's folder or the file written, by its name in the studio's folder or as a path.
    #[serde(default)]
    pub(crate) result: Option<String>,
    /// Whether somebody has taken it back while it was at work.
    #[serde(default)]
    pub(crate) ending: bool,
}

/// All of them.
pub(crate) struct Jobs {
    folder: PathBuf,
    all: BTreeMap<u64, Job>,
    _lock: File,
}

impl Jobs {
    /// Those in a folder of runs, held for as long as this lives.
    pub(crate) fn open(runs: &Path) -> Result<Self, Failure> {
        let folder = runs.join(OWN).join(JOBS);
        fs_err::create_dir_all(&folder)?;
        let lock = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(runs.join(OWN).join(LOCK))?
            .into_parts()
            .0;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    Failure::new(format!("another studio is open on {}", runs.display()))
                        .with_hint("use that one, or give another --folder"),
                );
            }
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        let mut jobs = Self {
            folder,
            all: BTreeMap::new(),
            _lock: lock,
        };
        for entry in fs_err::read_dir(&jobs.folder)?.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            // A file that is no job is left where it is.
            let job = fs_err::read(&path).ok();
            if let Some(mut job) = job.and_then(|bytes| serde_json::from_slice::<Job>(&bytes).ok())
            {
                if job.state == State::Running {
                    job.state = match job.ending {
                        true => State::Cancelled,
                        false => State::Waiting,
                    };
                }
                jobs.all.insert(job.id, job);
            }
        }
        Ok(jobs)
    }

    /// Puts work at the end of the queue.
    pub(crate) fn add(&mut self, work: Work) -> Result<u64, Failure> {
        let id = self.all.last_key_value().map_or(1, |(last, _)| last + 1);
        self.keep(Job {
            id,
            work,
            state: State::Waiting,
            error: None,
            result: None,
            ending: false,
        })?;
        self.forget_oldest();
        Ok(id)
    }

    /// Keeps a job as it is now.
    pub(crate) fn keep(&mut self, job: Job) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(&job)
            .map_err(|e| Failure::new(format!("job {}: {e}", job.id)))?;
        write_file(&self.file(job.id), &text)?;
        self.all.insert(job.id, job);
        Ok(())
    }

    fn file(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:06}.json"))
    }

    fn forget_oldest(&mut self) {
        let ended = |job: &Job| !matches!(job.state, State::Waiting | State::Running);
        let surplus = self.all.len().saturating_sub(KEPT);
        let old: Vec<u64> = self
            .all
            .values()
            .filter(|job| ended(job))
            .map(|job| job.id)
            .take(surplus)
            .collect();
        for id in old {
            self.all.remove(&id);
            // If it stays it is read again next time, and forgotten then.
            let _ = fs_err::remove_file(self.file(id));
        }
    }

    /// The job of that number.
    pub(crate) fn get(&self, id: u64) -> Option<&Job> {
        self.all.get(&id)
    }

    /// All, the newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Job> {
        self.all.values().rev()
    }

    /// The next export that waits, or the next of everything else, now at work.
    pub(crate) fn next(&mut self, export: bool) -> Result<Option<Job>, Failure> {
        let is_next = |job: &&Job| job.state == State::Waiting && job.work.is_export() == export;
        let waiting = self.all.values().find(is_next);
        let Some(mut job) = waiting.cloned() else {
            return Ok(None);
        };
        job.state = State::Running;
        self.keep(job.clone())?;
        Ok(Some(job))
    }

    /// Takes back a job that waits, or asks one to end that is at work; whether it waited.
    pub(crate) fn take_back(&mut self, id: u64) -> Result<bool, Failure> {
        match self.all.get(&id) {
            // Killed before it has heard of it, it is not begun again.
            Some(job) if job.state == State::Running => {
                let job = Job {
                    ending: true,
                    ..job.clone()
                };
                self.keep(job)?;
                Ok(false)
            }
            Some(job) if job.state == State::Waiting => {
                let job = Job {
                    state: State::Cancelled,
                    ..job.clone()
                };
                self.keep(job)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::{Erase, Export};

    fn work(concept: &str) -> Work {
        Work::Erase(Erase {
            concept: concept.into(),
            method: "uce".into(),
            ..Erase::default()
        })
    }

    #[test]
    fn a_killed_studio_finds_its_queue_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = Jobs::open(folder.path()).unwrap();
        let first = jobs.add(work("church")).unwrap();
        let second = jobs.add(work("dog")).unwrap();
        assert_eq!(jobs.next(false).unwrap().unwrap().id, first);
        drop(jobs);
        let mut jobs = Jobs::open(folder.path()).unwrap();
        // The one that was at work comes first again.
        assert_eq!(jobs.next(false).unwrap().unwrap().id, first);
        assert!(jobs.take_back(second).unwrap());
        assert!(!jobs.take_back(first).unwrap());
        assert!(jobs.next(false).unwrap().is_none());
        assert_eq!(jobs.get(second).unwrap().state, State::Cancelled);
    }

    #[test]
    fn what_was_taken_back_at_work_is_not_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = Jobs::open(folder.path()).unwrap();
        let run = jobs.add(work("church")).unwrap();
        jobs.next(false).unwrap();
        assert!(!jobs.take_back(run).unwrap());
        drop(jobs);
        let mut jobs = Jobs::open(folder.path()).unwrap();
        assert_eq!(jobs.get(run).unwrap().state, State::Cancelled);
        assert!(jobs.next(false).unwrap().is_none());
    }

    #[test]
    fn an_export_waits_for_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = Jobs::open(folder.path()).unwrap();
        let run = jobs.add(work("church")).unwrap();
        let export = jobs.add(Work::Export(Export::default())).unwrap();
        assert_eq!(jobs.next(true).unwrap().unwrap().id, export);
        assert!(jobs.next(true).unwrap().is_none());
        assert_eq!(jobs.next(false).unwrap().unwrap().id, run);
    }

    #[test]
    fn two_studios_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Jobs::open(folder.path()).unwrap();
        let said = Jobs::open(folder.path()).err().unwrap().to_string();
        assert!(said.contains("another studio"), "{said}");
    }

    #[test]
    fn only_what_has_ended_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = Jobs::open(folder.path()).unwrap();
        for i in 0..KEPT + 5 {
            let id = jobs.add(work(&i.to_string())).unwrap();
            if i < 3 {
                jobs.take_back(id).unwrap();
            }
        }
        assert_eq!(jobs.newest().count(), KEPT + 2);
        assert!(jobs.get(1).is_none() && jobs.get(4).is_some());
    }
}
