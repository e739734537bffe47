//! The jobs of a piece of work, and what was handed over.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Result},
    folder::SUBMITTED,
};

/// Tasks of a job at most; Slurm's own limit is below that where nobody has raised it.
const MOST_TASKS: usize = 100_000;
/// The record of a submission.
pub(super) const RECORD: &str = "submission.json";

/// What one job of a submission does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Makes the edits that are to be judged, those of one concept in one task: they share what the
    /// model draws of it.
    Erase,
    /// Draws, looks and attacks: an evaluation's shards.
    Draw,
    /// Does what the others left, and gathers.
    Gather,
}

impl Step {
    /// Its name in scripts and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Erase => "erase",
            Self::Draw => "draw",
            Self::Gather => "gather",
        }
    }

    /// The folder of one of its tasks.
    pub(super) fn folder(self, folder: &Path, task: usize, tasks: usize) -> PathBuf {
        let shards = folder.join("shards");
        match self {
            Self::Erase => shards.join(format!("edits-{task}-of-{tasks}")),
            Self::Draw => shards.join(format!("{task}-of-{tasks}")),
            Self::Gather => folder.to_owned(),
        }
    }
}

/// A job: one command, as often as it has tasks.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it does.
    pub step: Step,
    /// The words of the command; a shell variable stands where its part is named.
    pub command: Vec<Word>,
    /// Tasks; more than one are an array.
    pub tasks: usize,
}

/// A word of a command in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// As it is.
    Plain(String),
    /// `I/N` of the task that runs it.
    Part,
}

/// A job that was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedJob {
    /// What it does.
    pub step: Step,
    /// The scheduler's name for it.
    pub job: String,
    /// Its tasks.
    pub tasks: usize,
    /// Its script.
    pub script: PathBuf,
}

impl QueuedJob {
    /// Whether a scheduler can have such a job.
    fn is_possible(&self) -> bool {
        let is_id = !self.job.is_empty() && self.job.bytes().all(|byte| byte.is_ascii_digit());
        is_id && (1..=MOST_TASKS).contains(&self.tasks)
    }
}

/// What was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The form of this record.
    pub format: u32,
    /// Hash of the evaluation's plan; none where it is only known once the edits are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The jobs, each after the one before.
    pub jobs: Vec<QueuedJob>,
}

impl Submission {
    /// That of a folder, if something was handed over from it.
    ///
    /// # Errors
    /// If its record is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(SUBMITTED).join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs_err::read_to_string(&path)?;
        let damaged = |problem: String| {
            Failure::new(format!("{}: {problem}", path.display()))
                .with_hint("submit again: what has been done is not done again")
        };
        let read: Self = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        match read.jobs.iter().find(|job| !job.is_possible()) {
            Some(job) => Err(damaged(format!(
                "job `{}` of {} tasks, expected a number and 1 to {MOST_TASKS}",
                job.job, job.tasks
            ))),
            None => Ok(Some(read)),
        }
    }
}

/// The jobs of an evaluation.
///
/// `command` is the evaluation's own, `concepts` those whose edits have to be made first.
pub fn jobs(command: &[String], concepts: usize, shards: usize) -> Vec<Job> {
    let with = |more: &[Word]| -> Vec<Word> {
        let own = command.iter().cloned().map(Word::Plain);
        own.chain(more.iter().cloned()).collect()
    };
    let flag = |name: &str| Word::Plain(name.to_owned());
    let mut jobs = Vec::new();
    if concepts > 0 {
        jobs.push(Job {
            step: Step::Erase,
            command: with(&[flag("--edits-only"), flag("--shard"), Word::Part]),
            tasks: concepts.min(shards),
        });
    }
    jobs.push(Job {
        step: Step::Draw,
        command: with(&[flag("--shard"), Word::Part]),
        tasks: shards,
    });
    jobs.push(Job {
        step: Step::Gather,
        command: with(&[]),
        tasks: 1,
    });
    jobs
}
