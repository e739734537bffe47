//! What several of the tests need: the miniature, small files made by hand, and random numbers that
//! never change.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod tensors;
pub(crate) mod tiny_sdxl;

use std::path::{Path, PathBuf};

use scumble_nn::files::{Checkpoint, OpenOptions, Tensors};

pub(crate) fn miniature_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji-sd")
}

pub(crate) fn miniature() -> Checkpoint {
    Checkpoint::open(miniature_path(), &OpenOptions::default()).unwrap()
}

/// A safetensors file of this header and these bytes, right or wrong.
pub(crate) fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        data,
    ]
    .concat()
}

/// Knuth's linear congruential generator: the same numbers on every machine.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }

    pub(crate) fn float(&mut self) -> f32 {
        self.below(2001) as f32 / 1000.0 - 1.0
    }
}

/// Copies a folder, so that it can be broken.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).unwrap();
        }
    }
}

/// Panics unless both hold the same tensors, bit by bit.
pub(crate) fn assert_same(a: &Tensors, b: &Tensors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, tensor) in a {
        let other = &b[name];
        assert_eq!(
            (tensor.dtype(), tensor.shape()),
            (other.dtype(), other.shape()),
            "{name}"
        );
        assert!(tensor.bytes() == other.bytes(), "{name} differs");
    }
}
