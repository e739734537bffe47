//! What `scumble erase` says of a run: one object for programs, lines for people.

use scumble_study::{
    folder::EDIT,
    record::{Details, EraseResult},
};
use serde_json::json;

use crate::{args::EraseArgs, failure::Failure, output};

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
    if before.others.is_none() {
        return format!(
            "  The detectors see what they look for in {} of the pictures ({} before).",
            percent(after.target),
            percent(before.target),
        );
    }
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
    for (label, before, after, n) in rows.into_iter().filter(|(.., n)| *n > 0) {
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
