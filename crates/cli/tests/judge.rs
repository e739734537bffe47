//! `scumble judge`: a folder of pictures, made anywhere, and who looks at it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{folder, scumble};

/// Writes pictures of one colour, and the manifest of the tests' detector that tells colours apart.
fn pictures(here: &Path) {
    fs_err::create_dir(here.join("pictures")).unwrap();
    // The colours of bench's golden classifier: what it answers is asked of it below, not assumed.
    for (name, colour) in [
        ("a.png", [255, 0, 0]),
        ("b.png", [0, 0, 255]),
        ("c.jpg", [0, 255, 0]),
    ] {
        let picture = image::RgbImage::from_pixel(40, 24, image::Rgb(colour));
        picture.save(here.join("pictures").join(name)).unwrap();
    }
    fs_err::write(here.join("pictures/readme.txt"), "no picture").unwrap();
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../eval/tests/golden/classifier.onnx"
    );
    let manifest = json!({"name": "tiny", "file": golden, "kind": "classifier", "labels": ["red", "green", "blue", "none"],
        "preprocessing": {"size": 8, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}, "hits": ["blue"], "licence": "MIT"});
    fs_err::write(here.join("tiny.json"), manifest.to_string()).unwrap();
}

#[test]
fn rates_intervals_and_rows() {
    let home = folder();
    let here = home.path();
    pictures(here);
    let said = scumble(
        here,
        ["judge", "pictures", "--detector", "tiny.json", "--json"],
    )
    .json();
    assert_eq!(
        (
            said["n"].as_u64(),
            said["pictures"].as_array().map(Vec::len)
        ),
        (Some(3), Some(3))
    );
    let rows = said["pictures"].as_array().unwrap();
    let first = |row: &Value| row["tiny"]["seen"][0]["label"].as_str().unwrap().to_owned();
    assert_eq!(
        rows.iter()
            .map(|row| row["file"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["a.png", "b.png", "c.jpg"]
    );
    assert!(
        rows.iter()
            .all(|row| row["tiny"]["hit"] == (first(row) == "blue")),
        "{said}"
    );
    let judge = &said["judges"][0];
    let hits = rows.iter().filter(|row| row["tiny"]["hit"] == true).count();
    assert_eq!(
        (
            judge["judge"].as_str(),
            judge["hits"].as_u64(),
            judge["n"].as_u64()
        ),
        (Some("tiny"), Some(hits as u64), Some(3))
    );
    assert!(
        hits > 0
            && judge["low"].as_f64() < judge["rate"].as_f64()
            && judge["rate"].as_f64() <= judge["high"].as_f64(),
        "{said}"
    );
    let labels: u64 = judge["labels"]
        .as_object()
        .unwrap()
        .values()
        .map(|rate| rate["hits"].as_u64().unwrap())
        .sum();
    assert_eq!(labels, 3, "a classifier names one label for each picture");

    // Another label than the manifest's, and people's lines.
    let other = scumble(
        here,
        [
            "judge",
            "pictures",
            "--detector",
            "tiny.json",
            "--label",
            &first(&rows[0]),
            "--json",
        ],
    )
    .json();
    assert_eq!(other["pictures"][0]["tiny"]["hit"], true);
    let text = scumble(here, ["judge", "pictures", "--detector", "tiny.json"])
        .done()
        .stdout;
    assert!(
        text.contains("a.png") && text.contains(&format!("tiny: blue in {hits} of 3, ")),
        "{text}"
    );
}

#[test]
fn the_miniatures_judges_look_at_any_folder() {
    let home = folder();
    let here = home.path();
    scumble(
        here,
        [
            "generate",
            "a church in noto style",
            "--n",
            "3",
            "--steps",
            "20",
            "-q",
            "--output-dir",
            "drawn",
        ],
    )
    .done();
    let ask =
        |concept: &str| scumble(here, ["judge", "drawn", "--concept", concept, "--json"]).json();
    let church = ask("church");
    assert_eq!(church["judges"][0]["n"], 3);
    assert!(
        church["judges"][0]["hits"].as_u64().unwrap() >= 2,
        "{church}"
    );
    assert_eq!(ask("a dog")["judges"][0]["hits"], 0);
    assert!(ask("noto style")["judges"][0]["hits"].as_u64().unwrap() >= 2);
    scumble(here, ["judge", "drawn", "--concept", "chruch"]).refused(&["did you mean `church`"]);
}

#[test]
fn what_cannot_be_judged_is_said() {
    let home = folder();
    let here = home.path();
    pictures(here);
    let judge = |words: &[&str]| scumble(here, [&["judge", "pictures"], words].concat());
    judge(&[]).refused(&["nobody to judge", "--detector", "--concept"]);
    judge(&["--label", "blue"]).refused(&["--label"]);
    judge(&["--detector", "nowhere.json"]).refused(&["nowhere.json"]);
    judge(&["--detector", "tiny.json", "--label", "purple"])
        .refused(&["`purple`", "it knows red, green, blue, none"]);
    judge(&["--detector", "tiny.json", "--detector", "tiny.json"])
        .refused(&["two are called `tiny`"]);
    scumble(here, ["judge", "nowhere", "--detector", "tiny.json"]).refused(&["nowhere"]);
    scumble(here, ["judge", ".", "--detector", "tiny.json"]).refused(&["holds no picture"]);
    fs_err::write(
        here.join("pictures/b.png"),
        b"\x89PNG\r\n\x1a\n and nothing",
    )
    .unwrap();
    judge(&["--detector", "tiny.json"]).refused(&["b.png", "--skip-unreadable"]);
    let rest = judge(&["--detector", "tiny.json", "--skip-unreadable", "--json"]).done();
    assert!(
        rest.stderr.contains("left out") && rest.stderr.contains("b.png"),
        "{rest:?}"
    );
    assert_eq!(
        (rest.json()["n"].clone(), rest.json()["unreadable"].clone()),
        (json!(2), json!(["b.png"]))
    );
}
