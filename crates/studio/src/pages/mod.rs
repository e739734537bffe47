//! The pages: what the folder holds and what there is to choose, put into templates. Everything that
//! comes from a file or a user is text in them.

mod entries;
mod lists;
mod shell;

use std::{path::Path, sync::Arc};

use scumble_erase::catalogue;
use scumble_eval::protocol::Set;
use scumble_study::{Failure, edits::file_of};
use serde_json::{Value, json};

pub(crate) use self::shell::{asset, error};
use self::{
    entries::{comparison, plot, row, rows, shown},
    lists::{attacks, forms, guards, methods},
    shell::{Tab, fill, part},
};
use crate::{
    about::{self, About, Prompt},
    app::App,
    commands::command,
    jobs::{Job, State},
    library::{Entry, What},
    trash,
};

/// The method that is offered first: a closed form, which takes seconds on every model, where training
/// takes hours without a GPU.
const FIRST: &str = "uce";
/// Jobs that a page lists.
const JOBS: usize = 30;

/// The model that is worked on.
fn about(app: &App) -> Result<Arc<About>, Failure> {
    let model = app.settings().model.clone();
    app.abouts.of(&app.place, model)
}

/// Its path, as forms have it.
fn model(app: &App) -> String {
    let model = app.settings().model.clone();
    model.map_or_else(String::new, |path| path.display().to_string())
}

/// Which model, those before it, and those that were downloaded.
pub(crate) fn models(app: &App) -> Result<String, Failure> {
    // A model that can no longer be opened must not lock this page, where another one is chosen.
    let (now, problem) = match about(app) {
        Ok(about) => (json!(*about), Value::Null),
        Err(failure) => (
            Value::Null,
            json!({"error": failure.to_string(), "hint": failure.hint()}),
        ),
    };
    let settings = app.settings().clone();
    let fits = now["millions"].as_f64().map(lists::fits);
    Ok(fill(
        app,
        Tab::Models,
        "models.html",
        json!({
            "about": now, "fits": fits, "problem": problem, "model": model(app), "built_in": app.place.built_in.name,
            "others": settings.models, "cached": lists::cached(&app.place.hub), "roots": app.place.hub,
        }),
    ))
}

/// Where an erasure is asked for.
pub(crate) fn erase(app: &App, concept: &str, method: &str) -> Result<String, Failure> {
    let about = about(app)?;
    let method = if method.is_empty() { FIRST } else { method };
    let chosen = self::method(app, method, "")?;
    Ok(fill(
        app,
        Tab::Erase,
        "erase.html",
        json!({
            "about": *about, "model": model(app), "concept": concept, "method": method, "methods": methods(&about),
            "chosen": chosen, "jobs": jobs(app, "erase")?, "kinds": lists::kinds(),
        }),
    ))
}

/// What there is to know of a method, and its options.
pub(crate) fn method(app: &App, id: &str, variant: &str) -> Result<String, Failure> {
    let about = about(app)?;
    let method = scumble_erase::methods::named(id)?;
    let variant = if variant.is_empty() { "fixed" } else { variant };
    // The built-in model: defaults of checkpoints are columns beside its own.
    let pipeline = app.abouts.built_in(&app.place)?;
    let column = match (variant, about.home) {
        ("paper", _) => 0,
        ("reference", _) => 1,
        (_, false) => 2,
        (_, true) => 3,
    };
    let settings = catalogue::settings(method, &pipeline)?;
    let options: Vec<Value> = settings
        .iter()
        .map(|setting| {
            let default = &setting.defaults[column];
            json!({
                "key": setting.key, "meaning": setting.meaning, "range": setting.range,
                "default": default.as_str().map_or_else(|| default.to_string(), str::to_owned),
            })
        })
        .collect();
    Ok(part(
        "method.html",
        json!({
            "method": lists::method(method, &about), "variant": variant, "options": options,
            "variants": catalogue::variants(method, &pipeline)?,
        }),
    ))
}

/// The queue as a tab shows it, and how far the job at work is: of what has ended only what the tab is
/// about; everything where it is no tab's name.
pub(crate) fn jobs(app: &App, tab: &str) -> Result<String, Failure> {
    let (kind, most) = match tab {
        "erase" => (Some("erase"), JOBS),
        "attack" => (Some("attack"), JOBS),
        "compare" => (Some("evaluate"), JOBS),
        // Above what lies in the folder.
        "library" => (Some("export"), 3),
        _ => (None, JOBS),
    };
    let shown = |job: &&Job| {
        let at_work = matches!(job.state, State::Waiting | State::Running);
        at_work || kind.is_none_or(|kind| job.work.kind() == kind)
    };
    let all = app.jobs();
    let jobs = all.newest().filter(shown).take(most).cloned();
    let jobs: Vec<Job> = jobs.collect();
    let entries = app.library.entries()?;
    let entry = |job: &Job| {
        let name = job.result.as_deref().filter(|_| job.state == State::Done)?;
        let entry = entries.iter().find(|entry| entry.name == name)?;
        Some(row(app, entry))
    };
    // An export is a file with its card beside it, or a whole folder.
    let written = |job: &Job| {
        let name = job.result.as_deref().filter(|_| job.work.is_export())?;
        let path = app.folder.join(name);
        let card = Path::new(name).with_extension("md");
        Some(json!({
            "folder": path.is_dir().then_some(&path),
            "card": app.folder.join(&card).is_file().then_some(&card),
        }))
    };
    let one = |job: &Job| {
        let live = app
            .notes
            .now(job.id)
            .filter(|_| job.state == State::Running);
        json!({
            "id": job.id, "title": job.work.title(), "state": job.state, "error": job.error, "result": job.result,
            "command": command(&job.work, &app.folder), "work": job.work, "written": written(job),
            "entry": entry(job), "sensitive": job.work.is_sensitive(),
            "live": live.map(|live| json!({
                "stage": live.stage, "done": live.done, "total": live.total, "message": live.message, "notes": live.notes, "pictures": live.drawn(), "made": live.made,
            })),
        })
    };
    let jobs: Vec<Value> = jobs.iter().map(one).collect();
    Ok(part("jobs.html", json!({"jobs": jobs})))
}

