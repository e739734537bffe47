//! kohya's names: the module's path with every dot an underscore, `lora_unet_` or `lora_te_` before it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Collector, Lora, module_names, scaled};
use crate::{
    config::UNetConfig,
    error::{Error, Result},
    files::{
        checkpoint::{Checkpoint, Family, tensor_error},
        ldm::Paths,
        safetensors::{TensorFile, write},
        tensor::{HostTensor, Tensors},
    },
};

/// The beginnings of the two components' keys; the second spelling of the text encoder's is that of SDXL tools.
const PREFIXES: [(&str, &str); 3] = [("lora_unet_", "unet"), ("lora_te_", "text_encoder"), ("lora_te1_", "text_encoder")];

pub(super) fn read(file: &TensorFile, base: &Checkpoint) -> Result<Lora> {
    let mut modules: BTreeMap<(&str, String), String> = BTreeMap::new();
    for component in ["unet", "text_encoder"] {
        for module in module_names(&base.component(component)?.tensors) {
            modules.insert((component, module.replace('.', "_")), module);
        }
    }
    // SD 1.x adapters made with LDM's own code carry its paths: lora_unet_input_blocks_1_1_...
    let config = UNetConfig::read(&PathBuf::from("unet"), &base.unet.config)?;
    let paths = Paths::unet(&config);
    for module in module_names(&base.unet.tensors) {
        if let Some(old) = paths.ldm(&module) {
            modules.entry(("unet", old.replace('.', "_"))).or_insert(module);
        }
    }

    let mut found = Collector::default();
    for (key, tensor) in &file.tensors {
        let prefix = PREFIXES.iter().find_map(|(p, component)| Some((*component, key.strip_prefix(p)?)));
        let split = prefix.and_then(|(component, rest)| rest.split_once('.').map(|(module, piece)| (component, module, piece)));
        let Some((component, flat, piece)) = split else {
            found.problems.push(format!("left over: {key}"));
            continue;
        };
        let Some(module) = modules.get(&(component, flat.to_owned())) else {
            found.problems.push(format!("left over: {key}: the {component} has no such module"));
            continue;
        };
        let at = (component, module.clone());
        match piece {
            "lora_down.weight" => found.put(key, |p| &mut p.down, at, tensor),
            "lora_up.weight" => found.put(key, |p| &mut p.up, at, tensor),
            "alpha" => found.put_alpha(key, at, tensor),
            "diff" | "diff_b" => {
                let end = if piece == "diff" { "weight" } else { "bias" };
                if found.diffs.insert((component, format!("{module}.{end}")), tensor.clone()).is_some() {
                    found.problems.push(format!("there twice: {key}, under another name of the same module"));
                }
            }
            other => found.problems.push(format!("not supported: {key}: `{other}` (DoRA, LoHa, LoKr and LoCon's mid are not)")),
        }
    }
    found.finish(file, base)
}

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
        let predicted = base.scheduler.get("prediction_type").and_then(Value::as_str);
        let side = base.vae.config.get("sample_size").and_then(Value::as_u64).map(|n| n as usize);
        Self { family: Some(base.family), v_prediction: predicted == Some("v_prediction"), resolution: side, ..Self::default() }
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
                ("ss_v2", if family == Family::Sd2 { "True" } else { "False" }),
                ("modelspec.sai_model_spec", "1.0.0"),
                ("modelspec.implementation", "diffusers"),
                ("modelspec.title", &self.title),
                ("modelspec.prediction_type", if self.v_prediction { "v" } else { "epsilon" }),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        all.insert("modelspec.architecture".into(), format!("{architecture}/lora"));
        if let Some(side) = self.resolution {
            all.insert("modelspec.resolution".into(), format!("{side}x{side}"));
        }
        if !lora.low_rank.is_empty() {
            all.insert("ss_network_module".into(), "networks.lora".into());
            all.insert("ss_network_dim".into(), shared(lora.low_rank.iter().map(|l| l.rank().to_string()).collect()));
            all.insert("ss_network_alpha".into(), alpha.to_string());
            all.insert("ss_network_args".into(), "{}".into());
        }
        all.extend(self.extra.clone());
        all
    }
}

/// Writes low-rank changes (`lora_down`, `lora_up`, `alpha`) and whole changes (`diff`, `diff_b`) under kohya's names.
///
/// All modules get one alpha, the factors being scaled where theirs differ: diffusers (0.42) loses the alphas of attention
/// layers when a file has several. Files with whole changes are read by ComfyUI and A1111, not by diffusers.
///
/// # Errors
/// If something is changed that has no name there (the autoencoder, tensors that are neither `weight` nor `bias`), or
/// the file cannot be written.
pub fn write_kohya(path: &Path, lora: &Lora, spec: &Spec) -> Result<()> {
    let mut tensors = Tensors::new();
    let mut problems = Vec::new();
    let alpha = shared_alpha(lora);
    let prefix = |component: &str| PREFIXES.iter().find(|(_, c)| *c == component).map(|(p, _)| *p);
    for change in &lora.low_rank {
        let Some(prefix) = prefix(&change.component) else {
            problems.push(format!("no name in a LoRA file: {} {}", change.component, change.module));
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
    for change in &lora.diffs {
        let split = change.name.rsplit_once('.').and_then(|(module, end)| match end {
            "weight" => Some((module, "diff")),
            "bias" => Some((module, "diff_b")),
            _ => None,
        });
        match prefix(&change.component).zip(split) {
            Some((prefix, (module, end))) => {
                tensors.insert(format!("{prefix}{}.{end}", module.replace('.', "_")), change.diff.clone());
            }
            None => problems.push(format!("no name in a LoRA file: {} {}", change.component, change.name)),
        }
    }
    if !problems.is_empty() {
        return Err(tensor_error(&path.display().to_string(), problems));
    }
    if tensors.is_empty() {
        return Err(Error::file(path, "there is no change to write"));
    }
    write(path, tensors, &spec.metadata(lora, alpha))
}

/// The alpha that all modules share, or else the highest rank. Never 0, which readers take for the rank.
fn shared_alpha(lora: &Lora) -> f32 {
    let first = lora.low_rank.first().map_or(0.0, |l| l.alpha);
    if first != 0.0 && lora.low_rank.iter().all(|l| l.alpha == first) {
        return first;
    }
    lora.low_rank.iter().map(|l| l.rank()).max().unwrap_or(1).max(1) as f32
}
