//! `scumble attack` through the real binary: keys, exit statuses, findings tried again.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Ended, edit, folder, line, miniature, scumble};

/// An edit of the miniature that does little.
fn an_edit(folder: &Path) -> String {
    let base = miniature();
    let path = folder.join("edit.safetensors");
    edit(&base, "unet", 0.02, |name| {
        name.contains("attn2.to_k.weight")
    })
    .save(&path)
    .unwrap();
    path.display().to_string()
}

fn attack(folder: &Path, words: &str) -> Ended {
    line(folder, &format!("attack {words} --quiet"))
}

/// The objects on stdout, one a line.
fn lines(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.status, Some(0), "{ended:?}");
    ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_last_line_has_the_agreed_keys_and_findings_are_tried_again() {
    let home = folder();
    let scratch = home.path();
    let edit = an_edit(scratch);
    let common = format!("--edit {edit} --n 2 --steps 3 --json --concept church");
    let first = attack(
        scratch,
        &format!(
            "paraphrase {common} --set words=building --set nearest=0 --budget 2 --output-dir a"
        ),
    );
    let out = lines(&first);
    assert_eq!(out.len(), 3, "a line for each case, and the result");
    let result = out.last().unwrap();
    let keys: Vec<&str> = result
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let agreed = [
        "attack",
        "edit",
        "concept",
        "unedited",
        "pre",
        "post",
        "new",
        "total",
        "n",
        "interval",
        "conditional",
        "paired",
        "looks",
        "most_looks",
        "by_looks",
        "searches",
        "control",
        "seeds",
        "budget",
        "found",
        "transfer",
        "seconds",
    ];
    assert_eq!(keys, agreed);
    // The lines hold all that the rates are made of.
    let yes = |line: &Value, key: &str| line[key].as_bool().unwrap();
    let count = |wanted: &dyn Fn(&Value) -> bool| {
        out[..2].iter().filter(|line| wanted(line)).count() as u64
    };
    let hidden = count(&|line| yes(line, "unedited") && !yes(line, "pre"));
    let back = count(&|line| yes(line, "unedited") && !yes(line, "pre") && yes(line, "post"));
    assert_eq!(
        (
            result["conditional"]["n"].as_u64(),
            result["conditional"]["hits"].as_u64()
        ),
        (Some(hidden), Some(back))
    );
    assert_eq!(
        result["paired"]["gained"],
        count(&|line| !yes(line, "pre") && yes(line, "post"))
    );
    assert_eq!(
        result["paired"]["lost"],
        count(&|line| yes(line, "pre") && !yes(line, "post"))
    );
    assert!(
        result["paired"]["p"]
            .as_f64()
            .is_some_and(|p| (0.0..=1.0).contains(&p))
    );
    assert_eq!(
        (result["most_looks"].as_u64(), result["searches"].as_u64()),
        (Some(2), Some(2))
    );
    assert_eq!(result["by_looks"].as_array().unwrap().len(), 2);
    for (line, looks) in out.iter().zip(result["looks"].as_array().unwrap()) {
        assert_eq!(
            (&line["looks"], looks.as_u64() == Some(0)),
            (looks, yes(line, "pre"))
        );
    }
    // Every case keeps its three pictures.
    assert_eq!(
        fs_err::read_dir(scratch.join("a/pictures"))
            .unwrap()
            .count(),
        6
    );
    assert_eq!(
        (
            result["attack"].as_str(),
            result["n"].as_u64(),
            result["budget"].as_u64()
        ),
        (Some("paraphrase"), Some(2), Some(2))
    );
    let rate = |key: &str| result[key].as_f64().unwrap();
    assert!((rate("pre") + rate("new") - rate("total")).abs() < 1e-12);
    let (low, high) = (
        result["interval"][0].as_f64().unwrap(),
        result["interval"][1].as_f64().unwrap(),
    );
    assert!(low <= rate("total") && rate("total") <= high && 0.0 <= low && high <= 1.0);
    assert_eq!(result["seeds"].as_array().unwrap().len(), 2);
    assert!(scratch.join("a/attack.png").is_file() && scratch.join("a/attack.jsonl").is_file());

    // Again: the stored result, at once.
    assert_eq!(
        lines(&attack(
            scratch,
            &format!(
                "paraphrase {common} --set words=building --set nearest=0 --budget 2 --output-dir a"
            )
        )),
        out
    );

    // What was found, on the same edit: the same pictures, without a search.
    let again = attack(
        scratch,
        &format!("paraphrase {common} --transfer a --output-dir b"),
    );
    let again = lines(&again);
    assert_eq!(again.last().unwrap()["budget"], 0);
    assert_eq!(again.last().unwrap()["transfer"]["attack"], "paraphrase");
    // Under another attack's name it is still said whose finding it is.
    let said = attack(
        scratch,
        &format!(
            "random {} --transfer a --output-dir c",
            common.replace("--json ", "")
        ),
    );
    assert!(
        said.stdout.contains("a transfer") && said.stdout.contains("which paraphrase found"),
        "{said:?}"
    );
    assert!(
        said.stdout.contains("case 0") && said.stdout.contains("building"),
        "the words stand on the screen: {said:?}"
    );
    for key in ["pre", "new", "total"] {
        assert_eq!(again.last().unwrap()[key], result[key], "{key}");
    }
    for picture in ["00000-attacked.png", "00001-attacked.png"] {
        let of =
            |run: &str| fs_err::read(scratch.join(run).join("pictures").join(picture)).unwrap();
        assert_eq!(of("a"), of("b"), "{picture}");
    }
}

