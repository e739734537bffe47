//! The user's detectors, and which of their labels count.

use std::path::PathBuf;

use burn::tensor::Device;
use scumble_eval::Detector;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Labels that a message lists.
const LISTED: usize = 40;

/// Opens the detectors of these manifests; `labels`, if there are some, count in place of what the
/// manifests say.
///
/// # Errors
/// If a file does not fit, a detector has no such label, two have one name, or labels are given and
/// nobody to ask for them.
pub fn open(
    manifests: &[PathBuf],
    labels: &[String],
    device: &Device,
) -> Result<Vec<Detector>, Failure> {
    if manifests.is_empty() && !labels.is_empty() {
        return Err(Failure::new("--label: there is no detector to ask for it")
            .with_hint("name one with --detector, or a --concept"));
    }
    let mut all: Vec<Detector> = Vec::new();
    for path in manifests {
        let failed = |failure: Failure| failure.of(&format!("--detector {}", path.display()));
        let mut detector = Detector::open(path, device).map_err(|e| failed(e.into()))?;
        let unknown = labels.iter().find(|l| !detector.labels().contains(l));
        if let Some(label) = unknown {
            return Err(failed(Failure::new(format!("it knows no label `{label}`")))
                .with_hint(format!("it knows {}", some(detector.labels()))));
        }
        if !labels.is_empty() {
            detector.manifest.hits = labels.to_vec();
        }
        let name = &detector.manifest.name;
        if all.iter().any(|other| other.manifest.name == *name) {
            return Err(failed(Failure::new(format!("two are called `{name}`")))
                .with_hint("results are known by the name: put versions into it"));
        }
        all.push(detector);
    }
    Ok(all)
}

/// The same for judges: each has something to look for, with this threshold if one is given.
///
/// # Errors
/// As [`open`]; if a manifest names no hits and no label is given, or the threshold is none.
pub(crate) fn judges(
    manifests: &[PathBuf],
    labels: &[String],
    asked: Option<f32>,
    device: &Device,
) -> Result<Vec<Detector>, Failure> {
    let mut all = open(manifests, labels, device)?;
    for detector in &mut all {
        if detector.manifest.hits.is_empty() {
            return Err(Failure::new(format!(
                "--detector {}: its manifest names no hits, so nothing on a picture would count",
                detector.manifest.name
            ))
            .with_hint("name a label with --label"));
        }
        if let Some(asked) = asked {
            detector.manifest.threshold = Some(threshold(asked)?);
        }
    }
    Ok(all)
}

/// A probability from which a picture counts.
///
/// # Errors
/// If it is none.
pub(crate) fn threshold(given: f32) -> Result<f32, Failure> {
    if given > 0.0 && given <= 1.0 {
        return Ok(given);
    }
    Err(Failure::new(format!(
        "--threshold {given}: expected a probability above 0, up to 1"
    )))
}

/// Labels for a message: the first of them.
fn some(labels: &[String]) -> String {
    let shown: Vec<&str> = labels.iter().take(LISTED).map(String::as_str).collect();
    let more = match labels.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

/// What decides a detector's answers, for a plan.
pub(crate) fn settings(detector: &Detector) -> Value {
    let manifest = &detector.manifest;
    json!({
        "name": manifest.name, "sha256": detector.sha256, "hits": manifest.hits, "threshold": manifest.threshold,
    })
}
