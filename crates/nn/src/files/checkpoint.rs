//! A Stable Diffusion checkpoint in memory: its components by id, a schedule, vocabularies, and what
//! travels with them.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::Value;

use super::{
    compatible,
    finite::problem,
    problems::tensor_error,
    safetensors::{fetch, release},
    tensor::{Bytes, HostTensor, Tensors},
};
use crate::error::{Error, Result};
pub use crate::tokenizer::Pad;
use crate::tokenizer::TokenizerData;

/// A network's configuration and weights.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its `config.json`.
    pub config: Value,
    /// Its weights under today's diffusers / transformers names.
    pub tensors: Tensors,
}

/// The raw files of a tokenizer. All empty means CLIP's own vocabulary.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// File name (`vocab.json`, `merges.txt`, ...) and content.
    pub files: BTreeMap<String, Bytes>,
    /// What pads a prompt if there are no files.
    pub pad: Pad,
}

impl TokenizerFiles {
    /// The names read, in the order in which diffusers' tokenizers write them.
    pub const NAMES: [&str; 6] = [
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ];

    /// The content of a file, if it is there.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|b| &**b)
    }

    /// What a tokenizer is made of.
    pub fn data(&self) -> TokenizerData<'_> {
        TokenizerData {
            vocab_json: self.get("vocab.json"),
            merges: self.get("merges.txt"),
            tokenizer_json: self.get("tokenizer.json"),
            tokenizer_config: self.get("tokenizer_config.json"),
            special_tokens_map: self.get("special_tokens_map.json"),
            added_tokens: self.get("added_tokens.json"),
        }
    }

    /// Whether the checkpoint brings no tokenizer, so that CLIP's own vocabulary is meant.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether this is CLIP's own vocabulary: no files, or a `vocab.json` of its size with its ids
    /// for a few words.
    pub fn is_clip(&self) -> bool {
        const SOME: [(&str, u64); 7] = [
            ("!", 0),
            ("a</w>", 320),
            ("of</w>", 539),
            ("photo</w>", 1125),
            ("cat</w>", 2368),
            ("<|startoftext|>", 49406),
            ("<|endoftext|>", 49407),
        ];
        let Some(vocabulary) = self.get("vocab.json") else {
            return self.is_empty();
        };
        let extended = self.get("added_tokens.json").is_some_and(|a| {
            // The two special tokens stand there in some folders; more than that is a vocabulary of
            // its own.
            serde_json::from_slice::<BTreeMap<String, u64>>(a)
                .is_ok_and(|a| a.values().any(|&id| id > 49407))
        });
        let Ok(ids) = serde_json::from_slice::<BTreeMap<String, u64>>(vocabulary) else {
            return false;
        };
        !extended
            && ids.len() == 49408
            && SOME.iter().all(|(token, id)| ids.get(*token) == Some(id))
    }
}

/// A file that is copied on export and never looked into.
#[derive(Clone, Debug)]
pub enum Passenger {
    /// A file on disk.
    File(PathBuf),
    /// A file in memory.
    Bytes(Bytes),
}

/// The family of a checkpoint: SDXL by its components, the others by the widths of their networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// CompVis and RunwayML 1.1 to 1.5 and what was made of them.
    Sd1,
    /// StabilityAI 2.0 and 2.1.
    Sd2,
    /// StabilityAI's SDXL base 1.0 and what was made of it: two text encoders, of any size.
    Sdxl,
    /// The networks of 1.x and 2.x in other sizes, such as the built-in miniature.
    Custom,
}

impl Family {
    /// How it is called in messages and in `modelspec.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd1 => "stable-diffusion-v1",
            Self::Sd2 => "stable-diffusion-v2",
            Self::Sdxl => "stable-diffusion-xl-v1-base",
            Self::Custom => "stable-diffusion-custom",
        }
    }

    /// The family of these components.
    fn of(components: &BTreeMap<String, Component>) -> Self {
        if components.contains_key("text_encoder_2") {
            return Self::Sdxl;
        }
        let config = |id: &str| components.get(id).map_or(&Value::Null, |c| &c.config);
        let (unet, text) = (config("unet"), config("text_encoder"));
        let width = |v: &Value, key: &str| v.get(key).and_then(Value::as_u64);
        let levels = serde_json::json!([320, 640, 1280, 1280]);
        let same = unet.get("block_out_channels") == Some(&levels);
        match (
            same,
            width(unet, "cross_attention_dim"),
            width(text, "hidden_size"),
        ) {
            (true, Some(768), Some(768)) => Self::Sd1,
            (true, Some(1024), Some(1024)) => Self::Sd2,
            _ => Self::Custom,
        }
    }
}

