//! Stopping, continuing, looking later, and what lies in a run's folder meanwhile.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{command, ended, folder, line, scumble};

fn record(folder: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(folder.join("run.json")).unwrap()).unwrap()
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Ctrl-C in the middle of a trajectory: it answers, keeps the steps, says where it goes on, and
/// ends with the same bits.
#[cfg(unix)]
#[test]
fn a_stopped_recording_goes_on_where_it_stopped() {
    let home = folder();
    let here = home.path();
    // One group of trajectories, of many steps.
    let args = [
        "erase",
        "church",
        "--no-judge",
        "--iterations",
        "2",
        "--set",
        "trajectories=1",
        "--set",
        "sampling_steps=60",
    ];
    let run = |folder: &str, cache: &str| {
        let mut command = command(here);
        command
            .args(args)
            .args(["--output-dir", folder])
            .env("SCUMBLE_CACHE", here.join(cache));
        command
    };
    ended(run("undisturbed", "cache")).done();
    let child = run("disturbed", "second")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has begun to record when its folder has a record.
    let began = Instant::now();
    while !here.join("disturbed/run.json").exists() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    interrupt(&child);
    let stopped = child.wait_with_output().unwrap();
    let said = String::from_utf8(stopped.stderr).unwrap();
    assert_eq!(stopped.status.code(), Some(130), "{said}");
    assert!(said.contains("stopping after this step"), "{said}");
    assert!(
        here.join("disturbed/state/trajectories.safetensors")
            .is_file(),
        "nothing was kept: {said}"
    );

    let last = ended(run("disturbed", "second")).done();
    assert!(
        last.stderr
            .contains("recording trajectories: continuing at step "),
        "{last:?}"
    );
    let bits = |folder: &str| fs_err::read(here.join(folder).join("edit.safetensors")).unwrap();
    assert_eq!(bits("disturbed"), bits("undisturbed"));
}

#[test]
fn an_edit_is_looked_at_later_in_the_same_folder() {
    let home = folder();
    let here = home.path();
    let first = line(
        here,
        "erase church --method uce --no-judge --json --output-dir run",
    )
    .json();
    assert!(
        first["before"].is_null() && first["memory"].as_u64().is_none_or(|bytes| bytes > 1 << 20),
        "{first}"
    );
    let bits = fs_err::read(here.join("run/edit.safetensors")).unwrap();
    // Only the picture is asked for: the edit stays, and its cost.
    let grid = line(
        here,
        "erase church --method uce --no-judge --grid --json --output-dir run",
    )
    .json();
    assert_eq!(grid["seconds"], first["seconds"]);
    assert!(here.join("run/before-after.png").is_file());
    assert_eq!(
        fs_err::read(here.join("run/edit.safetensors")).unwrap(),
        bits
    );
    // Less than there is: the stored result.
    assert_eq!(
        line(
            here,
            "erase church --method uce --no-judge --json --output-dir run"
        )
        .json(),
        grid
    );
}

#[test]
fn a_damaged_record_is_named() {
    let home = folder();
    let here = home.path();
    let erase = |more: &[&str]| {
        scumble(
            here,
            [
                &[
                    "erase",
                    "church",
                    "--method",
                    "uce",
                    "--no-judge",
                    "-q",
                    "--output-dir",
                    "run",
                ],
                more,
            ]
            .concat(),
        )
    };
    erase(&[]).done();
    let whole = record(&here.join("run"));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut damaged = whole.clone();
        change(&mut damaged);
        fs_err::write(here.join("run/run.json"), damaged.to_string()).unwrap();
    };
    fs_err::write(here.join("run/run.json"), "{\"plan_hash\": ").unwrap();
    erase(&[]).refused(&["run/run.json", "--overwrite"]);
    line(here, "generate church --output-dir run").refused(&["run/run.json"]);
    with(&|record| record["finished"] = "yes".into());
    erase(&[]).refused(&["run/run.json", "`finished`"]);
    with(&|record| drop(record.as_object_mut().unwrap().remove("result")));
    erase(&["--json"]).refused(&["run/run.json", "`result`"]);
    with(&|record| {
        record["finished"] = false.into();
        record["cost"] = json!({"seconds": "long"});
    });
    erase(&[]).refused(&["run/run.json", "`cost`"]);
    erase(&["--overwrite"]).done();
    assert_eq!(record(&here.join("run"))["plan_hash"], whole["plan_hash"]);
}

