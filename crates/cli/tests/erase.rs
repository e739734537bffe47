//! `scumble erase` through the real binary: results, running again, another plan, and being killed.

mod support;

use std::{path::Path, process::Command, time::Duration};

use support::{Ended, command, ended, folder};

/// Settings that take seconds: what is tested is the run, not how well it erases.
const SHORT: [&str; 6] = [
    "--iterations",
    "12",
    "--set",
    "trajectories=2",
    "--set",
    "sampling_steps=5",
];

fn erase_command(scratch: &Path, output: &str, args: &[&str]) -> Command {
    let mut command = command(scratch);
    command
        .args(["erase", "--quiet", "--output-dir", output])
        .args(args);
    command
}

fn erase(scratch: &Path, output: &str, args: &[&str]) -> Ended {
    ended(erase_command(scratch, output, args))
}

fn bits(scratch: &Path, output: &str) -> Vec<u8> {
    fs_err::read(scratch.join(output).join("edit.safetensors")).expect("the edit of a finished run")
}

#[test]
fn one_object_with_the_agreed_keys() {
    let home = folder();
    let scratch = home.path();
    let args = [&["church", "--json", "--no-judge"], SHORT.as_slice()].concat();
    let result = erase(scratch, "run", &args).json();
    let keys: Vec<&str> = result
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "method",
            "concept",
            "edit",
            "seconds",
            "before",
            "after",
            "n",
            "uncond_drift",
            "evaluations",
            "memory",
            "estimate"
        ]
    );
    assert!(result["evaluations"].as_u64().unwrap() > 0);
    assert_eq!(result["method"], "esd");
    assert_eq!(result["concept"], "church");
    assert!(result["before"].is_null() && result["after"].is_null());
    assert!(result["seconds"].as_f64().unwrap() > 0.0);
    assert!(result["uncond_drift"].as_f64().unwrap() > 0.0);
    assert!(scratch.join("run/edit.safetensors").is_file());

    // Again: the stored result, at once.
    assert_eq!(erase(scratch, "run", &args).json(), result);

    // Another plan: refused, and nothing is touched.
    let before = bits(scratch, "run");
    let other = [&args[..], &["--seed", "1"]].concat();
    erase(scratch, "run", &other).refused(&["another plan", "--overwrite"]);
    assert_eq!(bits(scratch, "run"), before);

    // Unless it is asked for.
    let replaced = erase(scratch, "run", &[&other[..], &["--overwrite"]].concat()).json();
    assert_eq!(replaced["concept"], "church");
    assert_ne!(bits(scratch, "run"), before);
}

#[test]
fn published_flag_names_mean_the_same() {
    let home = folder();
    let scratch = home.path();
    let ours = [
        &["church", "--json", "--no-judge", "--eta", "1.5"],
        SHORT.as_slice(),
    ]
    .concat();
    let theirs = [
        "--erase_concept",
        "church",
        "--json",
        "--no_judge",
        "--negative_guidance",
        "2.5",
        "--train_method",
        "xattn",
    ];
    let theirs = [theirs.as_slice(), SHORT.as_slice()].concat();
    erase(scratch, "ours", &ours).json();
    erase(scratch, "theirs", &theirs).json();
    let edit = |folder: &str| {
        let file =
            scumble_nn::files::TensorFile::open(scratch.join(folder).join("edit.safetensors"))
                .unwrap();
        file.tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.bytes().to_vec()))
            .collect::<Vec<_>>()
    };
    assert_eq!(edit("ours"), edit("theirs"));
}

#[test]
fn objects_and_styles_together() {
    let home = folder();
    let scratch = home.path();
    for concepts in ["ink style; church", "church; ink style"] {
        let folder = concepts.replace("; ", "-").replace(' ', "-");
        let result = erase(
            scratch,
            &folder,
            &[&[concepts, "--json", "--no-judge"], SHORT.as_slice()].concat(),
        )
        .json();
        assert_eq!(result["concept"], concepts);
        assert_eq!(
            result["concepts"].as_array().map(Vec::len),
            None,
            "without judging there is nothing to list"
        );
    }
}

