//! Files of other tools at the command line: read, said what they are, or refused by name.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{collections::BTreeMap, path::Path};

use scumble_nn::files::{HostTensor, Precision, TensorFile, write, write_single};
use support::{apart, edit, folder, golden, line, miniature, picture, pixels, scumble};

const ATTN: &str = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v";

fn save(path: &Path, tensors: impl IntoIterator<Item = (String, HostTensor)>) {
    write(path, tensors, &BTreeMap::new()).unwrap();
}

fn wave(shape: &[usize], size: f32) -> HostTensor {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|i: usize| size * (1.3 * i as f32).sin())
        .collect();
    HostTensor::from_f32(shape, &values)
}

/// One NaN makes every picture black, and a black picture shows no concept: an erasure of 100%.
#[test]
fn numbers_that_are_none_are_refused_wherever_they_stand() {
    let here = folder();
    let here = here.path();
    let base = miniature();
    let old = &base.components["unet"].tensors[&format!("{ATTN}.weight")];
    let mut values = old.to_f32().unwrap();
    values[389] = f32::NAN;
    let broken = HostTensor::from_f32(old.shape(), &values);
    let place = format!("[{}, {}]", 389 / old.shape()[1], 389 % old.shape()[1]);
    save(
        &here.join("partial.safetensors"),
        [(format!("{ATTN}.weight"), broken.clone())],
    );
    let flat = format!("lora_unet_{}", ATTN.replace('.', "_"));
    save(
        &here.join("diff.safetensors"),
        [(format!("{flat}.diff"), broken.clone())],
    );
    let mut own = edit(&base, "unet", 0.1, |name| name.starts_with(ATTN));
    own.changes.insert(
        ("unet".into(), format!("{ATTN}.weight")),
        scumble_erase::Change::Value(broken.clone()),
    );
    own.save(&here.join("own.safetensors")).unwrap();
    for file in ["partial", "diff", "own"] {
        for words in [
            "generate church --out out --steps 1 --edit",
            "evaluate --concept church --sets target --out out --edit",
            "export --to delta",
        ] {
            line(here, &format!("{words} {file}.safetensors")).refused(&[
                &format!("{file}.safetensors"),
                "not finite",
                "1 of",
                &place,
            ]);
        }
        let sheet = line(here, &format!("inspect {file}.safetensors --json")).json();
        assert!(
            sheet["notes"][0].as_str().unwrap().contains(&place),
            "{sheet}"
        );
    }
    assert!(!here.join("out").exists());
    // The model itself, as a folder and as a file.
    let mut model = base;
    model
        .component_mut("unet")
        .unwrap()
        .tensors
        .insert(format!("{ATTN}.weight"), broken);
    scumble_nn::files::write_folder(&model, &here.join("model"), Precision::Keep, None).unwrap();
    write_single(
        &model,
        &here.join("model.safetensors"),
        Precision::Keep,
        &BTreeMap::new(),
    )
    .unwrap();
    for model in ["model", "model.safetensors"] {
        line(
            here,
            &format!("erase church --method uce --no-judge --model {model}"),
        )
        .refused(&["not finite", ATTN, &place]);
        line(here, &format!("generate church --model {model} --out out"))
            .refused(&["not finite", ATTN]);
    }
    let sheet = line(here, "inspect model.safetensors --json").json();
    assert!(
        sheet["notes"][0].as_str().unwrap().contains("not finite"),
        "{sheet}"
    );
    // What is finite and becomes infinite, by its strength or on the way to f16.
    edit(&miniature(), "unet", 1.0, |name| name.starts_with(ATTN))
        .save(&here.join("fine.safetensors"))
        .unwrap();
    line(
        here,
        "generate church --out out --edit fine.safetensors:1e39",
    )
    .refused(&["fine.safetensors", ATTN, "NaN or infinite"]);
    for form in ["delta", "single", "diffusers", "partial"] {
        line(
            here,
            &format!("export fine.safetensors:1e6 --to {form} --dtype f16 --out x.safetensors"),
        )
        .refused(&["attn2.to_v", "beyond what F16 can hold", "bf16"]);
    }
    assert!(!here.join("x.safetensors").exists() && !here.join("x.md").exists());
}

