//! The judges' numbers for what was written, not for the edit that it was written from.

use std::path::Path;

use scumble_eval::{Rate, Rates};
use scumble_nn::files::{Checkpoint, OpenOptions};
use serde_json::{Value, json};

use crate::{
    edits,
    failure::Failure,
    host::Host,
    judging::{Judging, pooled},
    model::Model,
    request::Form,
};

/// Rates before and after of an exported form, read back from its file; `None` if no judge knows
/// what was erased.
///
/// # Errors
/// If it cannot be read back, or the user stops.
pub(super) fn rates(
    form: Form,
    path: &Path,
    model: &Model,
    concepts: &[String],
    host: Host<'_>,
) -> Result<Option<Value>, Failure> {
    let judging = Judging::new(concepts, model, host)?;
    if judging.sets.iter().all(Option::is_none) {
        return Ok(None);
    }
    let base = model.pipeline()?;
    let (edited, content) = match form {
        Form::Diffusers | Form::Single => {
            let written = Checkpoint::open(path, &OpenOptions::default())?;
            (
                scumble_families::load(&written, &model.device)?,
                written.checked_hash()?,
            )
        }
        _ => {
            // As every program reads it: without a gate.
            let loaded = edits::open(
                "--lora",
                &path.display().to_string(),
                model,
                &mut Vec::new(),
            )?;
            let content = format!("{}/{}", model.hash, loaded.edit.content_hash());
            (
                edits::applied(&[loaded], &model.checkpoint, &base)?,
                content,
            )
        }
    };
    let before = judging.rates(&base, &model.hash, "judging before", host)?;
    let after = judging.rates(&edited, &content, "judging the export", host)?;
    let known = |side: Vec<Option<Rates>>| pooled(&side.into_iter().flatten().collect::<Vec<_>>());
    let (before, after) = (known(before), known(after));
    let share = |rate: Rate| {
        if rate.n == 0 {
            Value::Null
        } else {
            json!(rate.fraction())
        }
    };
    let side =
        |rates: &Rates| json!({"target": share(rates.target), "others": share(rates.others)});
    Ok(Some(json!({
        "before": side(&before), "after": side(&after), "n": {"target": before.target.n, "others": before.others.n},
    })))
}
