//! `scumble detectors`: what can look at pictures, what is missing of it and where to get that.

use std::path::{Path, PathBuf};

use scumble_eval::{
    Detector,
    detectors::{KNOWN, Known, Manifest},
};
use scumble_study::{detectors, device, folder::write_file};
use serde_json::{Value, json};

use crate::{
    args::DetectorsArgs,
    failure::{Failure, Outcome},
    output,
};

/// What is used as a detector beside the published ones.
const OTHERS: &str = "\
others
    a folder of a ViTForImageClassification (transformers) as it is: --detector DIR --label LABEL
    a CLIPModel folder, an ONNX classifier or YOLOv8, a torchvision ResNet: with a manifest (docs/detectors.md)";

/// A path that was looked at.
struct Seen {
    path: PathBuf,
    found: Result<Detector, Failure>,
}

pub(crate) fn run(args: &DetectorsArgs) -> Result<Outcome, Failure> {
    if let Some(folder) = &args.write {
        return write(folder, args.print.quiet);
    }
    if args.paths.is_empty() {
        return list(args.print.json);
    }
    let (device, _) = device::open("cpu")?;
    let mut seen = Vec::new();
    for path in &args.paths {
        for path in candidates(path)? {
            let found = Detector::open(&path, &device).map_err(Failure::from);
            seen.push(Seen { path, found });
        }
    }
    if args.print.json {
        output::json(&seen.iter().map(about).collect::<Vec<_>>().into())?;
    } else {
        seen.iter().try_for_each(|one| output::data(&text(one)))?;
    }
    let broken = seen.iter().filter(|one| one.found.is_err()).count();
    if broken == seen.len() {
        return Err(Failure::new(match broken {
            1 => "it cannot be used as a detector".to_owned(),
            _ => format!("none of {broken} can be used as a detector"),
        }));
    }
    Ok(Outcome::Done)
}

/// The networks that need no manifest.
fn list(as_json: bool) -> Result<Outcome, Failure> {
    if as_json {
        let one = |known: &Known| {
            let manifest = known.manifest();
            json!({ "finds": known.finds, "get": known.get, "manifest": manifest })
        };
        output::json(&KNOWN.iter().map(one).collect::<Vec<_>>().into())?;
        return Ok(Outcome::Done);
    }
    for known in &KNOWN {
        let manifest = known.manifest();
        output::data(&format!(
            "{}\n    finds    {}\n    counts   {}{}\n    get      {}\n    use      --detector {}\n    licence  {}",
            manifest.name,
            known.finds,
            detectors::some(&manifest.hits),
            from(manifest.threshold),
            known.get,
            manifest.file.display(),
            manifest.licence
        ))?;
    }
    output::data(OTHERS)?;
    Ok(Outcome::Done)
}

/// Writes the ready manifests.
fn write(folder: &Path, quiet: bool) -> Result<Outcome, Failure> {
    fs_err::create_dir_all(folder)?;
    for known in &KNOWN {
        let path = folder.join(format!("{}.json", known.manifest().name));
        if path.exists() {
            return Err(Failure::new(format!("{} is there already", path.display()))
                .with_hint("name another folder, or remove it"));
        }
        write_file(&path, known.text().as_bytes())?;
        output::data(&path.display().to_string())?;
    }
    if !quiet {
        output::note(
            "next      put each network's file beside its manifest (`scumble detectors` says where to get it)",
        );
    }
    Ok(Outcome::Done)
}

/// What of a path may be a detector: itself, or the manifests, networks and folders of networks in a
/// folder that is none.
fn candidates(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() || path.join("config.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut all = Vec::new();
    for entry in fs_err::read_dir(path)? {
        let path = entry?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if path.join("config.json").is_file()
            || matches!(extension.as_deref(), Some("json" | "onnx" | "safetensors"))
        {
            all.push(path);
        }
    }
    all.sort();
    // What a manifest names is looked at through it.
    let manifests = all
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    let named: Vec<PathBuf> = manifests
        .filter_map(|path| Some(Manifest::read(path).ok()?.file))
        .collect();
    all.retain(|path| !named.contains(path));
    if all.is_empty() {
        return Err(Failure::new(format!(
            "{}: holds no manifest and no network",
            path.display()
        ))
        .with_hint("`scumble detectors` says what there is and where to get it"));
    }
    Ok(all)
}

/// One of them, for programs.
fn about(one: &Seen) -> Value {
    match &one.found {
        Ok(detector) => json!({
            "path": one.path, "usable": true, "name": detector.manifest.name, "kind": detector.manifest.kind,
            "file": detector.manifest.file, "sha256": detector.sha256, "labels": detector.labels(),
            "hits": detector.manifest.hits, "threshold": detector.manifest.threshold,
            "sensitive": detector.is_sensitive(), "licence": detector.manifest.licence,
        }),
        Err(failure) => json!({
            "path": one.path, "usable": false, "problem": failure.to_string(), "hint": failure.hint(),
        }),
    }
}

/// One of them, for people.
fn text(one: &Seen) -> String {
    let path = one.path.display();
    match &one.found {
        Ok(detector) => {
            let manifest = &detector.manifest;
            let kind = json!(manifest.kind);
            let kind = kind.as_str().unwrap_or_default();
            let counts = if manifest.hits.is_empty() {
                "nothing yet: name one with --label".to_owned()
            } else {
                detectors::some(&manifest.hits) + &from(manifest.threshold)
            };
            format!(
                "{}\n    use      --detector {path}\n    kind     {kind}, {} labels: {}\n    counts   {counts}",
                manifest.name,
                detector.labels().len(),
                detectors::some(detector.labels()),
            )
        }
        Err(failure) => {
            let hint = failure
                .hint()
                .map_or(String::new(), |hint| format!("\n    hint     {hint}"));
            format!("{path}\n    problem  {failure}{hint}")
        }
    }
}

/// The threshold, in words.
fn from(threshold: Option<f32>) -> String {
    threshold.map_or(String::new(), |t| format!(", from {t}"))
}
