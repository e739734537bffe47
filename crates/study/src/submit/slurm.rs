//! Slurm (Yoo et al. 2003): scripts for `sbatch`, and its other commands.
//!
//! A script hands on the signal that comes before the time limit, waits until the program has stored
//! what it has, and asks to be queued again. Cancelling a job is no reason to.

use std::{fmt::Write as _, path::Path, process::Command};

use super::jobs::{Job, QueuedJob, Step, Word};
use crate::failure::{Failure, Result};

/// What can be said of the machines, by the names that one says it by, and `sbatch`'s own.
const SETTINGS: [(&str, &str); 11] = [
    ("account", "--account="),
    ("partition", "--partition="),
    ("qos", "--qos="),
    ("time", "--time="),
    ("mem", "--mem="),
    ("cpus", "--cpus-per-task="),
    ("gpu", "--gres=gpu:"),
    ("constraint", "--constraint="),
    ("exclude", "--exclude="),
    ("nodelist", "--nodelist="),
    ("nice", "--nice="),
];

/// Seconds before the time limit at which a job is told: a step of a large model may take as long.
const NOTICE: u32 = 120;

/// A Slurm cluster, and what is asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slurm {
    /// Options of `sbatch`, ready to be written.
    options: Vec<String>,
}

impl Slurm {
    /// What `slurm` or `slurm:KEY=VALUE,...` says.
    ///
    /// # Errors
    /// If it is another scheduler, or a key that means nothing.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        if name != "slurm" {
            return Err(Failure::new(format!(
                "--submit {text}: expected slurm, or slurm:KEY=VALUE,..."
            )));
        }
        let mut options = Vec::new();
        for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
            let known = setting.split_once('=').and_then(|(key, value)| {
                let (_, option) = SETTINGS.iter().find(|(name, _)| *name == key.trim())?;
                // A line break would begin another line of the script.
                let value = value.trim();
                (!value.is_empty() && !value.contains(['\n', '\r', ' ']))
                    .then(|| format!("{option}{value}"))
            });
            let Some(option) = known else {
                let keys: Vec<&str> = SETTINGS.iter().map(|(key, _)| *key).collect();
                return Err(Failure::new(format!(
                    "--submit {text}: `{setting}` is no KEY=VALUE that means something here"
                ))
                .with_hint(format!("the keys are {}", keys.join(", "))));
            };
            options.push(option);
        }
        Ok(Self { options })
    }

    /// The script of a job.
    pub(super) fn script(&self, job: &Job, folder: &Path, place: &Path) -> String {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let step = job.step.name();
        let is_array = job.step != Step::Gather;
        let log = if is_array { "%A_%a" } else { "%j" };
        let mut lines = vec![
            format!("--job-name=scumble-{step}-{name}"),
            // `%` begins a pattern.
            format!(
                "--output={}/{log}.log",
                place.display().to_string().replace('%', "%%")
            ),
            "--open-mode=append".into(),
            "--requeue".into(),
            format!("--signal=B:USR1@{NOTICE}"),
        ];
        if is_array {
            lines.push(format!("--array=1-{}", job.tasks));
        }
        lines.extend(self.options.iter().cloned());
        let mut script = String::from("#!/bin/bash\n");
        for line in lines {
            let _ = writeln!(script, "#SBATCH {line}");
        }
        let words = job.command.iter().map(|word| match word {
            Word::Plain(word) => quoted(word),
            Word::Part => format!("\"$SLURM_ARRAY_TASK_ID\"/{}", job.tasks),
        });
        let words: Vec<String> = words.collect();
        let _ = write!(
            script,
            r#"
# Just before the time limit: let it store what it has, and queue it again.
again() {{
    kill -TERM "$child" 2>/dev/null
    wait "$child"
    scontrol requeue "$SLURM_JOB_ID" || exit 130
    exit 0
}}
# Cancelled: let it store what it has.
stop() {{
    kill -TERM "$child" 2>/dev/null
    wait "$child"
    exit 130
}}
trap again USR1
trap stop TERM INT

{} &
child=$!
wait "$child"
"#,
            words.join(" ")
        );
        script
    }

    /// Hands a script over, to run after another job; its id.
    ///
    /// # Errors
    /// If there is no `sbatch`, or it refuses.
    pub(super) fn hand_over(
        &self,
        script: &Path,
        job: &Job,
        after: Option<&QueuedJob>,
    ) -> Result<String> {
        let mut command = Command::new("sbatch");
        command.arg("--parsable");
        if let Some(before) = after {
            // Edits are needed; what a part of the drawing left undone the gathering job does.
            let kind = match job.step {
                Step::Gather => "afterany",
                _ => "afterok",
            };
            command.arg(format!("--dependency={kind}:{}", before.job));
            command.arg("--kill-on-invalid-dep=yes");
        }
        command.arg(script);
        let said = run(&mut command)?;
        // ID, or ID;CLUSTER.
        let id = said.trim().split(';').next().unwrap_or_default().to_owned();
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Failure::new(format!(
                "sbatch said `{}`, expected a job's id",
                said.trim()
            )));
        }
        Ok(id)
    }

    /// Takes a job out of the queue again.
    pub(super) fn withdraw(job: &QueuedJob) {
        let _ = Command::new("scancel").arg(&job.job).output();
    }

    /// The state and the reason of every task that is in the queue, by `JOB_TASK` or `JOB`; `None`
    /// where there is no `squeue`, or nobody answers it.
    pub(super) fn queue(jobs: &[QueuedJob]) -> Option<Vec<(String, String, String)>> {
        let ids: Vec<&str> = jobs.iter().map(|job| job.job.as_str()).collect();
        let output = Command::new("squeue")
            .args(["--noheader", "--array", "--format=%i|%T|%r"])
            .arg(format!("--jobs={}", ids.join(",")))
            .output()
            .ok()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            // Jobs that ended long ago: the queue does not know them any more.
            let forgotten = String::from_utf8_lossy(&output.stderr).contains("Invalid job id");
            return forgotten.then(Vec::new);
        }
        let row = |line: &str| {
            let mut parts = line.trim().splitn(3, '|').map(str::to_owned);
            Some((parts.next()?, parts.next()?, parts.next()?))
        };
        Some(said.lines().filter_map(row).collect())
    }
}

