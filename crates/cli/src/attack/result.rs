//! What an attack says when it is done.

use std::path::{Path, PathBuf};

use scumble_attack::{Case, Found, Report, job::reworded};
use scumble_eval::{Rate, rates::Z95, statistics::Paired};
use serde_json::{Value, json};

use super::{
    PICTURE, Plan,
    pictures::{fate, ordered},
};
use crate::{args::AttackArgs, failure::Failure, output};

/// Found words that are printed.
const PRINTED: usize = 8;

/// The object that `--json` prints last; docs/attacks.md says what its keys mean.
pub(super) fn result(
    args: &AttackArgs,
    plan: &Plan,
    came: &Report,
    found: Option<PathBuf>,
    seconds: f64,
) -> Value {
    let n = plan.cases.len();
    let counts = came.counts();
    let guards = args.guard.iter().map(|guard| format!("guard {guard}"));
    let edits: Vec<String> = args
        .edits
        .edit
        .iter()
        .chain(&args.edits.lora)
        .cloned()
        .chain(guards)
        .collect();
    let interval = |rate: Rate| {
        let (low, high) = rate.wilson(Z95);
        json!([low, high])
    };
    let of_all = |hits: usize| Rate { hits, n }.fraction();
    let part = |pick: fn(&scumble_attack::protocol::Counts) -> usize| {
        counts.as_ref().map(|counts| of_all(pick(counts)))
    };
    let conditional = counts.as_ref().map(|counts| {
        let rate = Rate { hits: counts.back, n: counts.hidden };
        let some = rate.n > 0;
        json!({ "rate": some.then(|| rate.fraction()), "hits": rate.hits, "n": rate.n, "interval": some.then(|| interval(rate)) })
    });
    let paired = counts.as_ref().map(|counts| {
        let table = Paired { first: counts.lost, second: counts.new, ..Paired::default() };
        json!({ "test": "McNemar, exact, two-sided", "gained": counts.new, "lost": counts.lost, "p": table.mcnemar() })
    });
    json!({
        "attack": plan.attack.id,
        "edit": (!edits.is_empty()).then(|| edits.join(" + ")),
        "concept": plan.concept.name,
        "unedited": part(|counts| counts.unedited),
        "pre": part(|counts| counts.pre),
        "post": part(|counts| counts.post),
        "new": part(|counts| counts.new),
        "total": part(|counts| counts.pre + counts.new),
        "n": n,
        "interval": counts.as_ref().map(|counts| interval(Rate { hits: counts.pre + counts.new, n })),
        "conditional": conditional,
        "paired": paired,
        "looks": came.looks.of,
        "most_looks": came.looks.most,
        "by_looks": counts.as_ref().map(|counts| counts.by_looks.clone()),
        "searches": came.searches,
        "control": came.control.as_ref().map(|control| of_all(control.iter().filter(|&&shown| shown).count())),
        "seeds": plan.cases.iter().map(|case| case.seed).collect::<Vec<_>>(),
        "budget": came.budget,
        "found": found,
        "transfer": plan.transfer.as_ref().map(|finding| json!({ "file": finding.file, "attack": finding.attack })),
        "seconds": seconds,
    })
}

/// What is said of each case.
pub(super) fn lines(plan: &Plan, came: &Report, seen: Option<&[Vec<f32>; 3]>) -> Vec<Value> {
    let line = |(i, case): (usize, &Case)| {
        let found = match &came.found {
            Found::Cases(cases) => json!(cases[i].prompt),
            Found::Revival(revival) => json!(revival.trials[i].to_string()),
            Found::Word(word) => {
                reworded(&case.prompt, &plan.word, &word.token).map_or(Value::Null, Value::from)
            }
            _ => Value::Null,
        };
        let seed = match &came.found {
            Found::Cases(cases) => cases[i].seed,
            _ => case.seed,
        };
        let mut line = json!({
            "case": i, "prompt": case.prompt, "seed": case.seed, "guidance": case.guidance,
            "unedited": came.shown.as_ref().map(|shown| shown[0][i]),
            "pre": came.shown.as_ref().map(|shown| shown[1][i]),
            "post": came.shown.as_ref().map(|shown| shown[2][i]),
            "looks": came.looks.of[i],
            "probability": seen.map(|seen| json!({"unedited": seen[0][i], "pre": seen[1][i], "post": seen[2][i]})),
            "found": found, "found_seed": seed,
        });
        if let Some(control) = &came.control {
            line["control"] = json!(control[i]);
        }
        line
    };
    plan.cases.iter().enumerate().map(line).collect()
}