#[test]
fn every_kind_of_adapter_draws_what_its_arithmetic_says() {
    let here = folder();
    let here = here.path();
    let base = miniature();
    let weight = &base.components["unet"].tensors[&format!("{ATTN}.weight")];
    let [out, inputs] = weight.shape().try_into().unwrap();
    let flat = format!("lora_unet_{}", ATTN.replace('.', "_"));
    let factors = [
        (
            "lokr",
            vec![
                ("lokr_w1", vec![8, 8], 0.5),
                ("lokr_w2", vec![out / 8, inputs / 8], 0.5),
            ],
        ),
        (
            "loha",
            vec![
                ("hada_w1_a", vec![out, 2], 0.5),
                ("hada_w1_b", vec![2, inputs], 0.5),
                ("hada_w2_a", vec![out, 2], 0.5),
                ("hada_w2_b", vec![2, inputs], 0.5),
            ],
        ),
        (
            "dora",
            vec![
                ("lora_down.weight", vec![2, inputs], 0.1),
                ("lora_up.weight", vec![out, 2], 0.1),
                ("dora_scale", vec![1, inputs], 2.0),
            ],
        ),
    ];
    let plain = picture(here, "plain", &[]);
    for (name, pieces) in factors {
        let file = here.join(format!("{name}.safetensors"));
        save(
            &file,
            pieces
                .iter()
                .map(|(piece, shape, size)| (format!("{flat}.{piece}"), wave(shape, *size))),
        );
        let drawn = picture(here, name, &["--lora", &format!("{name}.safetensors")]);
        assert_ne!(pixels(&drawn), pixels(&plain), "{name}");
        // The same change as the whole weight.
        line(
            here,
            &format!("export {name}.safetensors --to partial --out {name}-whole.safetensors"),
        )
        .done();
        assert_eq!(
            pixels(&picture(
                here,
                &format!("{name}-2"),
                &["--edit", &format!("{name}-whole.safetensors")]
            )),
            pixels(&drawn)
        );
        let kinds =
            line(here, &format!("inspect {name}.safetensors --json")).json()["lora"]["algorithms"]
                .to_string()
                .to_lowercase();
        assert!(kinds.contains(name), "{kinds}");
    }
}

#[test]
fn a_unet_in_ldms_layout_and_comfyuis_lora_are_edits() {
    let here = folder();
    let here = here.path();
    let base = miniature();
    let change = edit(&base, "unet", 0.25, |name| {
        name.ends_with("attn2.to_v.weight")
    });
    change.save(&here.join("own.safetensors")).unwrap();
    let ours = picture(here, "ours", &["--edit", "own.safetensors"]);
    write_single(
        &change.apply(&base, 1.0).unwrap(),
        &here.join("single.safetensors"),
        Precision::Keep,
        &BTreeMap::new(),
    )
    .unwrap();
    let whole = TensorFile::open(here.join("single.safetensors"))
        .unwrap()
        .tensors;
    save(
        &here.join("unet.safetensors"),
        whole
            .into_iter()
            .filter(|(name, _)| name.starts_with("model.diffusion_model.")),
    );
    assert_eq!(
        pixels(&picture(here, "unet", &["--edit", "unet.safetensors"])),
        pixels(&ours)
    );
    line(here, "generate church --model unet.safetensors --out out")
        .refused(&["a U-Net alone", "--edit"]);
    assert_eq!(
        line(here, "inspect unet.safetensors --json").json()["kind"],
        "U-Net alone (LDM layout)"
    );

    line(
        here,
        "export own.safetensors --to lora --rank 1 --out kohya.safetensors",
    )
    .done();
    let kohya = TensorFile::open(here.join("kohya.safetensors"))
        .unwrap()
        .tensors;
    let comfy = |key: &str| {
        let key = key.replacen(
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v",
            "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v",
            1,
        );
        key.replace(
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v",
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v",
        )
    };
    save(
        &here.join("comfy.safetensors"),
        kohya.into_iter().map(|(key, t)| (comfy(&key), t)),
    );
    let sheet = line(here, "inspect comfy.safetensors --json").json();
    assert_eq!(
        (&sheet["kind"], &sheet["lora"]["algorithms"]),
        (&"LoRA (ComfyUI)".into(), &serde_json::json!(["LoRA"]))
    );
    assert!(
        apart(
            &picture(here, "comfy", &["--lora", "comfy.safetensors"]),
            &ours
        ) <= 1
    );
}

