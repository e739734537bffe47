//! Every bad input ends with exit status 2, a message that names the file or flag, and nothing half
//! written.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{command, copy, ended, folder, golden, line};

#[test]
fn flags_that_make_no_picture() {
    let here = folder();
    for (words, said) in [
        ("church --n 0", "--n"),
        ("church --n -1", "--n"),
        ("church --n 99999999999", "--n"),
        ("church --n 1e3", "--n"),
        ("church --width 33", "--width 33"),
        ("church --width 0", "--width 0"),
        ("church --height -8", "--height"),
        ("church --width 8388608", "--width"),
        ("church --steps 0", "--steps 0"),
        ("church --steps 5000", "--steps 5000"),
        ("church --steps -2", "--steps"),
        ("church --guidance-scale nan", "--guidance-scale"),
        ("church --guidance_scale=inf", "--guidance-scale"),
        ("church --guidance-scale -3", "--guidance-scale"),
        ("church --eta 2", "--eta"),
        ("church --eta nan", "--eta"),
        ("church --eta 0.5 --sampler euler", "--eta"),
        ("church --sampler heun", "heun"),
        ("church --batch 0", "--batch"),
        ("church --seed -1", "--seed"),
        ("church --threads 0", "--threads"),
        ("church --device tpu", "--device tpu"),
        ("church --device cuda:x", "--device cuda:x"),
        ("church --device cuda:4096", "--device cuda:4096"),
        #[cfg(not(feature = "cuda"))]
        ("church --device cuda", "--features cuda"),
        ("church --prediction-type x0", "--prediction-type"),
        ("church --nonsense", "--nonsense"),
        ("", "no prompt"),
        ("church --prompts p.csv", "--prompts"),
        ("church --model nowhere", "nowhere"),
        ("church --edit nowhere", "nowhere"),
        ("church --edit nowhere:nan", "strength"),
        ("church --edit .", "--edit"),
        ("church --lora nowhere:0.5", "nowhere"),
        ("church --embedding nowhere", "nowhere"),
        ("church --prompts", "--prompts"),
        ("--prompts nowhere.csv", "nowhere.csv"),
        ("--prompts .", "."),
    ] {
        line(here.path(), &format!("generate {words} --output-dir out")).refused(&[said]);
        assert!(!here.path().join("out").exists(), "{words}");
    }
    fs_err::write(here.path().join("file"), "").unwrap();
    line(here.path(), "generate church --output-dir file").refused(&["file"]);
    line(here.path(), "inspect nowhere").refused(&["nowhere"]);
    line(here.path(), "inspect .").refused(&["hint"]);
    line(here.path(), "export nowhere --to lora").refused(&["nowhere"]);
    line(here.path(), "export nowhere --to onnx").refused(&["onnx"]);
    line(here.path(), "verify").refused(&["--reference"]);
    line(here.path(), "verify --reference nowhere").refused(&["nowhere"]);
    line(here.path(), "").refused_usage();
}

impl support::Ended {
    /// No command at all: help and exit 2.
    fn refused_usage(self) {
        assert_eq!(self.status, Some(2), "{self:?}");
    }
}

#[test]
fn prompt_files_that_are_none() {
    let here = folder();
    let long_row = format!("case_number,prompt\n1,{}\n2,a,b\n", "x".repeat(100));
    for (name, text, said) in [
        ("empty.csv", "", "no column `prompt`"),
        ("empty.txt", "\n \n", "holds no prompt"),
        (
            "header.csv",
            "case_number,prompt,evaluation_seed\n",
            "holds no prompt",
        ),
        (
            "columns.csv",
            "case_number,text\n1,a dog\n",
            "no column `prompt`",
        ),
        (
            "twice.csv",
            "case_number,prompt\n3,a dog\n3,a cat\n",
            "case number 3",
        ),
        (
            "number.csv",
            "case_number,prompt\n../../x,a dog\n",
            "line 2",
        ),
        (
            "seed.csv",
            "case_number,prompt,evaluation_seed\n1,a dog,soon\n",
            "evaluation_seed",
        ),
        (
            "guidance.csv",
            "case_number,prompt,evaluation_guidance\n1,a dog,nan\n",
            "evaluation_guidance",
        ),
        (
            "negative.csv",
            "case_number,prompt,evaluation_guidance\n1,a dog,-2\n",
            "evaluation_guidance",
        ),
        ("ragged.csv", &long_row, "line 3"),
        (
            "bad.jsonl",
            "{\"prompt\": \"a dog\"}\n{\"prompt\": 3}\n",
            "line 2",
        ),
        ("broken.jsonl", "{\"prompt\"", "line 1"),
        (
            "seed.jsonl",
            "{\"prompt\": \"a dog\", \"evaluation_seed\": -1}",
            "evaluation_seed",
        ),
    ] {
        fs_err::write(here.path().join(name), text).unwrap();
        line(
            here.path(),
            &format!("generate --prompts {name} --output-dir out"),
        )
        .refused(&[name, said]);
    }
    fs_err::write(
        here.path().join("latin.csv"),
        b"case_number,prompt\n1,caf\xe9\n",
    )
    .unwrap();
    line(here.path(), "generate --prompts latin.csv --output-dir out")
        .refused(&["latin.csv", "UTF-8"]);
    assert!(!here.path().join("out").exists());
}

