//! The built-in miniature, its CLIP and its judges, compiled in so that the binary works from any
//! folder.

use std::sync::LazyLock;

use scumble_nn::files::Source;
use scumble_study::{BuiltIn, Companions};

macro_rules! embedded {
    ($root:literal, $($file:literal),* $(,)?) => {
        &[$(($file, include_bytes!(concat!("../../../models/", $root, "/", $file)) as &[u8])),*]
    };
}

/// The miniature's name where a path would stand.
pub(crate) const NAME: &str = "emoji-sd";

/// All of it.
pub(crate) fn built_in() -> BuiltIn {
    BuiltIn {
        name: NAME,
        model: model(),
        companions: Companions {
            clip_name: "emoji".into(),
            judge: "the miniature's ViT judges".into(),
            lacks: Vec::new(),
            clip: clip(),
            object_judge: object_judge(),
            style_judge: style_judge(),
            judges_hash: LazyLock::new(Box::new(judges_hash)),
        },
    }
}

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

/// The CLIP that the miniature's text encoder was trained with.
fn clip() -> Source {
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
fn object_judge() -> Source {
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
fn judges_hash() -> String {
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
fn style_judge() -> Source {
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
