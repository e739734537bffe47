//! `scumble evaluate` through the real binary: rows, items that are not done twice, parts, bad
//! input.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Ended, edit, folder, line, miniature, scumble};

fn evaluate(folder: &Path, words: &str) -> Ended {
    line(
        folder,
        &format!("evaluate --steps 2 --sets implicit {words} --quiet"),
    )
}

/// The rows on stdout.
fn rows(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.status, Some(0), "{ended:?}");
    ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn files(folder: &Path) -> usize {
    fs_err::read_dir(folder).map_or(0, Iterator::count)
}

fn an_edit(folder: &Path) {
    let base = miniature();
    edit(&base, "unet", 0.02, |name| {
        name.contains("attn2.to_k.weight")
    })
    .save(&folder.join("edit.safetensors"))
    .unwrap();
}

#[test]
fn rows_have_the_agreed_keys_and_the_folder_the_agreed_files() {
    let home = folder();
    let scratch = home.path();
    an_edit(scratch);
    let words =
        "--edit edit.safetensors --guard negative=church --concept church --json --output-dir a";
    let first = rows(&evaluate(scratch, words));
    let keys: Vec<&str> = first[0]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "subject", "concept", "metric", "value", "n", "low", "high", "seeds", "hash"
        ]
    );
    for subject in ["base", "edit.safetensors", "negative=church"] {
        let row = first
            .iter()
            .find(|row| row["subject"] == subject && row["metric"] == "category-word")
            .unwrap();
        assert_eq!(
            (row["concept"].as_str(), row["n"].as_u64()),
            (Some("church"), Some(12))
        );
        assert_eq!(row["seeds"].as_array().unwrap().len(), 12);
        let (low, value, high) = (
            row["low"].as_f64().unwrap(),
            row["value"].as_f64().unwrap(),
            row["high"].as_f64().unwrap(),
        );
        assert!(0.0 <= low && low <= value && value <= high && high <= 1.0);
    }
    for file in [
        "results.jsonl",
        "results.parquet",
        "evaluation.json",
        "run.json",
    ] {
        assert!(scratch.join("a").join(file).is_file(), "{file}");
    }
    assert_eq!(files(&scratch.join("a/pictures")), 36);
    assert!(
        fs_err::read(scratch.join("a/results.parquet"))
            .unwrap()
            .starts_with(b"PAR1")
    );
    let stored = fs_err::read_to_string(scratch.join("a/results.jsonl")).unwrap();
    assert_eq!(
        stored
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .collect::<Vec<_>>(),
        first
    );

    // Elsewhere: what the cache has is put there, pictures too.
    assert_eq!(
        rows(&evaluate(scratch, &words.replace("-dir a", "-dir c"))),
        first
    );
    assert_eq!(files(&scratch.join("c/pictures")), 36);

    // Again: the same rows, at once. Another plan in that folder is refused, and may replace it.
    assert_eq!(rows(&evaluate(scratch, words)), first);
    let other = "--concept dog --json --output-dir a";
    let refused = evaluate(scratch, other);
    assert_eq!(refused.status, Some(2));
    assert!(
        refused.stderr.contains("another plan") && refused.stderr.contains("--overwrite"),
        "{}",
        refused.stderr
    );
    let replaced = rows(&evaluate(scratch, &format!("{other} --overwrite")));
    assert!(replaced.iter().all(|row| row["subject"] == "base"));
}

