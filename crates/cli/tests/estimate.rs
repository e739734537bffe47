//! `scumble erase --estimate` and `--memory`: what an erasure will take is what it then takes.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use support::{folder, golden, line, scumble};

/// A few steps of methods of every kind: trained on trajectories and on pictures, by adapters, in the
/// text encoder, and solved.
const SOME: [(&str, &str); 6] = [
    ("esd", "iterations=3 trajectories=2 sampling_steps=4"),
    ("uce", ""),
    (
        "spm",
        "iterations=3 trajectories=2 sampling_steps=4 anchor_trajectories=2",
    ),
    (
        "salun",
        "iterations=2 pictures=4 retain_pictures=4 sampling_steps=3",
    ),
    (
        "receler",
        "iterations=2 trajectories=2 sampling_steps=3 attack_steps=2",
    ),
    ("few-shot", "iterations=2 pictures=2 sampling_steps=3"),
];

/// What `fixed` costs on a full model is what a person can wait for, styles included, whose targets
/// take another prediction.
#[test]
fn methods_of_many_pictures_keep_to_what_a_full_model_can_afford() {
    let home = folder();
    let model = golden("sd1").join("model");
    for (method, most) in [
        ("salun", 10_000),
        ("erasediff", 10_000),
        ("scissorhands", 10_000),
        ("doco", 10_000),
        ("advunlearn", 30_000),
        ("sa", 30_000),
    ] {
        for anchor in ["", "--anchor cat"] {
            let command = format!(
                "erase church {anchor} --model {} --method {method} --unknown allow --estimate --json -q",
                model.display()
            );
            let found = line(home.path(), &command).json();
            let evaluations = found["evaluations"].as_u64().unwrap();
            assert!(
                (most / 5..=most).contains(&evaluations),
                "{method} {anchor}: {evaluations}"
            );
        }
    }
}

#[test]
fn evaluations_are_foretold_to_the_last_one_and_nothing_is_written() {
    let home = folder();
    let scratch = home.path();
    for (method, settings) in SOME {
        let mut args = vec![
            "erase",
            "church",
            "--method",
            method,
            "--no-judge",
            "--json",
            "-q",
        ];
        args.extend(settings.split_whitespace().flat_map(|set| ["--set", set]));
        let estimate = scumble(scratch, [&args[..], &["--estimate"]].concat()).json();
        let keys: Vec<&String> = estimate.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            ["seconds", "memory", "evaluations", "disk"],
            "{method}"
        );
        let runs = scratch.join("scumble-out");
        assert!(!runs.exists(), "{method}: an estimate writes nothing");
        // On a model this small nothing is foretold unasked.
        let run = scumble(scratch, [&args[..], &["--memory", "64G"]].concat()).json();
        assert_eq!(run["evaluations"], estimate["evaluations"], "{method}");
        assert_eq!(
            run["estimate"]["evaluations"], estimate["evaluations"],
            "{method}"
        );
        // The edit itself is most of what is written.
        let edit = std::path::PathBuf::from(run["edit"].as_str().unwrap());
        let size = fs_err::metadata(scratch.join(edit)).unwrap().len() as f64;
        let disk = estimate["disk"].as_f64().unwrap();
        assert!(disk > 0.8 * size, "{method}: {disk} for {size}");
        fs_err::remove_dir_all(runs).unwrap();
        fs_err::remove_dir_all(scratch.join("cache")).ok();
    }
}

#[test]
fn what_needs_more_than_it_may_is_refused_with_the_least() {
    let home = folder();
    let scratch = home.path();
    let args = ["erase", "church", "--method", "uce", "--no-judge"];
    scumble(scratch, [&args[..], &["--memory", "10M"]].concat())
        .refused(&["--memory 10 MiB: this needs about ", "hint: "]);
    assert!(!scratch.join("scumble-out").join("uce-church").exists());
    scumble(scratch, [&args[..], &["--memory", "8GiB"]].concat()).done();
    for wrong in ["8X", "-1", "nan", "0", "1e400G"] {
        let ended = scumble(scratch, [&args[..], &["--memory", wrong]].concat());
        assert!(
            ended.status == Some(2) && ended.stderr.contains("--memory"),
            "{wrong}"
        );
    }
}

/// What an attack will take if nobody ever sees the concept come back; less, if somebody does.
#[test]
fn attacks_are_foretold_as_if_they_found_nothing() {
    let home = folder();
    let scratch = home.path();
    let edit = scumble(
        scratch,
        ["erase", "church", "--method", "uce", "--no-judge", "--json"],
    )
    .json();
    let edit = edit["edit"].as_str().unwrap();
    let mut exact = 0;
    // A control, prompts, a word, weights, and other prompts.
    for attack in [
        "random",
        "p4d",
        "concept-inversion",
        "relearn",
        "paraphrase",
    ] {
        let args = [
            "attack", attack, "--edit", edit, "--n", "2", "--budget", "3", "--steps", "8", "-q",
        ];
        let estimate = scumble(scratch, [&args[..], &["--json", "--estimate"]].concat()).json();
        assert!(!scratch.join(attack).exists());
        scumble(scratch, [&args[..], &["--output-dir", attack]].concat()).done();
        let run = fs_err::read_to_string(scratch.join(attack).join("run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_str(&run).unwrap();
        let [seconds, memory] = ["seconds", "memory"].map(|key| estimate[key].as_f64());
        assert!(seconds > Some(0.0) && memory > Some(0.0), "{attack}");
        let [most, took] = [&estimate, &run].map(|of| of["evaluations"].as_u64().unwrap());
        assert!(took <= most, "{attack}: {took} of {most}");
        if run["shown"]["edited"] == 0 && run["shown"]["attacked"] == 0 {
            assert_eq!(took, most, "{attack}");
            exact += 1;
        }
    }
    assert!(exact > 1, "all of them found it");
    let args = ["attack", "p4d", "--edit", edit, "--memory", "1M"];
    scumble(scratch, args).refused(&["--memory 1 MiB", "needs about"]);
}
