//! Any bytes as a safetensors file: an error, or tensors that agree with their shapes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scumble_nn::files::{Bytes, TensorFile};

fuzz_target!(|data: &[u8]| {
    if let Ok(file) = TensorFile::from_bytes("fuzz.safetensors", Bytes::Owned(data.into())) {
        for tensor in file.tensors.values() {
            assert_eq!(tensor.len() * tensor.dtype().bitsize(), tensor.bytes().len() * 8);
            let _ = (tensor.to_f32(), tensor.to_i64(), tensor.rows(0..1));
        }
    }
});
