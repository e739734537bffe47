//! What says how a single file is to be read: a folder named by the user, the file's own metadata,
//! its shapes, its neighbours.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{
    checkpoint::{OpenOptions, Pad, Prediction, TokenizerFiles},
    folder, ldm,
    source::{LONGEST_CONFIG, LONGEST_TOKENIZER, Source, parse_config, read_file},
    stock::{self, Configs},
    tensor::Bytes,
};
use crate::error::{Error, Result};

/// The metadata key under which our own files carry the configuration of a component, or of the
/// `scheduler`.
pub(super) fn config_key(id: &str) -> String {
    format!("scumble.{id}_config")
}

/// The metadata key under which our own files carry a file of a tokenizer that is not CLIP's.
pub(super) fn tokenizer_key(id: &str, file: &str) -> String {
    format!("scumble.{id}.{file}")
}

/// The switch of SDXL's `model_index.json` that decides what an unused negative prompt is.
const EMPTY_PROMPT: &str = "force_zeros_for_empty_prompt";

/// The metadata key under which our own files carry that switch.
pub(super) fn empty_prompt_key() -> String {
    format!("scumble.{EMPTY_PROMPT}")
}

/// The step at which diffusers recognises the epsilon models among SD 2.x files.
pub(super) const EPSILON_STEP: i64 = 875_000;

/// How the text encoders lie in a single file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One, under its transformers names (SD 1.x).
    Clip,
    /// One, under OpenCLIP's names (SD 2.x).
    OpenClip,
    /// One of each (SDXL).
    Sdxl,
}

impl Layout {
    /// Whether there are two text encoders.
    fn two(self) -> bool {
        self == Self::Sdxl
    }

    /// What pads the prompts of a tokenizer that a file does not bring.
    fn pad(self, tokenizer: &str) -> Pad {
        if self == Self::OpenClip || tokenizer == "tokenizer_2" {
            Pad::Zero
        } else {
            Pad::EndOfText
        }
    }

    /// The U-Net's tensors whose shapes tell the published models: the first convolution, the keys
    /// of a cross-attention, the same of the deepest transformer.
    pub(super) fn probes(self) -> [&'static str; 3] {
        const FIRST: &str = "input_blocks.0.0.weight";
        if self.two() {
            [
                FIRST,
                "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
                "input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight",
            ]
        } else {
            let key = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
            [FIRST, key, key]
        }
    }
}

/// The empty tensors by which ComfyUI says what a model is.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    /// The U-Net predicts v.
    pub(super) v_pred: bool,
    /// The schedule ends without signal.
    pub(super) ztsnr: bool,
}

/// What a single file and its neighbours say about its configuration.
pub(super) struct Hints<'a> {
    pub(super) path: &'a Path,
    pub(super) metadata: &'a BTreeMap<String, String>,
    /// `global_step`.
    pub(super) step: Option<i64>,
    pub(super) marks: Marks,
    /// The shapes of [`Layout::probes`].
    pub(super) shapes: [Option<Vec<usize>>; 3],
    pub(super) layout: Layout,
}

/// What was found.
pub(super) struct Found {
    pub(super) configs: Configs,
    pub(super) tokenizers: BTreeMap<String, TokenizerFiles>,
    pub(super) model_index: Value,
}

