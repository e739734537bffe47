//! The tensors of a `UNet2DConditionModel`: the denoiser of Stable Diffusion 1.x and 2.x and of
//! SDXL.

use serde_json::Value;

use scumble_nn::files::Checkpoint;

use super::{layer_of, numbered, projection, without};
use crate::role::{Place, Role};

/// Where a tensor stands; `None` for a name that the network has not.
pub(crate) fn place(tensor: &str) -> Option<Place<'_>> {
    let layer = layer_of(tensor)?;
    let role = match layer {
        "conv_in" => Role::Input,
        "conv_out" => Role::Output,
        "conv_norm_out" => Role::Norm,
        "time_embedding.linear_1" | "time_embedding.linear_2" => Role::TimeEmbedding,
        "add_embedding.linear_1" | "add_embedding.linear_2" => Role::AddedEmbedding,
        _ => return in_block(layer),
    };
    Some(Place::new(role, layer))
}

fn in_block(layer: &str) -> Option<Place<'_>> {
    let numbered_block = ["down_blocks", "up_blocks"]
        .into_iter()
        .find_map(|name| Some(numbered(layer, name)?.1));
    let part = numbered_block.or_else(|| layer.strip_prefix("mid_block."))?;
    if let Some((_, rest)) = numbered(part, "attentions") {
        return in_transformer(layer, rest);
    }
    let role = match numbered(part, "resnets") {
        Some((_, "norm1" | "norm2")) => Role::Norm,
        Some((_, "conv1" | "conv2" | "conv_shortcut")) => Role::Convolution,
        Some((_, "time_emb_proj")) => Role::TimeProjection,
        None if matches!(part, "downsamplers.0.conv" | "upsamplers.0.conv") => Role::Convolution,
        _ => return None,
    };
    Some(Place::new(role, layer))
}

/// `rest` is what follows the number of a `Transformer2DModel` in the name of a layer.
fn in_transformer<'a>(layer: &'a str, rest: &'a str) -> Option<Place<'a>> {
    let role = match rest {
        "norm" => Role::Norm,
        "proj_in" | "proj_out" => Role::TransformerProjection,
        _ => match numbered(rest, "transformer_blocks")?.1 {
            "norm1" | "norm2" | "norm3" => Role::Norm,
            "ff.net.0.proj" | "ff.net.2" => Role::FeedForward,
            attention => {
                let (which, end) = attention.split_once('.')?;
                let role = match which {
                    "attn1" => Role::SelfAttention(projection(end)?),
                    "attn2" => Role::Context(projection(end)?),
                    _ => return None,
                };
                return Some(Place::new(role, without(layer, end)));
            }
        },
    };
    Some(Place::new(role, layer))
}

/// The side of the pictures that a U-Net and an autoencoder draw unasked, in pixels.
pub(crate) fn side(checkpoint: &Checkpoint) -> Option<u64> {
    let config = |id: &str| checkpoint.component(id).map_or(&Value::Null, |c| &c.config);
    let levels = config("vae")
        .get("block_out_channels")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    // A level of the autoencoder halves each side, but for the last.
    let factor = 1u64
        .checked_shl(levels.saturating_sub(1) as u32)
        .unwrap_or(0);
    config("unet")
        .get("sample_size")
        .and_then(Value::as_u64)?
        .checked_mul(factor)
}
