//! Work handed to a scheduler: an evaluation as jobs whose parts run wherever the folder is shared.

mod jobs;
mod progress;
mod slurm;
mod status;

pub use self::{
    jobs::{Job, QueuedJob, Step, Submission, Word, jobs},
    progress::Progress,
    slurm::Slurm,
    status::{State, Status, Task, of_folder},
};

use std::path::{Path, PathBuf};

use self::jobs::RECORD;

use crate::{
    failure::{Failure, Result},
    folder::{SUBMITTED, write_file},
    record,
};

/// The script of each job, by its file's name.
///
/// # Errors
/// If Slurm's directives cannot name the folder.
pub fn scripts(slurm: &Slurm, folder: &Path, jobs: &[Job]) -> Result<Vec<(PathBuf, String)>> {
    slurm::expect_plain(folder)?;
    let place = folder.join(SUBMITTED);
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
    fs_err::create_dir_all(folder.join(SUBMITTED))?;
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
    let mut submitted: Vec<QueuedJob> = Vec::new();
    for (job, (script, _)) in jobs.iter().zip(written) {
        let handed = slurm.hand_over(&script, job, submitted.last());
        let handed = handed.inspect_err(|_| submitted.iter().for_each(Slurm::withdraw))?;
        submitted.push(QueuedJob {
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
    let kept = write_file(&folder.join(SUBMITTED).join(RECORD), &text);
    kept.inspect_err(|_| submission.jobs.iter().for_each(Slurm::withdraw))?;
    Ok(submission)
}
