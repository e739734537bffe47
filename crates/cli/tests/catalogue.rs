//! `scumble methods ID` and its like, what is said of a wrong `--set`, and masks, through the real
//! binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use support::{Ended, command, ended, folder};

fn scumble(scratch: &Path, args: &[&str]) -> Ended {
    let mut command = command(scratch);
    command.args(args);
    ended(command)
}

#[test]
fn every_option_is_listed_with_meaning_range_and_defaults() {
    let home = folder();
    let scratch = home.path();
    let uce = scumble(scratch, &["methods", "uce", "--json"]).json();
    assert_eq!(
        (&uce["id"], &uce["several"]),
        (&"uce".into(), &true.into()),
        "what the list says is there too"
    );
    let lambda = uce["options"]
        .as_array()
        .unwrap()
        .iter()
        .find(|option| option["key"] == "lambda")
        .unwrap();
    assert_eq!(lambda["meaning"], "Weight of staying as it is.");
    assert_eq!(lambda["range"], "a finite number, 0 or more");
    assert_eq!(
        lambda["defaults"],
        serde_json::json!({"paper": 0.5, "reference": 0.5, "fixed": 0.5, "miniature": 0.5})
    );

    let text = scumble(scratch, &["methods", "uce"]).done().stdout;
    assert!(
        text.contains("\nrows\n    Which rows of a prompt are edited.\n    one of tail, last, aligned, all; by default "),
        "{text}"
    );
    assert!(
        text.contains("tail (paper, fixed), last (reference), aligned (miniature)"),
        "{text}"
    );

    let attack = scumble(scratch, &["attacks", "unlearndiff", "--json"]).json();
    let options = attack["options"].as_array().unwrap();
    assert!(
        options
            .iter()
            .any(|option| option["key"] == "weight_decay" && option["defaults"]["paper"] == 0.1),
        "{attack}"
    );
    let guard = scumble(scratch, &["guards", "sld-strong", "--json"]).json();
    let warmup = guard["options"]
        .as_array()
        .unwrap()
        .iter()
        .find(|option| option["key"] == "warmup")
        .unwrap();
    assert_eq!(warmup["meaning"], "Steps that are guided plainly (delta).");
    assert!(
        scumble(scratch, &["guards", "negative"])
            .done()
            .stdout
            .contains("options  none")
    );
    scumble(scratch, &["methods", "nothing"])
        .refused(&["there is no method `nothing`", "choose one of"]);
    scumble(scratch, &["attacks", "nothing"]).refused(&["there is no attack `nothing`"]);
}

#[test]
fn equal_variants_are_said() {
    let home = folder();
    let scratch = home.path();
    let list = scumble(scratch, &["methods", "--json"]).json();
    let of = |id: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .find(|method| method["id"] == id)
            .unwrap()["variants"]
            .clone()
    };
    assert_eq!(
        of("oce"),
        serde_json::json!([["paper", "reference"], ["fixed"]])
    );
    assert_eq!(
        of("uce"),
        serde_json::json!([["paper"], ["reference"], ["fixed"]])
    );
    let text = scumble(scratch, &["methods"]).done().stdout;
    let oce = text.split("\noce\n").nth(1).unwrap();
    assert!(
        oce.lines()
            .take(8)
            .any(|line| line == "    variants paper = reference on a checkpoint"),
        "{oce}"
    );
}

#[test]
fn a_wrong_value_is_named_with_what_was_expected_and_its_default() {
    let home = folder();
    let erase = |set: &str| {
        scumble(
            home.path(),
            &[
                "erase",
                "church",
                "--method",
                "uce",
                "--no-judge",
                "--set",
                set,
            ],
        )
    };
    erase("lambda=abc").refused(&[
        "the option lambda is \"abc\", expected a number",
        "its default is 0.5",
    ]);
    erase("rows=some").refused(&[
        "the option rows is \"some\", expected one of `tail`",
        "its default is \"aligned\"",
    ]);
    erase("captions=1").refused(&[
        "the option captions is 1, expected true or false",
        "its default is true",
    ]);
}

fn picture(path: &Path, side: u32) {
    RgbImage::from_pixel(side, side, Rgb([200, 80, 40]))
        .save(path)
        .unwrap();
}

fn mask(path: &Path, side: u32, white: bool) {
    GrayImage::from_fn(side, side, |x, _| {
        Luma([if white && x < side / 2 { 255 } else { 0 }])
    })
    .save(path)
    .unwrap();
}

#[test]
fn masks_belong_to_pictures() {
    let home = folder();
    let scratch = home.path();
    for name in ["pictures", "masks"] {
        fs_err::create_dir(scratch.join(name)).unwrap();
    }
    picture(&scratch.join("pictures/one.png"), 64);
    picture(&scratch.join("pictures/two.png"), 48);
    let run = |method: &str, more: &[&str]| {
        let args = [
            "erase",
            "church",
            "--method",
            method,
            "--no-judge",
            "--quiet",
            "--json",
            "--overwrite",
            "--output-dir",
            "run",
        ];
        let args = [
            &args[..],
            &["--set", "iterations=2", "--masks", "masks"],
            more,
        ]
        .concat();
        scumble(scratch, &args)
    };
    let pictures = ["--pictures", "pictures"];
    run("mace", &[]).refused(&["--pictures"]);
    run("fmn", &pictures).refused(&["--masks: `fmn` does not ask where", "mace"]);
    mask(&scratch.join("masks/one.png"), 64, true);
    run("mace", &pictures).refused(&[
        "there is no mask for",
        "two.png",
        "white where the concept is",
    ]);
    mask(&scratch.join("masks/two.png"), 64, true);
    run("mace", &pictures).refused(&["two.png: is 64 x 64, expected the 48 x 48"]);
    mask(&scratch.join("masks/two.png"), 48, false);
    run("mace", &pictures).refused(&["two.png: nothing of its middle square is white"]);
    mask(&scratch.join("masks/two.png"), 48, true);
    mask(&scratch.join("masks/three.png"), 48, true);
    run("mace", &pictures).refused(&["three.png: belongs to no picture"]);
    fs_err::remove_file(scratch.join("masks/three.png")).unwrap();
    fs_err::write(scratch.join("masks/two.png"), b"no picture").unwrap();
    run("mace", &pictures).refused(&["two.png: is not a picture that can be read"]);
    mask(&scratch.join("masks/two.png"), 48, true);
    assert_eq!(run("mace", &pictures).json()["method"], "mace");
    let record: serde_json::Value =
        serde_json::from_slice(&fs_err::read(scratch.join("run/run.json")).unwrap()).unwrap();
    assert_eq!(record["plan"]["masks"]["n"], 2);
}

#[test]
fn what_would_not_be_kept_is_refused_with_what_to_set() {
    let home = folder();
    let scratch = home.path();
    fs_err::write(scratch.join("captions.txt"), "a dog\na cat\n").unwrap();
    let erase = |more: &[&str]| {
        let args = [
            "erase",
            "church",
            "--no-judge",
            "--quiet",
            "--json",
            "--variant",
            "paper",
        ];
        scumble(scratch, &[&args[..], more].concat())
    };
    erase(&["--method", "uce", "--captions", "captions.txt"])
        .refused(&["--captions has no effect", "prior_scale=0.1"]);
    erase(&["--method", "mace", "--preserve", "house"])
        .refused(&["--preserve has no effect", "--set rho=0.1"]);
    erase(&[
        "--method",
        "uce",
        "--captions",
        "captions.txt",
        "--set",
        "prior_scale=0.1",
    ])
    .done();
}
