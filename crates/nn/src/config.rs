//! The shapes of the networks, read from the real `config.json` files.
//!
//! A key that would change the computation and is not supported is an error by name; keys that only describe
//! (`_class_name`, `transformers_version`, dropout, initialisers) are passed over.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// No published network of this family has a number in its config above this; a larger one is a lie.
const LARGEST: u64 = 1 << 20;

/// The most layers of an encoder; each has its names, so a file of a few bytes must not ask for millions.
const MOST_LAYERS: usize = 256;

/// The most residual blocks of a level.
const MOST_BLOCKS: usize = 64;

/// Activation functions of CLIP, ViT and the U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(1.702 x), OpenAI's CLIP.
    QuickGelu,
    /// The exact (erf) GELU, OpenCLIP and ViT.
    Gelu,
    /// x * sigmoid(x).
    Silu,
}

/// A CLIP text encoder: `CLIPTextModel`, or the text half of `CLIPModel`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Number of tokens the embedding table knows.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Context length in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Id of the end-of-text token; 2 in old configs, where the end token is the one with the highest id.
    pub eos_token_id: usize,
}

/// The image tower of a CLIP.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

/// A whole CLIP: both towers and their projections.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// The text tower.
    pub text: ClipTextConfig,
    /// The image tower.
    pub vision: ClipVisionConfig,
    /// Width of the shared space.
    pub projection_dim: usize,
}

/// A `ViTForImageClassification`.
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side of the square input in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// The labels, by class index.
    pub labels: Vec<String>,
}

/// An `AutoencoderKL`.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each level, from the pictures inwards.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of an encoder level; a decoder level has one more.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// What a latent is multiplied by to have about unit variance.
    pub scaling_factor: f64,
}

impl VaeConfig {
    /// How many pixels one latent pixel covers, along each side.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// A `UNet2DConditionModel`.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of a latent.
    pub in_channels: usize,
    /// Channels of a prediction.
    pub out_channels: usize,
    /// Side of the latents it was trained on.
    pub sample_size: usize,
    /// Channels of each level, from the latents inwards.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a down level; an up level has one more.
    pub layers_per_block: usize,
    /// Whether each down level attends to the prompt.
    pub down_cross_attention: Vec<bool>,
    /// Whether each up level attends to the prompt.
    pub up_cross_attention: Vec<bool>,
    /// Attention heads of each down level (up levels are their mirror image).
    pub heads: Vec<usize>,
    /// Width of the prompt's hidden states.
    pub cross_attention_dim: usize,
    /// Whether the transformers project with linear layers (SD 2.x) or 1x1 convolutions (SD 1.x).
    pub use_linear_projection: bool,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' group norms.
    pub norm_eps: f64,
    /// Cosines first in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Shift in the exponent of the time embedding's frequencies.
    pub freq_shift: f64,
}

