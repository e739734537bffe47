//! Writing adapters: kohya's names, whole differences, PEFT's names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::{Diff, Lora, scaled};
use crate::{
    error::{Error, Result},
    files::{
        checkpoint::{Checkpoint, Family, tensor_error},
        safetensors::write,
        tensor::{HostTensor, Tensors},
    },
};

/// What an adapter's metadata say about it.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// `modelspec.title`.
    pub title: String,
    /// The base's family, which decides `modelspec.architecture` and `ss_base_model_version`.
    pub family: Option<Family>,
    /// `modelspec.prediction_type`: whether the base predicts v rather than noise.
    pub v_prediction: bool,
    /// `modelspec.resolution`: the side of the base's pictures.
    pub resolution: Option<usize>,
    /// Further metadata, such as our own, a licence, a date. They win over the ones made here.
    pub extra: BTreeMap<String, String>,
}

impl Spec {
    /// The description of a base, apart from the title.
    pub fn of(base: &Checkpoint) -> Self {
        let predicted = base
            .scheduler
            .get("prediction_type")
            .and_then(Value::as_str);
        let side = base
            .vae
            .config
            .get("sample_size")
            .and_then(Value::as_u64)
            .map(|n| n as usize);
        Self {
            family: Some(base.family),
            v_prediction: predicted == Some("v_prediction"),
            resolution: side,
            ..Self::default()
        }
    }

