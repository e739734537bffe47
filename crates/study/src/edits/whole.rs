//! A whole checkpoint as an edit: what turns the model into it.

use std::path::Path;

use scumble_erase::{About, Change, Edit};
use scumble_nn::files::{Checkpoint, HostTensor, OpenOptions, expect_names};
use serde_json::Value;

use super::unread::Read;
use crate::{built_in::same_vocabulary, failure::Failure, taught};

/// Settings that change what a network computes and no shape of its tensors.
const SETTINGS: [&str; 14] = [
    "act_fn",
    "attention_head_dim",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "center_input_sample",
    "flip_sin_to_cos",
    "freq_shift",
    "hidden_act",
    "norm_eps",
    "norm_num_groups",
    "num_attention_heads",
    "num_train_timesteps",
    "rescale_betas_zero_snr",
];
/// The first setting in which two configurations differ. One that only one of them has is its default.
fn other_setting(a: &Value, b: &Value) -> Option<&'static str> {
    let same = |key: &str| match (a.get(key), b.get(key)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    // Often left out: then they are what diffusers and the readers of configurations take them for.
    let word = |config: &Value| config.get("prediction_type")?.as_str().map(str::to_owned);
    let number = |config: &Value| config.get("scaling_factor")?.as_f64();
    let answer = |config: &Value| word(config).unwrap_or_else(|| "epsilon".into());
    let scale = |config: &Value| number(config).unwrap_or(0.18215);
    let set = SETTINGS.into_iter().find(|key| !same(key));
    set.or_else(|| (answer(a) != answer(b)).then_some("prediction_type"))
        .or_else(|| (scale(a) != scale(b)).then_some("scaling_factor"))
}

/// Every tensor of a checkpoint whose numbers are not the model's; with notes about its reading.
///
/// # Errors
/// If it cannot be read, is of another architecture or size, or what is no tensor tells them apart:
/// the tokenizer, or a setting of a network or of the noise.
pub(super) fn difference(
    path: &Path,
    base: &Checkpoint,
    options: &OpenOptions,
) -> Result<(Edit, Vec<String>), Read> {
    let theirs = Checkpoint::open(path, options)?;
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
    if let Some(key) = other_setting(&theirs.scheduler, &base.scheduler) {
        return another(&format!("another {key} of its noise"));
    }
    let mut edit = Edit {
        about: about(path)?,
        ..Edit::default()
    };
    for (id, own) in &base.components {
        let other = theirs.component(id)?;
        let shapes = own.tensors.iter();
        let wanted = shapes.map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()));
        if expect_names(id, &other.tensors, &wanted.collect()).is_err() {
            return another(&format!("other tensors in its {id}"));
        }
        if let Some(key) = other_setting(&other.config, &own.config) {
            return another(&format!("another {key} of its {id}"));
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
///
/// # Errors
/// If its record is damaged.
fn about(path: &Path) -> Result<About, Failure> {
    let concepts = taught::without(path)?;
    Ok(concepts.map_or_else(About::default, |concepts| About {
        method: "retrain".into(),
        concepts,
        ..About::default()
    }))
}

fn same_numbers(a: &HostTensor, b: &HostTensor) -> bool {
    if a.dtype() == b.dtype() {
        a.bytes() == b.bytes()
    } else {
        a.to_f32() == b.to_f32()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_default_that_is_spelled_out_is_no_other_setting() {
        let same = |a: Value, b: Value| assert_eq!(other_setting(&a, &b), None, "{a} {b}");
        same(
            json!({}),
            json!({"prediction_type": "epsilon", "scaling_factor": 0.18215}),
        );
        same(
            json!({"attention_head_dim": 8, "sample_size": 64}),
            json!({"sample_size": 96}),
        );
        let other = |a: Value, b: Value, key: &str| {
            assert_eq!(other_setting(&a, &b), Some(key));
            assert_eq!(other_setting(&b, &a), Some(key));
        };
        other(
            json!({}),
            json!({"prediction_type": "v_prediction"}),
            "prediction_type",
        );
        other(json!({"scaling_factor": 0.9}), json!({}), "scaling_factor");
        other(
            json!({"attention_head_dim": 8}),
            json!({"attention_head_dim": 4}),
            "attention_head_dim",
        );
    }
}
