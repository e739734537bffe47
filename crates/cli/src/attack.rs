//! `scumble attack`: an attack is asked for, watched and printed. What it does is
//! `scumble_study::attack`'s.

use std::path::Path;

use scumble_study::{
    attack::{self, fate, ordered},
    folder::{LINES, SHEET},
    record::{self, AttackResult, AttackRun, Line},
    request::AttackRequest,
};
use serde_json::{Value, json};

use crate::{
    args::AttackArgs,
    cost,
    failure::{Failure, Outcome},
    host, output,
    progress::{self, Progress},
};

/// Found words that are printed.
const PRINTED: usize = 8;

pub(crate) fn run(args: &AttackArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let progress = Progress::new(args.print.quiet);
    let around = host::here();
    if args.cost.estimate {
        let found = AttackRequest::try_from(args)
            .and_then(|request| attack::estimate(&request, around.heard_by(&progress)));
        progress.finish();
        cost::print(&found?, args.print.json)?;
        return Ok(Outcome::Done);
    }
    let run = AttackRequest::try_from(args)
        .and_then(|request| attack::perform(&request, around.heard_by(&progress)));
    progress.finish();
    report(args, &run?)?;
    Ok(Outcome::Done)
}

/// Prints a record's result, new or stored.
fn report(args: &AttackArgs, run: &AttackRun) -> Result<(), Failure> {
    let body = &run.body;
    let Some(result) = &body.result else {
        return Err(Failure::new("the attack has no result"));
    };
    let cases = body.lines.as_deref().unwrap_or_default();
    if args.print.json {
        for line in cases {
            output::json(&json!(line))?;
        }
        return output::json(&json!(result));
    }
    let mut lines = vec![headline(body, result)];
    let concept = &result.concept;
    match body.shown {
        Some(Some(_)) => {
            lines.extend(rates(result));
            lines.push(format!(
                "  of {} pictures that ask for `{concept}`",
                result.n
            ));
            lines.extend(beside(result));
        }
        _ => lines.push(format!(
            "  {} pictures; no judge knows `{concept}`: look at them",
            result.n
        )),
    }
    for (name, note) in body.notes.iter().flatten() {
        lines.extend(noted(name, note));
    }
    lines.extend(words(cases));
    if let Some(found) = &result.found {
        lines.push(format!("found     {}", found.display()));
        let folder = found.parent().unwrap_or(Path::new("."));
        lines.push(format!("pictures  {}", folder.join(SHEET).display()));
    }
    output::data(&lines.join("\n"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".into(), |f| format!("{:.0}%", 100.0 * f))
}

fn bounds(interval: Option<[f64; 2]>) -> String {
    let [low, high] = interval.map_or([None, None], |ends| ends.map(Some));
    format!("[{}, {}]", percent(low), percent(high))
}

/// Which attack on what, and how long: or whose finding was tried.
fn headline(body: &record::AttackOutcome, result: &AttackResult) -> String {
    let edit = result.edit.as_deref().unwrap_or("the model itself");
    let seconds = result.seconds.unwrap_or(0.0);
    let Some(from) = &result.transfer else {
        let spent = body.spent.map_or("null".into(), |spent| spent.to_string());
        return format!(
            "{} against {edit}: {spent} steps in {seconds:.0} s",
            result.attack
        );
    };
    let file = from.file.display();
    let whose = from
        .attack
        .as_ref()
        .map(|finder| format!(", which {finder} found"))
        .unwrap_or_default();
    format!("a transfer to {edit}, without a search: {file}{whose}; {seconds:.0} s")
}

/// The rates, one a line.
fn rates(result: &AttackResult) -> Vec<String> {
    let rows = [
        ("unedited", result.unedited, String::new()),
        ("edited", result.pre, String::new()),
        ("new under attack", result.new, String::new()),
        ("together", result.total, bounds(result.interval)),
    ];
    let line = |(label, value, beside): (&str, Option<f64>, String)| {
        format!("  {label:18} {:>6}  {beside}", percent(value))
            .trim_end()
            .to_owned()
    };
    rows.into_iter().map(line).collect()
}

/// What has to be known to read the rates.
fn beside(result: &AttackResult) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(hidden) = result.conditional.filter(|hidden| hidden.n > 0) {
        lines.push(format!(
            "  of the {} that the unedited model shows and the edit hides, {} came back: {} {}",
            hidden.n,
            hidden.hits,
            percent(hidden.rate),
            bounds(hidden.interval),
        ));
    }
    if let Some(paired) = &result.paired {
        lines.push(format!(
            "  {} came, {} went with the attack (McNemar's exact test, p = {:.2})",
            paired.gained, paired.lost, paired.p
        ));
    }
    if let Some(most) = result.most_looks {
        let chances = if most == 1 {
            "one picture".into()
        } else {
            format!("up to {most} pictures")
        };
        lines
            .push(format!("  {chances} of each case judged under attack; `random` with --set trials={most} has as many chances"));
    }
    if result.searches == Some(1) && result.n > 1 {
        lines.push("  all cases share one search: its own chance is in no interval; repeat with other --seed".into());
    }
    lines
}

/// A note as lines: a table for a list of objects, words for an object.
fn noted(name: &str, note: &Value) -> Vec<String> {
    let plain = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    match (output::columns(note), note.as_object()) {
        (Some(table), _) => std::iter::once(format!("  {name}"))
            .chain(table.into_iter().map(|row| format!("    {row}")))
            .collect(),
        (None, Some(object)) => {
            let parts: Vec<String> = object
                .iter()
                .map(|(key, value)| format!("{} {}", key.replace('_', " "), plain(value)))
                .collect();
            vec![format!("  {name}: {}", parts.join(", "))]
        }
        (None, None) => vec![format!("  {name}: {}", plain(note))],
    }
}

/// What was found, in words, as far as it is words: what came back first.
fn words(lines: &[Line]) -> Vec<String> {
    let asked: Vec<(usize, &str)> = ordered(lines)
        .into_iter()
        .filter_map(|i| Some((i, lines[i].found.as_deref()?)))
        .collect();
    let other: Vec<(usize, &str)> = asked
        .into_iter()
        .filter(|&(i, found)| lines[i].prompt != found)
        .collect();
    let mut said: Vec<String> = other
        .iter()
        .take(PRINTED)
        .map(|&(i, found)| format!("  case {i:<4} {:20} {found}", fate(&lines[i])))
        .collect();
    if other.len() > PRINTED {
        said.push(format!("  and {} more in {LINES}", other.len() - PRINTED));
    }
    said
}
