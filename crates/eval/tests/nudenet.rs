//! NudeNet 3.4.2, box for box as its own Python. Its network is AGPL and stays the user's:
//! `SCUMBLE_NUDENET` names the wheel's `320n.onnx`, and without it these tests say that they skip.
//!
//! `SCUMBLE_NUDENET_PARITY` may name a folder of PNGs with the boxes that
//! bench/parity/nudenet_parity recorded for them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do, and say that they skip"
)]

mod common;

use std::path::PathBuf;

use burn::tensor::Device;
use common::art;
use scumble_diffusion::Picture;
use scumble_eval::{Detector, Sighting};
use serde_json::{Value, json};

/// Scores agree to this; boxes, cut to whole pixels, exactly.
const TOLERANCE: f32 = 2e-5;

fn detector() -> Option<Detector> {
    let Some(file) = std::env::var_os("SCUMBLE_NUDENET").map(PathBuf::from) else {
        println!("skipped: set SCUMBLE_NUDENET to the 320n.onnx of an installed nudenet 3.4.2");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nudenet.json");
    let manifest = json!({"name": "nudenet-3.4.2", "file": file, "kind": "nudenet", "hits": ["FEMALE_BREAST_EXPOSED", "BUTTOCKS_EXPOSED"],
        "sha256": "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        "sensitive": true, "licence": "AGPL-3.0"});
    fs_err::write(&path, manifest.to_string()).unwrap();
    Some(Detector::open(&path, &Device::flex()).unwrap())
}

#[track_caller]
fn agree(what: &str, found: &[Sighting], expected: &[(&str, f32, [i32; 4])]) {
    let same = |found: &Sighting, (label, score, area): &(&str, f32, [i32; 4])| {
        found.label == *label
            && (found.score - score).abs() < TOLERANCE
            && found.area == Some(area.map(|v| v as f32))
    };
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| same(a, b)),
        "{what}: {found:?}, expected {expected:?}"
    );
}

/// A piece of artwork, its scale, what is cut out of it, and labels, scores and boxes.
type Case = (
    &'static str,
    usize,
    Option<(usize, usize)>,
    &'static [(&'static str, f32, [i32; 4])],
);

// Literals: golden/networks.py nudenet.
#[test]
fn boxes_are_nudenets_own() {
    let Some(detector) = detector() else { return };
    let cases: &[Case] = &[
        (
            "fluent/santa",
            1,
            None,
            &[("FACE_FEMALE", 0.270930, [22, 36, 76, 85])],
        ),
        (
            "noto/apple",
            1,
            None,
            &[("BUTTOCKS_COVERED", 0.374264, [1, 2, 118, 122])],
        ),
        (
            "noto/apple",
            4,
            None,
            &[("BUTTOCKS_COVERED", 0.413505, [12, 15, 469, 484])],
        ),
        (
            "fluent/santa",
            1,
            Some((128, 102)),
            &[("FACE_FEMALE", 0.250979, [25, 40, 70, 57])],
        ),
        (
            "noto/butterfly",
            1,
            Some((76, 128)),
            &[("FACE_FEMALE", 0.332618, [0, 0, 71, 90])],
        ),
        (
            "blob/dog",
            4,
            Some((512, 307)),
            &[
                ("FEET_COVERED", 0.362482, [0, 10, 203, 240]),
                ("FEET_COVERED", 0.339565, [299, 12, 212, 241]),
            ],
        ),
        (
            "emojione/owl",
            4,
            Some((512, 307)),
            &[
                ("BUTTOCKS_COVERED", 0.362785, [143, 50, 340, 244]),
                ("BUTTOCKS_COVERED", 0.350656, [15, 45, 242, 248]),
            ],
        ),
        (
            "fluent/skull",
            4,
            Some((409, 512)),
            &[
                ("BUTTOCKS_COVERED", 0.455590, [14, 17, 372, 453]),
                ("FEMALE_BREAST_COVERED", 0.277319, [213, 381, 84, 113]),
            ],
        ),
        (
            "fluent/airplane",
            1,
            Some((102, 128)),
            &[
                ("FEET_EXPOSED", 0.565984, [16, 79, 28, 32]),
                ("FEET_EXPOSED", 0.282547, [4, 61, 41, 51]),
            ],
        ),
        ("noto/cat", 4, None, &[]),
    ];
    let pictures: Vec<_> = cases
        .iter()
        .map(|&(name, scale, size, _)| art(name, scale, size))
        .collect();
    let together = detector.look(&pictures).unwrap();
    for ((case, found), picture) in cases.iter().zip(&together).zip(&pictures) {
        agree(case.0, found, case.3);
        assert_eq!(
            detector.look(std::slice::from_ref(picture)).unwrap()[0],
            *found
        );
        assert!(!detector.is_hit(found), "artwork shows nothing of the kind");
    }
}

#[test]
fn boxes_of_a_folder_are_nudenets_own() {
    let Some(folder) = std::env::var_os("SCUMBLE_NUDENET_PARITY").map(PathBuf::from) else {
        return;
    };
    let Some(detector) = detector() else { return };
    let recorded: Value =
        serde_json::from_slice(&fs_err::read(folder.join("boxes.json")).unwrap()).unwrap();
    let recorded = recorded.as_object().unwrap();
    let mut boxes = 0;
    for (name, expected) in recorded {
        let image = image::open(folder.join(name)).unwrap().into_rgb8();
        let (width, height) = (image.width() as usize, image.height() as usize);
        let found = detector
            .look(&[Picture {
                width,
                height,
                rgb: image.into_raw(),
            }])
            .unwrap();
        let expected: Vec<_> = expected.as_array().unwrap().iter().collect();
        let expected: Vec<(&str, f32, [i32; 4])> = expected
            .iter()
            .map(|d| {
                let area: Vec<i32> = d["box"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|v| v.as_i64().unwrap() as i32)
                    .collect();
                (
                    d["class"].as_str().unwrap(),
                    d["score"].as_f64().unwrap() as f32,
                    area.try_into().unwrap(),
                )
            })
            .collect();
        agree(name, &found[0], &expected);
        boxes += expected.len();
    }
    println!("{} pictures, {boxes} boxes agree", recorded.len());
}
