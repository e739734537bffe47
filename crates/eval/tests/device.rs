//! The judges on a GPU against the CPU.
//!
//! Needs a device, so the test runs only when asked for: `cargo test --workspace --features vulkan
//! --test device -- --ignored`.

#![cfg(any(
    feature = "cuda",
    feature = "vulkan",
    feature = "metal",
    feature = "rocm"
))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use burn::tensor::Device;
use scumble_diffusion::Picture;
use scumble_eval::Judge;
use scumble_kernels::{DEVICE_KINDS, devices};
use scumble_nn::files::Source;

/// Sixty-six stripes and gradients, so that one chunk of the judge is whole and another is not.
fn pictures() -> Vec<Picture> {
    let one = |k: usize| Picture {
        width: 32,
        height: 32,
        rgb: (0..3 * 32 * 32)
            .map(|i| (i * (k + 1) / 7 + k * 31) as u8)
            .collect(),
    };
    (0..66).map(one).collect()
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn the_same_verdicts() {
    let devices: Vec<Device> = DEVICE_KINDS
        .iter()
        .filter_map(|kind| devices(kind).into_iter().next())
        .collect();
    assert!(
        !devices.is_empty(),
        "this machine has none of the devices that were built in"
    );
    for name in ["object", "style"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../models/emoji-judges")
            .join(name);
        let logits = |device: &Device| {
            Judge::load(&Source::dir(folder.clone()), device)
                .unwrap()
                .logits(&pictures())
                .concat()
        };
        let expected = logits(&Device::flex());
        let most = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        for device in &devices {
            let off = logits(device)
                .iter()
                .zip(&expected)
                .fold(0f32, |m, (a, b)| m.max((a - b).abs()))
                / most;
            assert!(off < 1e-4, "{name} on {device:?}: off by {off}");
        }
    }
}