/// A configuration's keys, read with errors that name the file and the key.
struct Keys<'a> {
    path: PathBuf,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn new(path: &Path, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { path: path.into(), map }),
            _ => Err(Error::file(path, "expected a JSON object with a network's configuration")),
        }
    }

    fn error(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::Config { path: self.path.clone(), key: key.into(), problem: problem.into() }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn integer(&self, key: &str, value: &Value) -> Result<usize> {
        match value.as_u64() {
            Some(n) if (1..=LARGEST).contains(&n) => Ok(n as usize),
            _ => Err(self.error(key, format!("expected a whole number from 1 to {LARGEST}, found {value}"))),
        }
    }

    fn need(&self, key: &str) -> Result<&'a Value> {
        self.get(key).ok_or_else(|| self.error(key, "is missing"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |v| self.integer(key, v))
    }

    /// A number of layers.
    fn layers_or(&self, key: &str, default: usize, most: usize) -> Result<usize> {
        match self.size_or(key, default)? {
            n if n <= most => Ok(n),
            n => Err(self.error(key, format!("expected at most {most}, found {n}"))),
        }
    }

    /// What keeps a normalisation from dividing by nothing.
    fn epsilon_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.number_or(key, default)? {
            eps if eps > 0.0 && eps <= 1.0 => Ok(eps),
            eps => Err(self.error(key, format!("expected a small positive number, found {eps}"))),
        }
    }

    /// An id or a small count, where zero is a value like any other.
    fn id_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => match v.as_u64() {
                Some(n) if n <= LARGEST => Ok(n as usize),
                _ => Err(self.error(key, format!("expected a whole number up to {LARGEST}, found {v}"))),
            },
        }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |v| v.as_f64().ok_or_else(|| self.error(key, format!("expected a number, found {v}"))))
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key)
            .map_or(Ok(default), |v| v.as_bool().ok_or_else(|| self.error(key, format!("expected true or false, found {v}"))))
    }

    fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let value = self.need(key)?;
        match value.as_array() {
            Some(list) if (1..=16).contains(&list.len()) => list.iter().map(|v| self.integer(key, v)).collect(),
            _ => Err(self.error(key, format!("expected a list of 1 to 16 whole numbers, found {value}"))),
        }
    }

    fn names(&self, key: &str) -> Result<Vec<&'a str>> {
        let value = self.need(key)?;
        value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>())
            .ok_or_else(|| self.error(key, format!("expected a list of names, found {value}")))
    }

    fn activation(&self, key: &str, default: Activation) -> Result<Activation> {
        match self.get(key).map(|v| v.as_str().unwrap_or_default()) {
            None => Ok(default),
            Some("quick_gelu") => Ok(Activation::QuickGelu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some(other) => Err(self.error(key, format!("`{other}` is not supported (quick_gelu, gelu, silu are)"))),
        }
    }

    /// Every key must be absent, null, or equal to the neutral value beside it.
    fn neutral(&self, keys: &[(&str, Value)]) -> Result<()> {
        for (key, neutral) in keys {
            if let Some(found) = self.get(key)
                && found != neutral
                && found.as_f64().zip(neutral.as_f64()).is_none_or(|(a, b)| a != b)
            {
                return Err(self.error(key, format!("{found} is not supported, only {neutral}")));
            }
        }
        Ok(())
    }

    /// Every key of the file must be known, describe only, or hold a value that switches nothing on.
    fn no_other(&self, known: &[&str]) -> Result<()> {
        for (key, value) in self.map {
            let off = value.is_null() || value == &Value::Bool(false);
            if !off && !key.starts_with('_') && !known.contains(&key.as_str()) {
                return Err(self.error(key, format!("is not known here, so its value {value} might change the computation")));
            }
        }
        Ok(())
    }

    fn divides(&self, key: &str, part: usize, whole: usize) -> Result<()> {
        if whole.is_multiple_of(part) { Ok(()) } else { Err(self.error(key, format!("{part} does not divide {whole}"))) }
    }
}

impl ClipTextConfig {
    /// Reads the `config.json` of a `CLIPTextModel` (or a `text_config` inside a CLIP's).
    pub fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        let config = Self {
            vocab_size: k.size_or("vocab_size", 49408)?,
            hidden_size: k.size_or("hidden_size", 512)?,
            intermediate_size: k.size_or("intermediate_size", 2048)?,
            num_hidden_layers: k.layers_or("num_hidden_layers", 12, MOST_LAYERS)?,
            num_attention_heads: k.size_or("num_attention_heads", 8)?,
            max_position_embeddings: k.size_or("max_position_embeddings", 77)?,
            hidden_act: k.activation("hidden_act", Activation::QuickGelu)?,
            layer_norm_eps: k.epsilon_or("layer_norm_eps", 1e-5)?,
            eos_token_id: k.id_or("eos_token_id", 49407)?,
        };
        k.divides("num_attention_heads", config.num_attention_heads, config.hidden_size)?;
        Ok(config)
    }
}

impl ClipVisionConfig {
    fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        k.neutral(&[("num_channels", 3.into())])?;
        let config = Self {
            hidden_size: k.size_or("hidden_size", 768)?,
            intermediate_size: k.size_or("intermediate_size", 3072)?,
            num_hidden_layers: k.layers_or("num_hidden_layers", 12, MOST_LAYERS)?,
            num_attention_heads: k.size_or("num_attention_heads", 12)?,
            image_size: k.size_or("image_size", 224)?,
            patch_size: k.size_or("patch_size", 32)?,
            hidden_act: k.activation("hidden_act", Activation::QuickGelu)?,
            layer_norm_eps: k.epsilon_or("layer_norm_eps", 1e-5)?,
        };
        k.divides("num_attention_heads", config.num_attention_heads, config.hidden_size)?;
        k.divides("patch_size", config.patch_size, config.image_size)?;
        Ok(config)
    }
}

