//! The words that people type for concepts: slips, commas, capitals, several anchors, and lists of
//! what is known.

mod support;

use serde_json::Value;
use support::{command, ended, folder, golden, line, scumble};

/// Settings that take a second: what is tested is what is said, not how well it erases.
const SHORT: [&str; 7] = [
    "--no-judge",
    "--iterations",
    "2",
    "--set",
    "trajectories=1",
    "--set",
    "sampling_steps=2",
];

#[test]
fn a_word_that_nobody_knows_is_refused_before_anything_is_done() {
    let home = folder();
    let here = home.path();
    for (concept, said) in [
        ("chruch", "did you mean `church`?"),
        ("churches", "did you mean `church`?"),
        ("banana", "scumble concepts"),
        ("van gogh", "scumble concepts"),
        ("church, house", "\"church; house\""),
        ("ink style,church", "\"ink style; church\""),
    ] {
        scumble(here, ["erase", concept, "--output-dir", "out"]).refused(&[
            concept,
            said,
            "--unknown allow",
        ]);
        assert!(!here.join("out").exists(), "{concept} left a folder");
    }
    scumble(
        here,
        [
            "erase",
            "church",
            "--method",
            "uce",
            "--preserve",
            "dgo",
            "--output-dir",
            "out",
        ],
    )
    .refused(&["--preserve", "`dog`"]);

    let words = [
        &[
            "erase",
            "van gogh",
            "--unknown",
            "allow",
            "--json",
            "--output-dir",
            "allowed",
        ],
        SHORT.as_slice(),
    ]
    .concat();
    let ran = scumble(here, words).done();
    assert!(ran.stderr.contains("does not know `van gogh`"), "{ran:?}");
    let record: serde_json::Value =
        serde_json::from_slice(&fs_err::read(here.join("allowed/run.json")).unwrap()).unwrap();
    assert!(
        record["notes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|note| note.as_str().unwrap().contains("van gogh")),
        "{record}"
    );
}

#[test]
fn what_the_captions_say_is_no_unknown_word() {
    let home = folder();
    let words = [
        &[
            "erase",
            "a church in ink style",
            "--json",
            "--output-dir",
            "out",
        ],
        SHORT.as_slice(),
    ]
    .concat();
    let result = scumble(home.path(), words).json();
    assert_eq!(result["concept"], "a church in ink style");
}

#[test]
fn capitals_and_articles_make_no_other_run() {
    let home = folder();
    let here = home.path();
    let erase = |concept: &str| {
        scumble(
            here,
            [&["erase", concept, "--json"], SHORT.as_slice()].concat(),
        )
    };
    let first = erase("church").json();
    for same in ["Church", "A Church", "church; Church"] {
        assert_eq!(erase(same).json(), first, "{same}");
    }
    assert_eq!(
        fs_err::read_dir(here.join("scumble-out")).unwrap().count(),
        1
    );
}

#[test]
fn a_kind_words_what_no_world_knows_and_the_edit_remembers_it() {
    let home = folder();
    let here = home.path();
    let model = golden("sd1").join("model").display().to_string();
    let read = |file: &str| -> Value {
        serde_json::from_slice(&fs_err::read(here.join(file)).unwrap()).unwrap()
    };
    let erase = "erase Al --method uce --no-judge";
    line(
        here,
        &format!("{erase} --model {model} --kind artist --output-dir out"),
    )
    .done();
    let concept = &read("out/run.json")["plan"]["concepts"][0];
    assert_eq!(concept["kind"], "style", "{concept}");
    let prompts = concept["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 16);
    assert_eq!(prompts[0]["erase"], "a house in the style of Al");
    assert_eq!(prompts[0]["anchor"], "a house");

    // An attack asks for it in the same sentences, unless another kind is said.
    let cases = |words: &str, out: &str| {
        let attack = format!(
            "attack p4d --model {model} --edit out --n 3 --budget 1 --steps 1 --set tokens=2 {words} --output-dir {out}"
        );
        line(here, &attack).done();
        let plan = &read(&format!("{out}/run.json"))["plan"];
        let cases = plan["cases"].as_array().unwrap().iter();
        cases
            .map(|case| case["prompt"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(cases("", "a")[1], "a woman by Al");
    assert_eq!(
        cases("--kind person", "b"),
        ["Al", "a photo of Al", "a portrait of Al"]
    );

    // On the miniature its captions say it.
    let ended = line(
        here,
        "erase church --method uce --no-judge --kind style --output-dir c",
    )
    .done();
    assert!(
        ended
            .stderr
            .contains("--kind style has no effect on `church`"),
        "{ended:?}"
    );
    line(here, "erase church --kind smell").refused(&["--kind", "object, style, person, content"]);
}

#[test]
fn one_anchor_for_each_concept_or_one_for_all() {
    let home = folder();
    let here = home.path();
    let anchors = |folder: &str| -> Vec<String> {
        let record: serde_json::Value =
            serde_json::from_slice(&fs_err::read(here.join(folder).join("run.json")).unwrap())
                .unwrap();
        let concepts = record["plan"]["concepts"].as_array().unwrap().clone();
        concepts
            .iter()
            .map(|c| c["prompts"][0]["anchor"].as_str().unwrap().to_owned())
            .collect()
    };
    let erase = |folder: &str, guides: &str| {
        scumble(
            here,
            [
                "erase",
                "--edit_concepts",
                "church;dog",
                "--guide_concepts",
                guides,
                "--method",
                "uce",
                "--no-judge",
                "-q",
                "--output-dir",
                folder,
            ],
        )
    };
    erase("each", "house; cat").done();
    assert_eq!(anchors("each"), ["house", "cat"]);
    erase("all", "house").done();
    assert_eq!(anchors("all"), ["house", "house"]);
    erase("three", "house;cat;truck").refused(&["3 anchors for 2 concepts", "one for each"]);
    assert!(!here.join("three").exists());
    let strange = erase("strange", "castle").done();
    assert!(
        !strange.stderr.contains("castle"),
        "quiet is quiet: {strange:?}"
    );
    let record = fs_err::read_to_string(here.join("strange/run.json")).unwrap();
    assert!(record.contains("the anchor `castle`"), "{record}");
}

#[test]
fn several_methods_belong_to_another_command() {
    let home = folder();
    line(home.path(), "erase church --method uce,rece").refused(&[
        "takes one method",
        "scumble evaluate --concept \"church\" --method uce,rece",
    ]);
}

#[test]
fn there_is_no_random_seed() {
    let home = folder();
    for command in [
        "generate church",
        "erase church",
        "attack random --edit x",
        "evaluate --concept church",
    ] {
        line(home.path(), &format!("{command} --seed -1")).refused(&["there is no random seed"]);
    }
}

#[test]
fn what_the_miniature_knows_is_listed() {
    let home = folder();
    let list = line(home.path(), "concepts --json").json();
    let of = |key: &str| {
        list[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert!(of("objects").len() == 32 && of("objects").contains(&"church"));
    assert_eq!(
        of("styles"),
        ["noto", "blob", "twemoji", "fluent", "ink", "emojione"]
    );
    assert_eq!(
        list["categories"]["weapon"],
        serde_json::json!(["bomb", "dagger", "swords"])
    );
    let text = line(home.path(), "concepts").done().stdout;
    assert!(
        text.contains("golf flag") && text.contains("weapon       bomb, dagger, swords"),
        "{text}"
    );
}

#[test]
fn an_option_of_the_wrong_kind_is_told_what_it_is() {
    let home = folder();
    for (method, set, said) in [
        ("uce", "lambda=abc", "lambda is \"abc\", expected a number"),
        ("scissorhands", "projection=3", "expected true or false"),
        (
            "esd",
            "iterations=2.5",
            "expected a whole number, 0 or more",
        ),
    ] {
        scumble(
            home.path(),
            [
                "erase",
                "church",
                "--method",
                method,
                "--no-judge",
                "--set",
                set,
            ],
        )
        .refused(&[said]);
    }
    // What fails leaves nothing behind.
    assert!(!home.path().join("scumble-out").exists());
    line(home.path(), "erase church --method uce --lr 1").refused(&["no option `lr`"]);
    assert!(!home.path().join("scumble-out").exists());
}

#[test]
fn condition_numbers_are_for_those_who_ask() {
    let home = folder();
    let run = |words: &str| {
        let mut command = command(home.path());
        command.args(words.split_whitespace());
        ended(command).done().stderr
    };
    let plain = run("erase church --method uce --no-judge");
    assert!(
        !plain.contains("condition number") && !plain.contains("relative change"),
        "{plain}"
    );
    assert!(
        plain.contains("next ")
            && plain.contains("scumble attack unlearndiff --edit scumble-out/uce-church-"),
        "{plain}"
    );
    let verbose = run("erase church --method uce --no-judge -v --seed 1");
    assert!(
        verbose.contains("condition number") && verbose.contains("relative change"),
        "{verbose}"
    );
}
