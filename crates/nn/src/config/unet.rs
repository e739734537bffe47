//! The configuration of a `UNet2DConditionModel`: Stable Diffusion 1.x and 2.x, and SDXL with
//! transformers of several depths and added conditioning.

use std::path::Path;

use serde_json::Value;

use super::keys::{Keys, MOST_BLOCKS};
use crate::error::Result;

/// The most `BasicTransformerBlock`s of one transformer; SDXL has up to 10.
const MOST_TRANSFORMER_LAYERS: u64 = 64;

/// The most `BasicTransformerBlock`s of a whole U-Net; SDXL has 70.
const MOST_TRANSFORMER_BLOCKS: usize = 4096;

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
    /// `BasicTransformerBlock`s in the `Transformer2DModel` of each down level; none where it does
    /// not attend.
    pub down_transformer_layers: Vec<Vec<usize>>,
    /// `BasicTransformerBlock`s in the `Transformer2DModel` of the middle.
    pub mid_transformer_layers: usize,
    /// `BasicTransformerBlock`s in the `Transformer2DModel`s of each up level; none where it does
    /// not attend.
    pub up_transformer_layers: Vec<Vec<usize>>,
    /// Attention heads of each down level (up levels are their mirror image).
    pub heads: Vec<usize>,
    /// Width of the prompt's hidden states.
    pub cross_attention_dim: usize,
    /// Whether the transformers project with linear layers (SD 2.x, SDXL) or 1x1 convolutions (SD
    /// 1.x).
    pub use_linear_projection: bool,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' group norms.
    pub norm_eps: f64,
    /// Cosines first in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Shift in the exponent of the time embedding's frequencies.
    pub freq_shift: f64,
    /// The added conditioning of SDXL, if it has one.
    pub text_time: Option<TextTimeConfig>,
}

