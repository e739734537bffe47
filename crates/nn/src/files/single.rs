//! A whole checkpoint in one safetensors file, in the layout of the original LDM code.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    checkpoint::{
        Checkpoint, Component, Family, OpenOptions, Pad, Prediction, TokenizerFiles,
        other_channels, tensor_error,
    },
    folder, identify,
    ldm::{self, Paths},
    names,
    safetensors::TensorFile,
    source::{LONGEST_CONFIG, LONGEST_TOKENIZER, Source, parse_config, read_file},
    stock::{self, Configs},
    tensor::{Bytes, HostTensor, Tensors},
};
use crate::{
    config::{ClipTextConfig, UNetConfig, VaeConfig},
    error::{Error, Result},
};

/// Metadata keys under which our own files carry their configurations.
const CONFIGS: [&str; 4] = [
    "scumble.unet_config",
    "scumble.vae_config",
    "scumble.text_encoder_config",
    "scumble.scheduler_config",
];

/// Beginning of the metadata keys under which our own files carry a tokenizer that is not CLIP's.
const TOKENIZER: &str = "scumble.tokenizer.";

/// The step at which diffusers recognises the epsilon models among SD 2.x files.
const EPSILON_STEP: i64 = 875_000;

/// Reads a single file.
pub(super) fn read(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let file = TensorFile::open(path)?;
    identify::refuse_other_families(&file)?;
    let mut notes = Vec::new();
    let TensorFile {
        tensors, metadata, ..
    } = file;
    let mut parts: BTreeMap<&str, Tensors> = BTreeMap::new();
    let (mut idle, mut left_over, mut step) = (0, Vec::new(), None);
    let marks = Marks {
        v_pred: tensors.contains_key(names::V_PRED),
        ztsnr: tensors.contains_key(names::ZTSNR),
    };
    for (name, tensor) in tensors {
        if name == "global_step" {
            step = tensor.to_i64().and_then(|v| v.first().copied());
        }
        let places = [
            (ldm::UNET, ldm::UNET),
            (ldm::VAE, ldm::VAE),
            (ldm::CLIP, ldm::CLIP),
            (ldm::OPEN_CLIP, ldm::OPEN_CLIP),
            (ldm::SGM_CLIP, ldm::CLIP),
            (ldm::SGM_OPEN_CLIP, ldm::OPEN_CLIP),
        ];
        match places.into_iter().find(|(p, _)| name.starts_with(p)) {
            _ if names::is_idle(&name) => idle += 1,
            Some((prefix, part)) => {
                let inside = name[prefix.len()..].to_owned();
                if parts
                    .entry(part)
                    .or_default()
                    .insert(inside, tensor)
                    .is_some()
                {
                    left_over.push(format!(
                        "there twice: {name}, also in the layout of cond_stage_model"
                    ));
                }
            }
            None => left_over.push(format!("left over: {name} {:?}", tensor.shape())),
        }
    }
    if idle > 0 {
        notes.push(format!("{idle} tensor(s) known to carry no weight skipped (EMA copies, schedule buffers, position ids)"));
    }

    let mut part = |prefix: &str| parts.remove(prefix).unwrap_or_default();
    let (unet, vae, clip, open_clip) = (
        part(ldm::UNET),
        part(ldm::VAE),
        part(ldm::CLIP),
        part(ldm::OPEN_CLIP),
    );
    for (what, found) in [("U-Net", &unet), ("autoencoder", &vae)] {
        if found.is_empty() {
            return Err(Error::file(
                path,
                format!("expected a whole checkpoint, found no {what}"),
            ));
        }
    }
    if clip.is_empty() == open_clip.is_empty() {
        let found = if clip.is_empty() {
            "none"
        } else {
            "both CLIP's and OpenCLIP's names"
        };
        return Err(Error::file(
            path,
            format!("expected one text encoder in cond_stage_model, found {found}"),
        ));
    }

    let hints = Hints {
        path,
        metadata: &metadata,
        step,
        marks,
        unet: &unet,
        open_clip: !open_clip.is_empty(),
    };
    let (mut configs, tokenizer) = hints.configs(options, &mut notes)?;
    if marks.ztsnr {
        // What diffusers calls it; the schedule says whether it can be drawn with.
        configs.scheduler["rescale_betas_zero_snr"] = true.into();
        notes.push("`ztsnr`: the schedule ends without signal (rescale_betas_zero_snr)".into());
    }
    // Before the names are compared: a U-Net for other inputs is another kind of model, not a
    // misfit.
    let channels = unet
        .get("input_blocks.0.0.weight")
        .and_then(|t| t.shape().get(1).copied());
    let latents = configs
        .vae
        .get("latent_channels")
        .and_then(Value::as_u64)
        .unwrap_or(4);
    if let Some(channels) = channels.filter(|&c| c as u64 != latents) {
        return Err(other_channels(
            &path.display().to_string(),
            channels as u64,
            latents,
        ));
    }

    let place = |name: &str| Path::new(path).join(name);
    let unet_paths = Paths::unet(&UNetConfig::read(&place("unet"), &configs.unet)?);
    let vae_paths = Paths::vae(&VaeConfig::read(&place("vae"), &configs.vae)?);
    let text_config = ClipTextConfig::read(&place("text_encoder"), &configs.text_encoder)?;

    let mut new_unet = Tensors::new();
    for (name, tensor) in unet {
        match unet_paths.diffusers(&name) {
            Some(new) => drop(new_unet.insert(new, tensor)),
            None => left_over.push(format!(
                "left over: {}{name} {:?}",
                ldm::UNET,
                tensor.shape()
            )),
        }
    }
    let mut new_vae = Tensors::new();
    for (name, tensor) in vae {
        match vae_paths.diffusers(&name) {
            Some(new) => {
                let tensor = ldm::vae_tensor_from_ldm(&new, tensor);
                new_vae.insert(new, tensor);
            }
            None => left_over.push(format!(
                "left over: {}{name} {:?}",
                ldm::VAE,
                tensor.shape()
            )),
        }
    }
    let new_text = if open_clip.is_empty() {
        clip
    } else {
        let read = ldm::from_open_clip(open_clip, text_config.num_hidden_layers);
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
    Checkpoint {
        name: path.display().to_string(),
        components: BTreeMap::from(
            [
                (
                    "text_encoder",
                    configs.text_encoder,
                    names::modernise("text_encoder", new_text)?,
                ),
                ("unet", configs.unet, new_unet),
                ("vae", configs.vae, new_vae),
            ]
            .map(|(id, config, tensors)| (id.to_owned(), Component { config, tensors })),
        ),
        scheduler: configs.scheduler,
        model_index: folder::default_index(),
        tokenizers: BTreeMap::from([("tokenizer".to_owned(), tokenizer)]),
        passengers: Vec::new(),
        notes,
        family: Family::Custom,
    }
    .finished(options)
}

/// The empty tensors by which ComfyUI says what a model is.
#[derive(Clone, Copy)]
struct Marks {
    v_pred: bool,
    ztsnr: bool,
}

/// What a single file and its neighbours say about its configuration.
struct Hints<'a> {
    path: &'a Path,
    metadata: &'a BTreeMap<String, String>,
    step: Option<i64>,
    marks: Marks,
    unet: &'a Tensors,
    open_clip: bool,
}

