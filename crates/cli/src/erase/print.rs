//! What `scumble erase` says of a run: one object for programs, lines for people.

use std::path::Path;

use scumble_erase::{Change, Edit};
use scumble_eval::{Rate, Rates};
use serde_json::{Value, json};

use super::{EDIT, GRID, after::After, make::Cost, plan::Plan};
use crate::{args::EraseArgs, failure::Failure, judging::pooled, output};

/// The one object that `--json` prints.
pub(super) fn result(plan: &Plan, edit: &Path, cost: Cost, seen: &After) -> Value {
    let rates = seen.rates.as_ref();
    let fractions =
        |r: &Rates| json!({ "target": fraction(r.target), "others": fraction(r.others) });
    let names = plan.names();
    let known = |side: &[Option<Rates>]| -> Option<Rates> {
        let known: Vec<Rates> = side.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| pooled(&known))
    };
    let (before, after) = rates.map_or((None, None), |(b, a)| (known(b), known(a)));
    let mut result = json!({
        "method": plan.method.id,
        "concept": names.join("; "),
        "edit": edit,
        "seconds": cost.seconds,
        "before": before.as_ref().map(fractions),
        "after": after.as_ref().map(fractions),
        "n": before.map(|_| crate::judging::distinct(&names.iter().map(String::as_str).collect::<Vec<_>>())),
        "uncond_drift": seen.drift,
        "evaluations": cost.evaluations,
        "memory": cost.memory,
    });
    if let (true, Some((b, a))) = (names.len() > 1, rates) {
        let list = names.iter().zip(b.iter().zip(a)).map(|(name, (b, a))| {
            json!({
                "concept": name, "before": b.as_ref().map(fractions), "after": a.as_ref().map(fractions),
                "n": b.map(|r| json!({ "target": r.target.n, "others": r.others.n })),
            })
        });
        result["concepts"] = list.collect();
        // Several concepts: the mean over concepts rather than over pictures.
        for (key, side) in [("before", b), ("after", a)] {
            let known: Vec<&Rates> = side.iter().flatten().collect();
            if !known.is_empty() {
                let mean = |pick: &dyn Fn(&Rates) -> Rate| {
                    known
                        .iter()
                        .map(|r| pick(r))
                        .filter(|r| r.n > 0)
                        .map(Rate::fraction)
                        .sum::<f64>()
                        / known.iter().filter(|r| pick(r).n > 0).count().max(1) as f64
                };
                result[key] =
                    json!({ "target": mean(&|r| r.target), "others": mean(&|r| r.others) });
            }
        }
    }
    result
}

fn fraction(rate: Rate) -> Value {
    if rate.n == 0 {
        Value::Null
    } else {
        json!(rate.fraction())
    }
}

/// What the text output says beside the result.
pub(super) fn details(plan: &Plan, edit: &Edit, path: &Path, seen: &After) -> Value {
    let rates = seen.rates.as_ref();
    let objects = rates.map(|(b, a)| {
        let of = |side: &[Option<Rates>]| {
            side.iter()
                .flatten()
                .find_map(|r| r.target_objects)
                .map(|r| json!(r))
        };
        json!({ "before": of(b), "after": of(a) })
    });
    let numbers: usize = edit
        .changes
        .values()
        .map(|c| match c {
            Change::Value(v) | Change::Added(v) | Change::Difference(v) => v.len(),
            Change::LowRank(low) => low.down.len() + low.up.len(),
        })
        .sum();
    let guard = edit.about.guard.as_ref().map(crate::guards::describe);
    json!({
        "guard": guard, "tensors": edit.changes.len(), "numbers": numbers,
        "prompt": plan.concepts.first().and_then(|c| c.prompts.first()).map(|p| p.asks()), "target_objects": objects,
        "grid": path.with_file_name(GRID).exists().then(|| path.with_file_name(GRID)), "options": edit.about.options, "judged": seen.judged,
        "rates": rates.map(|(b, a)| json!({ "before": b, "after": a })),
    })
}

/// Prints a result, new or stored: data on stdout, and what to do next on stderr.
pub(super) fn report(args: &EraseArgs, result: &Value, details: &Value) -> Result<(), Failure> {
    if args.print.json {
        return output::json(result);
    }
    let mut lines = vec![headline(result, details), sentence(result, details)];
    lines.extend(table(result, details));
    if let Some(drift) = result["uncond_drift"].as_f64() {
        let label = "unconditional drift";
        lines.push(format!(
            "  {label:22} {:>17.2}%   how far it moved where nobody asked for anything",
            100.0 * drift
        ));
    }
    lines.push(format!(
        "edit      {}",
        result["edit"].as_str().unwrap_or_default()
    ));
    if let Some(grid) = details["grid"].as_str() {
        lines.push(format!("pictures  {grid}"));
    }
    output::data(&lines.join("\n"))?;
    if !args.print.quiet {
        next(args, result, details)
            .iter()
            .for_each(|line| output::note(line));
    }
    Ok(())
}

