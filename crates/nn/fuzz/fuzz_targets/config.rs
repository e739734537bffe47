//! Any JSON as each of the networks' configurations.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use scumble_nn::{
    config::{ClipTextConfig, UNetConfig, VaeConfig},
    files::source::parse_object,
};

fuzz_target!(|data: &[u8]| {
    let path = Path::new("config.json");
    if let Ok(value) = parse_object(path, data) {
        let _ = (UNetConfig::read(path, &value), VaeConfig::read(path, &value), ClipTextConfig::read(path, &value));
    }
});
