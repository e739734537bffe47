//! From a checkpoint to the parts of a model, as far as families agree: a CLIP text encoder, a
//! U-Net and an autoencoder, each with its configuration, a tokenizer and a scheduler.

use std::path::Path;

use scumble_diffusion::{Filed, FiledEncoder, Parts, Result, Sampler, Schedule};
use scumble_nn::{
    config::{ClipTextConfig, UNetConfig, VaeConfig},
    files::{Checkpoint, TokenizerFiles},
    tokenizer::Tokenizer,
};
use serde_json::Value;

use crate::family::{Family, Part};

/// The parts of a checkpoint with one text encoder, whose scheduler's configuration is `scheduler`.
///
/// # Errors
/// If a part is not there, a configuration is not supported, or the checkpoint's networks do not
/// belong together.
pub(crate) fn parts<'a>(
    family: &Family,
    checkpoint: &'a Checkpoint,
    scheduler: &Value,
) -> Result<Parts<'a>> {
    let text = family.id_of(Part::TextEncoder);
    let text = network(checkpoint, text, ClipTextConfig::read)?;
    let denoiser = network(checkpoint, family.denoiser(), UNetConfig::read)?;
    let autoencoder = family.id_of(Part::Autoencoder);
    let autoencoder = network(checkpoint, autoencoder, VaeConfig::read)?;
    checkpoint.fits_together()?;
    let context = text.config.max_position_embeddings;
    let path = Path::new(&checkpoint.name).join("scheduler/scheduler_config.json");
    Ok(Parts {
        name: &checkpoint.name,
        encoder: encoder(checkpoint, text, "tokenizer", context)?,
        second: None,
        denoiser,
        autoencoder,
        // What asks for no timestep works without one: a closed form has no use for the schedule.
        schedule: Schedule::from_config(&path, scheduler)
            .unwrap_or_else(|error| Schedule::refused(&error)),
        sampler: Sampler::default_for(&path, scheduler).ok(),
        zeros_for_empty_prompt: false,
        family: checkpoint.family,
    })
}

/// A network of a checkpoint, with its configuration.
///
/// # Errors
/// If it is not there, or the configuration is not supported.
pub(crate) fn network<'a, C>(
    checkpoint: &'a Checkpoint,
    id: &'static str,
    read: fn(&Path, &Value) -> Result<C>,
) -> Result<Filed<'a, C>> {
    let component = checkpoint.component(id)?;
    let path = Path::new(&checkpoint.name).join(id).join("config.json");
    Ok(Filed {
        id,
        config: read(&path, &component.config)?,
        tensors: &component.tensors,
    })
}

/// A text encoder with its tokenizer: the checkpoint's own, or CLIP's where it brings none, as
/// single files do. `context` is how many tokens a prompt has.
///
/// # Errors
/// If the tokenizer's files are not what they should be.
pub(crate) fn encoder<'a, C>(
    checkpoint: &Checkpoint,
    network: Filed<'a, C>,
    tokenizer_id: &'static str,
    context: usize,
) -> Result<FiledEncoder<'a, C>> {
    let none = TokenizerFiles::default();
    let files = checkpoint.tokenizer(tokenizer_id).unwrap_or(&none);
    let tokenizer = if files.is_empty() {
        Tokenizer::clip(files.pad, context)?
    } else {
        let path = Path::new(&checkpoint.name).join(tokenizer_id);
        Tokenizer::new(&path, &files.data(), context)?
    };
    Ok(FiledEncoder {
        network,
        tokenizer,
        tokenizer_id,
    })
}
