//! Any bytes as a single-file checkpoint.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use scumble_nn::files::{Checkpoint, OpenOptions};

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("room for it");
    let _ = Checkpoint::open(file.path(), &OpenOptions::default()).map(|c| c.hash());
});