#[test]
fn erasures_that_nobody_defined() {
    let here = folder();
    fs_err::create_dir(here.path().join("empty")).unwrap();
    fs_err::create_dir(here.path().join("broken")).unwrap();
    fs_err::write(here.path().join("broken/a.png"), b"\x89PNG but not one").unwrap();
    fs_err::write(
        here.path().join("all.txt"),
        "a church\nthe church in a town\n",
    )
    .unwrap();
    for (words, said) in [
        (
            "church --method uce --anchor church --template {concept}",
            "--anchor",
        ),
        ("church --method uce --anchor house --from town", "--from"),
        (
            "church --method uce --preserve Church",
            "--preserve `Church`",
        ),
        ("church --method esd --preserve dog", "no preservation term"),
        (
            "church --method esd --captions all.txt",
            "no preservation term",
        ),
        ("church --method uce --captions all.txt", "all.txt"),
        ("church --method uce --captions nowhere.txt", "nowhere.txt"),
        (
            "church --method uce --pictures empty",
            "does not learn from pictures",
        ),
        (
            "church --method few-shot --pictures empty",
            "holds no picture",
        ),
        ("church --method few-shot --pictures broken", "a.png"),
        ("church --method few-shot --pictures nowhere", "nowhere"),
        ("church --method few-shot --iterations 11", "iterations"),
        (
            "church --method uce --iterations 10",
            "no option `iterations`",
        ),
        (
            "church --method uce --train-method esd-x",
            "no option `train_method`",
        ),
        (
            "church --method esd --train-method text-encoder",
            "text-encoder",
        ),
        ("church --method uce --set lambda=nan", "lambda"),
        ("church --method uce --set lambda=-1", "lambda is -1"),
        (
            "church --method trce --set lambda=0 --set preserve_scale=0 --set empty_scale=0",
            "singular",
        ),
        ("church --method slot", "no method `slot`"),
        ("church --method uce --variant best", "no variant `best`"),
    ] {
        line(
            here.path(),
            &format!("erase {words} --no-judge --output-dir out"),
        )
        .refused(&[said]);
        assert!(
            !here.path().join("out/edit.safetensors").exists(),
            "{words}"
        );
    }
}

/// A copy of the smallest golden model under this name.
fn model(folder: &Path, name: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    copy(&golden("odd").join("model"), &path);
    path
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
    change(&mut value);
    fs_err::write(path, value.to_string()).unwrap();
}

