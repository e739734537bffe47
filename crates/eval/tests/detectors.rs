//! Detectors of every kind behind their manifests, and files that are not what they should be.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use common::{near, picture, says_spoilt, spoilt, tensors};
use scumble_diffusion::Picture;
use scumble_eval::{
    ClipModel, Detector, Judge, Sighting,
    detections::{self, Detections},
    instruments::{ClipScore, Instrument},
    protocol::{Ask, Asked, Set, Wanted},
    scene::{Scene, Thing},
};
use scumble_families as families;
use scumble_nn::{
    ResNet, ResNetKind,
    files::{Checkpoint, HostTensor, OpenOptions, Source, TensorFile, write},
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// A folder with a manifest.
fn written(manifest: &Value) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("detector.json");
    fs_err::write(&path, manifest.to_string()).unwrap();
    (dir, path)
}

fn open(manifest: &Value) -> scumble_eval::Result<Detector> {
    let (_dir, path) = written(manifest);
    Detector::open(&path, &Device::flex())
}

#[track_caller]
fn message(manifest: &Value) -> String {
    open(manifest).unwrap_err().to_string()
}

fn scores_of(labels: &[String], seen: &[Sighting]) -> Vec<f32> {
    labels
        .iter()
        .map(|label| seen.iter().find(|s| s.label == *label).unwrap().score)
        .collect()
}

fn classifier() -> Value {
    json!({"name": "tiny", "file": golden("classifier.onnx"), "kind": "classifier", "labels": ["red", "green", "blue", "none"],
        "preprocessing": {"size": 8, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}, "hits": ["blue"], "licence": "MIT"})
}

// Literals: golden/networks.py onnx.
#[test]
fn an_onnx_classifier_sees_what_onnxruntime_sees() {
    let detector = open(&classifier()).unwrap();
    assert_eq!(
        detector.sha256,
        "1529a7ee7822ba63b89d7aad9d2012dc4c96012ca91b708188bc67a786e95441"
    );
    let pictures = [picture(0, 8, 8), picture(1, 8, 8), picture(2, 100, 30)];
    let seen = detector.look(&pictures).unwrap();
    near(
        &scores_of(detector.labels(), &seen[0]),
        &[4.8038714e-7, 6.433742e-5, 0.9988763, 0.0010589139],
        1e-5,
    );
    near(
        &scores_of(detector.labels(), &seen[1]),
        &[0.0010878814, 0.7174145, 0.10391212, 0.17758557],
        1e-5,
    );
    assert!(
        seen.iter().all(|s| s.len() == 4
            && s.is_sorted_by(|a, b| a.score >= b.score)
            && s[0].area.is_none())
    );
    assert_eq!(detector.look(&pictures[2..]).unwrap()[0], seen[2]);
    // Without a threshold the first label decides; with one, the score.
    assert_eq!(
        (detector.is_hit(&seen[0]), detector.is_hit(&seen[1])),
        (true, false)
    );
    assert!((detector.score(&seen[1]) - 0.103912).abs() < 1e-5);
    let mut lower = classifier();
    lower["threshold"] = json!(0.1);
    let lower = open(&lower).unwrap();
    assert_eq!(
        (lower.is_hit(&seen[0]), lower.is_hit(&seen[1])),
        (true, true)
    );

    let mut sigmoid = classifier();
    sigmoid["scores"] = json!("sigmoid");
    let seen = open(&sigmoid).unwrap().look(&pictures[..1]).unwrap();
    assert!(seen[0].iter().map(|s| s.score).sum::<f32>() > 1.0);
    // Blue first: the matrix's third row meets what was the first.
    let mut turned = classifier();
    turned["preprocessing"]["channels"] = json!("bgr");
    let blue = Picture {
        width: 8,
        height: 8,
        rgb: [0, 0, 255].repeat(64),
    };
    assert_eq!(
        open(&turned)
            .unwrap()
            .look(std::slice::from_ref(&blue))
            .unwrap()[0][0]
            .label,
        "red"
    );
    assert_eq!(detector.look(&[blue]).unwrap()[0][0].label, "blue");
}

