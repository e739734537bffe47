//! What there is to choose from: methods, attacks, guards, forms, models that were downloaded.

use std::path::{Path, PathBuf};

use scumble_attack::{Attack, attacks as all_attacks};
use scumble_diffusion::guards as all_guards;
use scumble_erase::{
    ConceptKind,
    methods::{self as all_methods, Method},
};
use scumble_study::{memory, record::bytes_in_words};
use serde_json::{Value, json};

use crate::{about::About, forms::FORMS};

/// Every method, the quick ones first.
pub(super) fn methods(about: &About) -> Vec<Value> {
    let mut all: Vec<&Method> = all_methods::ALL.iter().collect();
    all.sort_by(|a, b| {
        let seconds = |m: &Method| m.seconds.unwrap_or(f64::INFINITY);
        seconds(a).total_cmp(&seconds(b))
    });
    all.into_iter().map(|m| method(m, about)).collect()
}

/// One of them.
pub(super) fn method(method: &Method, about: &About) -> Value {
    json!({
        "id": method.id, "paper": method.paper, "moves": method.moves, "needs": method.needs, "several": method.several,
        "preserves": method.preserves, "works": method.works_on(about.family).is_ok(), "cost": cost(method, about), "short": short(method, about),
    })
}

/// The same for a list.
fn short(method: &Method, about: &About) -> String {
    let how = match method.published_evaluations {
        Some(0) => "closed form",
        _ => "trains",
    };
    match (about.home, method.seconds, method.published_evaluations) {
        (true, Some(seconds), _) => format!("{how}, about {}", time(seconds)),
        (false, _, Some(0)) => format!("{how}, seconds"),
        (false, _, Some(n)) => format!("{how}, {} evaluations as published", thousands(n)),
        _ => format!("{how}, not measured"),
    }
}

/// What it will take, as far as that can be said.
fn cost(method: &Method, about: &About) -> String {
    match (about.home, method.seconds, method.published_evaluations) {
        (true, Some(seconds), _) => {
            let memory = method
                .peak_mb
                .map(|mb| format!(", {mb:.0} MiB"))
                .unwrap_or_default();
            format!("about {}{memory} (measured on 2 cores)", time(seconds))
        }
        (false, _, Some(0)) => "a closed form: no training, seconds".into(),
        (false, _, Some(evaluations)) => {
            let count = thousands(evaluations);
            format!("trains: as published {count} evaluations of the denoiser")
        }
        _ => "not measured".into(),
    }
}

/// A count for people.
fn thousands(count: u64) -> String {
    match count {
        10_000.. => format!("{} thousand", count / 1000),
        _ => count.to_string(),
    }
}

/// Seconds for people.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        ..1.0 => "1 s".into(),
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// What kind of thing a concept may be, as `--kind` names it, with what to say of it.
pub(super) fn kinds() -> Vec<Value> {
    let all = ConceptKind::ALL.iter();
    all.map(|kind| json!([kind.name(), kind.about()])).collect()
}

/// Whether a model of so many million numbers fits into what is free here.
pub(super) fn fits(millions: f64) -> String {
    // Numbers are held as f32.
    let needed = (4e6 * millions) as u64;
    let numbers = format!("{} of numbers", bytes_in_words(needed));
    let Some(free) = memory::free() else {
        return numbers;
    };
    let answer = if needed < free { "yes" } else { "no" };
    format!("{answer}: {numbers}, {} are free", bytes_in_words(free))
}

/// Every attack.
pub(super) fn attacks() -> Vec<Value> {
    all_attacks::ALL.iter().map(attack).collect()
}

/// One of them.
pub(super) fn attack(attack: &Attack) -> Value {
    json!({
        "id": attack.id, "paper": attack.paper, "access": attack.access, "finds": attack.finds, "step": attack.step,
        "cases": attack.cases,
    })
}

/// Every guard that needs no trained adapters.
pub(super) fn guards() -> Vec<Value> {
    all_guards::ALL
        .iter()
        .filter(|guard| guard.presets.is_some())
        .map(|guard| json!({"id": guard.id, "changes": guard.changes}))
        .collect()
}

/// The forms of an export.
pub(super) fn forms() -> Vec<Value> {
    FORMS
        .iter()
        .map(|(form, about)| json!({"id": form.name(), "about": about}))
        .collect()
}

/// Models in the local Hugging Face cache, by their names there.
pub(super) fn cached(roots: &[PathBuf]) -> Vec<String> {
    let in_one = |root: &PathBuf| {
        let entries = fs_err::read_dir(root).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| is_diffusion_model(path))
            .filter_map(|path| {
                let name = path.file_name()?.to_string_lossy().into_owned();
                Some(name.strip_prefix("models--")?.replace("--", "/"))
            })
            .collect::<Vec<String>>()
    };
    let mut names: Vec<String> = roots.iter().flat_map(in_one).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a folder of the cache holds a diffusers model in one of its snapshots.
fn is_diffusion_model(path: &Path) -> bool {
    let snapshots = fs_err::read_dir(path.join("snapshots"));
    let mut snapshots = snapshots.into_iter().flatten().flatten();
    snapshots.any(|entry| entry.path().join("model_index.json").exists())
}
