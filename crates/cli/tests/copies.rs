//! A copy of the miniature on disk is the miniature: it draws, erases and is judged as the
//! compiled-in one.

mod support;

use support::{apart, copy, folder, golden, root, scumble};

#[test]
fn a_folder_copy_behaves_as_the_built_in_one() {
    let home = folder();
    let here = home.path();
    copy(&root().join("models/emoji-sd"), &here.join("copy"));
    let draw = |name: &str, more: &[&str]| {
        scumble(
            here,
            [
                &[
                    "generate",
                    "a church",
                    "--steps",
                    "4",
                    "-q",
                    "--output-dir",
                    name,
                ],
                more,
            ]
            .concat(),
        )
        .done();
        here.join(name).join("00000.png")
    };
    assert_eq!(
        apart(&draw("one", &[]), &draw("two", &["--model", "copy"])),
        0
    );

    let erase = |name: &str, more: &[&str]| {
        let words = [
            "erase",
            "Church",
            "--method",
            "uce",
            "--no-judge",
            "--json",
            "--output-dir",
            name,
        ];
        let mut result = scumble(here, [&words[..], more].concat()).json();
        let record: serde_json::Value =
            serde_json::from_slice(&fs_err::read(here.join(name).join("run.json")).unwrap())
                .unwrap();
        for key in ["seconds", "memory", "edit", "estimate"] {
            result[key] = 0.into();
        }
        (
            result,
            record["plan_hash"].clone(),
            record["options"].clone(),
        )
    };
    assert_eq!(erase("three", &[]), erase("four", &["--model", "copy"]));
    scumble(here, ["erase", "chruch", "--model", "copy"]).refused(&["did you mean `church`"]);
    // What draws the pictures of an evaluation and of an attack is decided by the same.
    let plan = |more: &[&str]| {
        let words = [
            "evaluate",
            "--concept",
            "church",
            "--sets",
            "target",
            "--plan",
            "--json",
            "--output-dir",
            "none",
        ];
        scumble(here, [&words[..], more].concat()).done().stdout
    };
    assert_eq!(
        plan(&[]),
        plan(&["--model", "copy"]).replace("copy", "emoji-sd")
    );
}

#[test]
fn the_judges_are_not_asked_about_another_world() {
    let home = folder();
    let model = "stranger".to_owned();
    copy(&golden("odd").join("model"), &home.path().join(&model));
    // The same words under other numbers.
    let path = home.path().join("stranger/tokenizer/vocab.json");
    let mut words: std::collections::BTreeMap<String, u64> =
        serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    let (church, dog) = (words["church</w>"], words["dog</w>"]);
    words.extend([
        ("church</w>".to_owned(), dog),
        ("dog</w>".to_owned(), church),
    ]);
    fs_err::write(&path, serde_json::to_vec(&words).unwrap()).unwrap();
    for command in [
        &["erase", "church", "--method", "uce"][..],
        &["evaluate", "--concept", "church"],
        &["attack", "random", "--concept", "church"],
    ] {
        let words = [
            command,
            &["--model", &model, "--judge", "--output-dir", "out"],
        ]
        .concat();
        scumble(home.path(), words).refused(&["--judge", "another vocabulary"]);
    }
}

/// On a model that is not the miniature, the edit is what was asked for: pictures and drift only on
/// request.
#[test]
fn on_another_model_the_edit_alone() {
    let home = folder();
    let here = home.path();
    let model = golden("odd").join("model").display().to_string();
    let erase = |more: &[&str]| {
        scumble(
            here,
            [
                &[
                    "erase",
                    "a church, a dog",
                    "--method",
                    "uce",
                    "--model",
                    &model,
                    "--output-dir",
                    "run",
                ],
                more,
            ]
            .concat(),
        )
        .done()
    };
    let plain = erase(&[]);
    assert!(
        !here.join("run/before-after.png").exists() && plain.stdout.contains("not judged"),
        "{plain:?}"
    );
    assert!(plain.stderr.contains("`;` separates several"), "{plain:?}");
    assert!(!plain.stdout.contains("unconditional drift"), "{plain:?}");
    let more = erase(&["--drift", "--grid"]);
    assert!(
        more.stderr
            .contains("is written; what follows only looks at it"),
        "{more:?}"
    );
    assert!(
        here.join("run/before-after.png").is_file() && more.stdout.contains("unconditional drift"),
        "{more:?}"
    );
}