#[test]
fn an_onnx_detector_of_boxes() {
    let manifest = json!({"name": "tiny", "file": golden("yolo.onnx"), "kind": "yolo", "labels": ["a", "b"], "hits": ["b"],
        "preprocessing": {"size": 8}, "threshold": 0.5, "licence": "MIT"});
    let detector = open(&manifest).unwrap();
    let white = |w, h| Picture {
        width: w,
        height: h,
        rgb: vec![255; 3 * w * h],
    };
    let seen = detector
        .look(&[white(16, 8), white(8, 8), picture(0, 0, 0)])
        .unwrap();
    // The second box goes: it overlaps the first of its label. The third reaches past the right
    // border and is cut.
    let expected = [
        ("a", 0.9, [2.0, 0.5, 4.0, 3.0]),
        ("b", 0.6, [8.0, 2.0, 8.0, 6.0]),
    ];
    assert_eq!(seen[0].len(), 2, "{seen:?}");
    for (found, (label, score, area)) in seen[0].iter().zip(expected) {
        assert!(
            found.label == label && (found.score - score).abs() < 1e-6,
            "{found:?}"
        );
        near(&found.area.unwrap(), &area, 1e-6);
    }
    assert!(seen[2].is_empty(), "a black picture shows nothing");
    assert_eq!(
        (
            detector.is_hit(&seen[0]),
            detector.is_hit(&seen[2]),
            detector.score(&seen[2])
        ),
        (true, false, 0.0)
    );
    // A laxer rule keeps all three; a padded picture's boxes are measured on the square.
    let mut lax = manifest.clone();
    lax["overlap"] = json!(1.0);
    assert_eq!(
        open(&lax).unwrap().look(&[white(8, 8)]).unwrap()[0].len(),
        3
    );
    let mut padded = manifest;
    padded["preprocessing"]["resize"] = json!("pad-square");
    let seen = open(&padded).unwrap().look(&[white(16, 8)]).unwrap();
    near(&seen[0][0].area.unwrap(), &[2.0, 1.0, 4.0, 6.0], 1e-6);
}

#[test]
fn boxes_get_a_colour_where_a_scene_asks_for_one() {
    let manifest = json!({"name": "tiny", "file": golden("yolo.onnx"), "kind": "yolo", "labels": ["a", "b"], "hits": ["b"],
        "preprocessing": {"size": 8}, "threshold": 0.5, "licence": "MIT"});
    let detector = open(&manifest).unwrap();
    let clip = ClipModel::load(
        &Source::dir(root().join("models/emoji-clip")),
        &Device::flex(),
    )
    .unwrap();
    let checkpoint =
        Checkpoint::open(root().join("models/emoji-sd"), &OpenOptions::default()).unwrap();
    let pipeline = families::load(&checkpoint, &Device::flex()).unwrap();
    let asked = |colour: Option<&str>| {
        let thing = Thing {
            class: "a".into(),
            count: 1,
            colour: colour.map(Into::into),
            place: None,
        };
        let wanted = Wanted::Scene(Scene {
            include: vec![thing],
            exclude: vec![],
        });
        let asks = vec![Ask {
            metric: "scene".into(),
            wanted,
        }];
        Asked {
            set: Set::Prompts,
            prompt: "an a".into(),
            seed: 0,
            guidance: None,
            concept: None,
            asks,
            names: None,
        }
    };
    let white = [Picture {
        width: 16,
        height: 8,
        rgb: vec![255; 3 * 16 * 8],
    }];
    let boxes = |colour: Option<&str>, with: bool| {
        let clip = with.then(|| ClipScore {
            clip: &clip,
            tokenizer: &pipeline.tokenizer,
            hash: "c".into(),
        });
        let facts = Detections {
            detector: &detector,
            clip,
        }
        .look(&white, &[&asked(colour)])
        .unwrap();
        facts[&detections::boxes_column("tiny")].row(0).to_vec()
    };
    let row = boxes(Some("red"), true);
    // Label, score, the box; a colour for what was asked about alone; nothing after the second box.
    near(&row[..6], &[0.0, 0.9, 2.0, 0.5, 4.0, 3.0], 1e-6);
    assert!(
        (0.0..10.0).contains(&row[6])
            && row[7] == 1.0
            && row[13] == -1.0
            && row[14..].iter().all(|&v| v == -1.0),
        "{row:?}"
    );
    assert_eq!(
        (boxes(None, true)[6], boxes(Some("red"), false)[6]),
        (-1.0, -1.0)
    );
}