/// Added conditioning (`addition_embed_type` `text_time`): a pooled prompt embedding and time ids
/// (picture size, crop, target size; Podell et al. 2023, arXiv 2307.01952, section 2.2), which
/// enter with the time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextTimeConfig {
    /// Width of the sinusoidal embedding of one time id.
    pub addition_time_embed_dim: usize,
    /// Width of the pooled embedding and of the embeddings of all time ids together.
    pub projection_class_embeddings_input_dim: usize,
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
            "reverse_transformer_layers_per_block",
            "addition_embed_type",
            "addition_embed_type_num_heads",
            "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
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
            ("dropout", 0.into()),
        ])?;
        if let Some(v) = k.get("only_cross_attention") {
            let on = v.as_array().map_or(v != &Value::Bool(false), |l| {
                l.iter().any(|v| v != &Value::Bool(false))
            });
            if on {
                return Err(k.error(
                    "only_cross_attention",
                    format!("{v} is not supported, only false"),
                ));
            }
        }

        let block_out_channels = k.sizes("block_out_channels")?;
        let levels = block_out_channels.len();
        let layers_per_block = k.layers_or("layers_per_block", 2, MOST_BLOCKS)?;
        let crossing = |key: &str, plain: &str, cross: &str| -> Result<Vec<bool>> {
            let names = k.names(key)?;
            if names.len() != levels {
                return Err(k.error(
                    key,
                    format!("expected {levels} names, one for each of block_out_channels"),
                ));
            }
            names
                .into_iter()
                .map(|n| match n {
                    n if n == plain => Ok(false),
                    n if n == cross => Ok(true),
                    other => Err(k.error(
                        key,
                        format!("`{other}` is not supported, only {plain} and {cross}"),
                    )),
                })
                .collect()
        };
        let down_cross_attention =
            crossing("down_block_types", "DownBlock2D", "CrossAttnDownBlock2D")?;
        let up_cross_attention = crossing("up_block_types", "UpBlock2D", "CrossAttnUpBlock2D")?;
        let depths = Depths::read(&k, levels)?;
        let down_transformer_layers = Depths::layers(
            &k,
            DOWN,
            &depths.down,
            &down_cross_attention,
            layers_per_block,
        )?;
        let up_transformer_layers = Depths::layers(
            &k,
            UP,
            &depths.up,
            &up_cross_attention,
            layers_per_block + 1,
        )?;
        let mid_transformer_layers = depths.mid(&k)?;
        let blocks = down_transformer_layers
            .iter()
            .chain(&up_transformer_layers)
            .flatten()
            .sum::<usize>()
            + mid_transformer_layers;
        if blocks > MOST_TRANSFORMER_BLOCKS {
            return Err(k.error(
                DOWN,
                format!(
                    "{blocks} transformer blocks in all, expected at most {MOST_TRANSFORMER_BLOCKS}"
                ),
            ));
        }

        // diffusers' own naming slip: `attention_head_dim` holds the number of heads unless
        // `num_attention_heads` is set.
        let key = if k.get("num_attention_heads").is_some() {
            "num_attention_heads"
        } else {
            "attention_head_dim"
        };
        let heads = match k.get(key) {
            Some(v) if v.is_array() => k.sizes(key)?,
            Some(v) => vec![k.integer(key, v)?; levels],
            None => vec![8; levels],
        };
        if heads.len() != levels {
            return Err(k.error(
                key,
                format!("expected {levels} numbers, one for each of block_out_channels"),
            ));
        }
        let config = Self {
            in_channels: k.size_or("in_channels", 4)?,
            out_channels: k.size_or("out_channels", 4)?,
            sample_size: k.size_or("sample_size", 64)?,
            layers_per_block,
            down_cross_attention,
            up_cross_attention,
            down_transformer_layers,
            mid_transformer_layers,
            up_transformer_layers,
            heads,
            cross_attention_dim: k.size_or("cross_attention_dim", 1280)?,
            use_linear_projection: k.flag_or("use_linear_projection", false)?,
            norm_num_groups: k.size_or("norm_num_groups", 32)?,
            norm_eps: k.epsilon_or("norm_eps", 1e-5)?,
            flip_sin_to_cos: k.flag_or("flip_sin_to_cos", true)?,
            freq_shift: k.number_or("freq_shift", 0.0)?,
            text_time: TextTimeConfig::read(&k)?,
            block_out_channels,
        };
        for (level, (&width, &heads)) in config
            .block_out_channels
            .iter()
            .zip(&config.heads)
            .enumerate()
        {
            k.divides("norm_num_groups", config.norm_num_groups, width)?;
            // The number of heads of a level without a transformer is never used; the middle has
            // the last level's.
            let last = levels - 1;
            if level == last
                || config.down_cross_attention[level]
                || config.up_cross_attention[last - level]
            {
                k.divides(key, heads, width)?;
            }
        }
        if config.block_out_channels[0] < 4 || !config.block_out_channels[0].is_multiple_of(2) {
            return Err(k.error(
                "block_out_channels",
                "expected an even first width of at least 4",
            ));
        }
        // The sinusoidal embeddings divide by half their width less this.
        let narrowest = config
            .text_time
            .map_or(usize::MAX, |added| added.addition_time_embed_dim)
            .min(config.block_out_channels[0]);
        if !(0.0..(narrowest / 2) as f64).contains(&config.freq_shift) {
            return Err(k.error(
                "freq_shift",
                format!("expected 0 or 1, found {}", config.freq_shift),
            ));
        }
        Ok(config)
    }
}

impl TextTimeConfig {
    fn read(k: &Keys<'_>) -> Result<Option<Self>> {
        const TIME: &str = "addition_time_embed_dim";
        const INPUT: &str = "projection_class_embeddings_input_dim";
        match k.get("addition_embed_type") {
            None => match [TIME, INPUT].into_iter().find(|key| k.get(key).is_some()) {
                None => Ok(None),
                Some(key) => Err(k.error(
                    key,
                    "has no meaning without `addition_embed_type`: \"text_time\"",
                )),
            },
            Some(kind) if kind == "text_time" => {
                let (time, input) = (
                    k.integer(TIME, k.need(TIME)?)?,
                    k.integer(INPUT, k.need(INPUT)?)?,
                );
                if !time.is_multiple_of(2) {
                    return Err(k.error(TIME, format!("expected an even width, found {time}")));
                }
                if input <= time {
                    return Err(
                        k.error(INPUT, format!("expected room for a pooled embedding beside time ids of {time}, found {input}"))
                    );
                }
                Ok(Some(Self {
                    addition_time_embed_dim: time,
                    projection_class_embeddings_input_dim: input,
                }))
            }
            Some(other) => Err(k.error(
                "addition_embed_type",
                format!("{other} is not supported, only \"text_time\" (SDXL)"),
            )),
        }
    }
}