#[test]
fn words_that_travel_in_files_are_found_under_their_names() {
    let here = folder();
    let here = here.path();
    let width =
        miniature().components["text_encoder"].tensors["text_model.embeddings.token_embedding.weight"].shape()[1];
    let vectors = wave(&[2, width], 0.4);
    for key in ["clip_l", "string_to_param.*", "emb_params"] {
        save(
            &here.join("y2k.safetensors"),
            [(key.to_owned(), vectors.clone())],
        );
        assert_eq!(
            line(here, "inspect y2k.safetensors --json").json()["embedding"]["token"],
            "y2k",
            "{key}"
        );
    }
    let draw = |name: &str, words: &[&str]| {
        let mut args = vec![
            "generate",
            "a y2k church",
            "--steps",
            "4",
            "--seed",
            "7",
            "--json",
            "-q",
            "--sampler",
            "ddim",
            "--output-dir",
            name,
        ];
        args.extend(words);
        pixels(Path::new(
            scumble(here, args).json()["pictures"][0]["file"]
                .as_str()
                .map(|p| here.join(p))
                .unwrap()
                .as_path(),
        ))
    };
    let alone = draw("alone", &["--embedding", "y2k.safetensors"]);
    assert_ne!(alone, draw("plain", &[]));
    // The same word in a LoRA file.
    let flat = format!("lora_unet_{}", ATTN.replace('.', "_"));
    let [out, inputs] = miniature().components["unet"].tensors[&format!("{ATTN}.weight")]
        .shape()
        .try_into()
        .unwrap();
    save(
        &here.join("lora.safetensors"),
        [
            (format!("{flat}.lora_down.weight"), wave(&[1, inputs], 0.0)),
            (format!("{flat}.lora_up.weight"), wave(&[out, 1], 0.1)),
            ("bundle_emb.y2k.string_to_param.*".to_owned(), vectors),
        ],
    );
    let said = line(
        here,
        "generate church --steps 1 --lora lora.safetensors --out said",
    )
    .done()
    .stderr;
    assert!(said.contains("carries the embedding of `y2k`"), "{said}");
    assert_eq!(draw("bundled", &["--embedding", "lora.safetensors"]), alone);
    line(
        here,
        "generate church --embedding single.safetensors --out x",
    )
    .refused(&["single.safetensors"]);
}