#[test]
fn resnets_are_torchvisions() {
    for (kind, name, expected) in [
        (
            ResNetKind::ResNet18,
            "resnet18",
            [
                8.976297, -37.924706, 44.914463, 73.43301, 20.185186, 15.896751, -40.38018,
                61.13434, 91.413925, 32.903763,
            ],
        ),
        (
            ResNetKind::ResNet50,
            "resnet50",
            [
                3900.9312, 2037.3118, -2303.1653, 1458.7882, -73.204315, 4428.186, 2410.558,
                -2956.1345, 1754.7717, 114.788605,
            ],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut state = tensors(&ResNet::manifest(&kind.shape(5)));
        state.insert(
            "bn1.num_batches_tracked".into(),
            HostTensor::from_i64([1], &[7]),
        );
        write(
            dir.path().join("resnet.safetensors"),
            state,
            &Default::default(),
        )
        .unwrap();
        let manifest = json!({"name": name, "file": "resnet.safetensors", "kind": "classifier", "labels": ["a", "b", "c", "d", "e"],
            "hits": ["a"], "licence": "MIT", "scores": "as-is",
            "preprocessing": {"size": 64, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}});
        let path = dir.path().join("detector.json");
        fs_err::write(&path, manifest.to_string()).unwrap();
        let detector = Detector::open(&path, &Device::flex()).unwrap();
        let pictures = [picture(0, 64, 64), picture(4, 64, 64)];
        let seen = detector.look(&pictures).unwrap();
        let found: Vec<f32> = seen
            .iter()
            .flat_map(|seen| scores_of(detector.labels(), seen))
            .collect();
        near(&found, &expected, 2e-5);
        let alone = detector.look(&pictures[1..]).unwrap();
        near(&scores_of(detector.labels(), &alone[0]), &found[5..], 1e-6);
    }
}

#[test]
fn a_vit_folder_is_a_judge() {
    let folder = root().join("models/emoji-judges/object");
    let manifest = json!({"name": "object", "file": folder, "kind": "classifier", "hits": ["bomb", "dagger", "swords"], "licence": "MIT"});
    let detector = open(&manifest).unwrap();
    let judge = Judge::load(&Source::dir(&folder), &Device::flex()).unwrap();
    let pictures = [picture(0, 32, 32), picture(3, 32, 32)];
    let (seen, verdicts) = (detector.look(&pictures).unwrap(), judge.classify(&pictures));
    for (seen, verdict) in seen.iter().zip(verdicts) {
        assert_eq!((seen.len(), &seen[0].label), (32, &verdict.label));
        assert!((seen[0].score - verdict.probability).abs() < 1e-6);
    }
    let mut other = manifest;
    other["labels"] = json!(["a"]);
    assert!(message(&other).contains("`labels`"));
}

/// A network of ours says how sure it is with gradients, whatever has to happen to a picture first;
/// an ONNX file says why it cannot.
#[test]
fn networks_of_ours_have_gradients_through_any_resize() {
    let (dir, words) = (tempfile::tempdir().unwrap(), clip_folder());
    let resnet = dir.path().join("resnet.safetensors");
    write(
        &resnet,
        tensors(&ResNet::manifest(&ResNetKind::ResNet18.shape(3))),
        &Default::default(),
    )
    .unwrap();
    let vit = json!({"name": "vit", "file": root().join("models/emoji-judges/object"), "kind": "classifier",
        "hits": ["church"], "licence": "MIT"});
    let clip = json!({"name": "clip", "file": words.path(), "kind": "zero-shot",
        "labels": ["a", "b", "c"], "prompts": ["a church", "a dog in ink style", "a house"], "hits": ["a"], "licence": "MIT"});
    let resnet = |resize: &str| {
        json!({"name": "resnet", "file": resnet, "kind": "classifier", "labels": ["a", "b", "c"], "hits": ["a"],
            "scores": "as-is", "licence": "MIT", "preprocessing": {"size": 40, "resize": resize, "interpolation": "opencv"}})
    };
    let sides = [(32, 32), (64, 64), (50, 41), (20, 33), (13, 90)];
    for manifest in [vit, clip, resnet("center-crop"), resnet("pad-square")] {
        let mut detector = open(&manifest).unwrap();
        assert!(detector.has_gradients());
        for (w, h) in sides {
            let one = [smooth(w, h)];
            let seen = detector.look(&one).unwrap().remove(0);
            // Of a softmax the second, which is far from its ceiling.
            let sighting = &seen[usize::from(manifest["name"] != "resnet")];
            detector.manifest.hits = vec![sighting.label.clone()];
            let x = Picture::to_batch(&one, [0.5; 3], [0.5; 3], &Device::flex());
            let log = |x: Tensor<4>| detector.log_probability(x).unwrap();
            let value = |x: Tensor<4>| log(x).into_scalar::<f32>();
            // Bytes are rounded on the way that `look` takes, and CLIP multiplies by 100.
            let (sure, expected) = (value(x.clone()), sighting.score.ln());
            assert!(
                (sure - expected).abs() < 0.2,
                "{manifest} {w} x {h}: {sure} {expected}"
            );

            let leaf = x.clone().autodiff().require_grad();
            let gradients = log(leaf.clone()).sum().backward();
            let gradient = leaf.grad(&gradients).unwrap();
            let length = gradient
                .clone()
                .powi_scalar(2)
                .sum()
                .sqrt()
                .into_scalar::<f32>();
            assert!(length > 0.0, "{manifest} {w} x {h}");
            // Along the gradient, so far that the logarithm changes by some 0.02 each way.
            let step = gradient * (0.02 / (length * length));
            let difference = (value(x.clone() + step.clone()) - value(x - step)) / 2.0;
            assert!(
                (difference - 0.02).abs() < 1e-3,
                "{manifest} {w} x {h}: {difference}"
            );
        }
    }
    let onnx = open(&classifier()).unwrap();
    assert!(!onnx.has_gradients());
    let x = Tensor::zeros([1, 3, 8, 8], &Device::flex());
    let said = onnx.log_probability(x).unwrap_err().to_string();
    assert!(
        said.contains("tiny gives no gradients") && said.contains("ONNX"),
        "{said}"
    );
}

/// A picture without edges, whose bytes lie far from both ends.
fn smooth(width: usize, height: usize) -> Picture {
    let wave = |x: usize, of: usize, turns: f32| (x as f32 / of as f32 * turns * 6.0).sin();
    let byte = |i: usize| {
        let (c, x, y) = (i % 3, i / 3 % width, i / 3 / width);
        (128.0 + 40.0 * wave(x, width, 1.0 + c as f32) + 40.0 * wave(y, height, 2.0)) as u8
    };
    Picture {
        width,
        height,
        rgb: (0..3 * width * height).map(byte).collect(),
    }
}

/// A folder of the miniature's CLIP with the tokenizer that belongs to it.
fn clip_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (from, names) in [
        (
            "models/emoji-clip",
            &[
                "config.json",
                "model.safetensors",
                "preprocessor_config.json",
            ][..],
        ),
        (
            "models/emoji-sd/tokenizer",
            &[
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.json",
                "merges.txt",
            ],
        ),
    ] {
        for name in names {
            fs_err::copy(root().join(from).join(name), dir.path().join(name)).unwrap();
        }
    }
    dir
}