#[test]
fn the_miniatures_clip_reads_words_that_lie_ready_for_the_next_edit() {
    let home = folder();
    let scratch = home.path();
    let edit = an_edit(scratch);
    let search = "--n 2 --steps 3 --json --concept church --set iterations=6";
    let first = lines(&attack(
        scratch,
        &format!("pez --edit {edit} {search} --output-dir a"),
    ));
    let found = |out: &[Value]| {
        out[..2]
            .iter()
            .map(|line| line["found"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(
        found(&first)
            .iter()
            .all(|prompt| prompt.split(' ').count() >= 4),
        "{first:?}"
    );
    // The unedited model's own pictures are the same, so the words are too, and nothing is
    // searched.
    let cached: Vec<_> = fs_err::read_dir(scratch.join("cache/tensors"))
        .unwrap()
        .collect();
    assert_eq!(cached.len(), 1);
    assert_eq!(
        found(&lines(&attack(
            scratch,
            &format!("pez {search} --output-dir b")
        ))),
        found(&first)
    );
    assert_eq!(
        fs_err::read_dir(scratch.join("cache/tensors"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_judges_gradient_leads_and_controls_are_recorded() {
    let home = folder();
    let scratch = home.path();
    let edit = an_edit(scratch);
    let out = attack(
        scratch,
        &format!(
            "revive --edit {edit} --n 2 --steps 2 --json --concept church --set probe=judge-led --set scales=[0.2] --output-dir a"
        ),
    );
    lines(&out);
    let record: Value =
        serde_json::from_slice(&fs_err::read(scratch.join("a/run.json")).unwrap()).unwrap();
    let probes = record["notes"]["probes"].as_array().unwrap();
    // No case may be left to be probed; if one is, both sides are counted.
    assert!(
        probes
            .iter()
            .all(|probe| probe["control"].as_u64() <= probe["n"].as_u64()),
        "{record}"
    );
    assert!(
        probes
            .iter()
            .all(|probe| probe["new"].as_u64() <= probe["shown"].as_u64()),
        "{record}"
    );
    let lines = record["lines"].as_array().unwrap();
    assert!(
        lines.iter().all(|line| line["control"].is_boolean()),
        "{record}"
    );
    assert!(
        lines
            .iter()
            .all(|line| !(line["control"] == true && line["post"] == true)),
        "{record}"
    );
}

#[test]
fn attacks_are_listed() {
    let home = folder();
    let list = line(home.path(), "attacks --json").json();
    let listed = list
        .as_array()
        .cloned()
        .unwrap_or_else(|| list["attacks"].as_array().cloned().unwrap_or_default());
    let ids: Vec<&str> = listed
        .iter()
        .filter_map(|attack| attack["attack"].as_str().or(attack["id"].as_str()))
        .collect();
    for id in [
        "p4d",
        "pez",
        "ring-a-bell",
        "relearn",
        "revive",
        "paraphrase",
        "worst-case",
        "random",
        "unlearndiff",
    ] {
        assert!(ids.contains(&id), "{id} is missing in {list}");
    }
}

#[test]
fn what_cannot_be_done_is_said_with_status_2() {
    let home = folder();
    let scratch = home.path();
    let golden = support::golden("sd1").join("model").display().to_string();
    let cases = [
        ("magic --concept church", vec!["magic", "worst-case"]),
        ("paraphrase --concept church --budget 0", vec!["budget"]),
        ("paraphrase --concept church --n 0", vec!["--n 0"]),
        ("paraphrase", vec!["no concept"]),
        (
            "paraphrase --concept church --n 2 --steps 2 --set sentences=3",
            vec!["sentences", "templates"],
        ),
        ("paraphrase --concept church --variant best", vec!["best"]),
        (
            "pez --concept church --clip nowhere --n 2 --steps 2",
            vec!["--clip"],
        ),
        (
            "random --concept nonsense --n 2 --steps 2",
            vec!["needs a judge", "such as church"],
        ),
        (
            "paraphrase --concept church --transfer nowhere",
            vec!["--transfer"],
        ),
        // Noise shows nothing: there is no rate to report.
        (
            "paraphrase --concept church --n 2 --steps 1 --guidance-scale 0",
            vec!["none of 2 pictures"],
        ),
    ];
    for (i, (words, said)) in cases.into_iter().enumerate() {
        // Each in a folder of its own: what fails after the first pictures leaves a record there.
        attack(scratch, &format!("{words} --output-dir bad-{i}")).refused(&said);
    }
    // An edit for another architecture.
    let edit = an_edit(scratch);
    attack(
        scratch,
        &format!("random --edit {edit} --model {golden} --concept dog --output-dir bad"),
    )
    .refused(&["does not fit"]);
    scumble(
        scratch,
        [
            "attack",
            "pez",
            "--model",
            &golden,
            "--concept",
            "dog",
            "--n",
            "1",
            "--steps",
            "2",
            "--set",
            "tokens=4",
            "--output-dir",
            "bad",
        ],
    )
    .refused(&["CLIP", "--clip"]);
    // What was missing was missed before anything was drawn: no folder, and a hint that fits a
    // model that nobody judges.
    assert!(!scratch.join("bad").exists());
    for id in ["random", "paraphrase"] {
        scumble(
            scratch,
            [
                "attack",
                id,
                "--model",
                &golden,
                "--concept",
                "dog",
                "--word",
                "dog",
                "--n",
                "1",
                "--output-dir",
                "none",
            ],
        )
        .refused(&["needs a judge", "nobody judges this model's pictures"]);
        assert!(!scratch.join("none").exists());
    }
}

/// On a model that nobody here knows, the user's detector is the judge.
#[test]
fn the_users_detector_judges_whatever_the_model() {
    let home = folder();
    let scratch = home.path();
    let golden = |name: &str| format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    // The tiny network sees an `a` in the upper left of anything bright and a `b` to its right.
    let manifest = json!({"name": "tiny", "file": golden("eval/tests/golden/yolo.onnx"), "kind": "yolo", "labels": ["a", "b"],
        "hits": ["b"], "preprocessing": {"size": 8}, "threshold": 0.01, "floor": 0.001, "licence": "MIT"});
    fs_err::write(scratch.join("tiny.json"), manifest.to_string()).unwrap();
    let model = support::golden("sd1").join("model").display().to_string();
    let with = |more: &[&str]| {
        let words =
            "attack random --concept dog --word dog --n 2 --steps 2 --set trials=2 --json --quiet";
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.extend(["--model", &model, "--output-dir", "found"]);
        words.extend(more);
        scumble(scratch, words)
    };
    with(&["--detector", "tiny.json", "--label", "c"]).refused(&["no label `c`", "it knows a, b"]);
    with(&["--label", "a"]).refused(&["--label", "--detector"]);
    with(&["--detector", "tiny.json", "--threshold", "2"]).refused(&["--threshold"]);
    assert!(!scratch.join("found").exists());
    let ended = with(&["--detector", "tiny.json", "--label", "a"]).done();
    let said: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(said["n"], 2);
    assert!(
        said["unedited"].as_f64().unwrap() > 0.0 && said["total"].is_number(),
        "{said}"
    );
    let record = fs_err::read_to_string(scratch.join("found/run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let judge = &record["plan"]["detectors"][0];
    assert_eq!(
        (&judge["name"], &judge["hits"]),
        (&json!("tiny"), &json!(["a"]))
    );
    assert_eq!(judge["sha256"].as_str().unwrap().len(), 64);
    assert!(record["plan"]["threshold"].is_null());
}

/// A detector leads by its gradients if its network is one of ours.
#[test]
fn a_detector_that_leads_has_gradients() {
    let home = folder();
    let scratch = home.path();
    let golden = |name: &str| format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    let manifest = json!({"name": "tiny", "file": golden("eval/tests/golden/yolo.onnx"), "kind": "yolo", "labels": ["a", "b"],
        "hits": ["b"], "preprocessing": {"size": 8}, "licence": "MIT"});
    fs_err::write(scratch.join("tiny.json"), manifest.to_string()).unwrap();
    let (edit, judge) = (an_edit(scratch), golden("../models/emoji-judges/object"));
    let with = |words: &str, more: &[&str]| {
        let common =
            format!("attack {words} --edit {edit} --concept church --steps 2 --n 6 --json --quiet");
        let mut words: Vec<&str> = common.split_whitespace().collect();
        words.extend(more);
        scumble(scratch, words)
    };
    let led = "revive --set probe=judge-led --set scales=[0.2] --output-dir led";
    with(led, &["--detector", "tiny.json"]).refused(&[
        "--set probe=judge-led",
        "--detector",
        "an ONNX file has none",
    ]);
    assert!(!scratch.join("led").exists());
    let vit = ["--detector", &judge, "--label", "church", "--threshold"];
    // How sure it is of each picture; then as sure as it is before the edit and not after it.
    let cases = with(
        "random --set trials=1 --output-dir sure",
        &[&vit[..], &["0.0000001"]].concat(),
    );
    let cases = lines(&cases);
    let least = cases.iter().find_map(|case| {
        let side = |name: &str| case["probability"][name].as_f64();
        let (before, after) = (side("unedited")?, side("pre")?);
        (before > after).then(|| format!("{:.12}", f64::midpoint(before, after)))
    });
    let least = least.expect("an edit changes probabilities both ways");
    with(led, &[&vit[..], &[&least]].concat()).done();
    let record = fs_err::read_to_string(scratch.join("led/run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let probes = record["notes"]["probes"].as_array().unwrap();
    assert_eq!(probes[0]["trial"], "judge-led 0.2", "{record}");
    assert!(probes[0]["n"].as_u64().unwrap() > 0, "{record}");
}

#[test]
fn a_rows_own_guidance_is_obeyed() {
    let home = folder();
    let scratch = home.path();
    let edit = an_edit(scratch);
    let header = "case_number,prompt,evaluation_seed,evaluation_guidance";
    let rows = |second: &str| {
        format!("{header}\n0,a church in ink style,5,\n1,a church in ink style,5,{second}\n")
    };
    fs_err::write(scratch.join("same.csv"), rows("4")).unwrap();
    fs_err::write(scratch.join("other.csv"), rows("9")).unwrap();
    let common = format!(
        "--edit {edit} --concept church --steps 3 --json --set words=building --set nearest=0 --budget 1"
    );
    for (name, same) in [("same", true), ("other", false)] {
        let out = lines(&attack(
            scratch,
            &format!("paraphrase {common} --prompts {name}.csv --output-dir {name}"),
        ));
        assert_eq!(out[0]["guidance"], Value::Null);
        assert_eq!(out[1]["guidance"], if same { 4.0 } else { 9.0 });
        let picture = |i: usize, side: &str| {
            fs_err::read(scratch.join(format!("{name}/pictures/{i:05}-{side}.png"))).unwrap()
        };
        for side in ["unedited", "edited"] {
            assert_eq!(
                picture(0, side) == picture(1, side),
                same,
                "{name} {side}: 4 is the miniature's own"
            );
        }
    }
}
