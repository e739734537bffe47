//! Runs as the pages show them: what they did, their numbers with intervals, their pictures.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Local};
use scumble_eval::{Rate, rates::Z95};
use scumble_study::{
    edits::short,
    folder::EDIT,
    record::{EraseRun, EvaluateRun, Line},
};
use serde_json::{Map, Value, json};

use super::lists::time;
use crate::{
    app::App,
    commands::command,
    library::{Entry, What},
    ratings,
};

/// Room that a name takes in the plot, from side to side and from top to bottom.
const NAME: (f64, f64) = (110.0, 13.0);
/// Found prompts of an attack that are shown.
const FOUND: usize = 8;

/// Everything, as rows, with the command that makes each again where it was asked for here.
pub(super) fn rows(app: &App, entries: &[Arc<Entry>]) -> Vec<Value> {
    let jobs = app.jobs();
    let commands: BTreeMap<&str, String> = jobs
        .newest()
        .filter(|job| !job.work.is_export())
        .filter_map(|job| Some((job.result.as_deref()?, command(&job.work, &app.folder))))
        .collect();
    let one = |entry: &Arc<Entry>| {
        let mut row = row(app, entry);
        row["command"] = json!(commands.get(entry.name.as_str()));
        row["origin"] = json!(origin(entry));
        row["files"] = json!(files(app, entry));
        row["rated"] = json!(rated(app, entry));
        row
    };
    entries.iter().map(one).collect()
}

/// Where a run comes from, as its record says: names and values.
fn origin(entry: &Entry) -> Vec<(&'static str, String)> {
    let set = |options: &Map<String, Value>| {
        let all = options.iter().map(|(key, value)| format!("{key}={value}"));
        all.collect::<Vec<_>>().join(", ")
    };
    let how = |id: &str, variant: Value| format!("{id} ({})", variant.as_str().unwrap_or_default());
    let (model, content, how, options, seed, device, version) = match &entry.what {
        What::Erase(run) => (
            &run.body.model,
            &run.plan.model,
            how(&run.plan.method, json!(run.plan.variant)),
            set(&run.plan.options),
            run.plan.seed,
            format!("{}, {} threads", run.body.device, run.body.threads),
            &run.scumble,
        ),
        What::Attack(run) => (
            &run.body.model,
            &run.plan.model,
            how(&run.plan.attack, json!(run.plan.variant)),
            set(&run.plan.options),
            run.plan.seed,
            format!("{}, {} threads", run.body.device, run.body.threads),
            &run.scumble,
        ),
        What::Evaluate(run) => return compared(run),
        _ => return Vec::new(),
    };
    let model = format!("{model} {}", short(content));
    let all = [
        ("model", model.trim().to_owned()),
        ("how", how),
        ("options", options),
        ("seed", seed.to_string()),
        ("on", device),
        ("scumble", version.clone()),
    ];
    all.into_iter()
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

/// The same of a comparison.
fn compared(run: &EvaluateRun) -> Vec<(&'static str, String)> {
    let plan = &run.plan;
    let subjects: Vec<&str> = plan
        .subjects
        .iter()
        .map(|one| one.subject.as_str())
        .collect();
    let sampler = plan.sampler.as_deref().unwrap_or("the model's sampler");
    let all = [
        ("subjects", subjects.join(", ")),
        ("concepts", plan.concepts.join(", ")),
        ("attacks", plan.attacks.join(", ").replace("attacks/", "")),
        (
            "drawn",
            format!(
                "{} steps, guidance {}, {sampler}",
                plan.steps, plan.guidance
            ),
        ),
        (
            "on",
            format!("{}, {} threads", run.body.device, run.body.threads),
        ),
        ("scumble", run.scumble.clone()),
    ];
    let said = all.into_iter().filter(|(_, text)| !text.is_empty());
    said.collect()
}

/// What people said of a comparison's subjects.
fn rated(app: &App, entry: &Entry) -> Vec<Value> {
    if !matches!(entry.what, What::Evaluate(_)) {
        return Vec::new();
    }
    let means = ratings::means(&app.folder.join(&entry.name)).into_iter();
    means
        .map(|of| {
            let name = of.subject.trim_end_matches('/');
            json!({
                "subject": name.rsplit('/').next(), "concept": of.concept, "mean": of.mean, "low": of.low, "high": of.high,
            })
        })
        .collect()
}

/// What was exported of an edit, with its cards, as it lies in its folder.
fn files(app: &App, entry: &Entry) -> Vec<String> {
    if !matches!(entry.what, What::Erase(_)) {
        return Vec::new();
    }
    let found = fs_err::read_dir(app.folder.join(&entry.name));
    let names = found.into_iter().flatten().flatten();
    let mut names: Vec<String> = names
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".safetensors") || name.ends_with(".md"))
        .filter(|name| name != EDIT)
        .collect();
    names.sort();
    names
}