impl Hints<'_> {
    /// The configurations: of the folder asked for, of the file's own metadata, or of the published
    /// models.
    fn configs(
        &self,
        options: &OpenOptions,
        notes: &mut Vec<String>,
    ) -> Result<(Configs, TokenizerFiles)> {
        if let Some(folder) = &options.config {
            let source = Source::dir(folder);
            let configs = Configs {
                unet: source.need_json("unet/config.json")?,
                vae: source.need_json("vae/config.json")?,
                text_encoder: source.need_json("text_encoder/config.json")?,
                scheduler: source.need_json("scheduler/scheduler_config.json")?,
            };
            notes.push(format!("configurations of {}", folder.display()));
            let mut tokenizer = folder::tokenizer(&source)?;
            tokenizer.pad = self.pad();
            return Ok((configs, tokenizer));
        }
        if CONFIGS.iter().any(|key| self.metadata.contains_key(*key)) {
            return self.own(options, notes);
        }
        let kernel = self
            .unet
            .get("input_blocks.0.0.weight")
            .map(HostTensor::shape)
            .unwrap_or_default();
        let key = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
        let context = self
            .unet
            .get(key)
            .map(HostTensor::shape)
            .unwrap_or_default();
        let mut configs = match (kernel, context, self.open_clip) {
            ([320, _, 3, 3], [320, 768], false) => {
                stock::sd1(self.prediction(options, false, notes)?)
            }
            ([320, _, 3, 3], [320, 1024], true) => {
                stock::sd2(self.prediction(options, true, notes)?)
            }
            _ => {
                return Err(Error::file(
                    self.path,
                    format!(
                        "the U-Net is neither that of SD 1.x (320 channels, context 768) nor of SD 2.x (320, 1024): \
                         {}input_blocks.0.0.weight is {kernel:?}, {key} is {context:?}",
                        ldm::UNET
                    ),
                )
                .with_hint("name a diffusers folder with its configurations by --config"));
            }
        };
        if let [_, channels, ..] = *kernel {
            configs.unet["in_channels"] = channels.into();
        }
        Ok((
            configs,
            TokenizerFiles {
                files: BTreeMap::new(),
                pad: self.pad(),
            },
        ))
    }

    fn pad(&self) -> Pad {
        if self.open_clip {
            Pad::Zero
        } else {
            Pad::EndOfText
        }
    }

    /// The configurations that one of our own files carries.
    fn own(
        &self,
        options: &OpenOptions,
        notes: &mut Vec<String>,
    ) -> Result<(Configs, TokenizerFiles)> {
        let json = |key: &str| -> Result<Value> {
            let text = self
                .metadata
                .get(key)
                .ok_or_else(|| Error::file(self.path, format!("metadata `{key}` is missing")))?;
            if text.len() as u64 > LONGEST_CONFIG {
                return Err(Error::file(
                    self.path,
                    format!("metadata `{key}` has {} bytes", text.len()),
                ));
            }
            parse_config(&self.path.join(key), text.as_bytes())
        };
        let [unet, vae, text_encoder, scheduler] = CONFIGS.map(json);
        let mut configs = Configs {
            unet: unet?,
            vae: vae?,
            text_encoder: text_encoder?,
            scheduler: scheduler?,
        };
        if options.prediction_type.is_none()
            && let Some(prediction) = self.yaml()?
            && configs
                .scheduler
                .get("prediction_type")
                .and_then(Value::as_str)
                != Some(prediction.name())
        {
            notes.push(format!(
                "prediction type {} from the YAML beside the file",
                prediction.name()
            ));
            configs.scheduler["prediction_type"] = prediction.name().into();
        }
        let mut tokenizer = TokenizerFiles {
            files: BTreeMap::new(),
            pad: self.pad(),
        };
        for name in TokenizerFiles::NAMES {
            if let Some(text) = self.metadata.get(&format!("{TOKENIZER}{name}")) {
                if text.len() as u64 > LONGEST_TOKENIZER {
                    return Err(Error::file(
                        self.path,
                        format!("metadata `{TOKENIZER}{name}` has {} bytes", text.len()),
                    ));
                }
                tokenizer
                    .files
                    .insert(name.into(), Bytes::Owned(text.as_bytes().into()));
            }
        }
        Ok((configs, tokenizer))
    }

    /// Noise or v: as asked, as the YAML or the metadata say, or by diffusers' rule.
    fn prediction(
        &self,
        options: &OpenOptions,
        second: bool,
        notes: &mut Vec<String>,
    ) -> Result<Prediction> {
        if let Some(asked) = options.prediction_type {
            return Ok(asked);
        }
        if let Some(found) = self.yaml()? {
            notes.push(format!(
                "prediction type {} from the YAML beside the file",
                found.name()
            ));
            return Ok(found);
        }
        if self.marks.v_pred {
            notes
                .push("prediction type v_prediction, as the mark `v_pred` in the file says".into());
            return Ok(Prediction::V);
        }
        // The specification's key, and that of ComfyUI.
        for key in ["modelspec.prediction_type", "modelspec.predict_key"] {
            match self.metadata.get(key).map(String::as_str) {
                Some("epsilon" | "eps") => return Ok(Prediction::Epsilon),
                Some("v" | "v_prediction") => {
                    notes.push("prediction type v_prediction from the file's metadata".into());
                    return Ok(Prediction::V);
                }
                _ => {}
            }
        }
        if !second {
            return Ok(Prediction::Epsilon);
        }
        // diffusers: the epsilon models among SD 2.x were trained for exactly this many steps.
        let (found, why) = match self.step {
            Some(EPSILON_STEP) => (
                Prediction::Epsilon,
                format!("global_step is {EPSILON_STEP}"),
            ),
            Some(other) => (
                Prediction::V,
                format!("global_step is {other}, not {EPSILON_STEP}"),
            ),
            None => (Prediction::V, "there is no global_step".into()),
        };
        notes.push(format!(
            "warning: a single file does not say what its U-Net predicts; {} by diffusers' rule, because {why}. \
             --prediction-type, or a .yaml of the same name beside the file, settles it",
            found.name()
        ));
        Ok(found)
    }

    /// What the YAML of the same name says. One that does not speak of it means noise, which is the
    /// LDM code's default.
    fn yaml(&self) -> Result<Option<Prediction>> {
        let path = self.path.with_extension("yaml");
        if !path.is_file() {
            return Ok(None);
        }
        let text = read_file(&path, LONGEST_CONFIG)?;
        let text =
            String::from_utf8(text).map_err(|_| Error::file(&path, "expected YAML in UTF-8"))?;
        let value = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("parameterization:"));
        let value = value.map(|v| {
            v.split('#')
                .next()
                .unwrap_or(v)
                .trim()
                .trim_matches(['"', '\''])
        });
        match value {
            Some("v") => Ok(Some(Prediction::V)),
            None | Some("eps") => Ok(Some(Prediction::Epsilon)),
            Some(other) => Err(Error::file(
                path,
                format!("parameterization `{other}` is not supported, only eps and v"),
            )),
        }
    }
}

