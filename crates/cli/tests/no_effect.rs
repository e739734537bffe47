//! Nothing is silently without effect: it is said on the screen and kept in run.json.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use serde_json::Value;
use support::{folder, scumble};

/// What generate says and stores for these words.
fn notes(words: &[&str]) -> (String, Vec<String>) {
    let home = folder();
    let ran = scumble(
        home.path(),
        [
            &["generate", "a church", "--json", "--output-dir", "out"],
            words,
        ]
        .concat(),
    );
    let result = ran.json();
    let record: Value =
        serde_json::from_slice(&fs_err::read(home.path().join("out/run.json")).unwrap()).unwrap();
    assert_eq!(record["notes"], result["notes"]);
    let list = record["notes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| note.as_str().unwrap().to_owned())
        .collect();
    (ran.stderr, list)
}

#[track_caller]
fn said(words: &[&str], what: &str) {
    let (screen, stored) = notes(words);
    assert!(
        screen.contains(what) && stored.iter().any(|note| note.contains(what)),
        "no `{what}` in {screen} or {stored:?}"
    );
}

#[test]
fn guards_that_do_nothing() {
    said(
        &["--steps", "7", "--guard", "sld-strong=church"],
        "sld-strong has no effect: its warm-up of 7 steps outlasts the run's 7",
    );
    said(
        &[
            "--steps",
            "2",
            "--guidance-scale",
            "1",
            "--guard",
            "sld-max=church",
        ],
        "sld-max has no effect: the guidance scale is 1",
    );
    said(
        &[
            "--steps",
            "2",
            "--guidance-scale",
            "1",
            "--guard",
            "negative=church",
        ],
        "negative has no effect: the guidance scale is 1",
    );
    said(
        &["--steps", "2", "--guard", "a-star=cat;dog"],
        "a-star has no effect",
    );
    said(
        &["--steps", "2", "--guard", "negative=chruch"],
        "does not know it; did you mean `church`?",
    );
    let (screen, stored) = notes(&["--steps", "8", "--guard", "sld-strong=church"]);
    assert!(
        !screen.contains("no effect") && stored.is_empty(),
        "{screen} {stored:?}"
    );
}

#[test]
fn a_negative_prompt_that_is_cut() {
    let long = "dog ".repeat(60);
    said(
        &["--steps", "2", "--negative-prompt", &long],
        "the negative prompt is longer than the model reads; it does not see: dog dog",
    );
}

#[test]
fn columns_that_nobody_reads() {
    let home = folder();
    fs_err::write(
        home.path().join("p.csv"),
        ",prompt,sd_seed,sd_image_width\n0,a church,1,512\n",
    )
    .unwrap();
    let ran = scumble(
        home.path(),
        [
            "generate",
            "--prompts",
            "p.csv",
            "--steps",
            "2",
            "--json",
            "--output-dir",
            "out",
        ],
    );
    assert!(
        ran.stderr.contains("p.csv: not used: sd_image_width"),
        "{ran:?}"
    );
    assert!(ran.json()["notes"].to_string().contains("sd_image_width"));
}

#[test]
fn json_lists_are_read_and_yaml_is_refused() {
    let home = folder();
    let here = home.path();
    fs_err::write(
        here.join("p.json"),
        "[\n  {\"prompt\": \"a church\", \"seed\": 3.0},\n  {\"prompt\": \"a dog\", \"seed\": \"4\"}\n]\n",
    )
    .unwrap();
    let read = scumble(
        here,
        [
            "generate",
            "--prompts",
            "p.json",
            "--steps",
            "2",
            "--json",
            "-q",
            "--output-dir",
            "out",
        ],
    )
    .json();
    let prompts: Vec<&str> = read["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["prompt"].as_str().unwrap())
        .collect();
    assert_eq!(prompts, ["a church", "a dog"]);
    assert_eq!(read["pictures"][1]["seed"], 4);
    fs_err::write(
        here.join("p.yaml"),
        "- target: \"church\"\n  positive: \"a church\"\n",
    )
    .unwrap();
    for command in [
        &["generate"][..],
        &["evaluate", "--concept", "church"],
        &["attack", "random", "--guard", "negative=church"],
    ] {
        let words = [command, &["--prompts", "p.yaml", "--output-dir", "other"]].concat();
        scumble(here, words).refused(&["p.yaml", "YAML", "JSON lines"]);
    }
}

#[test]
fn an_embedding_whose_word_nobody_says() {
    let home = folder();
    let here = home.path();
    let vector = scumble_nn::files::HostTensor::from_f32([1, 128], &[0.1; 128]);
    let tensors = scumble_nn::files::Tensors::from([("<thing>".to_owned(), vector)]);
    scumble_nn::files::write(
        here.join("thing.safetensors"),
        tensors,
        &std::collections::BTreeMap::new(),
    )
    .unwrap();
    let draw = |prompt: &str| {
        let words = [
            "generate",
            prompt,
            "--steps",
            "2",
            "--json",
            "--overwrite",
            "--output-dir",
            "out",
            "--embedding",
            "thing.safetensors",
        ];
        scumble(here, words).json()["notes"].to_string()
    };
    assert!(draw("a church").contains("its word `<thing>` stands in no prompt"));
    assert_eq!(draw("a <thing> church"), "[]");
}