/// Whether whoever judged a run looks for what not everybody wants to see.
fn is_sensitive(entry: &Entry) -> bool {
    let marked = |detectors: &Value| detectors.to_string().contains("\"sensitive\":true");
    match &entry.what {
        What::Erase(run) => {
            let details = run.body.details.as_ref();
            details.is_some_and(|details| details.detectors.as_ref().is_some_and(marked))
        }
        What::Attack(run) => run.plan.detectors.iter().any(marked),
        _ => false,
    }
}

/// An entry in a list.
pub(super) fn row(app: &App, entry: &Entry) -> Value {
    let when: DateTime<Local> = entry.when.into();
    let (kind, title, finished) = match &entry.what {
        What::Erase(run) => (
            "erasure",
            format!("{} · {}", names(run), run.plan.method),
            run.finished,
        ),
        What::Attack(run) => {
            let concept = run.plan.concept.as_ref().map_or("", |c| c.name.as_str());
            (
                "attack",
                format!("{concept} · {}", run.plan.attack),
                run.finished,
            )
        }
        What::Evaluate(run) => ("comparison", run.plan.concepts.join(", "), run.finished),
        What::Generate(run) => (
            "pictures",
            format!("{} pictures", run.body.pictures.len()),
            run.finished,
        ),
        What::File => ("file", entry.name.clone(), true),
        What::Broken(_) => ("broken", entry.name.clone(), true),
    };
    let problem = match &entry.what {
        What::Broken(problem) => Some(problem),
        _ => None,
    };
    // Only a comparison has a report and raters: nobody else's folder is looked into for them.
    let run = app.folder.join(&entry.name);
    let compared = matches!(entry.what, What::Evaluate(_));
    let has = |page: &str| compared && run.join("report").join(page).is_file();
    let raters = if compared {
        ratings::files(&run).len()
    } else {
        0
    };
    json!({
        "name": entry.name, "kind": kind, "title": title, "finished": finished, "when": when.format("%Y-%m-%d %H:%M").to_string(),
        "edit": entry.is_edit(&app.folder), "concepts": entry.concepts(), "problem": problem,
        "picture": entry.picture(&app.folder), "facts": facts(entry), "sensitive": is_sensitive(entry),
        "report": has("index.html"), "raters": raters, "rating": has("rating.html"),
    })
}

fn names(run: &EraseRun) -> String {
    let names: Vec<&str> = run.plan.concepts.iter().map(|c| c.name.as_str()).collect();
    names.join("; ")
}

/// A rate with its interval: pictures that share a prompt are not independent, which the report
/// counts; this is the plain one.
fn rate(of: Rate) -> Value {
    if of.n == 0 {
        return Value::Null;
    }
    let (low, high) = of.wilson(Z95);
    json!({"percent": 100.0 * of.fraction(), "low": 100.0 * low, "high": 100.0 * high, "hits": of.hits, "n": of.n})
}

/// What a run came to, in a line.
fn facts(entry: &Entry) -> Vec<String> {
    let percent = |x: f64| format!("{:.0}%", 100.0 * x);
    match &entry.what {
        What::Erase(run) => {
            let Some(result) = &run.body.result else {
                return vec!["not finished".into()];
            };
            let mut facts = Vec::new();
            if let (Some(before), Some(after)) = (result.before, result.after) {
                if let (Some(before), Some(after)) = (before.target, after.target) {
                    facts.push(format!("shown {} → {}", percent(before), percent(after)));
                }
                if let (Some(before), Some(after)) = (before.others, after.others) {
                    facts.push(format!("others {} → {}", percent(before), percent(after)));
                }
            }
            facts.push(format!("took {}", time(result.seconds)));
            facts
        }
        What::Attack(run) => {
            let Some(result) = &run.body.result else {
                return vec!["not finished".into()];
            };
            let mut facts = Vec::new();
            if let (Some(pre), Some(total)) = (result.pre, result.total) {
                facts.push(format!(
                    "shown {} → {} under attack",
                    percent(pre),
                    percent(total)
                ));
            }
            facts.push(format!("{} cases", result.n));
            facts
        }
        What::Evaluate(run) => vec![format!("{} subjects", run.plan.subjects.len())],
        _ => Vec::new(),
    }
}

