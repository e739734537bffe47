//! LECO's prompt files at the command line, in YAML and TOML, and what its edits become elsewhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use scumble_nn::files::{Kind, TensorFile, identify};
use serde_json::Value;
use support::{Ended, apart, folder, line, picture, pixels};

/// A prompt file as p1atdev's LECO has it, and one of the same entries as kohya's scripts read it.
const YAML: &str = "\
- target: \"a church\" # what is trained
  positive: \"a church\"
  unconditional: \"\"
  neutral: \"\"
  action: \"erase\"
  guidance_scale: 1.0
  resolution: 512
  dynamic_resolution: false
  batch_size: 2
- target: a cat
  positive: a dog
  action: enhance
  guidance_scale: 2
";
const TOML: &str = "\
guidance_scale = 2

[[prompts]]
target = \"a church\"
positive = \"a church\"
unconditional = \"\"
neutral = \"\"
action = \"erase\"
guidance_scale = 1.0
resolution = 512
dynamic_resolution = false
batch_size = 2

[[prompts]]
target = \"a cat\"
positive = \"a dog\"
action = \"enhance\"
";
const FEW: &str = "--no-judge --set iterations=2 --set sampling_steps=3 --set pairs=2";

fn erase(here: &Path, words: &str) -> Ended {
    line(here, &format!("erase --method leco {FEW} {words}"))
}

#[test]
fn yaml_and_toml_are_the_same_erasure() {
    let here = folder();
    let here = here.path();
    fs_err::write(here.join("church.yaml"), YAML).unwrap();
    fs_err::write(here.join("church.toml"), TOML).unwrap();
    let one = erase(here, "--prompts church.yaml --out yaml --json");
    assert!(
        one.stderr.contains(
            "`resolution` of entry 1 has no effect: the miniature learns at its own 32 x 32"
        ),
        "{one:?}"
    );
    let one = one.json();
    assert_eq!(
        (&one["concept"], &one["method"]),
        (&"church".into(), &"leco".into()),
        "named by the positive prompt, as the world calls it"
    );
    erase(here, "--prompts-file church.toml --out toml --json").json();
    let read = |name: &str| TensorFile::open(here.join(name).join("edit.safetensors")).unwrap();
    let (yaml, toml) = (read("yaml"), read("toml"));
    assert!(!yaml.tensors.is_empty());
    for (name, tensor) in &yaml.tensors {
        assert_eq!(tensor.bytes(), toml.tensors[name].bytes(), "{name}");
    }
    let record: Value =
        serde_json::from_slice(&fs_err::read(here.join("yaml/run.json")).unwrap()).unwrap();
    assert_eq!(record["plan"]["options"]["entries"][1]["action"], "enhance");

    // A file of ours is a file of theirs.
    let lora = line(here, "export yaml --to lora --out lora.safetensors --json").json();
    assert_eq!(
        (&lora["rank"], &lora["reconstruction_error"]),
        (&4.into(), &0.0.into())
    );
    let file = TensorFile::open(here.join("lora.safetensors")).unwrap();
    for (key, value) in [
        ("ss_network_module", "networks.lora"),
        ("ss_network_dim", "4"),
        ("ss_network_alpha", "4.0"),
        ("ss_leco_prompt_count", "2"),
        ("ss_leco_prompts_file", "church.yaml"),
    ] {
        assert_eq!(file.metadata[key], value, "{key}");
    }
    let preview: Value = serde_json::from_str(&file.metadata["ss_leco_preview"]).unwrap();
    assert_eq!(preview[0]["positive"], "a church");
    assert_eq!(
        identify(here.join("lora.safetensors")).unwrap().kind,
        Kind::KohyaLora
    );
    let ours = picture(here, "ours", &["--edit", "yaml"]);
    assert!(
        apart(
            &picture(here, "theirs", &["--lora", "lora.safetensors"]),
            &ours
        ) <= 1
    );
    assert_ne!(pixels(&ours), pixels(&picture(here, "plain", &[])));
}