#[test]
fn what_a_killed_run_has_drawn_is_not_drawn_again_and_changes_nothing() {
    let home = folder();
    let scratch = home.path();
    let whole = rows(&evaluate(scratch, "--concept church --json --output-dir a"));
    // As if killed after the pictures: no facts, no results, one picture torn, and nothing in the
    // cache.
    let drawn = scratch.join("a/pictures");
    let mut names: Vec<_> = fs_err::read_dir(&drawn)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    fs_err::write(&names[0], b"\x89PNG\r\n\x1a\n").unwrap();
    let kept = fs_err::metadata(&names[1]).unwrap().modified().unwrap();
    fs_err::remove_dir_all(scratch.join("a/facts")).unwrap();
    fs_err::remove_dir_all(scratch.join("cache/evaluated")).unwrap();
    fs_err::remove_file(scratch.join("a/run.json")).unwrap();
    fs_err::remove_file(scratch.join("a/results.jsonl")).unwrap();
    let plan = rows(&evaluate(
        scratch,
        "--concept church --json --plan --output-dir b",
    ));
    assert!(
        plan.iter()
            .all(|item| item["done"] == false && item["kind"] == "draw"),
        "{plan:?}"
    );
    let again = rows(&evaluate(
        scratch,
        "--concept church --json --overwrite --output-dir a",
    ));
    assert_eq!(again, whole);
    assert_eq!(
        fs_err::metadata(&names[1]).unwrap().modified().unwrap(),
        kept,
        "a whole picture is left alone"
    );
    assert!(
        fs_err::metadata(&names[0]).unwrap().len() > 100,
        "a torn one is drawn again"
    );
}

#[test]
fn parts_gather_by_themselves() {
    let home = folder();
    let scratch = home.path();
    an_edit(scratch);
    let words = "--edit edit.safetensors --concept church --json --output-dir a";
    let whole = rows(&evaluate(scratch, &words.replace("-dir a", "-dir whole")));
    fs_err::remove_dir_all(scratch.join("cache/evaluated")).unwrap();
    let first = rows(&evaluate(scratch, &format!("{words} --shard 1/2")));
    assert!(first.len() < whole.len(), "a part is not the whole");
    let second = rows(&evaluate(scratch, &format!("{words} --shard 2/2")));
    assert_eq!(second, whole);
    let bad = evaluate(scratch, &format!("{words} --shard 3/2"));
    assert_eq!(bad.status, Some(2));
    assert!(
        bad.stderr.contains("--shard 3/2: expected I/N"),
        "{}",
        bad.stderr
    );
}

#[test]
fn the_users_prompts_are_drawn_with_their_seeds() {
    let home = folder();
    let scratch = home.path();
    // A byte order mark, an index column, a column that nobody knows.
    fs_err::write(
        scratch.join("p.csv"),
        "\u{feff},case_number,prompt,evaluation_seed,kind\n0,3,an owl,77,x\n1,4,a cat,78,y\n",
    )
    .unwrap();
    let out = rows(&line(
        scratch,
        "evaluate --steps 2 --prompts p.csv --json --quiet --output-dir a",
    ));
    let score = out
        .iter()
        .find(|row| row["metric"] == "clip-score-emoji:prompts")
        .unwrap();
    assert_eq!(
        (score["n"].as_u64(), &score["seeds"]),
        (Some(2), &serde_json::json!([77, 78]))
    );
    for (text, said) in [
        ("case_number,text\n1,a\n", "no column `prompt`"),
        ("case_number,prompt\n1,a\n1,b\n", "occurs twice"),
        ("case_number,prompt\n", "holds no prompt"),
    ] {
        fs_err::write(scratch.join("bad.csv"), text).unwrap();
        let bad = line(scratch, "evaluate --prompts bad.csv --quiet --output-dir b");
        assert_eq!(bad.status, Some(2));
        assert!(
            bad.stderr.contains("bad.csv") && bad.stderr.contains(said),
            "{}",
            bad.stderr
        );
    }
}

#[test]
fn rows_that_say_what_they_show_are_counted_as_unlearncanvas_does() {
    let home = folder();
    let scratch = home.path();
    let table = "case_number,prompt,evaluation_seed,object,style\n1,a church in ink style,5,church,ink\n2,an owl in noto style,6,owl,noto\n\
                 3,a cat in ink style,7,cat,ink\n";
    fs_err::write(scratch.join("p.csv"), table).unwrap();
    let out = rows(&line(
        scratch,
        "evaluate --prompts p.csv --concept church --sets prompts --json --quiet --output-dir a",
    ));
    let of = |metric: &str| {
        out.iter()
            .find(|row| row["metric"] == metric)
            .map(|row| (row["n"].as_u64().unwrap(), row["seeds"].to_string()))
    };
    assert_eq!(of("ua"), Some((1, "[5]".into())));
    assert_eq!(of("ira"), Some((2, "[6,7]".into())));
    assert_eq!(of("cra"), Some((2, "[6,7]".into())));
    // A style's own domain is the other column.
    let out = rows(&line(
        scratch,
        "evaluate --prompts p.csv --concept ink --sets prompts --json --quiet --output-dir b",
    ));
    let of = |metric: &str| {
        out.iter()
            .find(|row| row["metric"] == metric)
            .map(|row| row["n"].as_u64().unwrap())
    };
    assert_eq!(
        (of("ua"), of("ira"), of("cra")),
        (Some(2), Some(1), Some(1))
    );
}