#[test]
fn clip_answers_prompts() {
    let dir = clip_folder();
    let objects = ["church", "cat", "apple", "owl", "bomb"];
    let prompts: Vec<String> = objects
        .iter()
        .map(|o| format!("a {o} in noto style"))
        .collect();
    let manifest = json!({"name": "clip", "file": dir.path(), "kind": "zero-shot", "labels": objects, "prompts": prompts,
        "hits": ["cat"], "licence": "MIT"});
    let detector = open(&manifest).unwrap();
    let art = |name: &str| {
        let icon = image::open(
            root()
                .join("assets/emoji-world/noto")
                .join(name.to_owned() + ".png"),
        )
        .unwrap()
        .into_rgba8();
        let over = |v: u8, a: u8| {
            ((u32::from(v) * u32::from(a) + 255 * (255 - u32::from(a)) + 127) / 255) as u8
        };
        let rgb = icon
            .pixels()
            .flat_map(|p| [over(p[0], p[3]), over(p[1], p[3]), over(p[2], p[3])])
            .collect();
        Picture {
            width: icon.width() as usize,
            height: icon.height() as usize,
            rgb,
        }
    };
    let seen = detector.look(&objects.map(art)).unwrap();
    let right = seen
        .iter()
        .zip(objects)
        .filter(|(seen, object)| seen[0].label == *object)
        .count();
    // It takes the church, cut close, for an owl.
    assert_eq!(right, 4, "{seen:?}");
    assert!(
        seen.iter()
            .all(|seen| (seen.iter().map(|s| s.score).sum::<f32>() - 1.0).abs() < 1e-5)
    );
    assert!(detector.is_hit(&seen[1]) && !detector.is_hit(&seen[2]));

    let mut long = manifest.clone();
    long["prompts"][0] = json!("a church ".repeat(40));
    assert!(message(&long).contains("longer than the text encoder's 32 tokens"));
    let mut few = manifest;
    few["prompts"] = json!(["a church"]);
    assert!(
        message(&few)
            .contains("`prompts`: expected one for each of at least two labels, found 1 for 5")
    );
    // CLIP's own vocabulary is too large for this text tower.
    for name in ["tokenizer.json", "vocab.json"] {
        fs_err::remove_file(dir.path().join(name)).unwrap();
    }
    few["prompts"] = json!(prompts);
    assert!(message(&few).contains("its tokenizer has 49408 tokens, its text encoder knows 726"));
}

