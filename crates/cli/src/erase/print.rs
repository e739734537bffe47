//! What `scumble erase` says of a run: one object for programs, lines for people.

use std::path::Path;

use scumble_erase::{Change, Edit};
use scumble_eval::{Rate, Rates};
use scumble_study::record::{
    BeforeAfter, Cost, Details, EraseResult, OneConcept, PictureCounts, Sides,
};
use serde_json::json;

use super::{after::After, plan::Plan};
use crate::{
    args::EraseArgs,
    failure::Failure,
    judging::pooled,
    output,
    store::{EDIT, GRID},
};

/// The one object that `--json` prints.
pub(super) fn result(plan: &Plan, edit: &Path, cost: Cost, seen: &After) -> EraseResult {
    let rates = seen.rates.as_ref();
    let names = plan.names();
    let known = |side: &[Option<Rates>]| -> Option<Rates> {
        let known: Vec<Rates> = side.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| pooled(&known))
    };
    let (before, after) = rates.map_or((None, None), |(b, a)| (known(b), known(a)));
    let mut result = EraseResult {
        method: plan.method.id.into(),
        concept: names.join("; "),
        edit: edit.to_owned(),
        seconds: cost.seconds,
        before: before.as_ref().map(fractions),
        after: after.as_ref().map(fractions),
        n: before.map(|_| {
            crate::judging::distinct(&names.iter().map(String::as_str).collect::<Vec<_>>())
        }),
        uncond_drift: seen.drift,
        evaluations: cost.evaluations,
        memory: cost.memory,
        concepts: None,
    };
    if let (true, Some((b, a))) = (names.len() > 1, rates) {
        let list = names
            .iter()
            .zip(b.iter().zip(a))
            .map(|(name, (b, a))| OneConcept {
                concept: name.clone(),
                before: b.as_ref().map(fractions),
                after: a.as_ref().map(fractions),
                n: b.map(|r| PictureCounts {
                    target: r.target.n,
                    others: r.others.n,
                }),
            });
        result.concepts = Some(list.collect());
        // Several concepts: the mean over concepts rather than over pictures.
        for (place, side) in [(&mut result.before, b), (&mut result.after, a)] {
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
                *place = Some(Sides {
                    target: Some(mean(&|r| r.target)),
                    others: Some(mean(&|r| r.others)),
                });
            }
        }
    }
    result
}

fn fractions(rates: &Rates) -> Sides {
    let of = |rate: Rate| (rate.n > 0).then(|| rate.fraction());
    Sides {
        target: of(rates.target),
        others: of(rates.others),
    }
}

/// What the text output says beside the result.
pub(super) fn details(plan: &Plan, edit: &Edit, path: &Path, seen: &After) -> Details {
    let rates = seen.rates.as_ref();
    let objects = |side: &[Option<Rates>]| side.iter().flatten().find_map(|r| r.target_objects);
    let numbers: usize = edit
        .changes
        .values()
        .map(|c| match c {
            Change::Value(v) | Change::Added(v) | Change::Difference(v) => v.len(),
            Change::LowRank(low) => low.down.len() + low.up.len(),
        })
        .sum();
    let grid = path.with_file_name(GRID);
    let first = plan.concepts.first().and_then(|c| c.prompts.first());
    Details {
        guard: edit.about.guard.as_ref().map(crate::guards::describe),
        tensors: edit.changes.len(),
        numbers,
        prompt: first.map(|p| p.asks().to_owned()),
        target_objects: rates.map(|(b, a)| BeforeAfter {
            before: objects(b),
            after: objects(a),
        }),
        grid: grid.exists().then_some(grid),
        options: edit.about.options.clone(),
        judged: seen.judged,
        rates: rates.map(|(b, a)| BeforeAfter {
            before: b.clone(),
            after: a.clone(),
        }),
        shown: None,
    }
}

