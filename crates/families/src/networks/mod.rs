//! The networks that several families share: where each of their tensors stands. The names are
//! those of diffusers and transformers.

pub(crate) mod autoencoder_kl;
pub(crate) mod clip_text;
pub(crate) mod unet_2d_condition;

use crate::role::Projection;

/// The name of a layer: of its weight or bias, without the ending.
fn layer_of(tensor: &str) -> Option<&str> {
    let (layer, end) = tensor.rsplit_once('.')?;
    matches!(end, "weight" | "bias").then_some(layer)
}

/// What follows `name` and the number behind it, as in `resnets.1.conv1`.
fn numbered<'a>(text: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = text
        .strip_prefix(name)?
        .strip_prefix('.')?
        .split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// A projection of diffusers' `Attention`.
fn projection(name: &str) -> Option<Projection> {
    match name {
        "to_q" => Some(Projection::Queries),
        "to_k" => Some(Projection::Keys),
        "to_v" => Some(Projection::Values),
        "to_out.0" => Some(Projection::Output),
        _ => None,
    }
}

/// `name` without `end` and the dot before it: the module of which `end` is a part.
fn without<'a>(name: &'a str, end: &str) -> &'a str {
    name.strip_suffix(end)
        .and_then(|module| module.strip_suffix('.'))
        .unwrap_or(name)
}
