//! A checkpoint's parts are held against each other before a tensor is looked at.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use burn::tensor::Device;
use scumble_families::load;
use scumble_nn::files::{Checkpoint, OpenOptions};
use serde_json::json;

/// What is said of the small model of Stable Diffusion's networks, its configurations changed.
fn refused(component: &str, key: &str, value: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/golden/networks/odd/model");
    let mut checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    checkpoint.name = "odd".into();
    checkpoint.component_mut(component).unwrap().config[key] = json!(value);
    load(&checkpoint, &Device::flex()).unwrap_err().to_string()
}

#[test]
fn a_configuration_that_fits_no_other_is_named() {
    assert_eq!(
        refused("unet", "cross_attention_dim", 11),
        "odd/unet/config.json: `cross_attention_dim`: 11 does not fit the text encoder's hidden_size 10"
    );
    assert_eq!(
        refused("text_encoder", "vocab_size", 700),
        "odd/text_encoder/config.json: `vocab_size`: 700 is less than the tokenizer's 726 entries"
    );
    // One that only its own tensors contradict.
    let tensors = refused("text_encoder", "intermediate_size", 31);
    assert!(tensors.starts_with("text_encoder: "), "{tensors}");
}
