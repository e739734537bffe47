//! SDXL from the command line: a tiny one of random numbers is drawn with, erased from, attacked and
//! exported, and what does not belong to it is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{apart, folder, golden, line, pixels, root};

/// The tiny model, in the folder where the command runs.
fn model(here: &Path) -> PathBuf {
    let path = here.join("xl");
    support::copy(
        &root().join("crates/diffusion/tests/golden/sdxl/model"),
        &path,
    );
    path
}

fn draw(here: &Path, name: &str, words: &str) -> PathBuf {
    let command =
        format!("generate church --steps 4 --seed 3 -q --overwrite --output-dir {name} {words}");
    line(here, &command).done();
    here.join(name).join("00000.png")
}

#[test]
fn it_is_drawn_with_and_told_sizes() {
    let here = folder();
    model(here.path());
    let plain = draw(here.path(), "plain", "--model xl");
    let record = fs_err::read_to_string(here.path().join("plain/run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["pictures"][0]["guidance_scale"], 5.0, "{record}");
    assert_eq!(record["plan"]["sampler"], "euler", "{record}");
    let same = draw(here.path(), "same", "--model xl --size-condition 16x16");
    assert_eq!(
        pixels(&same),
        pixels(&plain),
        "the size that is drawn is the default"
    );
    let sized = draw(
        here.path(),
        "sized",
        "--model xl --size-condition 64x48+8+0",
    );
    assert!(apart(&sized, &plain) > 0);
    line(
        here.path(),
        "generate church --model xl --size-condition 64",
    )
    .refused(&["HEIGHTxWIDTH"]);
    line(
        here.path(),
        "generate church --steps 1 --size-condition 64x64",
    )
    .refused(&["sizes and crops", "--size-condition"]);
}

#[test]
fn an_edit_goes_through_every_form() {
    let here = folder();
    model(here.path());
    line(
        here.path(),
        "erase church --anchor cat --model xl --method uce --unknown allow -q --output-dir run",
    )
    .done();
    let plain = draw(here.path(), "plain", "--model xl");
    let ours = draw(here.path(), "ours", "--model xl --edit run");
    assert!(apart(&plain, &ours) > 0);
    let export = |words: &str| {
        let command = format!("export run --model xl {words} --quiet");
        line(here.path(), &command)
            .done()
            .stdout
            .trim_end()
            .to_owned()
    };
    let whole = export("--to diffusers --output-dir whole");
    let again = draw(here.path(), "again", &format!("--model {whole}"));
    assert!(apart(&again, &ours) <= 1);
    let single = export("--to single --output-dir one.safetensors");
    let again = draw(
        here.path(),
        "again",
        &format!("--model {single} --config xl"),
    );
    assert!(apart(&again, &ours) <= 1);
    let partial = export("--to partial --output-dir partial.safetensors");
    let again = draw(
        here.path(),
        "again",
        &format!("--model xl --edit {partial}"),
    );
    assert!(apart(&again, &ours) <= 1);
    let esd = export("--to esd --output-dir esd.safetensors");
    let file = scumble_nn::files::TensorFile::open(here.path().join(&esd)).unwrap();
    assert_eq!(file.metadata["family"], "sdxl");
    let again = draw(here.path(), "again", &format!("--model xl --edit {esd}"));
    assert!(apart(&again, &ours) <= 1);
    let lora = export("--to lora --rank 16 --output-dir lora.safetensors");
    let again = draw(here.path(), "again", &format!("--model xl --lora {lora}"));
    assert!(apart(&again, &ours) <= 2);
}

#[test]
fn a_trained_edit_an_attack_and_an_evaluation() {
    let here = folder();
    model(here.path());
    let erased = line(
        here.path(),
        "erase church --model xl --method esd --unknown allow --set iterations=2 --set trajectories=1 --set sampling_steps=2 -q --json --output-dir run",
    )
    .json();
    assert_eq!(erased["method"], "esd");
    let inspected = line(here.path(), "inspect xl --json").json();
    assert!(
        inspected.to_string().contains("stable-diffusion-xl"),
        "{inspected}"
    );
    line(
        here.path(),
        "erase church --model xl --method hirm --unknown allow",
    )
    .refused(&["hirm", "sdxl", "two", "methods --json"]);
    // A word in both text encoders, learnt and then drawn with.
    line(
        here.path(),
        "attack concept-inversion --model xl --edit run --concept church --n 1 --steps 2 --set iterations=2 --set batch=1 --set pictures=1 -q --output-dir attacked",
    )
    .done();
    let word = fs_err::read_dir(here.path().join("attacked"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .unwrap();
    let file = scumble_nn::files::TensorFile::open(&word).unwrap();
    assert_eq!(file.tensors["clip_l"].shape()[1], 12);
    assert_eq!(file.tensors["clip_g"].shape()[1], 20);
    let drawn = draw(
        here.path(),
        "word",
        &format!("--model xl --embedding {}", word.display()),
    );
    assert!(drawn.is_file());
    // Everything counts for a judge whose threshold is nothing: the pictures are noise.
    let judge = support::root().join("models/emoji-judges/object");
    let judged = format!(
        "--detector {} --label church --threshold 1e-9",
        judge.display()
    );
    for (attack, options) in [
        ("random", ""),
        ("paraphrase", ""),
        ("revive", "--set probe=half-noised"),
    ] {
        let command = format!(
            "attack {attack} --model xl --edit run --concept church --n 1 --budget 1 --steps 2 {options} {judged} -q --json --output-dir {attack}"
        );
        let said = line(here.path(), &command).done().stdout;
        let found: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!(found["attack"], attack, "{found}");
    }
    let command = format!(
        "evaluate --model xl --edit run --concept church --n 2 --steps 2 --attack random --budget 1 --detector {} --label church --report -q --output-dir evaluated",
        judge.display()
    );
    line(here.path(), &command).done();
    let here = here.path().join("evaluated");
    let record = fs_err::read_to_string(here.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["finished"], true, "{record}");
    let results = fs_err::read_to_string(here.join("report/results.csv")).unwrap();
    assert!(
        results.contains("church") && results.lines().count() > 3,
        "{results}"
    );
    assert!(here.join("report/index.html").is_file());
}

/// kohya's prompt files on a model that is told of crops, and the LoRA that comes of it.
#[test]
fn leco_learns_from_a_file_and_tells_the_model_of_crops() {
    let here = folder();
    model(here.path());
    let file = |crops: bool| {
        format!(
            "[[prompts]]\ntarget = \"church\"\nresolution = 32\ndynamic_resolution = true\ndynamic_crops = {crops}\n\n\
             [[prompts]]\ntarget = \"a cat\"\npositive = \"dog\"\naction = \"enhance\"\nmultiplier = -0.5\n"
        )
    };
    let erase = |name: &str| {
        let command = format!(
            "erase --model xl --method leco --prompts {name}.toml --unknown allow --set iterations=3 --set sampling_steps=3 -q --output-dir {name}"
        );
        line(here.path(), &command).done();
        let edit = here.path().join(name).join("edit.safetensors");
        scumble_nn::files::TensorFile::open(&edit).unwrap()
    };
    for (name, crops) in [("plain", false), ("cropped", true)] {
        fs_err::write(here.path().join(format!("{name}.toml")), file(crops)).unwrap();
    }
    let (plain, cropped) = (erase("plain"), erase("cropped"));
    let differs = plain
        .tensors
        .iter()
        .any(|(name, tensor)| tensor.bytes() != cropped.tensors[name].bytes());
    assert!(differs, "it is told of crops");
    let export =
        "export cropped --model xl --to lora --allow-partial --output-dir lora.safetensors -q";
    line(here.path(), export).done();
    let lora = scumble_nn::files::TensorFile::open(here.path().join("lora.safetensors")).unwrap();
    assert_eq!(lora.metadata["ss_leco_prompts_file"], "cropped.toml");
    assert_eq!(lora.metadata["ss_base_model_version"], "sdxl_base_v1-0");
    let ours = draw(here.path(), "ours", "--model xl --edit cropped");
    let theirs = draw(here.path(), "theirs", "--model xl --lora lora.safetensors");
    assert!(apart(&ours, &theirs) <= 1);
}

#[test]
fn what_belongs_to_another_family_is_refused_by_name() {
    let here = folder();
    model(here.path());
    // An edit of a model with one text encoder, and the other way round.
    let small = golden("odd").join("model");
    let erase = |model: &str, out: &str| {
        let command = format!(
            "erase church --anchor cat --model {model} --method uce --unknown allow -q --output-dir {out}"
        );
        line(here.path(), &command).done();
    };
    erase(small.to_str().unwrap(), "small");
    erase("xl", "large");
    line(here.path(), "generate church --model xl --edit small").refused(&[
        "small",
        "stable-diffusion-custom",
        "stable-diffusion-xl",
    ]);
    let command = format!("generate church --model {} --edit large", small.display());
    line(here.path(), &command).refused(&["large", "stable-diffusion-xl"]);
    // A single file of the U-Net alone.
    fs_err::remove_dir_all(here.path().join("xl/text_encoder_2")).unwrap();
    line(here.path(), "generate church --model xl").refused(&["text_encoder_2"]);
}