#[test]
fn prompts_that_describe_scenes_are_judged_by_the_users_detector() {
    let home = folder();
    let scratch = home.path();
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../eval/tests/golden/yolo.onnx"
    );
    // The tiny network sees an `a` in the upper left of anything bright and a `b` to its right.
    let manifest = json!({"name": "tiny", "file": golden, "kind": "yolo", "labels": ["a", "b"], "hits": ["b"],
        "preprocessing": {"size": 8}, "threshold": 0.01, "floor": 0.001, "sensitive": true, "licence": "MIT"});
    fs_err::write(scratch.join("detector.json"), manifest.to_string()).unwrap();
    let row = |tag: &str, include: &str, exclude: &str| {
        format!(
            r#"{{"tag": "{tag}", "prompt": "a church", "include": {include}, "exclude": {exclude}}}"#
        ) + "\n"
    };
    let text = row("single_object", r#"[{"class": "a", "count": 1}]"#, "[]")
        + &row(
            "position",
            r#"[{"class": "a", "count": 1}, {"class": "b", "count": 1, "position": ["left of", 0]}]"#,
            "[]",
        )
        + &row(
            "counting",
            r#"[{"class": "a", "count": 1}]"#,
            r#"[{"class": "a", "count": 1}]"#,
        );
    fs_err::write(scratch.join("scenes.jsonl"), text).unwrap();
    let words =
        "--prompts scenes.jsonl --sets prompts --detector detector.json --json --output-dir a";
    let all = rows(&line(
        scratch,
        &format!("evaluate --steps 2 {words} --quiet"),
    ));
    let of = |metric: &str| {
        all.iter()
            .find(|row| row["metric"] == metric)
            .map(|row| (row["value"].as_f64().unwrap(), row["n"].as_u64()))
    };
    assert_eq!(of("scene:single_object"), Some((1.0, Some(1))));
    assert_eq!(
        (of("scene:position"), of("scene:counting")),
        (Some((0.0, Some(1))), Some((0.0, Some(1))))
    );
    assert_eq!(of("scene").unwrap().1, Some(3));
    let evaluation: Value =
        serde_json::from_slice(&fs_err::read(scratch.join("a/evaluation.json")).unwrap()).unwrap();
    assert!(
        evaluation["pictures"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["sensitive"] == true),
        "a hit of a sensitive detector"
    );
    assert_eq!(
        files(&scratch.join("a/pictures")),
        1,
        "one prompt and one seed are one picture"
    );
    // Without such a detector nobody can tell.
    let all = rows(&line(
        scratch,
        "evaluate --steps 2 --prompts scenes.jsonl --sets prompts --json --output-dir b --quiet",
    ));
    assert!(all.iter().all(|row| row["metric"] != "scene"));
}

#[test]
fn rows_of_a_prompt_file_are_drawn_at_their_own_guidance() {
    let home = folder();
    let scratch = home.path();
    let text = "case_number,prompt,evaluation_seed,evaluation_guidance\n0,a church,3,0\n1,a church,3,9\n2,a church,3,\n";
    fs_err::write(scratch.join("own.csv"), text).unwrap();
    let count = |words: &str, folder: &str| {
        rows(&line(
            scratch,
            &format!(
                "evaluate --steps 2 --prompts own.csv --sets prompts --json --output-dir {folder} --quiet {words}"
            ),
        ));
        files(&scratch.join(folder).join("pictures"))
    };
    assert_eq!(
        (count("", "a"), count("--guidance-scale 4", "b")),
        (3, 1),
        "the flag holds for every row"
    );
}