#[test]
fn runs_are_listed_with_what_came_of_them() {
    let home = folder();
    let here = home.path();
    line(here, "runs nowhere").refused(&["nowhere", "no such folder"]);
    let none = line(here, "runs").done();
    assert!(
        none.stdout.is_empty() && none.stderr.contains("no run lies in scumble-out"),
        "{none:?}"
    );
    line(here, "erase church --method uce --no-judge -q").done();
    line(here, "generate church --n 2 --steps 2 -q").done();
    let out = here.join("scumble-out");
    // An unfinished one, a damaged one, and folders that are no runs.
    let write = |name: &str, text: &str| {
        fs_err::create_dir_all(out.join(name)).unwrap();
        fs_err::write(out.join(name).join("run.json"), text).unwrap();
    };
    write(
        "esd-dog-1",
        &json!({"plan_hash": "a", "finished": false, "plan": {"command": "erase", "method": "esd", "concepts": [{"name": "dog"}, {"name": "cat"}]}})
            .to_string(),
    );
    write(
        "unlearndiff-1",
        &json!({"plan_hash": "b", "finished": true, "plan": {"command": "attack", "attack": "unlearndiff", "concept": "church"},
            "result": {"pre": 0.05, "total": 0.25, "n": 20}})
        .to_string(),
    );
    write("broken", "{\"plan_hash\": ");
    write("nameless", "{\"finished\": true, \"plan\": {}}");
    fs_err::create_dir_all(out.join("pictures")).unwrap();
    let rows = line(here, "runs --json").done().json();
    let of = |start: &str| {
        let named = |row: &&Value| {
            let folder = row["folder"].as_str().unwrap();
            folder
                .strip_prefix("scumble-out/")
                .unwrap()
                .starts_with(start)
        };
        let mut rows = rows.as_array().unwrap().iter().filter(named);
        let row = rows.next().unwrap().clone();
        assert!(rows.next().is_none(), "{start} once");
        row
    };
    assert_eq!(rows.as_array().unwrap().len(), 6);
    let uce = of("uce-church-");
    assert_eq!(
        [
            &uce["command"],
            &uce["method"],
            &uce["concept"],
            &uce["state"]
        ],
        ["erase", "uce", "church", "finished"]
    );
    let drawn = of("generate-church-");
    assert_eq!(
        [&drawn["method"], &drawn["result"]],
        [&Value::Null, &json!("2 pictures")]
    );
    let dog = of("esd-dog");
    assert_eq!(
        [&dog["concept"], &dog["state"], &dog["result"]],
        [&json!("dog; cat"), &json!("unfinished"), &Value::Null]
    );
    let attack = of("unlearndiff");
    assert_eq!(
        [&attack["method"], &attack["result"]],
        ["unlearndiff", "shown 5.0% -> 25.0% of 20"]
    );
    for (start, problem) in [
        ("broken", "broken/run.json"),
        ("nameless", "`plan.command`"),
    ] {
        let damaged = of(start);
        assert_eq!(damaged["state"], "damaged");
        let said = damaged["result"].as_str().unwrap();
        assert!(
            said.contains("run.json") && said.contains(problem),
            "{said}"
        );
    }
    let table = line(here, "runs scumble-out").done().stdout;
    assert!(
        table.lines().count() == 7 && table.starts_with("folder"),
        "{table}"
    );
    assert_eq!(
        line(here, "runs scumble-out/esd-dog-1")
            .done()
            .stdout
            .lines()
            .count(),
        2
    );
}

/// A cache that cannot be written (here: a file stands where its folder would be) costs other runs
/// something, and this one nothing.
#[test]
fn without_a_cache_it_goes_on_and_says_so() {
    let home = folder();
    let here = home.path();
    fs_err::write(here.join("file"), "").unwrap();
    let run = |words: &str| {
        let mut command = command(here);
        command
            .args(words.split_whitespace())
            .env("SCUMBLE_CACHE", here.join("file/cache"));
        ended(command).done()
    };
    let esd = run(
        "erase church --no-judge --iterations 2 --set trajectories=1 --set sampling_steps=2 --output-dir esd",
    );
    assert!(esd.stderr.matches("SCUMBLE_CACHE").count() == 1, "{esd:?}");
    assert!(here.join("esd/edit.safetensors").is_file());
    let uce = run("erase church --method uce --no-judge --output-dir uce");
    assert!(uce.stderr.contains("SCUMBLE_CACHE"), "{uce:?}");
    let judged = run("evaluate --concept church --steps 2 --n 2 --sets target --output-dir judged");
    assert!(judged.stderr.contains("SCUMBLE_CACHE"), "{judged:?}");
}

#[test]
fn a_file_where_the_folder_should_be() {
    let home = folder();
    fs_err::write(home.path().join("file"), "").unwrap();
    for command in [
        "erase church --no-judge",
        "generate church",
        "evaluate --concept church",
    ] {
        line(home.path(), &format!("{command} --output-dir file"))
            .refused(&["--output-dir file", "expected a folder"]);
    }
}

#[test]
fn a_step_size_that_breaks_the_model_is_said() {
    let home = folder();
    let here = home.path();
    let words = "erase church --no-judge --iterations 4 --set trajectories=1 --set sampling_steps=4 --lr 1000 --output-dir run";
    let ran = line(here, words).done();
    assert!(
        ran.stderr.contains("warning: the edit moved the model by") && ran.stderr.contains("--lr"),
        "{ran:?}"
    );
    assert!(
        record(&here.join("run"))["notes"]
            .to_string()
            .contains("unconditional drift")
    );
}
