//! What an attack says when it is done.

use std::path::{Path, PathBuf};

use scumble_attack::{Case, Found, Report, job::reworded};
use scumble_eval::{Rate, rates::Z95, statistics::Paired};
use scumble_study::record::{
    self, AttackResult, AttackRun, Conditional, Line, McNemar, Probabilities, Transfer,
};
use scumble_study::request::AttackRequest;
use serde_json::{Value, json};

use super::{
    Plan,
    pictures::{fate, ordered},
};
use crate::{
    args::AttackArgs,
    failure::Failure,
    output,
    store::{LINES, SHEET},
};

/// Found words that are printed.
const PRINTED: usize = 8;

/// The object that `--json` prints last; docs/attacks.md says what its keys mean.
pub(super) fn result(
    request: &AttackRequest,
    plan: &Plan,
    came: &Report,
    found: Option<PathBuf>,
    seconds: f64,
) -> AttackResult {
    let n = plan.cases.len();
    let counts = came.counts();
    let guards = request.guards.iter().map(|guard| format!("guard {guard}"));
    let edits: Vec<String> = request
        .edits
        .iter()
        .chain(&request.loras)
        .cloned()
        .chain(guards)
        .collect();
    let interval = |rate: Rate| {
        let (low, high) = rate.wilson(Z95);
        [low, high]
    };
    let of_all = |hits: usize| Rate { hits, n }.fraction();
    let part = |pick: fn(&scumble_attack::protocol::Counts) -> usize| {
        counts.as_ref().map(|counts| of_all(pick(counts)))
    };
    AttackResult {
        attack: plan.attack.id.into(),
        edit: (!edits.is_empty()).then(|| edits.join(" + ")),
        concept: plan.concept.name.clone(),
        unedited: part(|counts| counts.unedited),
        pre: part(|counts| counts.pre),
        post: part(|counts| counts.post),
        new: part(|counts| counts.new),
        total: part(|counts| counts.pre + counts.new),
        n,
        interval: counts.as_ref().map(|counts| {
            interval(Rate {
                hits: counts.pre + counts.new,
                n,
            })
        }),
        conditional: counts.as_ref().map(|counts| {
            let rate = Rate {
                hits: counts.back,
                n: counts.hidden,
            };
            let some = rate.n > 0;
            Conditional {
                rate: some.then(|| rate.fraction()),
                hits: rate.hits,
                n: rate.n,
                interval: some.then(|| interval(rate)),
            }
        }),
        paired: counts.as_ref().map(|counts| {
            let table = Paired {
                first: counts.lost,
                second: counts.new,
                ..Paired::default()
            };
            McNemar {
                test: "McNemar, exact, two-sided".into(),
                gained: counts.new,
                lost: counts.lost,
                p: table.mcnemar(),
            }
        }),
        looks: came.looks.of.clone(),
        most_looks: Some(came.looks.most as u64),
        by_looks: counts.as_ref().map(|counts| counts.by_looks.clone()),
        searches: Some(came.searches as u64),
        control: came
            .control
            .as_ref()
            .map(|control| of_all(control.iter().filter(|&&shown| shown).count())),
        seeds: plan.cases.iter().map(|case| case.seed).collect(),
        budget: Some(came.budget as u64),
        found,
        transfer: plan.transfer.as_ref().map(|finding| Transfer {
            file: finding.file.clone(),
            attack: finding.attack.clone(),
        }),
        seconds: Some(seconds),
    }
}

/// What is said of each case.
pub(super) fn lines(plan: &Plan, came: &Report, seen: Option<&[Vec<f32>; 3]>) -> Vec<Line> {
    let line = |(case, of): (usize, &Case)| {
        let found = match &came.found {
            Found::Cases(cases) => Some(cases[case].prompt.clone()),
            Found::Revival(revival) => Some(revival.trials[case].to_string()),
            Found::Word(word) => reworded(&of.prompt, &plan.word, &word.token).ok(),
            _ => None,
        };
        let found_seed = match &came.found {
            Found::Cases(cases) => cases[case].seed,
            _ => of.seed,
        };
        let shows = |side: usize| came.shown.as_ref().map(|shown| shown[side][case]);
        Line {
            case,
            prompt: of.prompt.clone(),
            seed: of.seed,
            guidance: of.guidance,
            unedited: shows(0),
            pre: shows(1),
            post: shows(2),
            looks: came.looks.of[case],
            probability: seen.map(|seen| {
                let of = |side: usize| Some(f64::from(seen[side][case]));
                Probabilities {
                    unedited: of(0),
                    pre: of(1),
                    post: of(2),
                }
            }),
            found,
            found_seed,
            control: came.control.as_ref().map(|control| control[case]),
        }
    };
    plan.cases.iter().enumerate().map(line).collect()
}

/// Prints a record's result, new or stored.
pub(super) fn report(args: &AttackArgs, run: &AttackRun) -> Result<(), Failure> {
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