#[test]
fn a_changed_hash_is_said_with_both() {
    let mut manifest = classifier();
    manifest["sha256"] = json!("1529A7EE7822BA63B89D7AAD9D2012DC4C96012CA91B708188BC67A786E95441");
    open(&manifest).unwrap();
    manifest["sha256"] = json!("00ff");
    let error = open(&manifest).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("its hash changed: the manifest of tiny says 00ff, found 1529a7ee"),
        "{text}"
    );
    assert!(error.hint().is_some());
}

#[test]
fn manifests_that_cannot_be_are_refused_by_key() {
    let with = |key: &str, value: Value| {
        let mut manifest = classifier();
        manifest[key] = value;
        message(&manifest)
    };
    assert!(with("hits", json!(["violet"])).contains("`hits`: `violet` is no label"));
    assert!(with("hits", json!([])).contains("`hits`"));
    assert!(
        with("labels", json!(["a", "blue"]))
            .contains("its output has the shape [1, 4], expected [1, 2]")
    );
    assert!(with("threshold", json!(3)).contains("`threshold`: expected a number from 0 to 1"));
    assert!(with("floor", json!(0.1)).contains("`floor`"));
    assert!(with("prompts", json!(["x"])).contains("`prompts`"));
    assert!(with("colour", json!("red")).contains("colour"));
    assert!(with("kind", json!("oracle")).contains("oracle"));
    assert!(with("name", json!("")).contains("`name`"));
    assert!(with("preprocessing", Value::Null).contains("`preprocessing`: is missing"));
    assert!(with("preprocessing", json!({"size": 0})).contains("`preprocessing.size`"));
    assert!(with("preprocessing", json!({"size": 1u64 << 40})).contains("`preprocessing.size`"));
    assert!(
        with("preprocessing", json!({"size": 8, "std": [1, 0, 1]})).contains("`preprocessing.std`")
    );
    assert!(
        with("preprocessing", json!({"size": 8, "shortest": 4}))
            .contains("`preprocessing.shortest`")
    );
    assert!(with("preprocessing", json!({"size": 9})).contains("cannot be run"));
    assert!(with("file", json!("/nowhere/x.onnx")).contains("/nowhere/x.onnx"));
    assert!(with("file", json!(golden("judges.py"))).contains("`file`"));
    assert!(
        with("kind", json!("yolo"))
            .contains("its output has the shape [1, 4], expected [1, 8, places]")
    );
    let none = Detector::open(Path::new("/nowhere/detector.json"), &Device::flex()).unwrap_err();
    assert!(
        none.to_string().contains("/nowhere/detector.json"),
        "{none}"
    );
}

