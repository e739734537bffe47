//! A whole checkpoint in one safetensors file, in the layout of the original LDM code, or in that of
//! Stability's sgm.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    checkpoint::{Checkpoint, Component, Family, OpenOptions, other_channels},
    hints::{EPSILON_STEP, Hints, Layout, Marks, config_key, empty_prompt_key, tokenizer_key},
    identify,
    ldm::{self, Paths},
    names,
    problems::tensor_error,
    safetensors::TensorFile,
    sdxl_names::{self, Components, SdxlNames},
    stock::Configs,
    tensor::{HostTensor, Tensors},
};
use crate::{
    config::{ClipTextConfig, UNetConfig, VaeConfig},
    error::{Error, Result},
};

/// Reads a single file.
pub(super) fn read(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let file = TensorFile::open(path)?;
    let family = identify::whole_family(&file)?;
    let TensorFile {
        tensors, metadata, ..
    } = file;
    let mut notes = Vec::new();
    let marks = Marks {
        v_pred: tensors.contains_key(names::V_PRED),
        ztsnr: tensors.contains_key(names::ZTSNR),
    };
    let step = tensors
        .get("global_step")
        .and_then(|tensor| tensor.to_i64()?.first().copied());
    let idle = tensors.keys().filter(|name| names::is_idle(name)).count();
    if idle > 0 {
        notes.push(format!("{idle} tensor(s) known to carry no weight skipped (EMA copies, schedule buffers, position ids)"));
    }
    let shape = |key: &str| {
        let tensor = tensors.get(&format!("{}{key}", ldm::UNET));
        tensor.map(|t| t.shape().to_vec())
    };
    let (layout, parts, shapes);
    if family == Family::Sdxl {
        need_sdxl(path, &tensors)?;
        layout = Layout::Sdxl;
        shapes = layout.probes().map(shape);
        parts = Parts::Sdxl(tensors);
    } else {
        let sorted = Sorted::of(path, &tensors)?;
        layout = sorted.layout();
        shapes = layout.probes().map(shape);
        parts = Parts::Sd(sorted);
    }
    // Before the names are compared: a U-Net for other inputs is another kind of model, not a
    // misfit.
    let channels = shapes[0].as_ref().and_then(|shape| shape.get(1).copied());
    let hints = Hints {
        path,
        metadata: &metadata,
        step,
        marks,
        shapes,
        layout,
    };
    let found = hints.found(options, &mut notes)?;
    let latents = found.configs.components.get("vae");
    let latents = latents
        .and_then(|vae| vae.get("latent_channels")?.as_u64())
        .unwrap_or(4);
    if let Some(channels) = channels.filter(|&c| c as u64 != latents) {
        return Err(other_channels(
            &path.display().to_string(),
            channels as u64,
            latents,
        ));
    }
    let mut components = match parts {
        Parts::Sd(sorted) => sorted.components(path, &found.configs, &mut notes)?,
        Parts::Sdxl(tensors) => {
            let read = Read::of(path, &found.configs)?;
            let second = read.text(path, &found.configs, "text_encoder_2")?;
            SdxlNames::new(&read.unet, &read.vae, second.num_hidden_layers)
                .from_single(&path.display().to_string(), tensors)?
        }
    };
    Checkpoint {
        name: path.display().to_string(),
        components: found
            .configs
            .components
            .into_iter()
            .map(|(id, config)| {
                let tensors = components.remove(id).unwrap_or_default();
                (id.to_owned(), Component { config, tensors })
            })
            .collect(),
        scheduler: found.configs.scheduler,
        model_index: found.model_index,
        tokenizers: found.tokenizers,
        passengers: Vec::new(),
        notes,
        family: Family::Custom,
    }
    .finished(options)
}

/// Sees that an SDXL file has all that a whole checkpoint has.
fn need_sdxl(path: &Path, tensors: &Tensors) -> Result<()> {
    for (what, prefix) in [
        ("U-Net", ldm::UNET),
        ("autoencoder", ldm::VAE),
        ("first text encoder", sdxl_names::TEXT_ENCODER),
        ("second text encoder", sdxl_names::TEXT_ENCODER_2),
    ] {
        if !identify::begins(tensors, prefix) {
            return Err(Error::file(
                path,
                format!("expected a whole SDXL checkpoint, found no {what} ({prefix}...)"),
            ));
        }
    }
    Ok(())
}

/// The tensors of a file by what they belong to, without the names of the components' networks
/// brought to diffusers'.
enum Parts {
    Sd(Sorted),
    Sdxl(Tensors),
}

/// A file of Stable Diffusion 1.x or 2.x, its names without the prefixes.
struct Sorted {
    unet: Tensors,
    vae: Tensors,
    clip: Tensors,
    open_clip: Tensors,
    left_over: Vec<String>,
}