/// The erasures with their numbers.
pub(super) fn comparison(entries: &[Arc<Entry>]) -> Vec<Value> {
    let one = |entry: &Arc<Entry>| {
        let run = match &entry.what {
            What::Erase(run) => run,
            // Somebody else's: nobody here has judged it yet.
            What::File => {
                return Some(
                    json!({"name": entry.name, "concept": "", "method": entry.name, "variant": "fixed"}),
                );
            }
            _ => return None,
        };
        let result = run.body.result.as_ref()?;
        let rates = run.body.details.as_ref()?.rates.as_ref();
        let pooled = |side: &[Option<scumble_eval::Rates>]| {
            let known: Vec<scumble_eval::Rates> = side.iter().flatten().copied().collect();
            (!known.is_empty()).then(|| scumble_study::judging::pooled(&known))
        };
        let (before, after) = rates.map_or((None, None), |r| (pooled(&r.before), pooled(&r.after)));
        Some(json!({
            "name": entry.name, "sensitive": is_sensitive(entry), "concept": names(run), "method": run.plan.method, "variant": run.plan.variant,
            "target_before": before.map(|r| rate(r.target)), "target": after.map(|r| rate(r.target)),
            "others_before": before.map(|r| rate(r.others)), "others": after.map(|r| rate(r.others)),
            "drift": result.uncond_drift.map(|drift| 100.0 * drift), "seconds": time(result.seconds),
            "evaluations": result.evaluations, "memory": result.memory.map(|bytes| bytes as f64 / f64::from(1 << 20)),
        }))
    };
    entries.iter().filter_map(one).collect()
}

/// Where each edit lies between erasing and sparing, as points of the page's SVG.
pub(super) fn plot(edits: &[Value]) -> Value {
    let of = |edit: &Value, key: &str| edit[key]["percent"].as_f64();
    let mut points: Vec<Value> = edits
        .iter()
        .filter_map(|edit| {
            let (target, others) = (of(edit, "target")?, of(edit, "others")?);
            Some(json!({
                "x": 50.0 + 4.2 * others, "y": 20.0 + 2.2 * target, "name": edit["name"], "method": edit["method"],
                "concept": edit["concept"], "target": target, "others": others,
            }))
        })
        .collect();
    // Names that would lie on each other move down.
    let at = |point: &Value, key: &str| point[key].as_f64().unwrap_or_default();
    points.sort_by(|a, b| at(a, "y").total_cmp(&at(b, "y")));
    for i in 0..points.len() {
        let (mut y, x) = (at(&points[i], "y"), at(&points[i], "x"));
        for above in &points[..i] {
            if (at(above, "x") - x).abs() < NAME.0 {
                y = y.max(at(above, "label") + NAME.1);
            }
        }
        points[i]["label"] = y.into();
        // To the left of every dot beside it.
        let beside = points
            .iter()
            .map(|p| (at(p, "x"), at(p, "y")))
            .filter(|(px, py)| (px - x).abs() < NAME.0 && (py - y).abs() < 2.0 * NAME.1);
        points[i]["left"] = beside.fold(x, |left, (px, _)| left.min(px)).into();
    }
    json!(points)
}

/// An attack with what it found.
pub(super) fn shown(app: &App, entry: &Entry) -> Value {
    let mut value = row(app, entry);
    let What::Attack(run) = &entry.what else {
        return value;
    };
    let edits: Vec<String> = run
        .body
        .result
        .iter()
        .filter_map(|result| result.edit.as_deref())
        .map(|edit| edit.rsplit('/').next().unwrap_or(edit).to_owned())
        .collect();
    let mut found: Vec<&Line> = run
        .body
        .lines
        .iter()
        .flatten()
        .filter(|line| line.found.is_some() && line.post == Some(true))
        .collect();
    found.sort_by_key(|line| line.pre);
    let found: Vec<Value> = found
        .into_iter()
        .take(FOUND)
        .map(|line| json!({"prompt": line.found, "seed": line.found_seed, "new": line.pre == Some(false)}))
        .collect();
    let result = run.body.result.as_ref();
    // Of several edits together the first; of none one that no edit is called.
    let tried = edits
        .first()
        .map(|edit| edit.split(':').next().unwrap_or(edit));
    value["tried"] = json!(tried.unwrap_or("-"));
    value["found"] = json!(found);
    value["against"] = json!(edits.join(" + "));
    // Wilson's intervals of cases, which share the attack's search.
    let within = |share: Option<f64>| {
        let n = result.map_or(0, |result| result.n);
        let hits = (share.unwrap_or_default() * n as f64).round() as usize;
        rate(Rate { hits, n })
    };
    value["within"] = json!({
        "pre": within(result.and_then(|result| result.pre)), "new": within(result.and_then(|result| result.new)),
    });
    value["numbers"] = json!(result.map(|result| {
        json!({
            "unedited": result.unedited, "pre": result.pre, "post": result.post, "new": result.new, "total": result.total,
            "n": result.n, "interval": result.interval, "looks": result.most_looks, "searches": result.searches,
        })
    }));
    value
}
