//! `scumble runs`: what lies in the folders that runs leave, oldest first.

use std::path::{Path, PathBuf};

use scumble_study::{
    folder::{RECORD, is_held},
    record::{self, Sides},
    request::RUNS,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{
    args::RunsArgs,
    failure::{Failure, Outcome},
    output,
};

/// Lists a folder's runs as a table, or as an array of objects. Of one that is damaged it says what
/// is wrong.
pub(crate) fn run(args: &RunsArgs) -> Result<Outcome, Failure> {
    let folder = args.folder.clone().unwrap_or_else(|| RUNS.into());
    if !folder.is_dir() && args.folder.is_some() {
        return Err(Failure::new(format!(
            "{}: there is no such folder",
            folder.display()
        )));
    }
    let rows: Vec<Value> = found(&folder)?.iter().map(|path| row(path)).collect();
    if args.print.json {
        output::json(&Value::Array(rows))?;
        return Ok(Outcome::Done);
    }
    match output::columns(&Value::Array(rows)) {
        Some(lines) => output::data(&lines.join("\n"))?,
        None if args.print.quiet => {}
        None => output::note(&format!("note: no run lies in {}", folder.display())),
    }
    Ok(Outcome::Done)
}

/// The folder itself where it is a run's, or those in it, by the time of their records and then by
/// name.
fn found(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let is_run = |path: &PathBuf| path.join(RECORD).exists();
    if is_run(&folder.to_owned()) {
        return Ok(vec![folder.to_owned()]);
    }
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut runs: Vec<PathBuf> = fs_err::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    runs.retain(is_run);
    let written = |path: &PathBuf| {
        let record = fs_err::metadata(path.join(RECORD));
        record.and_then(|record| record.modified()).ok()
    };
    runs.sort_by_key(|path| (written(path), path.clone()));
    Ok(runs)
}

/// What is shown of a record, whatever the command and the version that wrote it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Overview {
    finished: Option<bool>,
    plan: Plan,
    result: Option<Outcomes>,
    /// The pictures of `generate`.
    pictures: Option<Vec<IgnoredAny>>,
    /// The numbers that an evaluation lacks.
    missing: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Plan {
    command: Option<String>,
    concepts: Vec<Name>,
    concept: Option<Name>,
    method: Option<String>,
    attack: Option<String>,
    /// What an evaluation judges.
    subjects: Vec<IgnoredAny>,
}

/// A concept, by its name alone or as an object that has one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Plain(String),
    Of { name: String },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcomes {
    before: Option<Sides>,
    after: Option<Sides>,
    uncond_drift: Option<f64>,
    pre: Option<f64>,
    total: Option<f64>,
    n: Value,
}

/// What a run's record says of it.
fn row(path: &Path) -> Value {
    let at = path.join(RECORD);
    let read = || -> Result<Value, Failure> {
        let all: Overview = record::state(&at)?.unwrap_or_default();
        let Some(command) = &all.plan.command else {
            return Err(record::missing(&at, "plan.command"));
        };
        let state = match (all.finished == Some(true), is_held(path)) {
            (true, _) => "finished",
            (false, true) => "running",
            (false, false) => "unfinished",
        };
        let plan = &all.plan;
        let result = match state {
            "finished" => result(command, &all),
            _ => None,
        };
        Ok(json!({
            "folder": path, "command": command, "concept": concepts(plan),
            "method": plan.method.as_ref().or(plan.attack.as_ref()), "state": state, "result": result,
        }))
    };
    read().unwrap_or_else(|failure| {
        json!({
            "folder": path, "command": null, "concept": null, "method": null, "state": "damaged", "result": failure.to_string(),
        })
    })
}

/// The names of a plan's concepts.
fn concepts(plan: &Plan) -> Option<String> {
    let name = |one: &Name| match one {
        Name::Plain(name) | Name::Of { name } => name.clone(),
    };
    let names: Vec<String> = match plan.concepts.as_slice() {
        [] => plan.concept.iter().map(name).collect(),
        all => all.iter().map(name).collect(),
    };
    (!names.is_empty()).then(|| names.join("; "))
}

/// What came of it, in a line.
fn result(command: &str, run: &Overview) -> Option<String> {
    let nothing = Outcomes::default();
    let result = run.result.as_ref().unwrap_or(&nothing);
    let percent = |value: Option<f64>| value.map(|x| format!("{:.1}%", 100.0 * x));
    let change = |what: &str, before: Option<f64>, after: Option<f64>| {
        Some(format!(
            "{what} {} -> {}",
            percent(before)?,
            percent(after)?
        ))
    };
    match command {
        "erase" => {
            let [before, after] = [result.before, result.after].map(Option::unwrap_or_default);
            let shown = change("shown", before.target, after.target);
            let others = change("others right", before.others, after.others);
            let drift = percent(result.uncond_drift).map(|drift| format!("drift {drift}"));
            let said: Vec<String> = [shown, others, drift].into_iter().flatten().collect();
            (!said.is_empty()).then(|| said.join(", "))
        }
        "attack" => {
            let shown = change("shown", result.pre, result.total);
            Some(match (shown, result.n.as_u64()) {
                (Some(shown), Some(n)) => format!("{shown} of {n}"),
                (Some(shown), None) => shown,
                (None, Some(n)) => format!("{n} pictures, nobody judged"),
                (None, None) => return None,
            })
        }
        "generate" => Some(format!(
            "{} pictures",
            run.pictures.as_ref().map_or(0, Vec::len)
        )),
        "evaluate" => Some(format!(
            "{} subjects, {} numbers missing",
            run.plan.subjects.len(),
            run.missing.unwrap_or(0)
        )),
        _ => None,
    }
}
