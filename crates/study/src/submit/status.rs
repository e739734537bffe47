//! What has become of what was handed over.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    jobs::{QueuedJob, Step, Submission},
    progress::Progress,
    slurm::Slurm,
};
use crate::{
    failure::{Failure, Result},
    folder::{RECORD, SUBMITTED, is_held},
    record,
};

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has ended as it should.
    Done,
    /// It is at work.
    Running,
    /// It waits for a machine, or for another job.
    Pending,
    /// It has ended otherwise.
    Failed,
}

/// One task of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Task {
    /// What it does.
    pub step: Step,
    /// Its number, from 1.
    pub task: usize,
    /// The scheduler's name for it; none where nobody was asked.
    pub job: Option<String>,
    /// How it stands.
    pub state: State,
    /// Why it waits, or what it said last.
    pub reason: Option<String>,
    /// How far it is, once it has begun.
    pub progress: Option<Progress>,
}

/// All tasks of a submission.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The tasks, in the order in which they were handed over.
    pub tasks: Vec<Task>,
    /// Seconds until the slowest that is at work has drawn all that it is to draw.
    pub seconds_left: Option<f64>,
}

impl Status {
    /// How many tasks stand so.
    pub fn count(&self, state: State) -> usize {
        self.tasks.iter().filter(|task| task.state == state).count()
    }

    /// Whether nothing more will happen by itself.
    pub fn is_over(&self) -> bool {
        self.count(State::Running) + self.count(State::Pending) == 0
    }
}

/// How the work of a folder stands.
///
/// # Errors
/// If nothing was handed over from it and no run lies in it, or a record is damaged.
pub fn of_folder(folder: &Path) -> Result<Status> {
    let tasks = match Submission::read(folder)? {
        Some(submission) => of_submission(folder, &submission)?,
        None => vec![of_run(folder)?],
    };
    let left = tasks.iter().filter(|task| task.state == State::Running);
    let seconds_left = left
        .filter_map(|task| task.progress.as_ref()?.seconds_left())
        .max_by(f64::total_cmp);
    Ok(Status {
        tasks,
        seconds_left,
    })
}

/// The one task of a run that nobody was handed.
fn of_run(folder: &Path) -> Result<Task> {
    let head = record::head(&folder.join(RECORD))?;
    let Some(head) = head else {
        return Err(Failure::new(format!(
            "{}: no run lies there, and nothing was submitted from it",
            folder.display()
        )));
    };
    let progress = Progress::read(folder);
    let state = match (head.finished == Some(true), is_held(folder)) {
        (true, _) => State::Done,
        (false, true) => State::Running,
        (false, false) => State::Pending,
    };
    let reason = (state == State::Pending).then(|| "stopped; the same command goes on".to_owned());
    Ok(Task {
        step: Step::Gather,
        task: 1,
        job: None,
        state,
        reason,
        progress,
    })
}

fn of_submission(folder: &Path, submission: &Submission) -> Result<Vec<Task>> {
    let queue = Slurm::queue(&submission.jobs);
    let mut tasks = Vec::new();
    for job in &submission.jobs {
        for number in 1..=job.tasks {
            let plan = submission.plan.as_deref();
            tasks.push(of_task(folder, job, number, plan, queue.as_deref())?);
        }
    }
    // What a part left undone the gathering job has done, if that has ended as it should.
    let is_done = |last: &Task| last.step == Step::Gather && last.state == State::Done;
    let whole = tasks.last().is_some_and(is_done);
    for task in tasks
        .iter_mut()
        .filter(|task| whole && task.state != State::Done)
    {
        task.state = State::Done;
        task.reason = Some("its work was done by the gathering job".into());
    }
    Ok(tasks)
}

fn of_task(
    folder: &Path,
    job: &QueuedJob,
    number: usize,
    plan: Option<&str>,
    queue: Option<&[(String, String, String)]>,
) -> Result<Task> {
    let name = match job.step {
        Step::Gather => job.job.clone(),
        _ => format!("{}_{number}", job.job),
    };
    let own = job.step.folder(folder, number, job.tasks);
    let progress = Progress::read(&own);
    // Edits have folders of their own, wherever they are; what is written here says they are made.
    let finished = match job.step {
        Step::Erase => progress.as_ref().is_some_and(Progress::finished),
        _ => record::head(&own.join(RECORD))?.is_some_and(|head| {
            let own = plan.is_none_or(|plan| head.plan_hash.as_deref() == Some(plan));
            head.finished == Some(true) && own
        }),
    };
    let queued = queue.and_then(|rows| rows.iter().find(|(id, ..)| *id == name));
    let (state, reason) = match (finished, queued) {
        (true, _) => (State::Done, None),
        (false, Some((_, state, reason))) => match state.as_str() {
            "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "SUSPENDED" | "CONFIGURING" => {
                (State::Pending, Some(reason.clone()))
            }
            "RUNNING" | "COMPLETING" | "STAGE_OUT" | "SIGNALING" => (State::Running, None),
            _ => (State::Failed, Some(state.to_lowercase())),
        },
        // Not in the queue any more, and not done.
        (false, None) if queue.is_some() => (State::Failed, last_words(folder, &name)),
        (false, None) if is_held(&own) => (State::Running, None),
        (false, None) => {
            let nobody = "no answer from squeue".to_owned();
            (State::Pending, Some(nobody))
        }
    };
    Ok(Task {
        step: job.step,
        task: number,
        job: Some(name),
        state,
        reason,
        progress,
    })
}

/// The last line of a task's log.
fn last_words(folder: &Path, name: &str) -> Option<String> {
    let log = folder.join(SUBMITTED).join(format!("{name}.log"));
    let text = fs_err::read(log).ok()?;
    // Enough of a long one's end.
    let end = &text[text.len().saturating_sub(4096)..];
    let end = String::from_utf8_lossy(end);
    let last = end.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(last.trim().to_owned())
}
