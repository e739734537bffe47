//! A whole checkpoint as an edit: what turns the model into it.

use std::path::Path;

use scumble_erase::{About, Change, Edit};
use scumble_nn::files::{Checkpoint, HostTensor, OpenOptions, expect_names};
use serde_json::Value;

use super::unread::Read;
use crate::{built_in::same_vocabulary, folder::RECORD, record::TrainRun};

/// Every tensor of a checkpoint whose numbers are not the model's; with notes about its reading.
///
/// # Errors
/// If it cannot be read, is of another architecture or size, or what is no tensor tells them apart:
/// the tokenizer, what the denoiser answers, the scale of latents.
pub(super) fn difference(path: &Path, base: &Checkpoint) -> Result<(Edit, Vec<String>), Read> {
    let theirs = Checkpoint::open(path, &OpenOptions::default())?;
    let another = |what: &str| {
        let problem = format!(
            "is a checkpoint with {what} than {}, which no edit can express",
            base.name
        );
        let hint = "give it with --model; `evaluate --model A --model B` and --oracle compare whole models";
        Err(Read::Refused(problem, hint))
    };
    if theirs.family != base.family {
        return another("another architecture");
    }
    if !same_vocabulary(&theirs, base) {
        return another("another tokenizer");
    }
    let answer = |of: &Checkpoint| of.scheduler.get("prediction_type").cloned();
    if answer(&theirs) != answer(base) {
        return another("another kind of prediction");
    }
    let mut edit = Edit {
        about: about(path),
        ..Edit::default()
    };
    for (id, own) in &base.components {
        let other = theirs.component(id)?;
        let scale = |config: &Value| config.get("scaling_factor").and_then(Value::as_f64);
        if scale(&other.config) != scale(&own.config) {
            return another("another scale of its latents");
        }
        let shapes = own.tensors.iter();
        let wanted = shapes.map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()));
        if expect_names(id, &other.tensors, &wanted.collect()).is_err() {
            return another(&format!("other tensors in its {id}"));
        }
        let changed = other.tensors.iter().filter(|(name, tensor)| {
            let own = own.tensors.get(*name);
            own.is_none_or(|own| !same_numbers(own, tensor))
        });
        for (name, tensor) in changed {
            let key = (id.clone(), name.clone());
            edit.changes.insert(key, Change::Value(tensor.clone()));
        }
    }
    if edit.changes.is_empty() {
        let problem = format!("holds the same numbers as {}", base.name);
        return Err(Read::Refused(problem, "name what was made of the model"));
    }
    let count = edit.changes.len();
    let note = format!("a whole checkpoint, of which {count} tensors are not those of the model");
    Ok((edit, vec![note]))
}

/// What a checkpoint of `scumble train` says of itself; nothing of any other.
fn about(path: &Path) -> About {
    let run = TrainRun::read(&path.join("train").join(RECORD));
    match run.ok().flatten() {
        Some(run) => About {
            method: "retrain".into(),
            concepts: run.plan.without,
            seed: run.plan.seed,
            ..About::default()
        },
        None => About::default(),
    }
}

fn same_numbers(a: &HostTensor, b: &HostTensor) -> bool {
    if a.dtype() == b.dtype() {
        a.bytes() == b.bytes()
    } else {
        a.to_f32() == b.to_f32()
    }
}
