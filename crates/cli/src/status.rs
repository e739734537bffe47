//! `scumble status`: how the work of a folder stands, wherever it is done.

use std::{io::IsTerminal, time::Duration};

use scumble_study::submit::{State, Status, of_folder};
use serde_json::json;

use crate::{
    args::StatusArgs,
    failure::{Failure, Outcome},
    output, progress,
};

/// How often somebody who follows is told.
const EVERY: Duration = Duration::from_secs(5);
/// Tasks that are listed one by one; of more, those that are at work or failed.
const LISTED: usize = 24;

pub(crate) fn run(args: &StatusArgs) -> Result<Outcome, Failure> {
    if args.follow {
        progress::listen_for_interrupts()?;
    }
    loop {
        let status = of_folder(&args.folder)?;
        if args.follow && std::io::stdout().is_terminal() && !args.print.json {
            // A page anew, as `watch` does.
            output::data("\x1b[H\x1b[2J")?;
        }
        print(args, &status)?;
        if !args.follow || status.is_over() {
            let failed = status.count(State::Failed) > 0;
            return Ok(if failed { Outcome::No } else { Outcome::Done });
        }
        let began = std::time::Instant::now();
        while began.elapsed() < EVERY {
            if progress::interrupted() {
                return Err(scumble_study::Failure::interrupted());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn print(args: &StatusArgs, status: &Status) -> Result<(), Failure> {
    let counts = [State::Done, State::Running, State::Pending, State::Failed];
    if args.print.json {
        return output::json(&json!({
            "done": status.count(State::Done),
            "running": status.count(State::Running),
            "pending": status.count(State::Pending),
            "failed": status.count(State::Failed),
            "seconds_left": status.seconds_left,
            "tasks": status.tasks,
        }));
    }
    let few = status.tasks.len() <= LISTED;
    for task in &status.tasks {
        if !few && matches!(task.state, State::Done | State::Pending) {
            continue;
        }
        let far = task.progress.map(|progress| {
            let share = 100.0 * progress.done as f64 / progress.total.max(1) as f64;
            format!("{share:>3.0}%")
        });
        let job = task.job.as_deref().unwrap_or("-");
        let reason = task.reason.as_deref().unwrap_or_default();
        let line = format!(
            "{:<7} {:>4}  {:<14} {:<8} {:>4}  {reason}",
            task.step.name(),
            task.task,
            job,
            word(task.state),
            far.unwrap_or_default(),
        );
        output::data(line.trim_end())?;
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|state| (state, status.count(state)))
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {}", word(state)))
        .collect();
    let left = status.seconds_left.map_or_else(String::new, |seconds| {
        format!("; about {} left", time(seconds))
    });
    output::data(&format!("{}{left}", counts.join(", ")))
}

fn word(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Running => "running",
        State::Pending => "pending",
        State::Failed => "failed",
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