#[test]
fn killed_at_any_moment_it_ends_with_the_same_bits() {
    let home = folder();
    let scratch = home.path();
    let args = [
        "church",
        "--json",
        "--no-judge",
        "--iterations",
        "40",
        "--set",
        "trajectories=4",
        "--set",
        "sampling_steps=8",
    ];
    erase(scratch, "undisturbed", &args).json();

    // Another cache, so that the trajectories are recorded anew as well.
    let mut kills = 0;
    for wait in [400, 900, 1500, 2300] {
        let mut command = erase_command(scratch, "disturbed", &args);
        command.env("SCUMBLE_CACHE", scratch.join("second-cache"));
        let mut child = command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        let _ = child.wait();
    }
    assert!(kills > 0, "every run was done before it could be killed");
    let mut last = erase_command(scratch, "disturbed", &args);
    last.env("SCUMBLE_CACHE", scratch.join("second-cache"));
    ended(last).json();
    assert_eq!(bits(scratch, "disturbed"), bits(scratch, "undisturbed"));
}

#[test]
fn what_cannot_be_done_is_said_with_status_2() {
    let home = folder();
    let scratch = home.path();
    let long = "church ".repeat(40);
    for (args, words) in [
        (vec![], "no concept"),
        (vec![""], "no concept"),
        (vec!["church", "--method", "magic"], "magic"),
        (vec!["church", "--train-method", "esd-z"], "esd-z"),
        (vec!["church", "--iterations", "0"], "iterations"),
        (vec!["church", "--lr", "nan"], "--lr"),
        (vec!["church", "--set", "nonsense"], "KEY=VALUE"),
        (vec!["church", "--set", "temperature=3"], "temperature"),
        (vec!["church", "--anchor", "a church"], "anchor"),
        (
            vec!["church", "--anchor", "a house", "--from", "a building"],
            "exclude",
        ),
        (
            vec!["church", "--template", "{object} of a church"],
            "objects",
        ),
        (vec!["church", "--variant", "best"], "best"),
        (vec!["church", "--device", "cuda:4096"], "cuda"),
        (vec!["church", "--model", "nowhere"], "nowhere"),
        (vec![&long], "does not fit"),
    ] {
        erase(scratch, "bad", &args).refused(&[words]);
        assert!(!scratch.join("bad/edit.safetensors").exists());
        assert!(
            !scratch.join("bad/run.json").exists(),
            "{args:?} left a record"
        );
    }
}

/// On a model that nobody here knows, the user's detector looks at pictures from before and after.
#[test]
fn the_users_detector_looks_at_both_sides() {
    let home = folder();
    let scratch = home.path();
    let golden = |name: &str| format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    let manifest = serde_json::json!({"name": "tiny", "file": golden("eval/tests/golden/yolo.onnx"), "kind": "yolo",
        "labels": ["a", "b"], "hits": ["b"], "preprocessing": {"size": 8}, "threshold": 0.01, "floor": 0.001, "licence": "MIT"});
    fs_err::write(scratch.join("tiny.json"), manifest.to_string()).unwrap();
    let model = golden("nn/tests/golden/networks/sd1/model");
    let with = |more: &[&str]| {
        let args = ["dog", "--method", "uce", "--json", "--model", &model];
        erase(scratch, "run", &[&args[..], more].concat())
    };
    with(&["--detector", "tiny.json", "--label", "c"]).refused(&["no label `c`", "it knows a, b"]);
    with(&["--n", "3"]).refused(&["--n", "--detector"]);
    with(&["--detector", "tiny.json", "--threshold", "2"]).refused(&["--threshold"]);
    assert!(
        !scratch.join("run").exists(),
        "refused before anything is done"
    );

    let said = with(&["--detector", "tiny.json", "--label", "a", "--n", "3"]).json();
    assert_eq!(said["n"]["target"], 3);
    for side in ["before", "after"] {
        let rate = said[side]["target"].as_f64().unwrap();
        assert!(
            (0.0..=1.0).contains(&rate) && said[side]["others"].is_null(),
            "{said}"
        );
        let pictures = fs_err::read_dir(scratch.join("run/pictures").join(side)).unwrap();
        assert_eq!(pictures.count(), 3, "every picture is kept");
    }
    let record = fs_err::read_to_string(scratch.join("run/run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let who = &record["details"]["detectors"];
    assert_eq!(
        (&who["detectors"][0]["name"], &who["pictures"]),
        (&"tiny".into(), &3.into())
    );
    // Asked the same, it answers from its record; asked for more pictures, it looks again.
    let again = with(&["--detector", "tiny.json", "--label", "a", "--n", "3"]).json();
    assert_eq!(again, said);
    let more = with(&["--detector", "tiny.json", "--label", "a", "--n", "4"]).json();
    assert_eq!(more["n"]["target"], 4);
}