impl ClipConfig {
    /// Reads the `config.json` of a `CLIPModel`.
    pub fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        Ok(Self {
            text: ClipTextConfig::read(path, k.need("text_config")?)?,
            vision: ClipVisionConfig::read(path, k.need("vision_config")?)?,
            projection_dim: k.size_or("projection_dim", 512)?,
        })
    }
}

impl VitConfig {
    /// Reads the `config.json` of a `ViTForImageClassification`.
    pub fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        k.neutral(&[("num_channels", 3.into())])?;
        let labels = k.need("id2label")?.as_object().ok_or_else(|| k.error("id2label", "expected an object of labels"))?;
        let labels = (0..labels.len())
            .map(|i| labels.get(&i.to_string()).and_then(Value::as_str).map(String::from))
            .collect::<Option<Vec<_>>>()
            .filter(|labels| !labels.is_empty())
            .ok_or_else(|| k.error("id2label", "expected labels numbered from 0 without a gap"))?;
        let config = Self {
            hidden_size: k.size_or("hidden_size", 768)?,
            intermediate_size: k.size_or("intermediate_size", 3072)?,
            num_hidden_layers: k.layers_or("num_hidden_layers", 12, MOST_LAYERS)?,
            num_attention_heads: k.size_or("num_attention_heads", 12)?,
            image_size: k.size_or("image_size", 224)?,
            patch_size: k.size_or("patch_size", 16)?,
            hidden_act: k.activation("hidden_act", Activation::Gelu)?,
            layer_norm_eps: k.epsilon_or("layer_norm_eps", 1e-12)?,
            qkv_bias: k.flag_or("qkv_bias", true)?,
            labels,
        };
        k.divides("num_attention_heads", config.num_attention_heads, config.hidden_size)?;
        k.divides("patch_size", config.patch_size, config.image_size)?;
        Ok(config)
    }
}

impl VaeConfig {
    /// Reads the `config.json` of an `AutoencoderKL`.
    pub fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        k.no_other(&[
            "in_channels",
            "out_channels",
            "latent_channels",
            "block_out_channels",
            "layers_per_block",
            "norm_num_groups",
            "scaling_factor",
            "act_fn",
            "down_block_types",
            "up_block_types",
            "sample_size",
            "force_upcast",
            "mid_block_add_attention",
            "use_quant_conv",
            "use_post_quant_conv",
            "latents_mean",
            "latents_std",
            "shift_factor",
        ])?;
        k.neutral(&[
            ("act_fn", "silu".into()),
            ("mid_block_add_attention", true.into()),
            ("use_quant_conv", true.into()),
            ("use_post_quant_conv", true.into()),
            ("latents_mean", Value::Null),
            ("latents_std", Value::Null),
            ("shift_factor", Value::Null),
        ])?;
        let config = Self {
            in_channels: k.size_or("in_channels", 3)?,
            out_channels: k.size_or("out_channels", 3)?,
            latent_channels: k.size_or("latent_channels", 4)?,
            block_out_channels: k.sizes("block_out_channels")?,
            layers_per_block: k.layers_or("layers_per_block", 1, MOST_BLOCKS)?,
            norm_num_groups: k.size_or("norm_num_groups", 32)?,
            scaling_factor: k.number_or("scaling_factor", 0.18215)?,
        };
        for (key, only) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
            let names = k.names(key)?;
            if names.len() != config.block_out_channels.len() || names.iter().any(|n| *n != only) {
                return Err(k.error(key, format!("expected {only} once for each of block_out_channels")));
            }
        }
        for &width in &config.block_out_channels {
            k.divides("norm_num_groups", config.norm_num_groups, width)?;
        }
        if !(config.scaling_factor > 0.0 && config.scaling_factor.is_finite()) {
            return Err(k.error("scaling_factor", "expected a positive number"));
        }
        Ok(config)
    }
}