#[test]
fn attacks_leave_pictures_and_erasures_what_they_took() {
    let home = folder();
    let scratch = home.path();
    let words = "evaluate --steps 2 --sets implicit --concept church --method uce --attack random --attack-n 3 --budget 1 --output-dir a --json --quiet";
    let all = rows(&line(scratch, words));
    let evaluation: Value =
        serde_json::from_slice(&fs_err::read(scratch.join("a/evaluation.json")).unwrap()).unwrap();
    let pictures = evaluation["pictures"].as_array().unwrap();
    let attacked: Vec<&Value> = pictures
        .iter()
        .filter(|p| p["set"] == "attack:random")
        .collect();
    let base = attacked.iter().filter(|p| p["subject"] == "base").count();
    assert_eq!((attacked.len(), base), (6, 3));
    for picture in &attacked {
        assert!(
            scratch
                .join("a")
                .join(picture["file"].as_str().unwrap())
                .is_file(),
            "{picture}"
        );
        assert!(
            picture["hit"].is_boolean() && picture["prompt"].as_str().unwrap().contains("church"),
            "{picture}"
        );
    }
    if cfg!(target_os = "linux") {
        let memory = all.iter().find(|row| row["metric"] == "memory").unwrap();
        assert!(memory["value"].as_f64().unwrap() > 1e7, "{memory}");
    }
}

