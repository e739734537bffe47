//! The family that an adapter was trained for, as far as its file shows it.

use super::pieces::{Piece, split};
use crate::{
    error::{Error, Result},
    files::{
        checkpoint::{Checkpoint, Family},
        safetensors::TensorFile,
    },
};

/// Beginnings of the keys that only an adapter with two text encoders has.
const SECOND: [&str; 4] = [
    "lora_te2_",
    "lora_te2.",
    "text_encoder_2.",
    "text_encoders.clip_g.",
];

/// Widths of the published models' cross-attention inputs.
const WIDTHS: [(usize, Family); 3] = [
    (768, Family::Sd1),
    (1024, Family::Sd2),
    (2048, Family::Sdxl),
];

/// Beginnings of what kohya's metadata (`ss_base_model_version`) and the model specification's
/// (`modelspec.architecture`) call a family.
const NAMES: [(&str, Family); 6] = [
    ("sdxl", Family::Sdxl),
    ("sd_v1", Family::Sd1),
    ("sd_v2", Family::Sd2),
    ("stable-diffusion-xl", Family::Sdxl),
    ("stable-diffusion-v1", Family::Sd1),
    ("stable-diffusion-v2", Family::Sd2),
];

/// What a person calls a family.
fn called(family: Family) -> &'static str {
    match family {
        Family::Sd1 => "Stable Diffusion 1.x",
        Family::Sd2 => "Stable Diffusion 2.x",
        Family::Sdxl => "SDXL",
        Family::Custom => "a model of other sizes",
    }
}

/// Refuses an adapter for another family than the base's.
///
/// A file without a telling key or shape is believed where its metadata names a family.
///
/// # Errors
/// If it is for another family; the error says for which, and what shows it.
pub(super) fn refuse_other(file: &TensorFile, base: &Checkpoint) -> Result<()> {
    let refused = |family: Family, why: String| {
        let problem = format!(
            "this is a LoRA for {} ({why}), and the model is {}",
            called(family),
            called(base.family)
        );
        Err(Error::file(&file.path, problem)
            .with_hint("an adapter fits only the family that it was trained for"))
    };
    let second = file
        .tensors
        .keys()
        .find(|key| SECOND.iter().any(|prefix| key.starts_with(prefix)));
    if let Some(key) = second {
        return if base.family == Family::Sdxl {
            Ok(())
        } else {
            refused(Family::Sdxl, crate::files::problems::tame(key))
        };
    }
    let own = base
        .component("unet")?
        .config
        .get("cross_attention_dim")
        .and_then(serde_json::Value::as_u64);
    let width = file.tensors.iter().find_map(|(key, tensor)| {
        let (module, piece) = split(key)?;
        let keys = module.ends_with("attn2_to_k") || module.ends_with("attn2.to_k");
        (keys && piece == Piece::Down).then(|| tensor.shape().get(1).copied())?
    });
    if let Some(width) = width {
        let known = WIDTHS.iter().find(|(known, _)| *known == width);
        return match known {
            Some((_, family)) if own != Some(width as u64) => refused(
                *family,
                format!("its cross-attentions read vectors of {width} numbers"),
            ),
            _ => Ok(()),
        };
    }
    let named = ["ss_base_model_version", "modelspec.architecture"]
        .iter()
        .filter_map(|key| Some((*key, file.metadata.get(*key)?)))
        .find_map(|(key, value)| {
            let name = NAMES.iter().find(|(begin, _)| value.starts_with(begin))?;
            Some((key, name.1))
        });
    match named {
        Some((key, family)) if base.family != Family::Custom && family != base.family => {
            refused(family, format!("its metadata `{key}` says so"))
        }
        _ => Ok(()),
    }
}