/// What the U-Net predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// v, of Salimans and Ho.
    V,
}

impl Prediction {
    /// The value of `prediction_type` in a scheduler's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::V => "v_prediction",
        }
    }
}

/// How a checkpoint is to be opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// A diffusers folder whose configurations and tokenizer describe a single file.
    pub config: Option<PathBuf>,
    /// What the U-Net predicts, against whatever the files say.
    pub prediction_type: Option<Prediction>,
    /// Where a sampler's timesteps lie (`leading`, `trailing`, `linspace`), against whatever the files
    /// say.
    pub timestep_spacing: Option<String>,
    /// The variant of a folder's weight files, such as `fp16`; the plain ones are taken otherwise.
    pub variant: Option<String>,
}

/// A whole checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its path, or the name of a built-in one.
    pub name: String,
    /// Networks by id, which is the name of their diffusers folder: `text_encoder` (a
    /// `CLIPTextModel`, names with the `text_model.` prefix), `text_encoder_2` (SDXL's
    /// `CLIPTextModelWithProjection`), `unet` (the denoiser, a `UNet2DConditionModel`), `vae` (an
    /// `AutoencoderKL`).
    pub components: BTreeMap<String, Component>,
    /// The scheduler's configuration.
    pub scheduler: Value,
    /// `model_index.json`, as far as it is kept: the pipeline's class and its switches.
    pub model_index: Value,
    /// The tokenizers' files by id: `tokenizer`, and for `text_encoder_2` `tokenizer_2`.
    pub tokenizers: BTreeMap<String, TokenizerFiles>,
    /// Files of `safety_checker/` and `feature_extractor/` under their relative paths: copied on
    /// export, never run.
    pub passengers: Vec<(String, Passenger)>,
    /// What a person should know about the way it was read.
    pub notes: Vec<String>,
    /// Its family.
    pub family: Family,
}

/// Fewer bytes than this are hashed on one core.
const WORTH_SHARING: usize = 1 << 17;

impl Checkpoint {
    /// The ids of the components, in the order in which a prompt passes them: text encoders, the
    /// denoiser, the autoencoder. It is the order of the alphabet.
    pub fn component_names(&self) -> Vec<&str> {
        self.components.keys().map(String::as_str).collect()
    }

    /// A component by id.
    ///
    /// # Errors
    /// If there is none of that id; the error lists those that there are.
    pub fn component(&self, id: &str) -> Result<&Component> {
        self.components
            .get(id)
            .ok_or_else(|| self.unknown_component(id))
    }

    /// A component by id, to be changed.
    ///
    /// # Errors
    /// If there is none of that id; the error lists those that there are.
    pub fn component_mut(&mut self, id: &str) -> Result<&mut Component> {
        let unknown = self.unknown_component(id);
        self.components.get_mut(id).ok_or(unknown)
    }

    fn unknown_component(&self, id: &str) -> Error {
        Error::input(format!("there is no component `{id}`")).with_hint(format!(
            "the components are {}",
            self.component_names().join(", ")
        ))
    }

    /// A tokenizer's files by id (`tokenizer`, `tokenizer_2`), if there is such a tokenizer.
    pub fn tokenizer(&self, id: &str) -> Option<&TokenizerFiles> {
        self.tokenizers.get(id)
    }

    /// The blake3 hash, in hex, of every tensor's name, dtype, shape and bytes, of the
    /// configurations and of the tokenizer's vocabulary. Reads all weights once; not cached,
    /// because the fields may be changed.
    ///
    /// What only describes (`_class_name`, `_diffusers_version`, `transformers_version`, ...) is
    /// left out.
    pub fn hash(&self) -> String {
        self.hashed(&mut |_, _, _| ())
    }

    /// The same hash, looking at every number on the way: weights are read once for both.
    ///
    /// # Errors
    /// If some numbers are NaN or infinite: a line for each such tensor.
    pub fn checked_hash(&self) -> Result<String> {
        let mut problems = Vec::new();
        let hash = self.hashed(&mut |component, name, tensor| {
            problems.extend(problem(&format!("{component} {name}"), tensor))
        });
        if problems.is_empty() {
            Ok(hash)
        } else {
            Err(tensor_error(&self.name, problems))
        }
    }

