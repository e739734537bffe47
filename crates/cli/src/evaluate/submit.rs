//! `--submit`: the evaluation that was typed, as jobs of a scheduler.

use std::path::{Path, PathBuf};

use scumble_study::{
    Host,
    evaluate::Evaluation,
    request::EvaluateRequest,
    submit::{self, Slurm, Step, Submission},
};
use serde_json::json;

use crate::{
    args::{self, EvaluateArgs},
    failure::{Failure, Outcome},
    output,
};

/// Flags that are about handing over, and whether a value follows.
const OWN: [(&str, bool); 4] = [
    ("--submit", true),
    ("--shards", true),
    ("--dry-run", false),
    ("--edits-only", false),
];

/// Checks the whole evaluation as `--plan` does, and hands it over, or prints how it would be.
pub(super) fn submit(
    args: &EvaluateArgs,
    scheduler: &str,
    request: EvaluateRequest,
    host: Host<'_>,
) -> Result<Outcome, Failure> {
    let slurm = Slurm::parse(scheduler)?;
    let given = request.output.folder.clone();
    let evaluation = Evaluation::open(request, true, host)?;
    let mut concepts: Vec<&str> = evaluation
        .pending
        .iter()
        .map(|one| one.concept.as_str())
        .collect();
    concepts.sort_unstable();
    concepts.dedup();
    // An evaluation of edits that are still to be made is another plan once they are.
    let folder = match (given, concepts.is_empty()) {
        (Some(folder), _) => folder,
        (None, true) => evaluation.folder.clone(),
        (None, false) => {
            return Err(Failure::new(
                "--submit: the folder is named after edits that have not been made yet",
            )
            .with_hint("name one with --output-dir"));
        }
    };
    let folder = absolute(&folder)?;
    let command = command(args.output.output_dir.is_none(), &folder)?;
    // Where edits are made part by part, as many parts as concepts with such.
    let all = evaluation.request.concepts.len();
    let erasing = if concepts.is_empty() { 0 } else { all };
    let mut jobs = submit::jobs(&command, erasing, args.shards.into());
    if args.edits_only {
        jobs.retain(|job| job.step == Step::Erase);
        if jobs.is_empty() {
            output::note("every edit is there: nothing is handed over");
            return Ok(Outcome::Done);
        }
    }
    if args.dry_run {
        let scripts = submit::scripts(&slurm, &folder, &jobs)?;
        for (file, script) in &scripts {
            match args.print.json {
                true => output::json(&json!({"script": file, "text": script}))?,
                false => output::data(&format!("# {}\n{script}", file.display()))?,
            }
        }
        return Ok(Outcome::Done);
    }
    let plan = (erasing == 0).then(|| evaluation.plan.hash());
    let overwrite = evaluation.request.output.overwrite;
    let submitted = submit::submit(&slurm, &folder, plan, overwrite, &jobs)?;
    print(args, &folder, &submitted)?;
    Ok(Outcome::Done)
}

fn print(args: &EvaluateArgs, folder: &Path, submitted: &Submission) -> Result<(), Failure> {
    if args.print.json {
        return output::json(&json!({"folder": folder, "jobs": submitted.jobs}));
    }
    for job in &submitted.jobs {
        let tasks = match job.tasks {
            1 => "1 task".to_owned(),
            n => format!("{n} tasks"),
        };
        output::data(&format!("{:<7} job {}, {tasks}", job.step.name(), job.job))?;
    }
    output::note(&format!("next    scumble status {}", folder.display()));
    Ok(())
}

/// The command that was typed, without what is about handing over: the same program, found where
/// this one was, into the same folder.
fn command(names_folder: bool, folder: &Path) -> Result<Vec<String>, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::new(format!("--submit: {e}")))?;
    let mut words = vec![text(program.into_os_string())?];
    let mut typed = args::normalised(std::env::args_os()).into_iter().skip(1);
    while let Some(word) = typed.next() {
        let word = text(word)?;
        let (flag, value) = word
            .split_once('=')
            .map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        match OWN.iter().find(|(own, _)| *own == flag) {
            Some((_, true)) if value.is_none() => drop(typed.next()),
            Some(_) => {}
            None => words.push(word),
        }
    }
    if names_folder {
        words.extend(["--output-dir".into(), text(folder.into())?]);
    }
    Ok(words)
}

fn text(word: std::ffi::OsString) -> Result<String, Failure> {
    let lost = |word: std::ffi::OsString| {
        Failure::new(format!("--submit: `{}` is no text", word.display()))
    };
    word.into_string().map_err(lost)
}

fn absolute(folder: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(folder).map_err(|e| Failure::new(format!("{}: {e}", folder.display())))
}
