//! Guards as edits and as flags: made, named, drawn with, inspected, and what cannot be done with
//! them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use scumble_erase::Edit;
use support::{folder, line, pixels, scumble};

/// A picture with these words added to the command.
fn look(here: &Path, prompt: &str, words: &str) -> Vec<u8> {
    let name = format!("{prompt} {words}").replace(['/', ' ', '=', ';'], "-");
    let mut args = vec![
        "generate",
        prompt,
        "--steps",
        "3",
        "--guidance-scale",
        "4",
        "--seed",
        "7",
        "--json",
        "-q",
        "--sampler",
        "ddim",
    ];
    args.extend(["--output-dir", &name]);
    args.extend(words.split_whitespace());
    pixels(
        &here.join(
            scumble(here, args).json()["pictures"][0]["file"]
                .as_str()
                .unwrap(),
        ),
    )
}

#[test]
fn every_guard_is_listed() {
    let here = folder();
    let list = line(here.path(), "guards --json").json();
    let ids: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "negative",
            "sld-weak",
            "sld-medium",
            "sld-strong",
            "sld-max",
            "spm",
            "safree",
            "adavd",
            "a-star"
        ]
    );
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .all(|g| g["paper"].as_str().unwrap().contains("20"))
    );
    let said = line(here.path(), "guards").done().stdout;
    assert!(ids.iter().all(|id| said.contains(id)), "{said}");
    line(here.path(), "erase church --method sld").refused(&[
        "there is no method `sld`",
        "esd",
        "sld-strong",
    ]);
}

#[test]
fn a_guard_is_an_edit() {
    let here = folder();
    let here = here.path();
    let made = line(
        here,
        "erase church --method sld_strong --set warmup=0 --no-judge --json -q --out guard",
    )
    .json();
    assert_eq!(made["method"], "sld-strong");
    assert_eq!(made["evaluations"], 0);
    let edit = Edit::open(&here.join("guard/edit.safetensors")).unwrap();
    let guard = edit.about.guard.clone().unwrap();
    assert_eq!(guard.texts, ["a church"]);
    assert_eq!(guard.options()["warmup"], 0);
    assert!(edit.changes.is_empty() && !edit.merges());
    // What it says of itself and its content are two things.
    let mut other = edit.clone();
    other.about.seed += 1;
    assert_eq!(other.content_hash(), edit.content_hash());
    other.about.guard.as_mut().unwrap().texts = vec!["a truck".into()];
    assert_ne!(other.content_hash(), edit.content_hash());

    // As an edit, as a flag, weaker, not at all, in words.
    let with = look(here, "a church in ink style", "--edit guard");
    assert_ne!(with, look(here, "a church in ink style", ""));
    assert_eq!(
        with,
        look(
            here,
            "a church in ink style",
            "--guard sld-strong=church --set warmup=0"
        )
    );
    assert_ne!(
        with,
        look(
            here,
            "a church in ink style",
            "--guard sld-strong=church;owl --set warmup=0"
        )
    );
    assert_ne!(
        with,
        look(here, "a church in ink style", "--edit guard:0.5")
    );
    assert_eq!(
        look(here, "a church in ink style", "--edit guard:0"),
        look(here, "a church in ink style", "")
    );
    let sheet = line(here, "inspect guard --json").json();
    assert!(
        sheet["guard"]
            .as_str()
            .unwrap()
            .starts_with("sld-strong against `a church`"),
        "{sheet}"
    );
    assert_eq!(sheet["kind"], "scumble edit");
    assert!(
        line(here, "inspect guard")
            .done()
            .stdout
            .contains("warmup 0")
    );
    for form in ["lora", "partial", "delta", "single", "diffusers"] {
        line(
            here,
            &format!("export guard --to {form} --out {form}.safetensors"),
        )
        .refused(&["run-time guard", "hint"]);
        assert!(!here.join(format!("{form}.safetensors")).exists(), "{form}");
    }
    // Numbers of its own, and the form of the published code.
    line(
        here,
        "erase church --method sld-weak --variant reference --no-judge -q --out weak",
    )
    .done();
    let weak = Edit::open(&here.join("weak/edit.safetensors")).unwrap();
    assert_eq!(weak.about.options["scale"], 20.0);
    line(
        here,
        "erase church --method sld-weak --set warm=1 --no-judge --out none",
    )
    .refused(&["no option `warm`", "warmup"]);
}

#[test]
fn guards_on_the_command_line() {
    let here = folder();
    let here = here.path();
    line(
        here,
        "erase church --method adavd --no-judge -q --out guard",
    )
    .done();
    // The concept of an edit is the default, words are the model's own, and two places go together.
    assert_eq!(
        look(here, "a church", "--edit guard --guard negative"),
        look(
            here,
            "a church",
            "--guard adavd=church --guard negative=church"
        )
    );
    let plain = scumble(
        here,
        "generate|a church|--steps|3|--guidance-scale|4|--seed|7|--sampler|ddim|--negative-prompt|a church|--json".split('|'),
    );
    assert_eq!(
        look(here, "a church", "--guard negative=church"),
        pixels(&here.join(plain.json()["pictures"][0]["file"].as_str().unwrap()))
    );
    line(here, "generate church --guard negative --out out").refused(&[
        "--guard negative",
        "no concept",
        "--guard negative=church",
    ]);
    line(here, "generate church --guard nonsense=church --out out")
        .refused(&["no guard `nonsense`", "sld-max"]);
    line(here, "generate church --guard spm=church --out out")
        .refused(&["low-rank", "--method spm"]);
    line(
        here,
        "generate church --guard sld-max=church --guard negative=owl --out out",
    )
    .refused(&["two guards"]);
    line(
        here,
        "generate church --guard negative=church --set warmup=3 --out out",
    )
    .refused(&["--set warmup"]);
    line(here, "generate church --set warmup=3 --out out").refused(&["--set warmup"]);
    assert!(!here.join("out").exists());
    // The plan knows them: another guard is another run.
    let first = line(
        here,
        "generate church --steps 2 --guard negative=ink --out a --json -q",
    )
    .json();
    assert_eq!(first["guards"][0]["texts"][0], "in ink style");
    line(
        here,
        "generate church --steps 2 --guard negative=owl --out a",
    )
    .refused(&["--overwrite"]);
    let said = line(here, "inspect a/00000.png").done().stdout;
    assert!(said.contains("negative in ink style"), "{said}");
    // Words that are both in a prompt, of the miniature's own if none are named.
    assert_ne!(
        look(here, "a cat and a dog", "--guard a-star"),
        look(here, "a cat and a dog", "")
    );
    assert_eq!(
        look(here, "a cat and a dog", "--guard a-star"),
        look(here, "a cat and a dog", "--guard a-star=cat;dog")
    );
    assert_eq!(
        look(here, "a cat", "--guard a-star"),
        look(here, "a cat", "")
    );
}
