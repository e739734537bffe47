//! The built-in miniature, its CLIP and its judges, compiled in so that the binary works from any folder.

use scumble_nn::files::Source;

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

/// The CLIP that the miniature's text encoder was trained with.
pub(crate) fn clip() -> Source {
    Source::embedded("emoji-clip", embedded!("emoji-clip", "config.json", "model.safetensors", "preprocessor_config.json"))
}

/// The judge that names objects.
pub(crate) fn object_judge() -> Source {
    Source::embedded(
        "emoji-judges/object",
        embedded!("emoji-judges/object", "config.json", "model.safetensors", "preprocessor_config.json"),
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
        embedded!("emoji-judges/style", "config.json", "model.safetensors", "preprocessor_config.json"),
    )
}