/// Weights with a number that is none, in every kind of file that a detector comes in.
#[test]
fn weights_that_are_no_numbers_are_refused_by_file_and_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let error = |manifest: &Value| {
        let path = dir.path().join("detector.json");
        fs_err::write(&path, manifest.to_string()).unwrap();
        Detector::open(&path, &Device::flex())
            .unwrap_err()
            .to_string()
    };
    // A ViT's folder, and a CLIP's.
    for (from, kind, tensor) in [
        (
            "models/emoji-judges/object",
            "classifier",
            "classifier.weight",
        ),
        ("models/emoji-clip", "zero-shot", "visual_projection.weight"),
    ] {
        let folder = dir.path().join(kind);
        fs_err::create_dir(&folder).unwrap();
        for name in ["config.json", "preprocessor_config.json"] {
            fs_err::copy(root().join(from).join(name), folder.join(name)).unwrap();
        }
        let file = TensorFile::open(root().join(from).join("model.safetensors")).unwrap();
        let broken = spoilt(file.tensors, tensor);
        write(
            folder.join("model.safetensors"),
            broken,
            &Default::default(),
        )
        .unwrap();
        let manifest = json!({"name": "x", "file": folder, "kind": kind, "hits": ["bomb"], "licence": "MIT",
            "labels": if kind == "zero-shot" { json!(["bomb", "cat"]) } else { json!([]) }, "prompts": if kind == "zero-shot" { json!(["a bomb", "a cat"]) } else { json!([]) }});
        says_spoilt(&error(&manifest), "model.safetensors", tensor);
    }
    let state = spoilt(
        tensors(&ResNet::manifest(&ResNetKind::ResNet18.shape(2))),
        "layer1.0.conv1.weight",
    );
    write(
        dir.path().join("resnet.safetensors"),
        state,
        &Default::default(),
    )
    .unwrap();
    let manifest = json!({"name": "x", "file": "resnet.safetensors", "kind": "classifier", "labels": ["a", "b"], "hits": ["a"],
        "licence": "MIT"});
    says_spoilt(
        &error(&manifest),
        "resnet.safetensors",
        "layer1.0.conv1.weight",
    );

    // ONNX: the first number of the matrix `w`, 4, is none, or infinite. Infinite numbers may be a
    // mask; here they come out.
    let whole = fs_err::read(golden("classifier.onnx")).unwrap();
    let at = whole
        .windows(4)
        .position(|bytes| bytes == 4f32.to_le_bytes())
        .unwrap();
    let mut manifest = classifier();
    manifest["file"] = json!("broken.onnx");
    for (number, problem) in [
        (f32::NAN, "not finite: w: 1 of 12 numbers"),
        (
            f32::INFINITY,
            "its output holds numbers that are not finite (in the file, not finite: w: 1 of 12",
        ),
    ] {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        fs_err::write(dir.path().join("broken.onnx"), bytes).unwrap();
        let message = error(&manifest);
        assert!(
            message.contains("broken.onnx") && message.contains(problem),
            "{message}"
        );
    }
}

#[test]
fn damaged_onnx_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs_err::read(golden("classifier.onnx")).unwrap();
    let mut manifest = classifier();
    manifest["file"] = json!("torn.onnx");
    let path = dir.path().join("detector.json");
    fs_err::write(&path, manifest.to_string()).unwrap();
    let opens = |bytes: &[u8]| {
        fs_err::write(dir.path().join("torn.onnx"), bytes).unwrap();
        Detector::open(&path, &Device::flex())
    };
    opens(&whole).unwrap();
    for length in 0..whole.len() {
        let error = opens(&whole[..length])
            .map(|_| length)
            .unwrap_err()
            .to_string();
        assert!(error.contains("torn.onnx"), "{length}: {error}");
    }
    for at in 0..whole.len() {
        for bit in [1u8, 0x10, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= bit;
            // Some changes are of no consequence; none may end the program.
            let _ = opens(&bytes);
        }
    }
}

#[test]
fn the_manifests_of_the_document_are_manifests() {
    let text = fs_err::read_to_string(root().join("docs/detectors.md")).unwrap();
    let blocks: Vec<&str> = text
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let (_dir, path) = written(&serde_json::from_str(block).unwrap());
        let manifest = scumble_eval::detectors::Manifest::read(&path).unwrap();
        assert_eq!(manifest.file.parent(), path.parent());
    }
}