#[test]
fn attacks_are_given_their_form_and_their_clip() {
    let home = folder();
    let scratch = home.path();
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji-clip");
    let words = "evaluate --steps 2 --sets implicit --concept church --method uce --attack random,random:paper --attack-n 1 --budget 1 --json --quiet";
    let all = rows(&line(
        scratch,
        &format!("{words} --attack-clip {clip} --output-dir a"),
    ));
    for metric in ["asr:random", "asr:random:paper"] {
        assert!(all.iter().any(|row| row["metric"] == metric), "{metric}");
    }
    let records = |folder: &str| -> Vec<(String, Value)> {
        let folders = fs_err::read_dir(scratch.join(folder).join("attacks")).unwrap();
        let mut all: Vec<(String, Value)> = folders
            .map(|entry| {
                let entry = entry.unwrap();
                let bytes = fs_err::read(entry.path().join("run.json")).unwrap();
                (
                    entry.file_name().into_string().unwrap(),
                    serde_json::from_slice(&bytes).unwrap(),
                )
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let given = records("a");
    let forms: Vec<&str> = given
        .iter()
        .map(|(_, record)| record["plan"]["variant"].as_str().unwrap())
        .collect();
    assert_eq!(forms, ["paper", "fixed"]);
    assert!(
        given[0].0.starts_with("random-paper-uce-church-"),
        "{given:?}"
    );
    assert!(
        given
            .iter()
            .all(|(_, record)| record["plan"]["clip"].is_string())
    );
    let stored: Value =
        serde_json::from_slice(&fs_err::read(scratch.join("a/evaluation.json")).unwrap()).unwrap();
    let attacks = stored["attacks"].as_array().unwrap();
    assert!(
        attacks
            .iter()
            .any(|a| a["attack"] == "random:paper" && a["threat"] == "words"),
        "{attacks:?}"
    );

    // What is not said stays out of the plan, so that earlier runs are found again.
    rows(&line(scratch, &format!("{words} --output-dir b")));
    let plain = records("b");
    assert!(
        plain
            .iter()
            .all(|(_, record)| record["plan"]["clip"].is_null())
    );
    let plan: Value =
        serde_json::from_slice(&fs_err::read(scratch.join("b/run.json")).unwrap()).unwrap();
    let settings = plan["plan"]["attack_settings"].as_object().unwrap();
    let keys: Vec<&str> = settings.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["seed", "n", "budget", "steps", "guidance", "sampler"]
    );

    for (bad, said) in [
        ("--attack random:best", "best"),
        ("--attack random --attack-clip nowhere", "--attack-clip"),
    ] {
        let refused = line(
            scratch,
            &format!("evaluate --concept church --method uce {bad} --quiet"),
        );
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
}

#[test]
fn what_a_damaged_run_says_is_not_passed_over() {
    let home = folder();
    let scratch = home.path();
    let words = "evaluate --steps 2 --sets implicit --concept church --method uce --attack random --attack-n 1 --budget 1 --output-dir a --quiet";
    rows(&line(scratch, &format!("{words} --json")));
    let attacks = scratch.join("a/attacks");
    let attack = fs_err::read_dir(&attacks).unwrap().next().unwrap().unwrap();
    let record = attack.path().join("run.json");
    let whole = fs_err::read_to_string(&record).unwrap();
    fs_err::remove_file(scratch.join("a/run.json")).unwrap();
    for (text, said) in [
        (
            whole.replace("\"finished\": true", "\"finished\": \"yes\""),
            "`finished`",
        ),
        (
            whole.replace("\"total\": ", "\"total\": [] , \"_\": "),
            "`result`",
        ),
        (whole[..whole.len() / 2].to_owned(), "run.json"),
    ] {
        assert_ne!(text, whole);
        fs_err::write(&record, text).unwrap();
        line(scratch, &format!("{words} --overwrite")).refused(&["attacks", "run.json", said]);
    }
    // The erasure's own record says what it took.
    fs_err::write(&record, &whole).unwrap();
    let out = scratch.join("scumble-out");
    let erasure = fs_err::read_dir(out).unwrap().next().unwrap().unwrap();
    let record = erasure.path().join("run.json");
    let text = fs_err::read_to_string(&record).unwrap();
    let edit = erasure.path().display().to_string();
    fs_err::write(
        &record,
        text.replace("\"cost\": {", "\"cost\": [], \"_\": {"),
    )
    .unwrap();
    line(scratch, &format!("evaluate --edit {edit} --plan --quiet"))
        .refused(&["run.json", "`cost`"]);
}

#[test]
fn the_map_of_what_depends_on_what_has_a_row_for_each_erasure() {
    let home = folder();
    let scratch = home.path();
    let out = rows(&line(
        scratch,
        "evaluate --impact --concept church;ink --steps 2 --sets prompts --json --quiet --output-dir a",
    ));
    let impact: Vec<&Value> = out
        .iter()
        .filter(|row| row["subject"] == "impact:uce")
        .collect();
    assert_eq!(impact.len(), 2 * 38);
    let stored: Value =
        serde_json::from_slice(&fs_err::read(scratch.join("a/evaluation.json")).unwrap()).unwrap();
    let matrix = &stored["impact"];
    assert_eq!(matrix["affected"].as_array().unwrap().len(), 38);
    assert_eq!(matrix["before"].as_array().unwrap().len(), 38);
    assert_eq!(
        matrix["after"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_array().unwrap().len())
            .collect::<Vec<_>>(),
        [38, 38]
    );
    // A word is most similar to itself.
    let own = matrix["affected"]
        .as_array()
        .unwrap()
        .iter()
        .position(|word| *word == matrix["erased"][0])
        .unwrap();
    assert!((matrix["similarity"][0][own].as_f64().unwrap() - 1.0).abs() < 1e-4);
}

#[test]
fn methods_are_run_on_the_way_and_the_report_is_written() {
    let home = folder();
    let scratch = home.path();
    let ended = evaluate(
        scratch,
        "--concept church --method uce,rece --report --output-dir a",
    );
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("report    a/report/index.html"),
        "{}",
        ended.stdout
    );
    let page = fs_err::read_to_string(scratch.join("a/report/index.html")).unwrap();
    assert!(page.contains("uce") && page.contains("rece"));
    let stored: Value =
        serde_json::from_slice(&fs_err::read(scratch.join("a/evaluation.json")).unwrap()).unwrap();
    let labels: Vec<&str> = stored["subjects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["label"].as_str().unwrap())
        .collect();
    assert_eq!(labels, ["base", "uce", "rece"]);
    assert!(
        stored["subjects"][1]["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0)
    );
    assert_eq!(stored["finished"], true);
}

#[test]
fn an_oracle_is_what_everything_is_held_against() {
    let home = folder();
    let scratch = home.path();
    an_edit(scratch);
    let exported = line(
        scratch,
        "export edit.safetensors --to diffusers --output-dir oracle --quiet",
    );
    assert_eq!(exported.status, Some(0), "{exported:?}");
    let out = rows(&evaluate(
        scratch,
        "--edit edit.safetensors --oracle oracle --concept church --json --output-dir a",
    ));
    let gap = |subject: &str| {
        out.iter()
            .find(|row| row["subject"] == subject && row["metric"] == "oracle-gap:category-word")
            .unwrap()
    };
    let rate = |subject: &str| {
        let row = out
            .iter()
            .find(|row| row["subject"] == subject && row["metric"] == "category-word")
            .unwrap();
        row["value"].as_f64().unwrap()
    };
    // The edit and the checkpoint that holds it draw the same pictures.
    assert_eq!(gap("edit.safetensors")["value"], 0.0);
    assert!(
        (gap("base")["value"].as_f64().unwrap() - (rate("base") - rate("oracle"))).abs() < 1e-12
    );
    assert!(gap("base")["low"].as_f64().unwrap() <= gap("base")["high"].as_f64().unwrap());

    // It is attacked as well: what an attack gets out of a model that has nothing to give back. An
    // edit may be the oracle, and draws what the folder does.
    let attacked = |oracle: &str, out: &str| {
        let words = format!(
            "--edit edit.safetensors --oracle {oracle} --concept church --attack random --attack-n 2 --budget 2 --json --output-dir {out}"
        );
        let found = rows(&evaluate(scratch, &words));
        let value = |subject: &str, metric: &str| {
            let row = |row: &&Value| row["subject"] == subject && row["metric"] == metric;
            found.iter().find(row).unwrap()["value"].clone()
        };
        assert_eq!(value("edit.safetensors", "oracle-gap:asr:random"), 0.0);
        value("oracle", "asr:random")
    };
    assert_eq!(attacked("oracle", "b"), attacked("edit.safetensors", "c"));
}

#[test]
fn bad_input_is_named() {
    let home = folder();
    let scratch = home.path();
    for (words, said) in [
        ("", "there is no concept to ask about"),
        (
            "--concept church --sets beauty",
            "--sets beauty: there is no such set",
        ),
        ("--method uce", "--method: there is no concept to erase"),
        (
            "--concept church --edit none",
            "--edit none: there is no such file",
        ),
        ("--concept church --attack magic", "magic"),
        (
            "--concept church --guard negative --guard negative",
            "are the same",
        ),
        (
            "--impact --concept rembrandt",
            "`rembrandt` is no object or style",
        ),
        ("--concept church --guidance-scale nan", "--guidance-scale"),
        ("--concept church --steps 0", "--steps 0"),
    ] {
        let ended = line(scratch, &format!("evaluate {words} --quiet --output-dir x"));
        assert_eq!(ended.status, Some(2), "{words}: {ended:?}");
        assert!(ended.stderr.contains(said), "{words}: {}", ended.stderr);
    }
    let list = line(scratch, "metrics --json");
    let list: Vec<Value> = serde_json::from_str(&list.stdout).unwrap();
    assert!(
        list.iter()
            .any(|metric| metric["id"] == "target" && metric["better"] == "lower")
    );
}

fn evaluation_of(folder: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(folder.join("evaluation.json")).unwrap()).unwrap()
}

#[test]
fn conventions_say_how_this_run_drew_and_nothing_else() {
    let home = folder();
    let scratch = home.path();
    an_edit(scratch);
    let words = "evaluate --steps 5 --guidance-scale 7.5 --sampler euler --edit edit.safetensors --concept church --sets implicit,target";
    let ended = line(scratch, &format!("{words} --report --quiet --output-dir a"));
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let stored = evaluation_of(&scratch.join("a"));
    assert_eq!(
        stored["drawing"],
        "5 euler steps, guidance 7.5, 32 x 32 pixels"
    );
    let target = stored["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["id"] == "target")
        .unwrap();
    assert!(
        target["convention"]
            .as_str()
            .unwrap()
            .contains("the miniature's ViT judges; 5 euler steps, guidance 7.5"),
        "{target}"
    );
    for file in [
        "evaluation.json",
        "report/index.html",
        "report/report.md",
        "report/model-index.yaml",
    ] {
        let text = fs_err::read_to_string(scratch.join("a").join(file)).unwrap();
        assert!(text.contains("5 euler steps, guidance 7.5"), "{file}");
        for (at, _) in text.match_indices(" steps, guidance ") {
            let mut from = at.saturating_sub(12);
            while !text.is_char_boundary(from) {
                from -= 1;
            }
            let around: String = text[from..].chars().take(40).collect();
            assert!(
                around.contains("5 euler steps, guidance 7.5,") && !around.contains("15 euler"),
                "{file}: {around}"
            );
        }
        for other in ["DDIM", "20 steps", "guidance 4", "{drawing}", "{judge}"] {
            assert!(!text.contains(other), "{file}: {other}");
        }
    }
}

#[test]
fn pictures_of_no_finite_numbers_are_counted_nowhere() {
    let home = folder();
    let scratch = home.path();
    // Finite numbers in the file, and none after the first convolution.
    let base = miniature();
    edit(&base, "unet", 3e38, |name| name == "conv_in.weight")
        .save(&scratch.join("edit.safetensors"))
        .unwrap();
    let words = "evaluate --steps 2 --sets target --edit edit.safetensors --concept church --output-dir a --quiet";
    let ended = line(scratch, words);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("48 of 48 pictures are of numbers that are not finite"),
        "{}",
        ended.stdout
    );
    let all = rows(&line(scratch, &format!("{words} --json")));
    let of = |subject: &str, metric: &str| {
        all.iter()
            .find(|row| row["subject"] == subject && row["metric"] == metric)
    };
    assert!(of("base", "target").is_some() && of("base", "ua").is_some());
    for metric in ["target", "ua", "clip-score-emoji:target", "drift"] {
        assert!(
            of("edit.safetensors", metric).is_none(),
            "{metric} of an edit that draws nothing"
        );
    }
    let stored = evaluation_of(&scratch.join("a"));
    let own = stored["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["subject"] == "edit.safetensors")
        .unwrap();
    assert_eq!(
        (&own["hit"], own["seen"].as_str()),
        (&Value::Null, Some("no finite numbers"))
    );
    assert!(
        stored["paired"].as_array().unwrap().is_empty(),
        "there is nothing to compare"
    );
    // Found in the cache by another evaluation they are still none.
    let again = line(scratch, &words.replace("-dir a", "-dir b"));
    assert!(
        again
            .stdout
            .contains("48 of 48 pictures are of numbers that are not finite"),
        "{}",
        again.stdout
    );
}

#[test]
fn labels_are_known_in_any_case_and_unknown_ones_are_said() {
    let home = folder();
    let scratch = home.path();
    let table = "case_number,prompt,evaluation_seed,object,style\n1,a church in ink style,5,Church,Ink Style\n\
                 2,an owl in noto style,6,OWL,noto\n3,a cat in ink style,7,cat,INK\n4,a cassette player,8,cassette player,ink\n";
    fs_err::write(scratch.join("p.csv"), table).unwrap();
    let ended = line(
        scratch,
        "evaluate --steps 2 --prompts p.csv --concept church --sets prompts --output-dir a",
    );
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let said =
        "no judge and no detector knows `cassette player`, which 1 row says in the column `object`";
    assert!(
        ended.stderr.contains(said) && ended.stdout.contains(said),
        "{ended:?}"
    );
    let stored = evaluation_of(&scratch.join("a"));
    assert!(
        stored["missing"]
            .as_array()
            .unwrap()
            .iter()
            .any(|m| m["why"].as_str().unwrap().contains("cassette player"))
    );
    let counts = |concept: &str, folder: &str| -> Vec<Option<u64>> {
        let words = format!(
            "evaluate --steps 2 --prompts p.csv --sets prompts --json --quiet --output-dir {folder}"
        );
        let words: Vec<&str> = words
            .split_whitespace()
            .chain(["--concept", concept])
            .collect();
        let all = rows(&scumble(scratch, words));
        ["ua", "ira", "cra"]
            .map(|metric| {
                all.iter()
                    .find(|row| row["metric"] == metric)
                    .and_then(|row| row["n"].as_u64())
            })
            .to_vec()
    };
    // One row asks for the church, two for other objects that are known; three of the others say a
    // style.
    assert_eq!(counts("church", "b"), [Some(1), Some(2), Some(3)]);
    assert_eq!(
        counts("ink style", "c"),
        [Some(3), Some(1), Some(1)],
        "the concept's own name in the column"
    );
}

#[test]
fn a_plan_says_what_there_is_to_do_and_does_none_of_it() {
    let home = folder();
    let scratch = home.path();
    let words = "evaluate --steps 4 --concept dog --method uce --attack random --sets target,others --plan --quiet";
    let ended = line(scratch, words);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(
        !scratch.join("scumble-out").exists() && !scratch.join("cache/evaluated").exists(),
        "nothing is made"
    );
    for said in [
        "to do  234 pictures of base: others 186, target 48",
        "to do  erase dog with uce",
        "to do  234 pictures of uce: others 186, target 48",
        "to do  random on uce (not made yet)",
        // Two evaluations at each of four steps.
        "in all 468 pictures to draw, 4 ddim steps, guidance 4, 32 x 32 pixels: 3744 evaluations of the U-Net",
    ] {
        assert!(ended.stdout.contains(said), "{said}: {}", ended.stdout);
    }
    let items = rows(&line(scratch, &format!("{words} --json")));
    assert!(
        items
            .iter()
            .any(|item| item["kind"] == "erase" && item["method"] == "uce"),
        "{items:?}"
    );
    assert_eq!(
        items
            .iter()
            .filter_map(|item| item["evaluations"].as_u64())
            .sum::<u64>(),
        3744
    );
    // An edit that lies there is found.
    assert_eq!(
        line(scratch, "erase dog --method uce --no-judge --quiet").status,
        Some(0)
    );
    let ended = line(scratch, words);
    assert!(
        !ended.stdout.contains("erase dog") && ended.stdout.contains("234 pictures of uce"),
        "{}",
        ended.stdout
    );
}

#[test]
fn judges_are_refused_to_models_of_another_world() {
    let home = folder();
    let scratch = home.path();
    an_edit(scratch);
    assert_eq!(
        line(
            scratch,
            "export edit.safetensors --to diffusers --output-dir model --quiet"
        )
        .status,
        Some(0)
    );
    let own = line(
        scratch,
        "evaluate --model model --judge --concept church --sets implicit --steps 2 --plan --quiet",
    );
    assert_eq!(
        own.status,
        Some(0),
        "a copy of the miniature is of its world: {own:?}"
    );
    // The same model with two words of its vocabulary exchanged.
    for file in ["vocab.json", "tokenizer.json"] {
        let path = scratch.join("model/tokenizer").join(file);
        let text = fs_err::read_to_string(&path).unwrap();
        let text = text
            .replace("\"church</w>\"", "\"?\"")
            .replace("\"owl</w>\"", "\"church</w>\"")
            .replace("\"?\": 634", "\"owl</w>\": 634")
            .replace("\"?\":634", "\"owl</w>\":634");
        fs_err::write(path, text).unwrap();
    }
    let other = line(
        scratch,
        "evaluate --model model --judge --concept church --sets implicit --steps 2 --plan --quiet",
    );
    assert_eq!(other.status, Some(2), "{other:?}");
    assert!(
        other
            .stderr
            .contains("--judge: the miniature's judges know only the miniature's world"),
        "{}",
        other.stderr
    );
    assert!(other.stderr.contains("--detector"), "{}", other.stderr);
}

#[test]
fn tests_know_their_number_and_what_hangs_together() {
    let home = folder();
    let scratch = home.path();
    an_edit(scratch);
    let words = "evaluate --steps 1 --sets others --edit edit.safetensors --guard negative=church --concept church --output-dir a --quiet";
    assert_eq!(line(scratch, words).status, Some(0));
    let stored = evaluation_of(&scratch.join("a"));
    let others: Vec<&Value> = stored["paired"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|t| t["metric"] == "others")
        .collect();
    assert_eq!(others.len(), 3);
    for test in others {
        // 186 pictures of 31 objects.
        assert_eq!(
            (
                test["n"].as_u64(),
                test["clusters"].as_u64(),
                test["tests"].as_u64()
            ),
            (Some(186), Some(31), Some(3))
        );
        assert!(test["adjusted"].as_f64().unwrap() >= test["p"].as_f64().unwrap());
    }
    // A distance of 186 pictures under 64 features is whole; of as many under more it would be
    // flagged.
    assert!(
        stored["notes"].as_array().unwrap().is_empty(),
        "{}",
        stored["notes"]
    );
}