const DOWN: &str = "transformer_layers_per_block";
const UP: &str = "reverse_transformer_layers_per_block";

/// What a configuration says of one level: a depth for all of its transformers, or one for each.
#[derive(Clone, Debug)]
enum Depth {
    Same(usize),
    Each(Vec<usize>),
}

/// The depths of all levels, on the way down and on the way up.
struct Depths {
    down: Vec<Depth>,
    up: Vec<Depth>,
}

impl Depths {
    fn read(k: &Keys<'_>, levels: usize) -> Result<Self> {
        let depth = |key: &str, v: &Value| match v.as_u64() {
            Some(n) if n <= MOST_TRANSFORMER_LAYERS => Ok(n as usize),
            _ => Err(k.error(
                key,
                format!("expected whole numbers up to {MOST_TRANSFORMER_LAYERS}, found {v}"),
            )),
        };
        let list = |key: &str, list: &Vec<Value>| -> Result<Vec<Depth>> {
            if list.len() != levels {
                return Err(k.error(
                    key,
                    format!(
                        "expected {levels} entries, one for each of block_out_channels, found {}",
                        list.len()
                    ),
                ));
            }
            let entry = |v: &Value| match v.as_array() {
                None => depth(key, v).map(Depth::Same),
                Some(each) if each.len() <= MOST_BLOCKS + 1 => each
                    .iter()
                    .map(|v| depth(key, v))
                    .collect::<Result<_>>()
                    .map(Depth::Each),
                Some(each) => Err(k.error(
                    key,
                    format!(
                        "expected a depth for each transformer of a level, found {}",
                        each.len()
                    ),
                )),
            };
            list.iter().map(entry).collect()
        };
        let down = match k.get(DOWN) {
            None => vec![Depth::Same(1); levels],
            Some(Value::Array(entries)) => list(DOWN, entries)?,
            Some(v) => vec![Depth::Same(depth(DOWN, v)?); levels],
        };
        let up = match k.get(UP) {
            Some(Value::Array(entries)) => list(UP, entries)?,
            Some(v) => return Err(k.error(UP, format!("expected a list, found {v}"))),
            // Level for level the mirror image, which a list within the list has not: up levels
            // have one transformer more.
            None if down.iter().any(|d| matches!(d, Depth::Each(_))) => {
                return Err(k.error(
                    UP,
                    format!("is missing, which a list within `{DOWN}` needs"),
                ));
            }
            None => down.iter().rev().cloned().collect(),
        };
        Ok(Self { down, up })
    }

    /// The depth of each of the `count` transformers of each level that attends.
    fn layers(
        k: &Keys<'_>,
        key: &str,
        depths: &[Depth],
        attends: &[bool],
        count: usize,
    ) -> Result<Vec<Vec<usize>>> {
        depths
            .iter()
            .zip(attends)
            .map(|(depth, &attends)| match depth {
                _ if !attends => Ok(Vec::new()),
                Depth::Same(n) => Ok(vec![*n; count]),
                Depth::Each(each) if each.len() == count => Ok(each.clone()),
                Depth::Each(each) => Err(k.error(
                    key,
                    format!("expected {count} depths in a level, found {}", each.len()),
                )),
            })
            .collect()
    }

    /// The depth of the one transformer in the middle: the last down level's first.
    fn mid(&self, k: &Keys<'_>) -> Result<usize> {
        match self.down.last() {
            Some(Depth::Same(n)) => Ok(*n),
            Some(Depth::Each(each)) if !each.is_empty() => Ok(each[0]),
            _ => Err(k.error(
                DOWN,
                "expected a depth in the last level, which the middle takes",
            )),
        }
    }
}
