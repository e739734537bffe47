//! `scumble train`: one command makes a model that the other commands take, says what is wrong with
//! what it is given, and goes on where it was stopped.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::{folder, line, scumble};

/// Small enough for a test, large enough for every part.
const RECIPE: &str = include_str!("../../train/tests/tiny.toml");

#[test]
fn a_recipe_becomes_a_model_that_the_other_commands_take() {
    let home = folder();
    let scratch = home.path();
    fs_err::write(scratch.join("tiny.toml"), RECIPE).unwrap();
    let train = ["train", "tiny.toml", "--output-dir", "mine", "--json"];
    let made = scumble(scratch, train).json();
    let parts: Vec<&str> = made["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["part"].as_str().unwrap())
        .collect();
    assert_eq!(parts, ["tokenizer", "clip", "vae", "denoiser", "judge"]);
    let page = fs_err::read_to_string(scratch.join("mine/train/index.html")).unwrap();
    assert!(page.contains("denoiser") && !page.contains("http-equiv=\"refresh\""));
    assert!(scratch.join("mine/train/losses.csv").exists());

    let again = scumble(scratch, train);
    assert!(again.stderr.contains("is finished"), "{again:?}");
    assert_eq!(again.json()["parts"], made["parts"]);

    let drawn = [
        "generate", "a church", "--model", "mine", "--steps", "2", "--json",
    ];
    assert_eq!(
        scumble(scratch, drawn).json()["pictures"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let erased = [
        "erase",
        "church",
        "--model",
        "mine",
        "--method",
        "uce",
        "--json",
        "--output-dir",
        "erased",
    ];
    // Its words are known, and its own judges look.
    let erased = scumble(scratch, erased).json();
    assert_eq!(erased["method"], "uce");
    assert!(erased["before"]["target"].is_number(), "{erased}");
    let record = fs_err::read(scratch.join("erased/run.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["profile"], "emoji-world");
    let found = "evaluate --model mine --edit erased --sets implicit --steps 2 --json --quiet";
    let found = line(scratch, found).done();
    assert!(found.stdout.contains("\"category-word\""), "{found:?}");
    let judged = scumble(scratch, ["inspect", "mine/judges/object", "--json"]);
    assert_eq!(judged.status, Some(0), "{judged:?}");
    // Two networks have to agree about objects, and what they lie in must fit together.
    let second = scratch.join("mine/judges/object/second/config.json");
    let config = fs_err::read_to_string(&second).unwrap();
    fs_err::write(&second, config.replace("\"church\"", "\"chapel\"")).unwrap();
    let looking = "evaluate --model mine --concept church --sets target --steps 2 --quiet --output-dir looked";
    line(scratch, looking).refused(&["second/config.json", "id2label"]);
    fs_err::write(&second, config).unwrap();

    // Another plan in the same folder is not mixed with this one.
    let other = ["train", "tiny.toml", "--output-dir", "mine", "--seed", "1"];
    scumble(scratch, other).refused(&["another plan", "--overwrite"]);
    let over = [
        "train",
        "tiny.toml",
        "--output-dir",
        "mine",
        "--seed",
        "1",
        "--overwrite",
        "--json",
    ];
    assert_eq!(
        scumble(scratch, over).json()["parts"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
}

#[test]
fn what_a_training_takes_is_said_and_nothing_is_left_of_finding_out() {
    let home = folder();
    let scratch = home.path();
    let recipe = RECIPE.replace("steps = 4,", "steps = 400,");
    assert_ne!(recipe, RECIPE);
    fs_err::write(scratch.join("tiny.toml"), RECIPE).unwrap();
    fs_err::write(scratch.join("longer.toml"), recipe).unwrap();
    let asked = |recipe: &str, more: &str| {
        let words = format!("train {recipe}.toml --output-dir mine --estimate --json {more}");
        line(scratch, &words).json()
    };
    let (short, long) = (asked("tiny", ""), asked("longer", ""));
    for found in [&short, &long] {
        assert!(found["seconds"].as_f64().unwrap() > 0.0, "{found}");
        assert!(found["memory"].as_u64().unwrap() > 1 << 20, "{found}");
        assert!(found["disk"].as_u64().unwrap() > 10_000, "{found}");
    }
    // Steps times examples, each through the denoiser and back.
    assert_eq!(
        long["evaluations"].as_u64(),
        short["evaluations"].as_u64().map(|n| 100 * n)
    );
    let limited = asked("longer", "--minutes 0.0001");
    assert!(limited["seconds"].as_f64().unwrap() <= 0.0061, "{limited}");
    // Of one part the others are not counted.
    assert_eq!(asked("tiny", "--part vae")["evaluations"], 0);
    assert!(!scratch.join("mine").exists());

    let most = "train tiny.toml --output-dir mine --memory 1M";
    line(scratch, most).refused(&["--memory 1 MiB", "micro_batch"]);
    assert!(!scratch.join("mine").exists());
    let tuned = "train --model emoji-sd --world emoji --output-dir t --estimate --json --rank 2";
    let found = line(scratch, tuned).json();
    assert!(found["evaluations"].as_u64().unwrap() > 0, "{found}");
}

/// Trains the miniature's denoiser for two steps.
fn tuned(scratch: &Path, words: &str) -> Value {
    let recipe = "[denoiser]\nlatents = 8\n[denoiser.training]\nsteps = 2\nbatch = 2\nlr = 1e-4\nwarm_up = 0\n";
    fs_err::write(scratch.join("short.toml"), recipe).unwrap();
    let words = format!("train short.toml --model emoji-sd --json {words}");
    line(scratch, &words).json()
}

#[test]
fn a_models_denoiser_is_tuned_and_what_it_learns_is_an_edit() {
    let home = folder();
    let scratch = home.path();
    let losses = |words: &str| {
        let told = tuned(scratch, words);
        assert_eq!(told["parts"][0]["part"], "denoiser", "{told}");
        told["parts"][0]["loss"].as_f64().unwrap()
    };
    let seen = |edit: &str| line(scratch, &format!("inspect {edit} --json")).json();
    // A model that knows the world begins with a small loss, one that knows nothing with that of
    // answering nothing, which is 1 before it is weighted.
    let further = losses("--output-dir further");
    let adapters = losses("--rank 2 --output-dir adapters");
    let again = losses("--from-scratch --without church --output-dir again");
    assert!(
        further < 0.3 && adapters < 0.3 && again > 2.0 * further,
        "{further} {adapters} {again}"
    );

    let about = seen("again");
    assert_eq!(about["edit"]["method"], "retrain", "{about}");
    assert_eq!(about["edit"]["concepts"], json!(["church"]));
    assert_eq!(seen("further")["edit"]["method"], "fine-tune");
    // Adapters of that rank are exported as they are.
    let exported = "export adapters --to lora --output-dir lora.safetensors --json";
    assert_eq!(line(scratch, exported).json()["rank"], 2);
    line(
        scratch,
        "generate church --steps 2 --edit again --output-dir drawn --quiet",
    )
    .done();

    // Again: it is there. The cross-attention alone is less.
    assert_eq!(losses("--output-dir further"), further);
    losses("--train-method esd-x --output-dir less");
    let size = |folder: &str| {
        fs_err::metadata(scratch.join(folder).join("edit.safetensors"))
            .unwrap()
            .len()
    };
    assert!(size("less") < size("further") / 4);

    let refused = |words: &str, named: &[&str]| {
        line(
            scratch,
            &format!("train short.toml --output-dir out {words}"),
        )
        .refused(named);
        assert!(!scratch.join("out").exists(), "{words}");
    };
    refused("--model emoji-sd --part clip", &["--part clip", "denoiser"]);
    refused(
        "--model emoji-sd --train-method text-encoder",
        &["text-encoder", "esd-all"],
    );
    refused(
        "--model emoji-sd --train-method everything",
        &["everything", "esd-all"],
    );
    refused("--model nowhere", &["--model nowhere"]);
    let alone = line(scratch, "train short.toml --output-dir out --rank 4");
    assert_eq!(alone.status, Some(2), "{alone:?}");
}

#[test]
fn what_is_wrong_is_named() {
    let home = folder();
    let scratch = home.path();
    let refused = |args: &[&str], words: &[&str]| {
        scumble(scratch, args.iter().chain(&["--output-dir", "out"])).refused(words);
        assert!(!scratch.join("out").exists(), "{args:?}");
    };
    refused(&["train", "absent.toml"], &["absent.toml"]);
    fs_err::write(scratch.join("bad.toml"), "[vae]\ncolour = 1\n").unwrap();
    refused(&["train", "bad.toml"], &["bad.toml", "colour"]);
    refused(
        &["train", "--world", "emoji", "--without", "zeppelin"],
        &["--without zeppelin"],
    );
    refused(
        &["train", "--world", "emoji", "--without", "churhc"],
        &["did you mean church"],
    );
    refused(
        &["train", "--world", "emoji", "--minutes", "-3"],
        &["--minutes -3"],
    );
    fs_err::create_dir_all(scratch.join("pictures")).unwrap();
    refused(
        &["train", "--data", "pictures"],
        &["metadata.jsonl", "captions"],
    );
    let nothing = scumble(scratch, ["train", "--output-dir", "out"]);
    assert_eq!(nothing.status, Some(2), "{nothing:?}");
}
