//! Any bytes as a textual-inversion embedding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scumble_nn::files::{Bytes, TensorFile, read_bundled, read_embedding};

fuzz_target!(|data: &[u8]| {
    if let Ok(file) = TensorFile::from_bytes("fuzz.safetensors", Bytes::Owned(data.into())) {
        let _ = read_embedding(&file, &[("text_encoder", 128)]);
        let _ = read_embedding(&file, &[("text_encoder", 128), ("text_encoder_2", 64)]);
        let _ = read_bundled(&file, &[("text_encoder", 128), ("text_encoder_2", 64)]);
    }
});
