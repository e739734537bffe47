//! `evaluate --submit slurm` and `status`, with commands in Slurm's place that run everything on the
//! spot; and against a real cluster, where one can be had (ignored).

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::{Value, json};
use support::{Ended, command, folder};

/// Runs an array's tasks one after the other, but for those that `SKIP` names, and says an id.
const SBATCH: &str = r#"#!/bin/bash
for word; do
    script=$word
    case $word in --dependency=*|--kill*) echo "$word" >> "$HERE/asked";; esac
done
case $script in *"$REFUSE"*) [ -n "$REFUSE" ] && { echo "sbatch: error: no such partition" >&2; exit 1; };; esac
id=$(( $(cat "$HERE/id" 2>/dev/null || echo 100) + 1 ))
echo $id > "$HERE/id"
tasks=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
log=$(sed -n 's/^#SBATCH --output=//p' "$script")
for task in $(seq "${tasks:-1}"); do
    [ -n "$tasks" ] && [ "$task" = "$SKIP" ] && continue
    [ "$script" = "${script%$ONLY_BEFORE.sbatch}" ] || continue
    to=${log//%A/$id}; to=${to//%a/$task}; to=${to//%j/$id}
    SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$id bash "$script" >> "$to" 2>&1
done
echo $id
"#;
const SQUEUE: &str = "#!/bin/bash\ncat \"$HERE/queue\" 2>/dev/null; exit 0\n";
const SCANCEL: &str = "#!/bin/bash\necho \"$1\" >> \"$HERE/cancelled\"\n";

/// A folder with those commands in `bin`.
struct Cluster {
    home: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        let home = folder();
        let bin = home.path().join("bin");
        fs_err::create_dir(&bin).unwrap();
        for (name, text) in [("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)] {
            fs_err::write(bin.join(name), text).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            fs_err::set_permissions(bin.join(name), mode).unwrap();
        }
        Self { home }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn run(&self, words: &str, settings: &[(&str, &str)]) -> Ended {
        let mut command = command(self.path());
        let path = std::env::var("PATH").unwrap_or_default();
        let ended = command
            .args(words.split(' '))
            .env(
                "PATH",
                format!("{}:{path}", self.path().join("bin").display()),
            )
            .env("HERE", self.path())
            // A name that no script ends in.
            .env("ONLY_BEFORE", "-")
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        Ended {
            status: ended.status.code(),
            stdout: String::from_utf8(ended.stdout).unwrap(),
            stderr: String::from_utf8(ended.stderr).unwrap(),
        }
    }

    fn read(&self, file: &str) -> String {
        fs_err::read_to_string(self.path().join(file)).unwrap_or_default()
    }

    /// The rows of an evaluation, without what differs between two runs of one.
    fn rows(&self, folder: &str) -> Vec<String> {
        let text = self.read(&format!("{folder}/results.jsonl"));
        let row = |line: &str| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            for key in ["seconds", "edit", "cost"] {
                row.as_object_mut().unwrap().remove(key);
            }
            // Edits are called by where they lie.
            row.to_string().replace("elsewhere/", "scumble-out/")
        };
        // How long it took, and what it held, is another thing each time.
        let costs = |line: &&str| {
            line.contains("\"metric\":\"seconds\"") || line.contains("\"metric\":\"memory\"")
        };
        let mut rows: Vec<String> = text.lines().filter(|line| !costs(line)).map(row).collect();
        rows.sort();
        assert!(!rows.is_empty(), "{folder}");
        rows
    }
}

const WHAT: &str = "evaluate --method uce,negative --concept church;dog --sets target --steps 2";

#[test]
fn a_dry_run_prints_the_scripts_and_hands_nothing_over() {
    let cluster = Cluster::new();
    let words = format!(
        "{WHAT} --submit slurm:partition=gpu,time=01:00:00 --shards 5 --dry-run --output-dir out"
    );
    let printed = cluster.run(&words, &[]).done().stdout;
    for part in [
        "#SBATCH --array=1-2\n#SBATCH --partition=gpu\n#SBATCH --time=01:00:00\n",
        "#SBATCH --array=1-5\n",
        "--edits-only --shard \"$SLURM_ARRAY_TASK_ID\"/2",
        "--concept 'church;dog'",
        "--shard \"$SLURM_ARRAY_TASK_ID\"/5",
        "scontrol requeue",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    assert!(!printed.contains("--dry-run") && !printed.contains("--submit"));
    assert!(!cluster.path().join("out").exists() && !cluster.path().join("id").exists());
}

#[test]
fn jobs_that_have_run_are_done_and_say_what_a_single_run_says() {
    let cluster = Cluster::new();
    let words = format!("{WHAT} --submit slurm --shards 3 --output-dir out --json");
    let told = cluster.run(&words, &[]).json();
    let steps: Vec<&str> = told["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["step"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["erase", "draw", "gather"]);
    let asked = cluster.read("asked");
    for dependency in ["--dependency=afterok:101", "--dependency=afterany:102"] {
        assert!(asked.contains(dependency), "{asked}");
    }
    let status = cluster.run("status out --json", &[]).json();
    assert_eq!(
        (&status["done"], &status["failed"]),
        (&json!(6), &json!(0)),
        "{status}"
    );
    let alone = format!("{WHAT} --runs-dir elsewhere");
    cluster
        .run(&alone, &[("SCUMBLE_CACHE", "other-cache")])
        .done();
    let made = fs_err::read_dir(cluster.path().join("elsewhere")).unwrap();
    let mut made = made.map(|entry| entry.unwrap().path());
    let alone = made.find(|path| path.join("results.jsonl").exists());
    assert_eq!(
        cluster.rows("out"),
        cluster.rows(alone.unwrap().to_str().unwrap())
    );
}

#[test]
fn edits_alone_are_made_a_concept_a_task() {
    let cluster = Cluster::new();
    let words = format!("{WHAT} --edits-only --submit slurm --output-dir out --json");
    let told = cluster.run(&words, &[]).json();
    assert_eq!(told["jobs"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["jobs"][0]["tasks"], 2);
    let status = cluster.run("status out --json", &[]).json();
    assert_eq!((&status["done"], &status["failed"]), (&json!(2), &json!(0)));
    let made = fs_err::read_dir(cluster.path().join("scumble-out")).unwrap();
    assert_eq!(made.count(), 4, "two methods, two concepts");
    // Now they are there.
    let again = cluster.run(&words, &[]);
    assert!(again.stderr.contains("nothing is handed over"), "{again:?}");
}

#[test]
fn a_task_that_is_gone_is_failed_until_the_gathering_job_has_done_its_work() {
    let cluster = Cluster::new();
    let words = format!("{WHAT} --submit slurm --shards 2 --output-dir out");
    // The gathering job has not begun.
    let lost = [("SKIP", "2"), ("ONLY_BEFORE", "gather")];
    cluster.run(&words, &lost).done();
    fs_err::write(cluster.path().join("queue"), "103|PENDING|Dependency\n").unwrap();
    let shown = cluster.run("status out", &[]);
    assert_eq!(shown.status, Some(1), "{shown:?}");
    for part in ["failed", "pending", "Dependency", "2 done"] {
        assert!(shown.stdout.contains(part), "{part} {shown:?}");
    }
    fs_err::write(cluster.path().join("queue"), "").unwrap();
    // What the gathering job does is the evaluation by itself.
    let gather = format!("{WHAT} --output-dir out");
    cluster.run(&gather, &[]).done();
    let status = cluster.run("status out --json", &[]).json();
    assert_eq!((&status["done"], &status["failed"]), (&json!(5), &json!(0)));
}

#[test]
fn what_cannot_be_handed_over_is_said() {
    let cluster = Cluster::new();
    let with = |more: &str| cluster.run(&format!("{WHAT} --output-dir out {more}"), &[]);
    with("--submit slurm:colour=red").refused(&["colour=red", "partition"]);
    with("--submit pbs").refused(&["--submit pbs", "slurm"]);
    with("--shards 0 --submit slurm").refused(&["--shards"]);
    let nowhere = format!("{WHAT} --submit slurm");
    cluster.run(&nowhere, &[]).refused(&["--output-dir"]);
    cluster.run("status out", &[]).refused(&["out", "no run"]);
    // The first job is taken out of the queue again when the second is refused.
    let words = format!("{WHAT} --submit slurm --shards 2 --output-dir out");
    let refused = cluster.run(&words, &[("REFUSE", "draw"), ("SKIP", "1")]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("no such partition"), "{refused:?}");
    assert_eq!(cluster.read("cancelled"), "101\n");
    assert!(!cluster.path().join("out/slurm/submission.json").exists());
}

#[test]
fn a_damaged_record_of_a_submission_is_refused() {
    let cluster = Cluster::new();
    let place = cluster.path().join("out/slurm");
    fs_err::create_dir_all(&place).unwrap();
    let record = |job: &str, tasks: u64| {
        let jobs = json!([{"step": "draw", "job": job, "tasks": tasks, "script": "x"}]);
        json!({"format": 1, "jobs": jobs}).to_string()
    };
    for text in [
        record("7", 1 << 62),
        record("7;rm", 1),
        record("7", 0),
        "{".into(),
    ] {
        fs_err::write(place.join("submission.json"), &text).unwrap();
        cluster
            .run("status out", &[])
            .refused(&["submission.json", "submit again"]);
    }
}

/// `cargo test --test slurm -- --ignored` as root, with Debian's slurm-wlm and munge: 40 tasks on two
/// nodes, of which one dies.
#[test]
#[ignore = "needs root and a Slurm to start; takes minutes"]
fn a_real_cluster_does_all_of_it_once() {
    let proof = support::root().join("bench/slurm/proof.sh");
    let place = folder();
    let ended = Command::new(proof)
        .arg(env!("CARGO_BIN_EXE_scumble"))
        .arg(place.path())
        .status()
        .unwrap();
    assert!(ended.success());
}