/// Base and edits on the same noise.
pub(crate) fn look(app: &App, edit: &str, prompt: &str, seed: u64) -> Result<String, Failure> {
    let about = about(app)?;
    let entries = app.library.entries()?;
    let edits: Vec<Value> = entries
        .iter()
        .filter(|entry| entry.is_edit(&app.folder))
        .map(|entry| row(app, entry))
        .collect();
    Ok(fill(
        app,
        Tab::Look,
        "look.html",
        json!({
            "about": *about, "model": model(app), "edits": edits, "edit": edit, "prompt": prompt, "seed": seed,
            "guards": guards(), "prompts": prompts(app, edit)?,
        }),
    ))
}

/// What to draw to see what an edit did.
pub(crate) fn prompts(app: &App, edit: &str) -> Result<Vec<Prompt>, Failure> {
    let about = about(app)?;
    let concepts = match edit {
        "" => Vec::new(),
        name => {
            let entries = app.library.entries()?;
            let entry = entries.iter().find(|entry| entry.name == name);
            entry.map_or_else(Vec::new, |entry| concepts_of(app, entry))
        }
    };
    Ok(about::prompts(&concepts, about.home))
}

/// What an entry says that it erases.
fn concepts_of(app: &App, entry: &Entry) -> Vec<String> {
    match &entry.what {
        What::File => {
            let file = file_of(&app.folder.join(&entry.name));
            let edit = file
                .ok()
                .and_then(|file| scumble_erase::Edit::open(&file).ok());
            edit.map_or_else(Vec::new, |edit| edit.about.concepts)
        }
        _ => entry.concepts(),
    }
}

/// Edits and their numbers side by side.
pub(crate) fn compare(app: &App) -> Result<String, Failure> {
    let about = about(app)?;
    let entries = app.library.entries()?;
    let edits = comparison(&entries);
    let evaluations: Vec<Arc<Entry>> = entries
        .iter()
        .filter(|entry| matches!(entry.what, What::Evaluate(_)))
        .cloned()
        .collect();
    let evaluations = rows(app, &evaluations);
    Ok(fill(
        app,
        Tab::Compare,
        "compare.html",
        json!({
            "about": *about, "model": model(app), "plot": plot(&edits), "edits": edits, "evaluations": evaluations,
            "attacks": attacks(), "sets": Set::ALL.map(Set::id), "prompts": about::prompts(&[], about.home), "jobs": jobs(app, "compare")?,
        }),
    ))
}

/// The blinded pictures of a comparison.
pub(crate) fn rate(app: &App, run: &str) -> Result<String, Failure> {
    let sheet = app.folder.join(run).join("report").join("rating.html");
    if !sheet.is_file() {
        return Err(Failure::new(format!("`{run}` has no page to rate"))
            .with_hint("compare some edits first: the page is made with the report"));
    }
    Ok(fill(
        app,
        Tab::Compare,
        "rate.html",
        json!({"run": run, "model": model(app)}),
    ))
}

/// Where an attack is asked for, and what attacks have found.
pub(crate) fn attack(app: &App, edit: &str) -> Result<String, Failure> {
    let about = about(app)?;
    let entries = app.library.entries()?;
    let edits: Vec<Value> = entries
        .iter()
        .filter(|entry| entry.is_edit(&app.folder))
        .map(|entry| row(app, entry))
        .collect();
    let found: Vec<Value> = entries
        .iter()
        .filter(|entry| matches!(entry.what, What::Attack(_)))
        .map(|entry| shown(app, entry))
        .collect();
    Ok(fill(
        app,
        Tab::Attack,
        "attack.html",
        json!({
            "about": *about, "model": model(app), "edits": edits, "edit": edit, "attacks": attacks(), "found": found,
            "chosen": attack_about(app, "random")?, "jobs": jobs(app, "attack")?,
        }),
    ))
}

/// What there is to know of an attack.
pub(crate) fn attack_about(_app: &App, id: &str) -> Result<String, Failure> {
    let attack = scumble_attack::attacks::named(id)?;
    Ok(part(
        "attack_about.html",
        json!({"attack": lists::attack(attack)}),
    ))
}

/// Everything in the folder.
pub(crate) fn library(app: &App) -> Result<String, Failure> {
    let entries = app.library.entries()?;
    Ok(fill(
        app,
        Tab::Library,
        "library.html",
        json!({
            "folder": app.folder, "entries": rows(app, &entries), "thrown": trash::thrown(&app.folder), "forms": forms(),
            "model": model(app), "jobs": jobs(app, "library")?,
        }),
    ))
}
