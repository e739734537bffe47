//! Whether the networks of a checkpoint belong together: the U-Net of a model with two text
//! encoders (SDXL, Podell et al. 2023, arXiv 2307.01952) is another one than that of a model with
//! one.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Time ids of SDXL base: original size, crop and target size, two numbers each.
const TIME_IDS: u64 = 6;
/// Time ids of SDXL's refiner, which knows an aesthetic score in place of the target size.
const TIME_IDS_OF_REFINER: u64 = 5;

/// Checks the configurations of a checkpoint's components, by id, against each other. Whether a
/// single text encoder is as wide as the U-Net's context is seen when a pipeline is made of them.
///
/// # Errors
/// If the U-Net has added conditioning and there is one text encoder, or none and there are two; if
/// widths do not add up.
pub(super) fn check<'a>(model: &str, config: impl Fn(&str) -> Option<&'a Value>) -> Result<()> {
    let Some(unet) = config("unet") else {
        return Ok(());
    };
    let refused = |key: &str, problem: String| -> Result<()> {
        let path = Path::new(model).join("unet").join("config.json");
        Err(Error::config(path, key, problem))
    };
    let number = |config: &Value, key: &str, default: u64| match config.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(value) => value.as_u64(),
    };
    let added = match unet.get("addition_embed_type") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_str().unwrap_or_default()),
    };
    let (first, second) = match (config("text_encoder"), config("text_encoder_2")) {
        (Some(first), Some(second)) => (first, second),
        _ if added == Some("text_time") => {
            return refused(
                "addition_embed_type",
                "`text_time` is the U-Net of SDXL, which needs two text encoders: there is no text_encoder_2".into(),
            );
        }
        _ => return Ok(()),
    };
    if added != Some("text_time") {
        return refused(
            "addition_embed_type",
            format!(
                "expected `text_time`, found {}: two text encoders are SDXL, and this is the U-Net of another family",
                added.map_or("none".into(), |other| format!("`{other}`"))
            ),
        );
    }
    // A value that is no number is for the configuration's own reader to refuse.
    let widths = (
        number(first, "hidden_size", 512),
        number(second, "hidden_size", 512),
        number(unet, "cross_attention_dim", 1280),
    );
    if let (Some(first), Some(second), Some(found)) = widths
        && first.checked_add(second) != Some(found)
    {
        let refiner = if found == second {
            ", as in SDXL's refiner, which is not supported"
        } else {
            ""
        };
        return refused(
            "cross_attention_dim",
            format!(
                "expected {first} + {second}, the hidden_size of text_encoder and text_encoder_2, found {found}{refiner}"
            ),
        );
    }
    let widths = (
        number(second, "projection_dim", 512),
        number(unet, "addition_time_embed_dim", 0),
        number(unet, "projection_class_embeddings_input_dim", 0),
    );
    if let (Some(pooled), Some(id), Some(found)) = widths {
        let wanted = |ids: u64| ids.checked_mul(id)?.checked_add(pooled);
        if wanted(TIME_IDS) != Some(found) {
            let refiner = if wanted(TIME_IDS_OF_REFINER) == Some(found) {
                "; five time ids are SDXL's refiner, which is not supported"
            } else {
                ""
            };
            return refused(
                "projection_class_embeddings_input_dim",
                format!(
                    "expected {pooled} + {TIME_IDS} * {id}, text_encoder_2's projection_dim and {TIME_IDS} time ids of \
                     addition_time_embed_dim, found {found}{refiner}"
                ),
            );
        }
    }
    Ok(())
}
