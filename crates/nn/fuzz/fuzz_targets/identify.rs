//! Any bytes as a file of unknown kind.
#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use scumble_nn::files::identify;

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("room for it");
    let _ = identify(file.path()).map(|found| found.kind.describe());
});