impl Hints<'_> {
    /// The configurations: of the folder asked for, of the file's own metadata, or of the published
    /// models.
    pub(super) fn found(&self, options: &OpenOptions, notes: &mut Vec<String>) -> Result<Found> {
        let mut found = if let Some(folder) = &options.config {
            self.of_folder(folder, notes)?
        } else if self.carries_configs() {
            self.own(options, notes)?
        } else {
            self.published(options, notes)?
        };
        if self.marks.ztsnr {
            // What diffusers calls it; the schedule says whether it can be drawn with.
            found.configs.scheduler["rescale_betas_zero_snr"] = true.into();
            notes.push("`ztsnr`: the schedule ends without signal (rescale_betas_zero_snr)".into());
        }
        Ok(found)
    }

    fn carries_configs(&self) -> bool {
        let ids = folder::stems(self.layout.two()).iter().map(|(id, _)| *id);
        ids.chain(["scheduler"])
            .any(|id| self.metadata.contains_key(&config_key(id)))
    }

    /// The configurations and tokenizers of a diffusers folder.
    fn of_folder(&self, folder: &Path, notes: &mut Vec<String>) -> Result<Found> {
        let source = Source::dir(folder);
        let two = self.layout.two();
        if two && !source.exists("text_encoder_2/config.json") {
            return Err(Error::file(
                folder,
                format!(
                    "{} is SDXL, with two text encoders, and this folder has no text_encoder_2/config.json",
                    self.path.display()
                ),
            ));
        }
        let mut components = BTreeMap::new();
        for (id, _) in folder::stems(two) {
            components.insert(*id, source.need_json(&format!("{id}/config.json"))?);
        }
        let configs = Configs {
            components,
            scheduler: source.need_json("scheduler/scheduler_config.json")?,
        };
        notes.push(format!("configurations of {}", folder.display()));
        let mut tokenizers = BTreeMap::new();
        for id in folder::tokenizer_ids(two) {
            let mut tokenizer = folder::tokenizer(&source, id)?;
            tokenizer.pad = self.layout.pad(id);
            tokenizers.insert((*id).to_owned(), tokenizer);
        }
        let mut model_index = folder::default_index(two);
        let index = source.json("model_index.json")?.unwrap_or_default();
        if let (true, Some(zeros)) = (two, index.get(EMPTY_PROMPT)) {
            model_index[EMPTY_PROMPT] = zeros.clone();
        }
        Ok(Found {
            configs,
            tokenizers,
            model_index,
        })
    }

    /// CLIP's own vocabulary for every text encoder.
    fn clip_tokenizers(&self) -> BTreeMap<String, TokenizerFiles> {
        let ids = folder::tokenizer_ids(self.layout.two()).iter();
        ids.map(|id| {
            let tokenizer = TokenizerFiles {
                files: BTreeMap::new(),
                pad: self.layout.pad(id),
            };
            ((*id).to_owned(), tokenizer)
        })
        .collect()
    }

    /// The configurations of the published model of these shapes.
    fn published(&self, options: &OpenOptions, notes: &mut Vec<String>) -> Result<Found> {
        let [kernel, context, deep] =
            [0, 1, 2].map(|i| self.shapes[i].as_deref().unwrap_or_default());
        let [first, key, deepest] = self.layout.probes();
        let mut configs = match (kernel, context, self.layout) {
            ([320, _, 3, 3], [320, 768], Layout::Clip) => {
                stock::sd1(self.prediction(options, false, notes)?)
            }
            ([320, _, 3, 3], [320, 1024], Layout::OpenClip) => {
                stock::sd2(self.prediction(options, true, notes)?)
            }
            ([320, _, 3, 3], [640, 2048], Layout::Sdxl) if deep == [1280, 2048] => {
                stock::sdxl(self.prediction(options, false, notes)?)
            }
            (_, _, Layout::Sdxl) => {
                return Err(Error::file(
                    self.path,
                    format!(
                        "the U-Net is not that of SDXL base (320 channels, context 2048, transformers of 1, 2 and 10 \
                         blocks): {prefix}{first} is {kernel:?}, {key} is {context:?}, {deepest} is {deep:?}",
                        prefix = ldm::UNET
                    ),
                )
                .with_hint("name a diffusers folder with its configurations by --config"));
            }
            _ => {
                return Err(Error::file(
                    self.path,
                    format!(
                        "the U-Net is neither that of SD 1.x (320 channels, context 768) nor of SD 2.x (320, 1024): \
                         {}{first} is {kernel:?}, {key} is {context:?}",
                        ldm::UNET
                    ),
                )
                .with_hint("name a diffusers folder with its configurations by --config"));
            }
        };
        if let [_, channels, ..] = *kernel
            && let Some(unet) = configs.components.get_mut("unet")
        {
            unet["in_channels"] = channels.into();
        }
        if self.marks.ztsnr {
            // Steps that begin where there is no signal (Lin et al. 2023, arXiv 2305.08891, section
            // 3.3).
            configs.scheduler["timestep_spacing"] = "trailing".into();
        }
        Ok(Found {
            configs,
            tokenizers: self.clip_tokenizers(),
            model_index: folder::default_index(self.layout.two()),
        })
    }

    /// The configurations that one of our own files carries.
    fn own(&self, options: &OpenOptions, notes: &mut Vec<String>) -> Result<Found> {
        let json = |id: &str| -> Result<Value> {
            let key = config_key(id);
            let text = self
                .metadata
                .get(&key)
                .ok_or_else(|| Error::file(self.path, format!("metadata `{key}` is missing")))?;
            if text.len() as u64 > LONGEST_CONFIG {
                return Err(Error::file(
                    self.path,
                    format!("metadata `{key}` has {} bytes", text.len()),
                ));
            }
            parse_config(&self.path.join(key), text.as_bytes())
        };
        let two = self.layout.two();
        let mut components = BTreeMap::new();
        for (id, _) in folder::stems(two) {
            components.insert(*id, json(id)?);
        }
        let mut configs = Configs {
            components,
            scheduler: json("scheduler")?,
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
        let mut tokenizers = self.clip_tokenizers();
        for (id, tokenizer) in &mut tokenizers {
            for name in TokenizerFiles::NAMES {
                let key = tokenizer_key(id, name);
                let Some(text) = self.metadata.get(&key) else {
                    continue;
                };
                if text.len() as u64 > LONGEST_TOKENIZER {
                    return Err(Error::file(
                        self.path,
                        format!("metadata `{key}` has {} bytes", text.len()),
                    ));
                }
                let bytes = Bytes::Owned(text.as_bytes().into());
                tokenizer.files.insert(name.into(), bytes);
            }
        }
        let mut model_index = folder::default_index(two);
        if let (true, Some(zeros)) = (two, self.metadata.get(&empty_prompt_key())) {
            model_index[EMPTY_PROMPT] = (zeros != "false").into();
        }
        Ok(Found {
            configs,
            tokenizers,
            model_index,
        })
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