    fn hashed(&self, look: &mut dyn FnMut(&str, &str, &HostTensor)) -> String {
        let mut hash = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            // The same hash; gigabytes of weights are worth every core, names are not worth waking
            // one.
            if bytes.len() < WORTH_SHARING {
                hash.update(bytes);
            } else {
                hash.update_rayon(bytes);
            }
        };
        for (part, component) in &self.components {
            field(part.as_bytes());
            field(canonical(&component.config).to_string().as_bytes());
            for (name, tensor) in &component.tensors {
                field(name.as_bytes());
                field(format!("{tensor:?}").as_bytes());
                fetch(tensor.storage());
                field(tensor.bytes());
                look(part, name, tensor);
                // A whole checkpoint passes by here, of which a command needs a part.
                release(tensor.storage());
            }
        }
        field(canonical(&self.scheduler).to_string().as_bytes());
        for (id, tokenizer) in &self.tokenizers {
            if tokenizer.is_clip() {
                continue;
            }
            // Edits carry the hashes of models with one tokenizer, from before there were two.
            if id != "tokenizer" {
                field(id.as_bytes());
            }
            for name in ["vocab.json", "merges.txt"] {
                field(tokenizer.get(name).unwrap_or_default());
            }
        }
        if self.family == Family::Sdxl {
            field(&[u8::from(self.zeros_for_empty_prompt())]);
        }
        hash.finalize().to_hex().to_string()
    }

    /// Whether an unused negative prompt is zeros rather than the encoded empty prompt, in SDXL:
    /// `force_zeros_for_empty_prompt` of `model_index.json`, whose default in diffusers is true.
    pub fn zeros_for_empty_prompt(&self) -> bool {
        self.model_index
            .get("force_zeros_for_empty_prompt")
            .and_then(Value::as_bool)
            .unwrap_or(true)
    }

    /// Completes a checkpoint whose components are there: its family, what the options overrule,
    /// what is refused.
    pub(super) fn finished(mut self, options: &OpenOptions) -> Result<Self> {
        self.family = Family::of(&self.components);
        if let Some(prediction) = options.prediction_type
            && let Value::Object(map) = &mut self.scheduler
        {
            let old = map.insert("prediction_type".into(), prediction.name().into());
            let old = old
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or("epsilon")
                .to_owned();
            if old != prediction.name() {
                self.notes.push(format!(
                    "prediction type {} as asked, against {old} in the files",
                    prediction.name()
                ));
            }
        }
        if let Some(spacing) = &options.timestep_spacing
            && let Value::Object(map) = &mut self.scheduler
        {
            map.insert("timestep_spacing".into(), spacing.as_str().into());
        }
        let number = |id: &str, key: &str| {
            let config = &self.components.get(id)?.config;
            config.get(key).and_then(Value::as_u64)
        };
        let channels = number("unet", "in_channels").unwrap_or(4);
        let latents = number("vae", "latent_channels").unwrap_or(4);
        if channels != latents {
            return Err(other_channels(&self.name, channels, latents));
        }
        self.fits_together()?;
        Ok(self)
    }

    /// Sees that its networks belong together.
    ///
    /// # Errors
    /// If the U-Net has added conditioning and there is one text encoder, or none and there are two;
    /// if the widths of two text encoders are not what it takes.
    pub fn fits_together(&self) -> Result<()> {
        compatible::check(&self.name, |id| {
            self.components.get(id).map(|component| &component.config)
        })
    }
}

/// Refuses a U-Net that takes more than the latents, by the name of the models with that many
/// channels.
pub(super) fn other_channels(path: &str, channels: u64, latents: u64) -> Error {
    let what = match (channels, latents) {
        (9, 4) => "this is an inpainting model",
        (8, 4) => "this is a model for editing by instructions (InstructPix2Pix)",
        (7, 4) => "this is an upscaler",
        (5, 4) => "this is a depth model",
        _ => "models that see more than their latents",
    };
    let verb = if what.starts_with("this") {
        "; such models are"
    } else {
        " are"
    };
    Error::file(
        path,
        format!(
            "the U-Net takes {channels} channels and the latents have {latents}: {what}{verb} not supported"
        ),
    )
}

/// A configuration without what only describes, its keys sorted at every depth.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let idle = |key: &str| {
                key.starts_with('_')
                    || matches!(key, "transformers_version" | "torch_dtype" | "dtype")
            };
            let sorted: BTreeMap<_, _> = map.iter().filter(|(key, _)| !idle(key)).collect();
            Value::Object(
                sorted
                    .into_iter()
                    .map(|(key, v)| (key.clone(), canonical(v)))
                    .collect(),
            )
        }
        Value::Array(list) => list.iter().map(canonical).collect(),
        other => other.clone(),
    }
}
