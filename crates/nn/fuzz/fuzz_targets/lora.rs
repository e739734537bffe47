//! Any bytes as an adapter of the miniature, in every dialect.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use scumble_nn::files::{Bytes, Checkpoint, OpenOptions, TensorFile, read_lora};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../models/emoji-sd");

fuzz_target!(|data: &[u8]| {
    static BASE: OnceLock<Checkpoint> = OnceLock::new();
    let base = BASE.get_or_init(|| Checkpoint::open(MODEL, &OpenOptions::default()).expect("the miniature"));
    if let Ok(file) = TensorFile::from_bytes("fuzz.safetensors", Bytes::Owned(data.into())) {
        if let Ok(lora) = read_lora(&file, base) {
            lora.low_rank.iter().for_each(|change| drop(change.delta()));
        }
    }
});
