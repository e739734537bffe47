//! `scumble report`: what it reads, writes, prints and refuses.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use scumble_report::{
    Evaluation,
    evaluation::{Concept, Metric, Picture, Row, Subject},
    png,
};
use serde_json::Value;
use support::{folder, line, scumble};

/// An evaluation's folder with two subjects, a number each and a picture each.
fn evaluated(path: &Path) {
    let mut evaluation = Evaluation {
        format: scumble_report::evaluation::FORMAT.into(),
        created: "2026-11-23T21:40:00Z".into(),
        finished: true,
        model: "emoji-sd".into(),
        concepts: vec![Concept {
            name: "church".into(),
            kind: Some("object".into()),
        }],
        metrics: vec![Metric {
            id: "target".into(),
            unit: "fraction".into(),
            better: "lower".into(),
            ..Metric::default()
        }],
        ..Evaluation::default()
    };
    for (id, kind, value) in [("base", "base", 0.9), ("esd", "edit", 0.0625)] {
        evaluation.subjects.push(Subject {
            id: id.into(),
            kind: kind.into(),
            ..Subject::default()
        });
        evaluation.rows.push(Row {
            subject: id.into(),
            concept: Some("church".into()),
            metric: "target".into(),
            value: Some(value),
            n: Some(48),
            ..Row::default()
        });
        let file = format!("pictures/{id}.png");
        fs_err::create_dir_all(path.join("pictures")).unwrap();
        fs_err::write(
            path.join(&file),
            png::encode_png(4, 4, &[9; 48], &[]).unwrap(),
        )
        .unwrap();
        evaluation.pictures.push(Picture {
            file,
            subject: id.into(),
            concept: Some("church".into()),
            set: "target".into(),
            prompt: "a church".into(),
            ..Picture::default()
        });
    }
    evaluation.write(path).unwrap();
}

#[test]
fn a_report_lies_in_the_evaluations_folder_or_where_it_is_told() {
    let place = folder();
    evaluated(&place.path().join("e"));
    let plain = line(place.path(), "report e");
    assert_eq!(
        (plain.status, plain.stdout.trim()),
        (Some(0), "e/report/index.html"),
        "{}",
        plain.stderr
    );
    let page = fs_err::read_to_string(place.path().join("e/report/index.html")).unwrap();
    assert!(page.contains("6.3%") && page.contains("data:image/png"));
    let json = line(
        place.path(),
        "report e --out elsewhere/r --no-pictures --title Churches --json --quiet",
    );
    let result: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (
            json.status,
            result["rows"].as_u64(),
            result["pictures"].as_u64()
        ),
        (Some(0), Some(2), Some(0))
    );
    assert_eq!(result["report"], "elsewhere/r/index.html");
    for file in result["files"].as_array().unwrap() {
        assert!(
            place.path().join(file.as_str().unwrap()).is_file(),
            "{file}"
        );
    }
    assert!(
        fs_err::read_to_string(place.path().join("elsewhere/r/index.html"))
            .unwrap()
            .contains("<title>Churches</title>")
    );
    assert!(!place.path().join("elsewhere/r/rating.html").exists());
    let blurred = line(place.path(), "report e --blur on");
    assert!(
        blurred.status == Some(0)
            && fs_err::read_to_string(place.path().join("e/report/index.html"))
                .unwrap()
                .contains("shot blur")
    );
}

#[test]
fn holes_are_said_and_do_not_stop_it() {
    let place = folder();
    evaluated(&place.path().join("e"));
    fs_err::remove_file(place.path().join("e/pictures/esd.png")).unwrap();
    let ended = line(place.path(), "report e");
    assert_eq!(ended.status, Some(0));
    assert!(
        ended.stderr.contains("1 picture is missing"),
        "{}",
        ended.stderr
    );
    let quiet = line(place.path(), "report e --quiet");
    assert_eq!((quiet.status, quiet.stderr.as_str()), (Some(0), ""));
}

#[test]
fn ratings_come_back_into_the_report() {
    let place = folder();
    evaluated(&place.path().join("e"));
    assert_eq!(line(place.path(), "report e --seed 3").status, Some(0));
    let key: Value = serde_json::from_slice(
        &fs_err::read(place.path().join("e/report/rating-key.json")).unwrap(),
    )
    .unwrap();
    let rated = |i: &Value| serde_json::json!({"id": i["id"], "rating": 4});
    for rater in ["a", "b"] {
        let ratings: Vec<Value> = key["items"].as_array().unwrap().iter().map(rated).collect();
        let file = serde_json::json!({"format": "scumble-ratings/1", "study": key["study"], "rater": rater, "ratings": ratings});
        fs_err::write(place.path().join(format!("{rater}.json")), file.to_string()).unwrap();
    }
    let ended = line(place.path(), "report e --ratings a.json b.json --json");
    let result: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (ended.status, result["ratings"].as_u64()),
        (Some(0), Some(4)),
        "{}",
        ended.stderr
    );
    assert!(
        fs_err::read_to_string(place.path().join("e/report/report.md"))
            .unwrap()
            .contains("| esd | church | 4.00")
    );
}

#[test]
fn what_cannot_be_read_is_named_with_a_hint() {
    let place = folder();
    let at = place.path();
    evaluated(&at.join("good"));
    fs_err::create_dir_all(at.join("empty")).unwrap();
    evaluated(&at.join("cut"));
    let text = fs_err::read_to_string(at.join("cut/evaluation.json")).unwrap();
    fs_err::write(at.join("cut/evaluation.json"), &text[..text.len() / 2]).unwrap();
    evaluated(&at.join("line"));
    fs_err::write(at.join("line/results.jsonl"), "{}\n{\"value\": []}\n").unwrap();
    fs_err::write(at.join("broken.json"), "no").unwrap();
    fs_err::write(at.join("file"), "").unwrap();
    assert_eq!(line(at, "report good").status, Some(0));
    for (args, problem) in [
        (
            "report nowhere",
            "nowhere/evaluation.json: there is no such folder",
        ),
        (
            "report empty",
            "empty/evaluation.json: there is no such file",
        ),
        ("report cut", "cut/evaluation.json: EOF"),
        ("report line", "line/results.jsonl: line 2: "),
        ("report good --ratings broken.json", "broken.json: expected"),
        ("report good --ratings absent.json", "absent.json"),
        (
            "report good --out other --ratings broken.json",
            "other/rating-key.json: there is no key",
        ),
        (
            "report good --out file",
            "--output-dir file: expected a folder",
        ),
        ("report good --blur some", "--blur"),
        ("report", "<DIR>"),
    ] {
        let ended = scumble(at, args.split_whitespace());
        assert_eq!(
            (ended.status, ended.stdout.as_str()),
            (Some(2), ""),
            "{args}"
        );
        assert!(ended.stderr.contains(problem), "{args}: {}", ended.stderr);
    }
}
