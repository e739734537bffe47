//! Writing adapters: kohya's names, whole differences, PEFT's names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::{Diff, Lora, scaled};
use crate::{
    config::UNetConfig,
    error::{Error, Result},
    files::{
        checkpoint::{Checkpoint, Family},
        ldm::Paths,
        problems::tensor_error,
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
    /// The base's U-Net, by whose shape the layers of SDXL are numbered in kohya's names.
    pub unet: Option<UNetConfig>,
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
        let number = |id: &str, key: &str| {
            let config = &base.components.get(id)?.config;
            config.get(key)?.as_u64().map(|n| n as usize)
        };
        let unet = base
            .components
            .get("unet")
            .and_then(|unet| UNetConfig::read(Path::new("unet"), &unet.config).ok());
        // Some of SDXL's autoencoders are published with another side than the U-Net's.
        let side = if base.family == Family::Sdxl {
            let levels = base
                .components
                .get("vae")
                .and_then(|vae| vae.config.get("block_out_channels")?.as_array())
                .map_or(1, Vec::len);
            let factor = 1usize.checked_shl(levels.saturating_sub(1) as u32);
            number("unet", "sample_size").and_then(|side| side.checked_mul(factor?))
        } else {
            number("vae", "sample_size")
        };
        Self {
            family: Some(base.family),
            v_prediction: predicted == Some("v_prediction"),
            resolution: side,
            unet,
            ..Self::default()
        }
    }

    fn metadata(&self, lora: &Lora, alpha: f32) -> BTreeMap<String, String> {
        let family = self.family.unwrap_or(Family::Custom);
        let (architecture, version) = match (family, self.v_prediction) {
            (Family::Sd1, _) => ("stable-diffusion-v1", "sd_v1"),
            (Family::Sd2, false) => ("stable-diffusion-v2-512", "sd_v2"),
            (Family::Sd2, true) => ("stable-diffusion-v2-768-v", "sd_v2_v"),
            (Family::Sdxl, _) => ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0"),
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
                (
                    "modelspec.implementation",
                    // What kohya's tools write: the names are those of this code.
                    if family == Family::Sdxl {
                        "https://github.com/Stability-AI/generative-models"
                    } else {
                        "diffusers"
                    },
                ),
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
/// For SDXL these are `lora_unet_` with the paths of Stability's code (`input_blocks_4_1_...`),
/// `lora_te1_` and `lora_te2_`, as kohya's own scripts write them.
///
/// All modules get one alpha, the factors being scaled where theirs differ: diffusers (0.42) loses
/// the alphas of attention layers when a file has several.
///
/// # Errors
/// If something is changed that has no name there (the autoencoder, whole differences), or the file cannot be written.
pub fn write_kohya(path: &Path, lora: &Lora, spec: &Spec) -> Result<()> {
    let names = Names::of(spec.family.unwrap_or(Family::Custom), spec.unet.as_ref());
    let mut tensors = Tensors::new();
    let mut problems: Vec<String> = lora
        .diffs
        .iter()
        .map(|d| format!("a whole change has no factors: {} {}", d.component, d.name))
        .collect();
    let alpha = shared_alpha(lora);
    for change in &lora.low_rank {
        let Some(key) = names.flat(&change.component, &change.module) else {
            problems.push(format!(
                "no name in a LoRA file: {} {}",
                change.component, change.module
            ));
            continue;
        };
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
    let unet = if base.family == Family::Sdxl {
        let config = &base.component("unet")?.config;
        Some(UNetConfig::read(Path::new("unet"), config)?)
    } else {
        None
    };
    let known = Names::of(base.family, unet.as_ref());
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
        let Some((names, (module, end))) =
            split.and_then(|split| Some((known.spellings(&change.component, split.0)?, split)))
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

/// What the modules of a family are called in kohya's files.
struct Names {
    family: Family,
    /// The paths of SDXL's U-Net in Stability's code.
    sgm: Option<Paths>,
}

impl Names {
    fn of(family: Family, unet: Option<&UNetConfig>) -> Self {
        Self {
            family,
            sgm: unet.filter(|_| family == Family::Sdxl).map(Paths::unet),
        }
    }

    /// A module's flat name, with underscores for dots.
    fn flat(&self, component: &str, module: &str) -> Option<String> {
        let sdxl = self.family == Family::Sdxl;
        let prefix = match component {
            "unet" if sdxl => {
                let old = self.sgm.as_ref()?.ldm(module)?;
                return Some(format!("lora_unet_{}", old.replace('.', "_")));
            }
            "unet" => "lora_unet_",
            "text_encoder" if sdxl => "lora_te1_",
            "text_encoder" => "lora_te_",
            "text_encoder_2" if sdxl => "lora_te2_",
            _ => return None,
        };
        Some(format!("{prefix}{}", module.replace('.', "_")))
    }

    /// The names of a module in a file of differences.
    fn spellings(&self, component: &str, module: &str) -> Option<Vec<String>> {
        let flat = self.flat(component, module)?;
        if component == "unet" {
            if module == "conv_norm_out" {
                return Some(vec!["lora_unet_out_0".into()]);
            }
            return Some(vec![flat]);
        }
        let layer = module.contains(".encoder.layers.");
        if layer && (module.contains(".self_attn.") || module.contains(".mlp.")) {
            return Some(vec![flat]);
        }
        let encoder = match (self.family, component) {
            (_, "text_encoder_2") => "clip_g",
            (Family::Sd2, _) => "clip_h",
            _ => "clip_l",
        };
        let mut names = vec![format!("text_encoders.{encoder}.transformer.{module}")];
        // What A1111 calls the modules of OpenCLIP has no spelling here; what it reads of SDXL's
        // norms was not tried.
        let spelled = matches!(self.family, Family::Sd1 | Family::Custom);
        if spelled && !module.contains(".embeddings.") {
            names.push(format!(
                "{}{}",
                if layer { "lora_te_" } else { "lora_te1_" },
                module.replace('.', "_")
            ));
        }
        Some(names)
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
        if !["unet", "text_encoder", "text_encoder_2"].contains(&change.component.as_str()) {
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