impl UNetConfig {
    /// Reads the `config.json` of a `UNet2DConditionModel`.
    pub fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        k.no_other(&[
            "in_channels",
            "out_channels",
            "sample_size",
            "block_out_channels",
            "layers_per_block",
            "down_block_types",
            "up_block_types",
            "mid_block_type",
            "attention_head_dim",
            "num_attention_heads",
            "cross_attention_dim",
            "use_linear_projection",
            "norm_num_groups",
            "norm_eps",
            "flip_sin_to_cos",
            "freq_shift",
            "act_fn",
            "downsample_padding",
            "mid_block_scale_factor",
            "dropout",
            "upcast_attention",
            "conv_in_kernel",
            "conv_out_kernel",
            "attention_type",
            "resnet_out_scale_factor",
            "resnet_time_scale_shift",
            "time_embedding_type",
            "transformer_layers_per_block",
            "addition_embed_type_num_heads",
            "only_cross_attention",
        ])?;
        k.neutral(&[
            ("act_fn", "silu".into()),
            ("mid_block_type", "UNetMidBlock2DCrossAttn".into()),
            ("downsample_padding", 1.into()),
            ("mid_block_scale_factor", 1.into()),
            ("conv_in_kernel", 3.into()),
            ("conv_out_kernel", 3.into()),
            ("attention_type", "default".into()),
            ("resnet_out_scale_factor", 1.into()),
            ("resnet_time_scale_shift", "default".into()),
            ("time_embedding_type", "positional".into()),
            ("transformer_layers_per_block", 1.into()),
            ("dropout", 0.into()),
        ])?;
        if let Some(v) = k.get("only_cross_attention") {
            let on = v.as_array().map_or(v != &Value::Bool(false), |l| l.iter().any(|v| v != &Value::Bool(false)));
            if on {
                return Err(k.error("only_cross_attention", format!("{v} is not supported, only false")));
            }
        }
        if k.get("addition_embed_type").is_some() {
            return Err(k.error("addition_embed_type", "added conditioning (SDXL) is not supported"));
        }

        let block_out_channels = k.sizes("block_out_channels")?;
        let levels = block_out_channels.len();
        let crossing = |key: &str, plain: &str, cross: &str| -> Result<Vec<bool>> {
            let names = k.names(key)?;
            if names.len() != levels {
                return Err(k.error(key, format!("expected {levels} names, one for each of block_out_channels")));
            }
            names
                .into_iter()
                .map(|n| match n {
                    n if n == plain => Ok(false),
                    n if n == cross => Ok(true),
                    other => Err(k.error(key, format!("`{other}` is not supported, only {plain} and {cross}"))),
                })
                .collect()
        };
        // diffusers' own naming slip: `attention_head_dim` holds the number of heads unless `num_attention_heads` is set.
        let key = if k.get("num_attention_heads").is_some() { "num_attention_heads" } else { "attention_head_dim" };
        let heads = match k.get(key) {
            Some(v) if v.is_array() => k.sizes(key)?,
            Some(v) => vec![k.integer(key, v)?; levels],
            None => vec![8; levels],
        };
        if heads.len() != levels {
            return Err(k.error(key, format!("expected {levels} numbers, one for each of block_out_channels")));
        }
        let config = Self {
            in_channels: k.size_or("in_channels", 4)?,
            out_channels: k.size_or("out_channels", 4)?,
            sample_size: k.size_or("sample_size", 64)?,
            layers_per_block: k.layers_or("layers_per_block", 2, MOST_BLOCKS)?,
            down_cross_attention: crossing("down_block_types", "DownBlock2D", "CrossAttnDownBlock2D")?,
            up_cross_attention: crossing("up_block_types", "UpBlock2D", "CrossAttnUpBlock2D")?,
            heads,
            cross_attention_dim: k.size_or("cross_attention_dim", 1280)?,
            use_linear_projection: k.flag_or("use_linear_projection", false)?,
            norm_num_groups: k.size_or("norm_num_groups", 32)?,
            norm_eps: k.epsilon_or("norm_eps", 1e-5)?,
            flip_sin_to_cos: k.flag_or("flip_sin_to_cos", true)?,
            freq_shift: k.number_or("freq_shift", 0.0)?,
            block_out_channels,
        };
        for (&width, &heads) in config.block_out_channels.iter().zip(&config.heads) {
            k.divides("norm_num_groups", config.norm_num_groups, width)?;
            k.divides(key, heads, width)?;
        }
        if config.block_out_channels[0] < 4 || !config.block_out_channels[0].is_multiple_of(2) {
            return Err(k.error("block_out_channels", "expected an even first width of at least 4"));
        }
        // The time embedding divides by half the first width less this.
        if !(0.0..(config.block_out_channels[0] / 2) as f64).contains(&config.freq_shift) {
            return Err(k.error("freq_shift", format!("expected 0 or 1, found {}", config.freq_shift)));
        }
        Ok(config)
    }
}