impl Sorted {
    fn of(path: &Path, tensors: &Tensors) -> Result<Self> {
        let mut parts: BTreeMap<&str, Tensors> = BTreeMap::new();
        let mut left_over = Vec::new();
        for (name, tensor) in tensors {
            let places = [
                (ldm::UNET, ldm::UNET),
                (ldm::VAE, ldm::VAE),
                (ldm::CLIP, ldm::CLIP),
                (ldm::OPEN_CLIP, ldm::OPEN_CLIP),
                (ldm::SGM_CLIP, ldm::CLIP),
                (ldm::SGM_OPEN_CLIP, ldm::OPEN_CLIP),
            ];
            match places.into_iter().find(|(p, _)| name.starts_with(p)) {
                _ if names::is_idle(name) => {}
                Some((prefix, part)) => {
                    let inside = name[prefix.len()..].to_owned();
                    let part = parts.entry(part).or_default();
                    if part.insert(inside, tensor.clone()).is_some() {
                        left_over.push(format!(
                            "there twice: {name}, also in the layout of cond_stage_model"
                        ));
                    }
                }
                None => left_over.push(format!("left over: {name} {:?}", tensor.shape())),
            }
        }
        let mut part = |prefix: &str| parts.remove(prefix).unwrap_or_default();
        let sorted = Self {
            unet: part(ldm::UNET),
            vae: part(ldm::VAE),
            clip: part(ldm::CLIP),
            open_clip: part(ldm::OPEN_CLIP),
            left_over,
        };
        for (what, found) in [("U-Net", &sorted.unet), ("autoencoder", &sorted.vae)] {
            if found.is_empty() {
                return Err(Error::file(
                    path,
                    format!("expected a whole checkpoint, found no {what}"),
                ));
            }
        }
        if sorted.clip.is_empty() == sorted.open_clip.is_empty() {
            let found = if sorted.clip.is_empty() {
                "none"
            } else {
                "both CLIP's and OpenCLIP's names"
            };
            return Err(Error::file(
                path,
                format!("expected one text encoder in cond_stage_model, found {found}"),
            ));
        }
        Ok(sorted)
    }

    fn layout(&self) -> Layout {
        if self.open_clip.is_empty() {
            Layout::Clip
        } else {
            Layout::OpenClip
        }
    }

    /// The tensors by component, under diffusers' and transformers' names.
    fn components(
        self,
        path: &Path,
        configs: &Configs,
        notes: &mut Vec<String>,
    ) -> Result<Components> {
        let read = Read::of(path, configs)?;
        let text_config = read.text(path, configs, "text_encoder")?;
        let (unet_paths, vae_paths) = (Paths::unet(&read.unet), Paths::vae(&read.vae));
        let mut left_over = self.left_over;
        let mut unet = Tensors::new();
        for (name, tensor) in self.unet {
            match unet_paths.diffusers(&name) {
                Some(new) => drop(unet.insert(new, tensor)),
                None => left_over.push(format!(
                    "left over: {}{name} {:?}",
                    ldm::UNET,
                    tensor.shape()
                )),
            }
        }
        let mut vae = Tensors::new();
        for (name, tensor) in self.vae {
            match vae_paths.diffusers(&name) {
                Some(new) => {
                    let tensor = ldm::vae_tensor_from_ldm(&new, tensor);
                    vae.insert(new, tensor);
                }
                None => left_over.push(format!(
                    "left over: {}{name} {:?}",
                    ldm::VAE,
                    tensor.shape()
                )),
            }
        }
        let text = if self.open_clip.is_empty() {
            self.clip
        } else {
            let read = ldm::from_open_clip(self.open_clip, text_config.num_hidden_layers);
            left_over.extend(
                read.left_over
                    .into_iter()
                    .map(|name| format!("left over: {}{name}", ldm::OPEN_CLIP)),
            );
            if read.unused > 0 {
                notes.push(format!(
                    "{} tensor(s) of OpenCLIP that Stable Diffusion does not use skipped",
                    read.unused
                ));
            }
            read.tensors
        };
        if !left_over.is_empty() {
            return Err(tensor_error(&path.display().to_string(), left_over));
        }
        Ok(Components::from([
            ("text_encoder", names::modernise("text_encoder", text)?),
            ("unet", unet),
            ("vae", vae),
        ]))
    }
}

/// The configurations that names are derived from.
struct Read {
    unet: UNetConfig,
    vae: VaeConfig,
}

impl Read {
    fn of(path: &Path, configs: &Configs) -> Result<Self> {
        let config = |id: &str| configs.components.get(id).unwrap_or(&Value::Null);
        Ok(Self {
            unet: UNetConfig::read(&path.join("unet"), config("unet"))?,
            vae: VaeConfig::read(&path.join("vae"), config("vae"))?,
        })
    }

    fn text(&self, path: &Path, configs: &Configs, id: &str) -> Result<ClipTextConfig> {
        let config = configs.components.get(id).unwrap_or(&Value::Null);
        ClipTextConfig::read(&path.join(id), config)
    }
}

