//! Any bytes as a textual-inversion embedding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scumble_nn::files::{Bytes, TensorFile, read_embedding};

fuzz_target!(|data: &[u8]| {
    if let Ok(file) = TensorFile::from_bytes("fuzz.safetensors", Bytes::Owned(data.into())) {
        let _ = read_embedding(&file, 128);
    }
});