/// Sees that a folder's path can stand in a script's directives, which know no quotes.
///
/// # Errors
/// If it has a character that means something there.
pub(super) fn expect_plain(folder: &Path) -> Result<()> {
    let path = folder.display().to_string();
    let strange = |c: char| !(c.is_alphanumeric() || "-_./=,+@%:~".contains(c));
    match path.chars().find(|c| strange(*c)) {
        Some(c) => Err(Failure::new(format!(
            "--submit: {path:?} has a {c:?}, which a script for Slurm cannot name"
        ))
        .with_hint("give an --output-dir of letters, digits and - _ . / alone")),
        None => Ok(()),
    }
}

/// What a command says; its own words if it fails.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| {
        Failure::new(format!("{name}: {error}")).with_hint(
            "submit from a machine that has Slurm's commands; --dry-run prints the scripts",
        )
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("{name}: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_options_of_sbatch() {
        let slurm = Slurm::parse("slurm:account=lab,time=04:00:00,gpu=1,mem=16G").unwrap();
        let options = [
            "--account=lab",
            "--time=04:00:00",
            "--gres=gpu:1",
            "--mem=16G",
        ];
        assert_eq!(slurm.options, options);
        assert_eq!(Slurm::parse("slurm").unwrap(), Slurm::default());
        for bad in [
            "pbs",
            "slurm:colour=red",
            "slurm:time",
            "slurm:mem=1\n#SBATCH -x",
        ] {
            assert!(Slurm::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in [
            ("--edit", "--edit"),
            ("van gogh", "'van gogh'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn a_folder_that_directives_cannot_name_is_refused() {
        for bad in [
            "/my runs/a",
            "/it's",
            "/a#1",
            "/a\necho x",
            "/a\\b",
            "/a\"b",
        ] {
            assert!(expect_plain(Path::new(bad)).is_err(), "{bad}");
        }
        expect_plain(Path::new("/scratch/lab-1/50%/größe")).unwrap();
        let slurm = Slurm::default();
        let job = &super::super::jobs::jobs(&["scumble".into()], 0, 2)[0];
        let script = slurm.script(job, Path::new("/50%a"), Path::new("/50%a/slurm"));
        assert!(
            script.contains("--output=/50%%a/slurm/%A_%a.log\n"),
            "{script}"
        );
    }

    #[test]
    fn a_script_names_its_part_and_hands_signals_on() {
        let words = ["scumble", "evaluate", "--concept", "van gogh"];
        let words: Vec<String> = words.map(str::to_owned).into();
        let jobs = super::super::jobs::jobs(&words, 3, 8);
        let steps: Vec<_> = jobs
            .iter()
            .map(|job| (job.step.name(), job.tasks))
            .collect();
        assert_eq!(steps, [("erase", 3), ("draw", 8), ("gather", 1)]);
        let slurm = Slurm::parse("slurm:partition=gpu").unwrap();
        let script = |job: &Job| slurm.script(job, Path::new("/e/x"), Path::new("/e/x/slurm"));
        let draw = script(&jobs[1]);
        assert!(draw.contains("#SBATCH --array=1-8\n#SBATCH --partition=gpu\n"));
        assert!(draw.contains(
            "\nscumble evaluate --concept 'van gogh' --shard \"$SLURM_ARRAY_TASK_ID\"/8 &\n"
        ));
        assert!(draw.contains("--signal=B:USR1@120") && draw.contains("scontrol requeue"));
        let gather = script(&jobs[2]);
        assert!(!gather.contains("--array") && !gather.contains("--shard"));
    }
}
