//! The shapes of the networks, read from the real `config.json` files.
//!
//! A key that would change the computation and is not supported is an error by name; keys that only
//! describe (`_class_name`, `transformers_version`, dropout, initialisers) are passed over.

mod keys;
mod unet;

use std::path::Path;

use serde_json::Value;

pub use self::keys::Activation;
use self::keys::{Keys, MOST_BLOCKS, MOST_LAYERS};
pub use self::unet::{TextTimeConfig, UNetConfig};
use crate::error::Result;

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
    /// Id of the end-of-text token; 2 in old configs, where the end token is the one with the
    /// highest id.
    pub eos_token_id: usize,
}

/// A CLIP text encoder with its projection: `CLIPTextModelWithProjection`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextWithProjectionConfig {
    /// The encoder.
    pub text: ClipTextConfig,
    /// Width of the projection.
    pub projection_dim: usize,
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

/// A `ResNetForImageClassification`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetConfig {
    /// Channels after the first convolution.
    pub embedding_size: usize,
    /// Channels of each stage's result.
    pub hidden_sizes: Vec<usize>,
    /// Blocks in each stage.
    pub depths: Vec<usize>,
    /// Whether a block is three convolutions, the outer ones of one pixel; two otherwise.
    pub bottleneck: bool,
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
        k.divides(
            "num_attention_heads",
            config.num_attention_heads,
            config.hidden_size,
        )?;
        Ok(config)
    }
}

impl ClipTextWithProjectionConfig {
    /// Reads the `config.json` of a `CLIPTextModelWithProjection`.
    pub fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        Ok(Self {
            text: ClipTextConfig::read(path, value)?,
            projection_dim: k.size_or("projection_dim", 512)?,
        })
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
        k.divides(
            "num_attention_heads",
            config.num_attention_heads,
            config.hidden_size,
        )?;
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
            labels: labels(&k)?,
        };
        k.divides(
            "num_attention_heads",
            config.num_attention_heads,
            config.hidden_size,
        )?;
        k.divides("patch_size", config.patch_size, config.image_size)?;
        Ok(config)
    }
}

/// The labels of a classifier, by class index.
fn labels(k: &Keys<'_>) -> Result<Vec<String>> {
    let labels = k
        .need("id2label")?
        .as_object()
        .ok_or_else(|| k.error("id2label", "expected an object of labels"))?;
    (0..labels.len())
        .map(|i| {
            labels
                .get(&i.to_string())
                .and_then(Value::as_str)
                .map(String::from)
        })
        .collect::<Option<Vec<_>>>()
        .filter(|labels| !labels.is_empty())
        .ok_or_else(|| k.error("id2label", "expected labels numbered from 0 without a gap"))
}

impl ResNetConfig {
    /// Reads the `config.json` of a `ResNetForImageClassification`.
    pub fn read(path: &Path, value: &Value) -> Result<Self> {
        let k = Keys::new(path, value)?;
        k.neutral(&[
            ("num_channels", 3.into()),
            ("hidden_act", "relu".into()),
            ("downsample_in_first_stage", false.into()),
            ("downsample_in_bottleneck", false.into()),
        ])?;
        let bottleneck = match k
            .get("layer_type")
            .map_or(Some("bottleneck"), Value::as_str)
        {
            Some("bottleneck") => true,
            Some("basic") => false,
            _ => return Err(k.error("layer_type", "expected `basic` or `bottleneck`")),
        };
        let sizes = |key: &str, default: [usize; 4]| match k.get(key) {
            None => Ok(default.to_vec()),
            Some(_) => k.sizes(key),
        };
        let config = Self {
            embedding_size: k.size_or("embedding_size", 64)?,
            hidden_sizes: sizes("hidden_sizes", [256, 512, 1024, 2048])?,
            depths: sizes("depths", [3, 4, 6, 3])?,
            bottleneck,
            labels: labels(&k)?,
        };
        let [stages, depths] = [&config.hidden_sizes, &config.depths].map(Vec::len);
        let blocks = config
            .depths
            .iter()
            .fold(0, |sum: usize, n| sum.saturating_add(*n));
        if stages != depths || blocks > MOST_LAYERS {
            return Err(k.error(
                "depths",
                format!(
                    "expected a number of blocks for each of {stages} hidden_sizes, at most {MOST_LAYERS} together, found {:?}",
                    config.depths
                ),
            ));
        }
        if config.bottleneck {
            for &width in &config.hidden_sizes {
                k.divides("hidden_sizes", 4, width)?;
            }
        }
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
        for (key, only) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            let names = k.names(key)?;
            if names.len() != config.block_out_channels.len() || names.iter().any(|n| *n != only) {
                return Err(k.error(
                    key,
                    format!("expected {only} once for each of block_out_channels"),
                ));
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