/// Prints a result, new or stored: data on stdout, and what to do next on stderr.
pub(super) fn report(
    args: &EraseArgs,
    result: &EraseResult,
    details: &Details,
) -> Result<(), Failure> {
    if args.print.json {
        return output::json(&json!(result));
    }
    let mut lines = vec![headline(result, details), sentence(result, details)];
    lines.extend(table(result, details));
    if let Some(drift) = result.uncond_drift.filter(|drift| drift.is_finite()) {
        let label = "unconditional drift";
        lines.push(format!(
            "  {label:22} {:>17.2}%   how far it moved where nobody asked for anything",
            100.0 * drift
        ));
    }
    lines.push(format!("edit      {}", result.edit.display()));
    if let Some(grid) = &details.grid {
        lines.push(format!("pictures  {}", grid.display()));
    }
    output::data(&lines.join("\n"))?;
    if !args.print.quiet {
        next(args, result, details)
            .iter()
            .for_each(|line| output::note(line));
    }
    Ok(())
}

fn headline(result: &EraseResult, details: &Details) -> String {
    let concept = &result.concept;
    match &details.guard {
        Some(guard) => format!("{concept}: guarded by {guard}"),
        None => format!(
            "{concept}: {} tensors, {} numbers changed in {:.0} s with {}",
            details.tensors,
            counted(details.numbers as f64),
            result.seconds,
            result.method,
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
fn sentence(result: &EraseResult, details: &Details) -> String {
    let concept = &result.concept;
    let Some(before) = result.before else {
        return match details.judged {
            true => {
                "  before and after: no judge knows this concept; look at the pictures".to_owned()
            }
            false => {
                "  before and after: not judged; draw with the edit and look, or bring a detector"
                    .to_owned()
            }
        };
    };
    let after = result.after.unwrap_or_default();
    format!(
        "  Asked for {concept}, it now shows that in {} of the pictures ({} before); other things are right in {} ({} before).",
        percent(after.target),
        percent(before.target),
        percent(after.others),
        percent(before.others)
    )
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".into(), |fraction| format!("{:.0}%", 100.0 * fraction))
}

/// The rates, before and after.
fn table(result: &EraseResult, details: &Details) -> Vec<String> {
    let Some(before) = result.before else {
        return Vec::new();
    };
    let (after, n) = (
        result.after.unwrap_or_default(),
        result.n.unwrap_or_default(),
    );
    let mut lines = vec![format!("  {:22} {:>8} {:>8}", "", "before", "after")];
    let rows = [
        ("shows the concept", before.target, after.target, n.target),
        ("others still right", before.others, after.others, n.others),
    ];
    for (label, before, after, n) in rows {
        lines.push(format!(
            "  {label:22} {:>8} {:>8}   of {n} pictures",
            percent(before),
            percent(after)
        ));
    }
    for side in result.concepts.iter().flatten() {
        let (before, after) = (
            side.before.unwrap_or_default(),
            side.after.unwrap_or_default(),
        );
        lines.push(format!(
            "    {:20} {:>8} {:>8}   others {} {}",
            side.concept,
            percent(before.target),
            percent(after.target),
            percent(before.others),
            percent(after.others),
        ));
    }
    let objects = details.target_objects.as_ref();
    if let Some((before, after)) = objects.and_then(|of| of.before.zip(of.after)) {
        lines.push(format!(
            "  {:22} {:>8} {:>8}   in prompts that name the style",
            "objects still right",
            percent(Some(before.hits as f64 / before.n as f64)),
            percent(Some(after.hits as f64 / after.n as f64))
        ));
    }
    lines
}

/// What a person may want to do now.
fn next(args: &EraseArgs, result: &EraseResult, details: &Details) -> Vec<String> {
    let edit = result.edit.display().to_string();
    // The folder stands for the edit in it.
    let folder = edit
        .strip_suffix(EDIT)
        .map_or(edit.as_str(), |folder| folder.trim_end_matches('/'));
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
    let prompt = details.prompt.as_deref().unwrap_or_default();
    let mut lines = vec![format!("scumble generate \"{prompt}\" {over}")];
    if let Some(grid) = &details.grid {
        lines.push(format!("open {}", quoted(&grid.display().to_string())));
    }
    lines.push(format!("scumble attack unlearndiff {over}"));
    lines
        .iter()
        .enumerate()
        .map(|(i, line)| format!("{}{line}", if i == 0 { "next      " } else { "          " }))
        .collect()
}