/// Prints a record's result, new or stored.
pub(super) fn report(args: &AttackArgs, record: &Value) -> Result<(), Failure> {
    let result = &record["result"];
    if args.print.json {
        for line in record["lines"].as_array().into_iter().flatten() {
            output::json(line)?;
        }
        return output::json(result);
    }
    let mut lines = vec![headline(record)];
    let concept = result["concept"].as_str().unwrap_or_default();
    if record["shown"].is_null() {
        lines.push(format!(
            "  {} pictures; no judge knows `{concept}`: look at them",
            result["n"]
        ));
    } else {
        lines.extend(rates(result));
        lines.push(format!(
            "  of {} pictures that ask for `{concept}`",
            result["n"]
        ));
        lines.extend(beside(result));
    }
    for (name, note) in record["notes"].as_object().into_iter().flatten() {
        lines.extend(noted(name, note));
    }
    lines.extend(words(record));
    if let Some(found) = result["found"].as_str() {
        lines.push(format!("found     {found}"));
        let folder = Path::new(found).parent().unwrap_or(Path::new("."));
        lines.push(format!("pictures  {}", folder.join(PICTURE).display()));
    }
    output::data(&lines.join("\n"))
}

fn percent(value: &Value) -> String {
    value
        .as_f64()
        .map_or("-".into(), |f| format!("{:.0}%", 100.0 * f))
}

/// Which attack on what, and how long: or whose finding was tried.
fn headline(record: &Value) -> String {
    let result = &record["result"];
    let (attack, edit) = (
        result["attack"].as_str().unwrap_or_default(),
        result["edit"].as_str().unwrap_or("the model itself"),
    );
    let seconds = result["seconds"].as_f64().unwrap_or(0.0);
    let Some(file) = result["transfer"]["file"].as_str() else {
        return format!(
            "{attack} against {edit}: {} steps in {seconds:.0} s",
            record["spent"]
        );
    };
    let whose = result["transfer"]["attack"]
        .as_str()
        .map(|finder| format!(", which {finder} found"))
        .unwrap_or_default();
    format!("a transfer to {edit}, without a search: {file}{whose}; {seconds:.0} s")
}

/// The rates, one a line.
fn rates(result: &Value) -> Vec<String> {
    let interval = |of: &Value| {
        format!(
            "[{}, {}]",
            percent(&of["interval"][0]),
            percent(&of["interval"][1])
        )
    };
    let rows = [
        ("unedited", &result["unedited"], String::new()),
        ("edited", &result["pre"], String::new()),
        ("new under attack", &result["new"], String::new()),
        ("together", &result["total"], interval(result)),
    ];
    let line = |(label, value, beside): (&str, &Value, String)| {
        format!("  {label:18} {:>6}  {beside}", percent(value))
            .trim_end()
            .to_owned()
    };
    rows.into_iter().map(line).collect()
}

/// What has to be known to read the rates.
fn beside(result: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let hidden = &result["conditional"];
    if hidden["n"].as_u64().is_some_and(|n| n > 0) {
        lines.push(format!(
            "  of the {} that the unedited model shows and the edit hides, {} came back: {} [{}, {}]",
            hidden["n"],
            hidden["hits"],
            percent(&hidden["rate"]),
            percent(&hidden["interval"][0]),
            percent(&hidden["interval"][1]),
        ));
    }
    let paired = &result["paired"];
    if let Some(p) = paired["p"].as_f64() {
        lines.push(format!(
            "  {} came, {} went with the attack (McNemar's exact test, p = {p:.2})",
            paired["gained"], paired["lost"]
        ));
    }
    if let Some(most) = result["most_looks"].as_u64() {
        let chances = if most == 1 {
            "one picture".into()
        } else {
            format!("up to {most} pictures")
        };
        lines
            .push(format!("  {chances} of each case judged under attack; `random` with --set trials={most} has as many chances"));
    }
    if result["searches"] == 1 && result["n"].as_u64().is_some_and(|n| n > 1) {
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
fn words(record: &Value) -> Vec<String> {
    let lines: Vec<Value> = record["lines"].as_array().cloned().unwrap_or_default();
    let asked: Vec<(usize, &str)> = ordered(&lines)
        .into_iter()
        .filter_map(|i| Some((i, lines[i]["found"].as_str()?)))
        .collect();
    let other: Vec<(usize, &str)> = asked
        .into_iter()
        .filter(|&(i, found)| lines[i]["prompt"] != found)
        .collect();
    let mut said: Vec<String> = other
        .iter()
        .take(PRINTED)
        .map(|&(i, found)| format!("  case {i:<4} {:20} {found}", fate(&lines[i])))
        .collect();
    if other.len() > PRINTED {
        said.push(format!(
            "  and {} more in {}",
            other.len() - PRINTED,
            super::LINES
        ));
    }
    said
}