#[test]
fn a_concept_needs_no_file() {
    let here = folder();
    let here = here.path();
    let made = erase(here, "church --anchor house --out run --json").json();
    assert_eq!(made["concept"], "church");
    let record: Value =
        serde_json::from_slice(&fs_err::read(here.join("run/run.json")).unwrap()).unwrap();
    let entries = record["options"]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 7, "alone and in every style");
    assert_eq!(
        (
            &entries[0]["target"],
            &entries[0]["neutral"],
            &entries[0]["unconditional"]
        ),
        (&"a church".into(), &"house".into(), &"house".into())
    );
    // Named by the user, whatever stands in the file.
    fs_err::write(here.join("p.yml"), YAML).unwrap();
    let named = erase(here, "truck --prompts p.yml --out named --json").json();
    assert_eq!(named["concept"], "truck");
}

#[test]
fn what_is_wrong_is_named_by_file_entry_and_key() {
    let here = folder();
    let here = here.path();
    let long = format!("- target: a\n- target: {}\n", "church ".repeat(90));
    for (name, text, words) in [
        (
            "a.yaml",
            "- target: a church\n- positive: b\n",
            &["entry 2", "`target` is missing"][..],
        ),
        (
            "b.yaml",
            "- target: a\n  guidance: 1\n",
            &["entry 1", "no key `guidance`", "guidance_scale"],
        ),
        (
            "c.toml",
            "[[prompts]]\ntarget = \"a\"\nweight = \"x\"\n",
            &["entry 1", "`weight` is \"x\"", "a number"],
        ),
        (
            "d.toml",
            "[[prompts]]\ntarget = \"a\"\nguidance_scale = nan\n",
            &["entry 1", "`guidance_scale`"],
        ),
        (
            "e.yaml",
            "- target: a\n  dynamic_crops: true\n",
            &["entry 1", "`dynamic_crops` is for models", "SDXL"],
        ),
        (
            "f.yaml",
            "- target: a\n  multiplier: 0\n",
            &["entry 1", "`multiplier` is 0"],
        ),
        ("g.yaml", "- &x {target: a}\n- *x\n", &["line 2", "alias"]),
        ("h.yaml", "- target: [\n", &["line "]),
        ("i.toml", "[[prompts]\n", &["line 1"]),
        ("j.yaml", "", &["holds no entry"]),
        ("k.txt", "a church\n", &[".yaml, .yml or .toml"]),
        (
            "l.yaml",
            "prompts_file: x.yaml\nnetwork: {rank: 4}\n",
            &["training configuration", "`prompts_file`"],
        ),
        ("m.yaml", &long, &["entry 2", "`target` does not fit"]),
        (
            "n.yaml",
            "- target: a\n  resolution: 33\n",
            &["entry 1", "`resolution` is 33, expected a multiple of"],
        ),
    ] {
        fs_err::write(here.join(name), text).unwrap();
        let words = [&[name][..], words].concat();
        erase(here, &format!("--prompts {name}")).refused(&words);
    }
    fs_err::write(here.join("bytes.yaml"), [0xff, 0xfe, 0]).unwrap();
    erase(here, "--prompts bytes.yaml").refused(&["bytes.yaml", "not UTF-8"]);
    fs_err::write(here.join("huge.yaml"), vec![b'#'; 2 << 20]).unwrap();
    erase(here, "--prompts huge.yaml").refused(&["huge.yaml", "at most 1048576 bytes"]);
    erase(here, "--prompts none.yaml").refused(&["none.yaml"]);
    // What says the same twice.
    fs_err::write(here.join("p.yaml"), YAML).unwrap();
    for flag in ["--anchor house", "--from x", "--template x", "--objects x"] {
        let flags = format!("--prompts p.yaml {flag}");
        erase(here, &flags).refused(&["has no effect with --prompts"]);
    }
    erase(here, "--prompts p.yaml --eta 2").refused(&["eta has no effect", "prompt file"]);
    line(here, "erase --method esd --prompts p.yaml").refused(&["`esd` takes no prompt file"]);
    erase(here, "").refused(&["no concept to erase"]);
    assert!(!here.join("scumble-out").exists());
}
