//! Work handed to a scheduler: an evaluation as jobs whose parts run wherever the folder is shared.

mod progress;
mod slurm;
mod status;

pub use self::{
    progress::Progress,
    slurm::Slurm,
    status::{State, Status, Task, of_folder},
};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Result},
    folder::write_file,
    record,
};

/// Where scripts, logs and the record of a submission lie, in the folder of the work.
pub(crate) const PLACE: &str = "slurm";
/// The record of a submission.
const RECORD: &str = "submission.json";

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
    fn folder(self, folder: &Path, task: usize, tasks: usize) -> PathBuf {
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
pub struct Submitted {
    /// What it does.
    pub step: Step,
    /// The scheduler's name for it.
    pub job: String,
    /// Its tasks.
    pub tasks: usize,
    /// Its script.
    pub script: PathBuf,
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
    pub jobs: Vec<Submitted>,
}

impl Submission {
    /// That of a folder, if something was handed over from it.
    ///
    /// # Errors
    /// If its record is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(PLACE).join(RECORD);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs_err::read_to_string(&path)?;
        let read = serde_json::from_str(&text);
        read.map(Some).map_err(|error| {
            Failure::new(format!("{}: {error}", path.display()))
                .with_hint("submit again: what has been done is not done again")
        })
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

/// The script of each job, by its file's name.
///
/// # Errors
/// If Slurm's directives cannot name the folder.
pub fn scripts(slurm: &Slurm, folder: &Path, jobs: &[Job]) -> Result<Vec<(PathBuf, String)>> {
    slurm::expect_plain(folder)?;
    let place = folder.join(PLACE);
    let script = |job: &Job| {
        let file = place.join(format!("{}.sbatch", job.step.name()));
        (file, slurm.script(job, folder, &place))
    };
    Ok(jobs.iter().map(script).collect())
}

/// Writes the scripts and hands the jobs over, each after the one before; what came of it is kept in
/// the folder. `plan` is the hash of what is to be done, where it is known.
///
/// # Errors
/// If jobs of an earlier submission are in the queue, another plan's result lies in the folder, it
/// cannot be written, or the scheduler refuses a job: those before it are withdrawn.
pub fn submit(
    slurm: &Slurm,
    folder: &Path,
    plan: Option<String>,
    overwrite: bool,
    jobs: &[Job],
) -> Result<Submission> {
    if let Some(before) = Submission::read(folder)?
        && Slurm::queue(&before.jobs).is_some_and(|queue| !queue.is_empty())
    {
        let ids: Vec<&str> = before.jobs.iter().map(|job| job.job.as_str()).collect();
        return Err(Failure::new(format!(
            "{}: jobs {} are in the queue",
            folder.display(),
            ids.join(", ")
        ))
        .with_hint("wait for them (`scumble status`), or take them out with scancel"));
    }
    // Where edits are still to be made, nothing can have been drawn with them.
    let found = record::head(&folder.join(crate::folder::RECORD))?;
    let there = found.and_then(|head| head.plan_hash);
    if !overwrite && there.is_some_and(|there| Some(&there) != plan.as_ref()) {
        return Err(
            Failure::new(format!("{} holds another plan's result", folder.display()))
                .with_hint("give another --output-dir, or --overwrite to replace it"),
        );
    }
    fs_err::create_dir_all(folder.join(PLACE))?;
    // What an earlier submission wrote of its progress is nothing to this one.
    for job in jobs {
        for task in 1..=job.tasks {
            Progress::forget(&job.step.folder(folder, task, job.tasks))?;
        }
    }
    let written = scripts(slurm, folder, jobs)?;
    for (script, text) in &written {
        write_file(script, text.as_bytes())?;
    }
    let mut submitted: Vec<Submitted> = Vec::new();
    for (job, (script, _)) in jobs.iter().zip(written) {
        let handed = slurm.hand_over(&script, job, submitted.last());
        let handed = handed.inspect_err(|_| submitted.iter().for_each(Slurm::withdraw))?;
        submitted.push(Submitted {
            step: job.step,
            job: handed,
            tasks: job.tasks,
            script,
        });
    }
    let submission = Submission {
        format: 1,
        plan,
        jobs: submitted,
    };
    let text = serde_json::to_vec_pretty(&submission).map_err(|e| Failure::new(e.to_string()))?;
    let kept = write_file(&folder.join(PLACE).join(RECORD), &text);
    kept.inspect_err(|_| submission.jobs.iter().for_each(Slurm::withdraw))?;
    Ok(submission)
}