/// The tensors of a checkpoint under LDM's names, and the metadata with which [`read`] finds
/// everything again.
pub(super) fn contents(checkpoint: &Checkpoint) -> Result<(Tensors, BTreeMap<String, String>)> {
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
        let predicted = checkpoint
            .scheduler
            .get("prediction_type")
            .and_then(Value::as_str)
            .unwrap_or("epsilon");
        if predicted == "epsilon" {
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
    if !homeless.is_empty() {
        return Err(tensor_error(&checkpoint.name, homeless));
    }

    let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let configs = [
        &unet.config,
        &vae.config,
        &text.config,
        &checkpoint.scheduler,
    ];
    for (key, config) in CONFIGS.into_iter().zip(configs) {
        metadata.insert(key.into(), config.to_string());
    }
    if let Some(tokenizer) = checkpoint.tokenizer("tokenizer").filter(|t| !t.is_clip()) {
        // tokenizer.json says the same at three times the length, unless it is all there is.
        let whole = ["vocab.json", "merges.txt"]
            .iter()
            .all(|f| tokenizer.get(f).is_some());
        for (name, bytes) in &tokenizer.files {
            if !(whole && name == "tokenizer.json") {
                let text = std::str::from_utf8(bytes).map_err(|_| {
                    Error::file(&checkpoint.name, format!("tokenizer/{name} is not UTF-8"))
                })?;
                metadata.insert(format!("{TOKENIZER}{name}"), text.into());
            }
        }
    }
    Ok((all, metadata))
}