/// Hostile models under their names, and a word that the refusal says.
fn hostile(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let cut = model(folder, "truncated").join("unet/diffusion_pytorch_model.safetensors");
    let whole = fs_err::read(&cut).unwrap();
    fs_err::write(&cut, &whole[..whole.len() - 100]).unwrap();
    let header = model(folder, "header").join("vae/diffusion_pytorch_model.safetensors");
    fs_err::write(&header, [&u64::MAX.to_le_bytes()[..], b"{}"].concat()).unwrap();
    fs_err::write(
        model(folder, "no-json").join("unet/config.json"),
        "block_out_channels: 4",
    )
    .unwrap();
    fs_err::write(
        model(folder, "a-list").join("text_encoder/config.json"),
        "[1, 2]",
    )
    .unwrap();
    let config = |name: &str, file: &str, key: &str, value: Value| {
        rewrite(&model(folder, name).join(file), |c| c[key] = value)
    };
    config(
        "wide",
        "unet/config.json",
        "block_out_channels",
        json!([1_000_000_000_000u64, 1_000_000_000_000u64]),
    );
    config(
        "deep",
        "text_encoder/config.json",
        "num_hidden_layers",
        json!(4_000_000_000u64),
    );
    config(
        "words",
        "text_encoder/config.json",
        "vocab_size",
        json!(1u64 << 50),
    );
    config(
        "layers",
        "unet/config.json",
        "layers_per_block",
        json!(1_000_000_000u64),
    );
    config("negative", "vae/config.json", "latent_channels", json!(-4));
    config(
        "steps",
        "scheduler/scheduler_config.json",
        "num_train_timesteps",
        json!(1u64 << 60),
    );
    config(
        "betas",
        "scheduler/scheduler_config.json",
        "beta_schedule",
        json!("mystery"),
    );
    config(
        "scheduler",
        "scheduler/scheduler_config.json",
        "_class_name",
        json!("FlowMatchEulerDiscreteScheduler"),
    );
    config("big", "unet/config.json", "sample_size", json!(1u64 << 40));
    config("scale", "vae/config.json", "scaling_factor", json!(0));
    let pickle = model(folder, "pickle").join("unet");
    fs_err::remove_file(pickle.join("diffusion_pytorch_model.safetensors")).unwrap();
    fs_err::write(
        pickle.join("diffusion_pytorch_model.bin"),
        b"PK\x03\x04archive",
    )
    .unwrap();
    let vocabulary = model(folder, "vocabulary").join("tokenizer/vocab.json");
    fs_err::write(vocabulary, r#"{"a</w>": 0, "b": 4000000000}"#).unwrap();
    fs_err::remove_dir_all(model(folder, "no-vae").join("vae")).unwrap();
    fs_err::create_dir(folder.join("nothing")).unwrap();
    fs_err::write(folder.join("old.ckpt"), b"PK\x03\x04archive/data.pkl").unwrap();
    fs_err::write(
        folder.join("file.safetensors"),
        b"\x10\0\0\0\0\0\0\0{\"a\": [1, 2, 3]}",
    )
    .unwrap();
    fs_err::write(folder.join("empty.safetensors"), "").unwrap();
    rewrite(&model(folder, "xl").join("model_index.json"), |c| {
        c["text_encoder_2"] = json!(["transformers", "CLIPTextModel"])
    });
    vec![
        ("truncated", "unet"),
        ("header", "vae"),
        ("no-json", "unet/config.json"),
        ("a-list", "text_encoder/config.json"),
        ("wide", "block_out_channels"),
        ("deep", "num_hidden_layers"),
        ("words", "vocab_size"),
        ("layers", "layers_per_block"),
        ("negative", "latent_channels"),
        ("steps", "num_train_timesteps"),
        ("betas", "beta_schedule"),
        ("scheduler", "FlowMatchEulerDiscreteScheduler"),
        ("big", "sample_size"),
        ("scale", "scaling_factor"),
        ("pickle", "pickle"),
        ("vocabulary", "vocab.json"),
        ("no-vae", "vae"),
        ("nothing", "nothing"),
        ("old.ckpt", "pickle"),
        ("file.safetensors", "file.safetensors"),
        ("empty.safetensors", "empty.safetensors"),
        ("xl", "SDXL"),
    ]
}

#[test]
fn models_that_are_none() {
    let here = folder();
    for (name, said) in hostile(here.path()) {
        line(
            here.path(),
            &format!("generate church --model {name} --output-dir out --steps 2"),
        )
        .refused(&[said]);
        assert!(!here.path().join("out").exists(), "{name}");
    }
    line(here.path(), "inspect old.ckpt").refused(&["pickle", "hint"]);
    line(here.path(), "inspect pickle").refused(&["pickle"]);
    line(
        here.path(),
        "generate church --edit old.ckpt --output-dir out",
    )
    .refused(&["pickle"]);
    line(
        here.path(),
        "generate church --embedding old.ckpt --output-dir out",
    )
    .refused(&["pickle"]);
    line(
        here.path(),
        "generate church --lora no-vae --output-dir out",
    )
    .refused(&["no-vae"]);
    let whole = golden("odd").join("model");
    line(
        here.path(),
        &format!(
            "generate church --edit {} --output-dir out",
            whole.display()
        ),
    )
    .refused(&["--model"]);
}

/// No claim in a file makes it ask for memory in proportion.
#[cfg(target_os = "linux")]
#[test]
fn claims_are_not_believed_within_four_gibibytes() {
    let here = folder();
    for (name, said) in hostile(here.path()) {
        let mut shell = std::process::Command::new("sh");
        let script = format!(
            "ulimit -v 4194304 && exec '{}' generate church --model {name} --output-dir out --steps 2",
            env!("CARGO_BIN_EXE_scumble")
        );
        shell
            .current_dir(here.path())
            .env("RAYON_NUM_THREADS", "1")
            .args(["-c", &script]);
        ended(shell).refused(&[said]);
    }
    let mut shell = std::process::Command::new("sh");
    let script = format!(
        "ulimit -v 4194304 && exec '{}' generate church --steps 2 --output-dir out",
        env!("CARGO_BIN_EXE_scumble")
    );
    shell.current_dir(here.path()).args(["-c", &script]);
    ended(shell).done();
}

#[test]
fn a_closed_pipe_is_no_error() {
    let here = folder();
    let mut child = command(here.path())
        .args(["inspect", "--tensors"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