    fn metadata(&self, lora: &Lora, alpha: f32) -> BTreeMap<String, String> {
        let family = self.family.unwrap_or(Family::Custom);
        let (architecture, version) = match (family, self.v_prediction) {
            (Family::Sd1, _) => ("stable-diffusion-v1", "sd_v1"),
            (Family::Sd2, false) => ("stable-diffusion-v2-512", "sd_v2"),
            (Family::Sd2, true) => ("stable-diffusion-v2-768-v", "sd_v2_v"),
            (Family::Custom, _) => ("stable-diffusion-custom", "custom"),
        };
        // One number if all modules share it, as kohya's own merging tools write it.
        let shared = |numbers: Vec<String>| match numbers.split_first() {
            Some((first, rest)) if rest.iter().all(|n| n == first) => first.clone(),
            _ => "Dynamic".into(),
        };
        let mut all = BTreeMap::from(
            [
                ("format", "pt"),
                ("ss_base_model_version", version),
                (
                    "ss_v2",
                    if family == Family::Sd2 {
                        "True"
                    } else {
                        "False"
                    },
                ),
                ("modelspec.sai_model_spec", "1.0.0"),
                ("modelspec.implementation", "diffusers"),
                ("modelspec.title", &self.title),
                (
                    "modelspec.prediction_type",
                    if self.v_prediction { "v" } else { "epsilon" },
                ),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        all.insert(
            "modelspec.architecture".into(),
            format!("{architecture}/lora"),
        );
        if let Some(side) = self.resolution {
            all.insert("modelspec.resolution".into(), format!("{side}x{side}"));
        }
        if !lora.low_rank.is_empty() {
            all.insert("ss_network_module".into(), "networks.lora".into());
            all.insert(
                "ss_network_dim".into(),
                shared(lora.low_rank.iter().map(|l| l.rank().to_string()).collect()),
            );
            // As Python writes a float, so kohya's own files: `1.0`.
            all.insert("ss_network_alpha".into(), format!("{alpha:?}"));
            all.insert("ss_network_args".into(), "{}".into());
        }
        all.extend(self.extra.clone());
        all
    }
}

/// Writes low-rank changes under kohya's names: `lora_down`, `lora_up` and `alpha`.
///
/// All modules get one alpha, the factors being scaled where theirs differ: diffusers (0.42) loses
/// the alphas of attention layers when a file has several.
///
/// # Errors
/// If something is changed that has no name there (the autoencoder, whole differences), or the file cannot be written.
pub fn write_kohya(path: &Path, lora: &Lora, spec: &Spec) -> Result<()> {
    let mut tensors = Tensors::new();
    let mut problems: Vec<String> = lora
        .diffs
        .iter()
        .map(|d| format!("a whole change has no factors: {} {}", d.component, d.name))
        .collect();
    let alpha = shared_alpha(lora);
    for change in &lora.low_rank {
        let Some(prefix) = prefix(&change.component) else {
            problems.push(format!(
                "no name in a LoRA file: {} {}",
                change.component, change.module
            ));
            continue;
        };
        let key = format!("{prefix}{}", change.module.replace('.', "_"));
        tensors.insert(format!("{key}.lora_down.weight"), change.down.clone());
        match scaled(&change.up, change.alpha / alpha) {
            Some(up) => drop(tensors.insert(format!("{key}.lora_up.weight"), up)),
            None => problems.push(format!("{key}: expected floats, found {:?}", change.up)),
        }
        tensors.insert(format!("{key}.alpha"), HostTensor::from_f32([], &[alpha]));
    }
    finish(path, tensors, problems, &spec.metadata(lora, alpha))
}

/// Writes whole differences (`.diff` of weights, `.diff_b` of biases) in the spellings that ComfyUI
/// and A1111 take.
///
/// They are kohya's names, and beside them or instead of them: `lora_unet_out_0` for
/// `conv_norm_out`, which both take; ComfyUI's own names for the text encoder's norms and
/// embeddings, which have no kohya name there; `lora_te1_` for the last norm, which A1111 takes. A
/// bias whose weight stays gets a difference of zeros beside it, without which A1111 refuses the
/// file.
///
/// # Errors
/// If something is changed that has no name there (the autoencoder, tensors that are neither `weight` nor `bias`), or the file
/// cannot be written.
pub fn write_delta(path: &Path, diffs: &[Diff], base: &Checkpoint, spec: &Spec) -> Result<()> {
    let mut tensors = Tensors::new();
    let mut problems = Vec::new();
    let changed: BTreeSet<(&str, &str)> = diffs
        .iter()
        .map(|d| (d.component.as_str(), d.name.as_str()))
        .collect();
    for change in diffs {
        let split = change
            .name
            .rsplit_once('.')
            .and_then(|(module, end)| match end {
                "weight" => Some((module, "diff")),
                "bias" => Some((module, "diff_b")),
                _ => None,
            });
        let Some((names, (module, end))) = split
            .and_then(|split| Some((spellings(&change.component, split.0, base.family)?, split)))
        else {
            problems.push(format!(
                "no name in a LoRA file: {} {}",
                change.component, change.name
            ));
            continue;
        };
        let weight = format!("{module}.weight");
        let alone =
            end == "diff_b" && !changed.contains(&(change.component.as_str(), weight.as_str()));
        let beside = alone
            .then(|| base.component(&change.component).ok()?.tensors.get(&weight))
            .flatten();
        for name in names {
            tensors.insert(format!("{name}.{end}"), change.diff.clone());
            if let Some(weight) = beside {
                let zeros = HostTensor::from_f32(weight.shape(), &vec![0.0; weight.len()]);
                tensors.insert(
                    format!("{name}.diff"),
                    zeros.cast(change.diff.dtype()).unwrap_or(zeros),
                );
            }
        }
    }
    finish(
        path,
        tensors,
        problems,
        &spec.metadata(&Lora::default(), 1.0),
    )
}

/// The names of a module in a file of differences.
fn spellings(component: &str, module: &str, family: Family) -> Option<Vec<String>> {
    let flat = module.replace('.', "_");
    if component == "unet" {
        let flat = if module == "conv_norm_out" {
            "out_0".into()
        } else {
            flat
        };
        return Some(vec![format!("lora_unet_{flat}")]);
    }
    if component != "text_encoder" {
        return None;
    }
    let layer = module.contains(".encoder.layers.");
    if layer && (module.contains(".self_attn.") || module.contains(".mlp.")) {
        return Some(vec![format!("lora_te_{flat}")]);
    }
    let encoder = if family == Family::Sd2 {
        "clip_h"
    } else {
        "clip_l"
    };
    let mut names = vec![format!("text_encoders.{encoder}.transformer.{module}")];
    // What A1111 calls the modules of OpenCLIP has no spelling here.
    if family != Family::Sd2 && !module.contains(".embeddings.") {
        names.push(format!(
            "{}{flat}",
            if layer { "lora_te_" } else { "lora_te1_" }
        ));
    }
    Some(names)
}

fn prefix(component: &str) -> Option<&'static str> {
    match component {
        "unet" => Some("lora_unet_"),
        "text_encoder" => Some("lora_te_"),
        _ => None,
    }
}

/// Writes what was collected, unless there were problems or there is nothing.
fn finish(
    path: &Path,
    tensors: Tensors,
    problems: Vec<String>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    if !problems.is_empty() {
        return Err(tensor_error(&path.display().to_string(), problems));
    }
    if tensors.is_empty() {
        return Err(Error::file(path, "there is no change to write"));
    }
    write(path, tensors, metadata)
}

/// Writes low-rank changes under PEFT's names, as diffusers' `pytorch_lora_weights.safetensors`.
///
/// The scale is multiplied into the up factor, so that every reader agrees on it.
///
/// # Errors
/// If there are whole changes or changes of the autoencoder, which have no name there, or writing fails.
pub fn write_peft(path: &Path, lora: &Lora, metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut tensors = Tensors::new();
    let mut problems: Vec<String> = lora
        .diffs
        .iter()
        .map(|d| {
            format!(
                "a whole change has no name in PEFT's layout: {} {}",
                d.component, d.name
            )
        })
        .collect();
    for change in &lora.low_rank {
        if !["unet", "text_encoder"].contains(&change.component.as_str()) {
            problems.push(format!(
                "no name in PEFT's layout: {} {}",
                change.component, change.module
            ));
            continue;
        }
        let key = format!("{}.{}", change.component, change.module);
        match scaled(&change.up, change.scale()) {
            Some(up) => drop(tensors.insert(format!("{key}.lora_B.weight"), up)),
            None => problems.push(format!("{key}: expected floats, found {:?}", change.up)),
        }
        tensors.insert(format!("{key}.lora_A.weight"), change.down.clone());
    }
    let mut all = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    all.extend(metadata.clone());
    finish(path, tensors, problems, &all)
}

/// The alpha that all modules share, or else the highest rank. Never 0, which readers take for the
/// rank.
fn shared_alpha(lora: &Lora) -> f32 {
    let first = lora.low_rank.first().map_or(0.0, |l| l.alpha);
    if first != 0.0 && lora.low_rank.iter().all(|l| l.alpha == first) {
        return first;
    }
    lora.low_rank
        .iter()
        .map(|l| l.rank())
        .max()
        .unwrap_or(1)
        .max(1) as f32
}
