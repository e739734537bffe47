//! Diffusers folders: the miniature, shards, variants, old names, and what must be refused.

use std::path::{Path, PathBuf};

use scumble_nn::files::{Checkpoint, Family, OpenOptions, Source};

fn miniature() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji-sd")
}

#[test]
fn reads_the_miniature() {
    let model = Checkpoint::open(miniature(), &OpenOptions::default()).unwrap();
    assert_eq!(model.unet.tensors.len(), 286);
    assert_eq!(model.vae.tensors.len(), 156);
    assert_eq!(model.text_encoder.tensors.len(), 68);
    assert_eq!(model.unet.tensors["conv_in.weight"].shape(), [96, 4, 3, 3]);
    assert_eq!(model.family, Family::Custom);
    assert!(model.notes.is_empty(), "{:?}", model.notes);
    assert_eq!(model.scheduler["prediction_type"], "epsilon");
    assert!(model.tokenizer.get("vocab.json").is_some() && model.tokenizer.get("merges.txt").is_some());
}