fn headline(result: &Value, details: &Value) -> String {
    let concept = result["concept"].as_str().unwrap_or_default();
    match details["guard"].as_str() {
        Some(guard) => format!("{concept}: guarded by {guard}"),
        None => format!(
            "{concept}: {} tensors, {} numbers changed in {:.0} s with {}",
            details["tensors"],
            counted(details["numbers"].as_f64().unwrap_or(0.0)),
            result["seconds"].as_f64().unwrap_or(0.0),
            result["method"].as_str().unwrap_or_default(),
        ),
    }
}

/// A number of numbers: `9216`, `410 k`, `1.5 M`.
fn counted(n: f64) -> String {
    match n {
        1e6.. => format!("{:.1} M", n / 1e6),
        1e4.. => format!("{:.0} k", n / 1e3),
        _ => format!("{n:.0}"),
    }
}

/// The result in words.
fn sentence(result: &Value, details: &Value) -> String {
    let concept = result["concept"].as_str().unwrap_or_default();
    if result["before"].is_null() {
        return match details["judged"] == true {
            true => {
                "  before and after: no judge knows this concept; look at the pictures".to_owned()
            }
            false => {
                "  before and after: not judged; draw with the edit and look, or bring a detector"
                    .to_owned()
            }
        };
    }
    format!(
        "  Asked for {concept}, it now shows that in {} of the pictures ({} before); other things are right in {} ({} before).",
        percent(&result["after"]["target"]),
        percent(&result["before"]["target"]),
        percent(&result["after"]["others"]),
        percent(&result["before"]["others"])
    )
}

fn percent(value: &Value) -> String {
    value
        .as_f64()
        .map_or("-".into(), |fraction| format!("{:.0}%", 100.0 * fraction))
}

/// The rates, before and after.
fn table(result: &Value, details: &Value) -> Vec<String> {
    if result["before"].is_null() {
        return Vec::new();
    }
    let mut lines = vec![format!("  {:22} {:>8} {:>8}", "", "before", "after")];
    let rows = [
        ("shows the concept", "target"),
        ("others still right", "others"),
    ];
    for (label, key) in rows {
        let n = result["n"][key].as_u64().unwrap_or(0);
        lines.push(format!(
            "  {label:22} {:>8} {:>8}   of {n} pictures",
            percent(&result["before"][key]),
            percent(&result["after"][key])
        ));
    }
    for side in result["concepts"].as_array().into_iter().flatten() {
        lines.push(format!(
            "    {:20} {:>8} {:>8}   others {} {}",
            side["concept"].as_str().unwrap_or_default(),
            percent(&side["before"]["target"]),
            percent(&side["after"]["target"]),
            percent(&side["before"]["others"]),
            percent(&side["after"]["others"]),
        ));
    }
    if let (Some(b), Some(a)) = (
        rate(&details["target_objects"]["before"]),
        rate(&details["target_objects"]["after"]),
    ) {
        lines.push(format!(
            "  {:22} {:>8} {:>8}   in prompts that name the style",
            "objects still right",
            percent(&b),
            percent(&a)
        ));
    }
    lines
}

/// What a person may want to do now.
fn next(args: &EraseArgs, result: &Value, details: &Value) -> Vec<String> {
    let edit = result["edit"].as_str().unwrap_or_default();
    // The folder stands for the edit in it.
    let folder = edit
        .strip_suffix(EDIT)
        .map_or(edit, |folder| folder.trim_end_matches('/'));
    let quoted = |text: &str| {
        if text.contains([' ', ';', '\'']) {
            format!("\"{text}\"")
        } else {
            text.to_owned()
        }
    };
    let model = args
        .model
        .model
        .as_ref()
        .map(|path| format!(" --model {}", quoted(&path.display().to_string())))
        .unwrap_or_default();
    let over = format!(
        "--edit {}{model}",
        quoted(if folder.is_empty() { "." } else { folder })
    );
    let prompt = details["prompt"].as_str().unwrap_or_default();
    let mut lines = vec![format!("scumble generate \"{prompt}\" {over}")];
    if let Some(grid) = details["grid"].as_str() {
        lines.push(format!("open {}", quoted(grid)));
    }
    lines.push(format!("scumble attack unlearndiff {over}"));
    lines
        .iter()
        .enumerate()
        .map(|(i, line)| format!("{}{line}", if i == 0 { "next      " } else { "          " }))
        .collect()
}

fn rate(value: &Value) -> Option<Value> {
    let (hits, n) = (value["hits"].as_f64()?, value["n"].as_f64()?);
    Some(json!(hits / n))
}