#[test]
fn schedulers_matter_to_what_draws_with_them() {
    let here = folder();
    let here = here.path();
    let model = here.join("model");
    support::copy(&support::root().join("models/emoji-sd"), &model);
    let config = model.join("scheduler/scheduler_config.json");
    let put = |text: &str| fs_err::write(&config, text).unwrap();
    let common = r#""beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1"#;
    let uce = |said: &str| {
        let made = line(
            here,
            "erase church --model model --method uce --no-judge --out uce --overwrite",
        )
        .done();
        assert!(made.stderr.contains(said), "{made:?}");
    };
    // As diffusers saves every DPM-Solver.
    put(&format!(
        r#"{{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, {common}}}"#
    ));
    uce("");
    line(here, "generate church --model model --steps 2 --out dpm").done();
    assert!(
        line(here, "inspect model --json").json()["config"]["scheduler"]
            == "DPMSolverMultistepScheduler"
    );
    // Another class's option is passed over; its own is obeyed, or an error where it draws.
    put(&format!(
        r#"{{"_class_name": "PNDMScheduler", "lower_order_final": false, "skip_prk_steps": true, {common}}}"#
    ));
    uce("PNDMScheduler has no option `lower_order_final`, so false is passed over");
    line(here, "generate church --model model --steps 2 --out pndm").done();
    put(&format!(
        r#"{{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", {common}}}"#
    ));
    uce("");
    line(
        here,
        "generate church --model model --steps 2 --sampler ddim --out ddim",
    )
    .done();
    line(here, "generate church --model model --steps 2 --out own")
        .refused(&["`algorithm_type`", "--sampler"]);
    let sheet = line(here, "inspect model --json").json();
    assert!(
        sheet["notes"].to_string().contains("algorithm_type"),
        "{sheet}"
    );
    put(&format!(
        r#"{{"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1", {common}}}"#
    ));
    line(here, "generate church --model model --steps 2 --out unipc").done();
    // A schedule that nobody here knows is nothing to a closed form.
    put(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#);
    uce("");
    line(here, "generate church --model model --out flow")
        .refused(&["FlowMatchEulerDiscreteScheduler"]);
    line(
        here,
        "erase church --model model --method esd --no-judge --iterations 1 --out esd",
    )
    .refused(&["FlowMatchEulerDiscreteScheduler"]);
    assert!(!here.join("flow").exists() && !here.join("own").exists());
}

#[test]
fn sheets_fit_on_a_screen_and_folders_say_what_they_hold() {
    let here = folder();
    let here = here.path();
    let change = edit(&miniature(), "unet", 0.25, |name| {
        name.ends_with("attn2.to_v.weight")
    });
    fs_err::create_dir_all(here.join("shelf/run")).unwrap();
    change
        .save(&here.join("shelf/run/edit.safetensors"))
        .unwrap();
    let plan = serde_json::json!({"plan": {"concepts": [{"name": "church", "prompts": vec!["a church in ink style"; 500]}]}, "finished": true});
    fs_err::write(here.join("shelf/run/run.json"), plan.to_string()).unwrap();
    fs_err::write(here.join("shelf/notes.txt"), "x").unwrap();
    let said = line(here, "inspect shelf/run").done().stdout;
    assert!(
        said.lines().all(|line| line.chars().count() < 220),
        "{said}"
    );
    assert!(said.contains("prompts: 500 entries"), "{said}");
    let sheet = line(here, "inspect shelf --json").json();
    assert_eq!(
        sheet["holds"],
        serde_json::json!([{"name": "run", "kind": "run of scumble"}])
    );
    let models = support::root().join("models");
    let said = line(here, &format!("inspect {}", models.display()))
        .done()
        .stdout;
    assert!(
        said.contains("emoji-sd") && said.contains("diffusers folder"),
        "{said}"
    );
    fs_err::create_dir(here.join("empty")).unwrap();
    line(here, "inspect empty").refused(&["holds nothing known"]);
    fs_err::write(here.join("plain.png"), png()).unwrap();
    assert!(
        line(here, "inspect plain.png")
            .done()
            .stdout
            .contains("carries no text")
    );
}

/// A picture without texts.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(2, 2)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn hints_lead_somewhere() {
    let here = folder();
    let here = here.path();
    line(here, "verify --reference nowhere.safetensors")
        .refused(&["--reference nowhere.safetensors: there is no such file"]);
    // An edit that says it was made on the model at hand, and does not fit it, is not helped by
    // another --model.
    let mut change = edit(&miniature(), "unet", 0.1, |name| name.starts_with(ATTN));
    let value = change.changes.values().next().unwrap().clone();
    change
        .changes
        .insert(("unet".into(), "no.such.weight".into()), value);
    change.save(&here.join("odd.safetensors")).unwrap();
    let ended = line(here, "export odd.safetensors --to delta")
        .refused(&["no.such.weight", "this very model"]);
    assert!(!ended.stderr.contains("--model"), "{ended:?}");
    let odd = golden("odd").join("model");
    line(
        here,
        &format!(
            "export odd.safetensors --to delta --model {}",
            odd.display()
        ),
    )
    .refused(&["--model"]);
    // An adapter of a kind that is not read is told its name.
    let flat = format!("lora_unet_{}", ATTN.replace('.', "_"));
    save(
        &here.join("oft.safetensors"),
        [(format!("{flat}.oft_blocks"), wave(&[2, 4, 4], 1.0))],
    );
    line(here, "generate church --lora oft.safetensors --out out").refused(&["OFT", "LoHa"]);
    assert_eq!(
        line(here, "inspect oft.safetensors --json").json()["kind"],
        "OFT or BOFT (not supported)"
    );
}

/// A1111 keeps one value of each name.
#[test]
fn a_pictures_text_names_every_edit_and_eta() {
    let here = folder();
    let here = here.path();
    for name in ["one", "two"] {
        edit(&miniature(), "unet", 0.1, |tensor| tensor.starts_with(ATTN))
            .save(&here.join(format!("{name}.safetensors")))
            .unwrap();
    }
    let text = |name: &str, words: &str| {
        let made = line(
            here,
            &format!("generate church --steps 2 --sampler ddim --json --out {name} {words}"),
        )
        .json();
        let sheet = line(
            here,
            &format!(
                "inspect {} --json",
                made["pictures"][0]["file"].as_str().unwrap()
            ),
        )
        .json();
        sheet["text"]["parameters"].as_str().unwrap().to_owned()
    };
    let two = text(
        "a",
        "--edit one.safetensors --edit two.safetensors:0.5 --eta 0.5",
    );
    assert!(
        two.contains("Edit 1: ")
            && two.contains("Edit 2: ")
            && two.contains("x 0.5")
            && two.contains("Eta DDIM: 0.5"),
        "{two}"
    );
    let one = text("b", "--edit one.safetensors");
    assert!(
        one.contains("Edit: ") && !one.contains("Edit 1") && !one.contains("Eta"),
        "{one}"
    );
}