/// The tensors of a checkpoint under LDM's names, and the metadata with which [`read`] finds
/// everything again.
pub(super) fn contents(checkpoint: &Checkpoint) -> Result<(Tensors, BTreeMap<String, String>)> {
    let all = if checkpoint.family == Family::Sdxl {
        sdxl_tensors(checkpoint)?
    } else {
        sd_tensors(checkpoint)?
    };
    let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    for (id, component) in &checkpoint.components {
        metadata.insert(config_key(id), component.config.to_string());
    }
    metadata.insert(config_key("scheduler"), checkpoint.scheduler.to_string());
    if checkpoint.family == Family::Sdxl {
        let zeros = checkpoint.zeros_for_empty_prompt();
        metadata.insert(empty_prompt_key(), zeros.to_string());
    }
    for (id, tokenizer) in &checkpoint.tokenizers {
        if tokenizer.is_clip() {
            continue;
        }
        // tokenizer.json says the same at three times the length, unless it is all there is.
        let whole = ["vocab.json", "merges.txt"]
            .iter()
            .all(|f| tokenizer.get(f).is_some());
        for (name, bytes) in &tokenizer.files {
            if !(whole && name == "tokenizer.json") {
                let text = std::str::from_utf8(bytes).map_err(|_| {
                    Error::file(&checkpoint.name, format!("{id}/{name} is not UTF-8"))
                })?;
                metadata.insert(tokenizer_key(id, name), text.into());
            }
        }
    }
    Ok((all, metadata))
}

/// What a scheduler's configuration says of a prediction.
fn predicts(checkpoint: &Checkpoint) -> &str {
    let predicted = checkpoint.scheduler.get("prediction_type");
    predicted.and_then(Value::as_str).unwrap_or("epsilon")
}

/// Stable Diffusion 1.x's and 2.x's names.
fn sd_tensors(checkpoint: &Checkpoint) -> Result<Tensors> {
    let place = |name: &str| Path::new(&checkpoint.name).join(name).join("config.json");
    let (text, unet, vae) = (
        checkpoint.component("text_encoder")?,
        checkpoint.component("unet")?,
        checkpoint.component("vae")?,
    );
    let unet_paths = Paths::unet(&UNetConfig::read(&place("unet"), &unet.config)?);
    let vae_paths = Paths::vae(&VaeConfig::read(&place("vae"), &vae.config)?);
    let text_config = ClipTextConfig::read(&place("text_encoder"), &text.config)?;

    let mut all = Tensors::new();
    let mut homeless = Vec::new();
    for (name, tensor) in &unet.tensors {
        match unet_paths.ldm(name) {
            Some(old) => drop(all.insert(format!("{}{old}", ldm::UNET), tensor.clone())),
            None => homeless.push(format!("no place in a single file: unet {name}")),
        }
    }
    for (name, tensor) in &vae.tensors {
        match vae_paths.ldm(name) {
            Some(old) => {
                let tensor = ldm::vae_tensor_to_ldm(&old, tensor);
                all.insert(format!("{}{old}", ldm::VAE), tensor);
            }
            None => homeless.push(format!("no place in a single file: vae {name}")),
        }
    }
    if checkpoint.family == Family::Sd2 {
        match ldm::to_open_clip(&text.tensors, text_config.num_hidden_layers) {
            Ok(tensors) => all.extend(
                tensors
                    .into_iter()
                    .map(|(name, t)| (format!("{}{name}", ldm::OPEN_CLIP), t)),
            ),
            Err(names) => homeless.extend(
                names
                    .iter()
                    .map(|n| format!("no place in a single file: text_encoder {n}")),
            ),
        }
        // What diffusers goes by when nobody tells it the prediction type.
        if predicts(checkpoint) == "epsilon" {
            all.insert(
                "global_step".into(),
                HostTensor::from_i64([], &[EPSILON_STEP]),
            );
        }
    } else {
        let named = text
            .tensors
            .iter()
            .map(|(name, t)| (format!("{}{name}", ldm::CLIP), t.clone()));
        all.extend(named);
    }
    if homeless.is_empty() {
        Ok(all)
    } else {
        Err(tensor_error(&checkpoint.name, homeless))
    }
}

/// SDXL's names, and ComfyUI's marks where it predicts v.
fn sdxl_tensors(checkpoint: &Checkpoint) -> Result<Tensors> {
    let place = |name: &str| Path::new(&checkpoint.name).join(name).join("config.json");
    let config = |id: &str| Ok::<_, Error>(&checkpoint.component(id)?.config);
    let second = ClipTextConfig::read(&place("text_encoder_2"), config("text_encoder_2")?)?;
    let table = SdxlNames::new(
        &UNetConfig::read(&place("unet"), config("unet")?)?,
        &VaeConfig::read(&place("vae"), config("vae")?)?,
        second.num_hidden_layers,
    );
    let mut components = Components::new();
    for id in sdxl_names::COMPONENTS {
        components.insert(id, checkpoint.component(id)?.tensors.clone());
    }
    let mut all = table.to_single(&checkpoint.name, &components)?;
    let mut mark = |name: &str| drop(all.insert(name.into(), HostTensor::from_f32([0], &[])));
    if predicts(checkpoint) == "v_prediction" {
        mark(names::V_PRED);
        if checkpoint.scheduler.get("rescale_betas_zero_snr") == Some(&Value::Bool(true)) {
            mark(names::ZTSNR);
        }
    }
    Ok(all)
}
