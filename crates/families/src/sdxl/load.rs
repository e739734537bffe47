//! An SDXL from its checkpoint.

use burn::tensor::Device;
use scumble_diffusion::{Model, Parts, Result};
use scumble_nn::{config::ClipTextWithProjectionConfig, files::Checkpoint};

use crate::{
    family::Family,
    load::{encoder, network, parts},
};

/// The id of the second text encoder.
pub(super) const SECOND: &str = "text_encoder_2";

/// The model. Its pipeline takes a scheduler's configuration as it is.
pub(super) fn load(family: &Family, checkpoint: &Checkpoint, device: &Device) -> Result<Model> {
    let parts = parts(family, checkpoint, &checkpoint.scheduler)?;
    let second = network(checkpoint, SECOND, ClipTextWithProjectionConfig::read)?;
    let context = second.config.text.max_position_embeddings;
    let parts = Parts {
        second: Some(encoder(checkpoint, second, "tokenizer_2", context)?),
        // No other family's pipeline has this switch.
        zeros_for_empty_prompt: checkpoint.zeros_for_empty_prompt(),
        ..parts
    };
    Model::new(parts, device)
}
