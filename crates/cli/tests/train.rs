//! `scumble train`: one command makes a model that the other commands take, says what is wrong with
//! what it is given, and goes on where it was stopped.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use support::{folder, scumble};

/// Small enough for a test, large enough for every part.
const RECIPE: &str = include_str!("../../train/tests/tiny.toml");

#[test]
fn a_recipe_becomes_a_model_that_the_other_commands_take() {
    let home = folder();
    let scratch = home.path();
    fs_err::write(scratch.join("tiny.toml"), RECIPE).unwrap();
    let train = ["train", "tiny.toml", "--output-dir", "mine", "--json"];
    let made = scumble(scratch, train).json();
    let parts: Vec<&str> = made["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["part"].as_str().unwrap())
        .collect();
    assert_eq!(parts, ["tokenizer", "clip", "vae", "denoiser", "judge"]);
    let page = fs_err::read_to_string(scratch.join("mine/train/index.html")).unwrap();
    assert!(page.contains("denoiser") && !page.contains("http-equiv=\"refresh\""));
    assert!(scratch.join("mine/train/losses.csv").exists());

    let again = scumble(scratch, train);
    assert!(again.stderr.contains("is finished"), "{again:?}");
    assert_eq!(again.json()["parts"], made["parts"]);

    let drawn = [
        "generate", "a church", "--model", "mine", "--steps", "2", "--json",
    ];
    assert_eq!(
        scumble(scratch, drawn).json()["pictures"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let erased = [
        "erase",
        "church",
        "--model",
        "mine",
        "--method",
        "uce",
        "--json",
        "--unknown",
        "allow",
    ];
    assert_eq!(scumble(scratch, erased).json()["method"], "uce");
    let judged = scumble(scratch, ["inspect", "mine/judges/object", "--json"]);
    assert_eq!(judged.status, Some(0), "{judged:?}");

    // Another plan in the same folder is not mixed with this one.
    let other = ["train", "tiny.toml", "--output-dir", "mine", "--seed", "1"];
    scumble(scratch, other).refused(&["another plan", "--overwrite"]);
    let over = [
        "train",
        "tiny.toml",
        "--output-dir",
        "mine",
        "--seed",
        "1",
        "--overwrite",
        "--json",
    ];
    assert_eq!(
        scumble(scratch, over).json()["parts"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
}

#[test]
fn what_is_wrong_is_named() {
    let home = folder();
    let scratch = home.path();
    let refused = |args: &[&str], words: &[&str]| {
        scumble(scratch, args.iter().chain(&["--output-dir", "out"])).refused(words);
        assert!(!scratch.join("out").exists(), "{args:?}");
    };
    refused(&["train", "absent.toml"], &["absent.toml"]);
    fs_err::write(scratch.join("bad.toml"), "[vae]\ncolour = 1\n").unwrap();
    refused(&["train", "bad.toml"], &["bad.toml", "colour"]);
    refused(
        &["train", "--world", "emoji", "--without", "zeppelin"],
        &["--without zeppelin"],
    );
    refused(
        &["train", "--world", "emoji", "--without", "churhc"],
        &["did you mean church"],
    );
    refused(
        &["train", "--world", "emoji", "--minutes", "-3"],
        &["--minutes -3"],
    );
    fs_err::create_dir_all(scratch.join("pictures")).unwrap();
    refused(
        &["train", "--data", "pictures"],
        &["metadata.jsonl", "captions"],
    );
    let nothing = scumble(scratch, ["train", "--output-dir", "out"]);
    assert_eq!(nothing.status, Some(2), "{nothing:?}");
}
