//! The built-in miniature, its CLIP and its judges, compiled in so that the binary works from any
//! folder.

use std::collections::BTreeMap;

use scumble_families::{self as families, Part};
use scumble_nn::files::{Checkpoint, Component, Family, OpenOptions, Source, TokenizerFiles};

macro_rules! embedded {
    ($root:literal, $($file:literal),* $(,)?) => {
        &[$(($file, include_bytes!(concat!("../../../models/", $root, "/", $file)) as &[u8])),*]
    };
}

/// The miniature's name where a path would stand.
pub(crate) const NAME: &str = "emoji-sd";

/// The miniature checkpoint.
pub(crate) fn model() -> Source {
    Source::embedded(
        NAME,
        embedded!(
            "emoji-sd",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/tokenizer.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ),
    )
}

/// Whether a checkpoint is the miniature, whatever it is called and however it is stored: the
/// compiled-in one, a copy of it, or a model of its family, which has the same networks and the
/// same vocabulary (an edited, exported or fine-tuned miniature).
///
/// This one answer decides between [`Profile::MINIATURE`](scumble_erase::Profile::MINIATURE) and the
/// profile of a family.
pub(crate) fn is_one(checkpoint: &Checkpoint) -> bool {
    if checkpoint.family != Family::Custom {
        return false;
    }
    let Ok(own) = Checkpoint::read(&model(), &OpenOptions::default()) else {
        return false;
    };
    let same = |id: &str| match (checkpoint.component(id), own.component(id)) {
        (Ok(theirs), Ok(ours)) => same_network(theirs, ours),
        _ => false,
    };
    // Another autoencoder draws the same pictures a little differently.
    let family = families::of_files(checkpoint.family);
    let components = family.components.iter();
    let mut ids = components.filter(|component| component.part != Part::Autoencoder);
    ids.all(|component| same(component.id)) && same_vocabulary(checkpoint, &own)
}

/// Whether a model has the miniature's vocabulary, so that its prompts mean what the judges were
/// taught.
pub(crate) fn speaks_the_same(checkpoint: &Checkpoint) -> bool {
    Checkpoint::read(&model(), &OpenOptions::default())
        .is_ok_and(|own| same_vocabulary(checkpoint, &own))
}

fn same_network(a: &Component, b: &Component) -> bool {
    let shapes = |one: &Component| -> BTreeMap<String, Vec<usize>> {
        one.tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
            .collect()
    };
    a.tensors.len() == b.tensors.len() && shapes(a) == shapes(b)
}

fn same_vocabulary(a: &Checkpoint, b: &Checkpoint) -> bool {
    let (Some(a), Some(b)) = (a.tokenizer("tokenizer"), b.tokenizer("tokenizer")) else {
        return false;
    };
    let ids = |files: &TokenizerFiles| -> Option<BTreeMap<String, u64>> {
        serde_json::from_slice(files.get("vocab.json")?).ok()
    };
    match (ids(a), ids(b)) {
        (Some(a), Some(b)) => a == b,
        _ => {
            a.get("tokenizer.json").is_some() && a.get("tokenizer.json") == b.get("tokenizer.json")
        }
    }
}

/// The CLIP that the miniature's text encoder was trained with.
pub(crate) fn clip() -> Source {
    Source::embedded(
        "emoji-clip",
        embedded!(
            "emoji-clip",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json"
        ),
    )
}

/// The judge that names objects.
pub(crate) fn object_judge() -> Source {
    Source::embedded(
        "emoji-judges/object",
        embedded!(
            "emoji-judges/object",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json"
        ),
    )
}

/// The content hash of both judges' weights.
pub(crate) fn judges_hash() -> String {
    let mut hash = blake3::Hasher::new();
    for bytes in [
        include_bytes!("../../../models/emoji-judges/object/model.safetensors").as_slice(),
        include_bytes!("../../../models/emoji-judges/style/model.safetensors").as_slice(),
    ] {
        hash.update(bytes);
    }
    hash.finalize().to_hex().to_string()
}

/// The judge that names styles.
pub(crate) fn style_judge() -> Source {
    Source::embedded(
        "emoji-judges/style",
        embedded!(
            "emoji-judges/style",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json"
        ),
    )
}
