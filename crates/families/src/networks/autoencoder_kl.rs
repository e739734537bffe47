//! The tensors of an `AutoencoderKL`.

use super::{layer_of, numbered, projection, without};
use crate::role::{Place, Role};

/// Where a tensor stands; `None` for a name that the network has not.
pub(crate) fn place(tensor: &str) -> Option<Place<'_>> {
    let layer = layer_of(tensor)?;
    if matches!(layer, "quant_conv" | "post_quant_conv") {
        return Some(Place::new(Role::Convolution, layer));
    }
    let half = ["encoder.", "decoder."]
        .into_iter()
        .find_map(|half| layer.strip_prefix(half))?;
    let role = match half {
        "conv_in" => Role::Input,
        "conv_out" => Role::Output,
        "conv_norm_out" => Role::Norm,
        _ => return in_block(layer, half),
    };
    Some(Place::new(role, layer))
}

fn in_block<'a>(layer: &'a str, half: &'a str) -> Option<Place<'a>> {
    let numbered_block = ["down_blocks", "up_blocks"]
        .into_iter()
        .find_map(|name| Some(numbered(half, name)?.1));
    let part = numbered_block.or_else(|| half.strip_prefix("mid_block."))?;
    if let Some((_, rest)) = numbered(part, "attentions") {
        return match rest {
            "group_norm" => Some(Place::new(Role::Norm, layer)),
            _ => {
                let role = Role::SelfAttention(projection(rest)?);
                Some(Place::new(role, without(layer, rest)))
            }
        };
    }
    let role = match numbered(part, "resnets") {
        Some((_, "norm1" | "norm2")) => Role::Norm,
        Some((_, "conv1" | "conv2" | "conv_shortcut")) => Role::Convolution,
        None if matches!(part, "downsamplers.0.conv" | "upsamplers.0.conv") => Role::Convolution,
        _ => return None,
    };
    Some(Place::new(role, layer))
}
