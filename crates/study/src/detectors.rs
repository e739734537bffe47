//! The user's detectors, and which of their labels count.

use burn::tensor::{Device, Tensor};
use scumble_diffusion::Picture;
use scumble_eval::{Detector, Sighting};
use serde_json::{Value, json};

use crate::{failure::Failure, request::DetectorsRequest};

/// Labels that a message lists.
const LISTED: usize = 40;

/// Opens detectors: manifests, or networks that need none.
///
/// # Errors
/// If a file does not fit, a detector has no such label or none that counts, two have one name,
/// labels are given and nobody to ask for them, or the threshold is none.
pub fn open(asked: &DetectorsRequest, device: &Device) -> Result<Vec<Detector>, Failure> {
    let labels = &asked.labels;
    if asked.paths.is_empty() && !labels.is_empty() {
        return Err(Failure::new("--label: there is no detector to ask for it")
            .with_hint("name one with --detector, or a --concept"));
    }
    let least = asked.threshold.map(threshold).transpose()?;
    let mut all: Vec<Detector> = Vec::new();
    for path in &asked.paths {
        let failed = |failure: Failure| failure.of(&format!("--detector {}", path.display()));
        let mut detector = Detector::open(path, device).map_err(|e| failed(e.into()))?;
        let unknown = labels.iter().find(|l| !detector.labels().contains(l));
        if let Some(label) = unknown {
            return Err(failed(Failure::new(format!("it knows no label `{label}`")))
                .with_hint(format!("it knows {}", some(detector.labels()))));
        }
        if !labels.is_empty() {
            detector.manifest.hits = labels.clone();
        }
        if detector.manifest.hits.is_empty() {
            return Err(
                failed(Failure::new("nothing says which of its labels counts")).with_hint(format!(
                    "name one with --label, or in a manifest; it knows {}",
                    some(detector.labels())
                )),
            );
        }
        detector.manifest.threshold = least.or(detector.manifest.threshold);
        let name = &detector.manifest.name;
        if all.iter().any(|other| other.manifest.name == *name) {
            return Err(failed(Failure::new(format!("two are called `{name}`")))
                .with_hint("results are known by the name: put versions into it"));
        }
        all.push(detector);
    }
    Ok(all)
}

/// Whether all of them see what they look for, picture by picture.
///
/// # Errors
/// If one cannot be asked.
pub(crate) fn agreed(all: &[Detector], pictures: &[Picture]) -> Result<Vec<bool>, Failure> {
    asked(all, pictures, true, |so_far, detector, seen| {
        so_far && detector.is_hit(seen)
    })
}

/// How sure the least sure of them is of what they look for, picture by picture.
///
/// # Errors
/// If one cannot be asked.
pub(crate) fn least_sure(all: &[Detector], pictures: &[Picture]) -> Result<Vec<f32>, Failure> {
    asked(all, pictures, 1.0, |so_far, detector, seen| {
        f32::min(so_far, detector.score(seen))
    })
}

/// What all of them make of each picture, one after the other.
fn asked<T: Copy>(
    all: &[Detector],
    pictures: &[Picture],
    start: T,
    add: impl Fn(T, &Detector, &[Sighting]) -> T,
) -> Result<Vec<T>, Failure> {
    let mut answers = vec![start; pictures.len()];
    for detector in all {
        for (answer, seen) in answers.iter_mut().zip(&detector.look(pictures)?) {
            *answer = add(*answer, detector, seen);
        }
    }
    Ok(answers)
}

/// The logarithm of how sure the least sure of them is of what they look for, for pictures
/// `[n, 3, h, w]` in [-1, 1], with gradients, `[n]`.
///
/// # Errors
/// If there is none, or one has no gradients.
pub(crate) fn log_least_sure(all: &[Detector], pictures: &Tensor<4>) -> Result<Tensor<1>, Failure> {
    let mut least: Option<Tensor<1>> = None;
    for detector in all {
        let own = detector.log_probability(pictures.clone())?;
        least = Some(match least {
            Some(least) => least.min_pair(own),
            None => own,
        });
    }
    least.ok_or_else(|| Failure::new("there is no detector"))
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
pub fn some(labels: &[String]) -> String {
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
    let mut settings = json!({
        "name": manifest.name, "sha256": detector.sha256, "hits": manifest.hits, "threshold": manifest.threshold,
    });
    // Whoever shows the pictures does it veiled. Only where it is so: plans without keep their hash.
    if detector.is_sensitive() {
        settings["sensitive"] = true.into();
    }
    settings
}
