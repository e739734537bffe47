//! `scumble export` and `scumble inspect`: every form draws the same picture, and what a form
//! cannot carry is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;

use scumble_nn::files::{Kind, TensorFile, identify};
use support::{apart, checkpoint, edit, folder, golden, line, miniature, picture, pixels};

/// A run's folder with an edit of rank 1 in every cross-attention value matrix.
fn run_folder(here: &Path) {
    fs_err::create_dir(here.join("run")).unwrap();
    let change = edit(&miniature(), "unet", 0.25, |name| {
        name.ends_with("attn2.to_v.weight")
    });
    change.save(&here.join("run/edit.safetensors")).unwrap();
    let record = r#"{"result": {"before": {"target": 0.958, "others": 0.946}, "after": {"target": 0.0, "others": 0.9},
                     "n": {"target": 48, "others": 186}}}"#;
    fs_err::write(here.join("run/run.json"), record).unwrap();
}

#[test]
fn every_form_draws_the_same_picture() {
    let here = folder();
    run_folder(here.path());
    let ours = picture(here.path(), "ours", &["--edit", "run"]);
    let export = |words: &str| {
        line(here.path(), &format!("export run {words} --quiet"))
            .done()
            .stdout
            .trim_end()
            .to_owned()
    };

    let model = export("--to diffusers");
    assert_eq!(model, "run/church-test-diffusers");
    assert_eq!(
        pixels(&picture(here.path(), "diffusers", &["--model", &model])),
        pixels(&ours)
    );
    let single = export("--to single --output-dir one.safetensors");
    assert_eq!(single, "one.safetensors");
    assert_eq!(
        pixels(&picture(here.path(), "single", &["--model", &single])),
        pixels(&ours)
    );
    let partial = export("--to partial --out forms");
    assert_eq!(partial, "forms/church-test-partial.safetensors");
    assert_eq!(
        pixels(&picture(here.path(), "partial", &["--edit", &partial])),
        pixels(&ours)
    );
    let esd = export("--to esd --out forms");
    assert_eq!(esd, "forms/church-test-esd.safetensors");
    assert_eq!(
        pixels(&picture(here.path(), "esd", &["--edit", &esd])),
        pixels(&ours)
    );
    let delta = export("--to delta --out forms");
    assert!(apart(&picture(here.path(), "delta", &["--edit", &delta]), &ours) <= 1);
    let lora = export("--to lora --rank 2");
    assert_eq!(lora, "run/church-test-lora.safetensors");
    assert!(apart(&picture(here.path(), "lora", &["--lora", &lora]), &ours) <= 1);
    let half = export("--to delta --dtype f16 --out half.safetensors");
    assert!(apart(&picture(here.path(), "half", &["--edit", &half]), &ours) <= 8);
    let file = TensorFile::open(here.path().join(half)).unwrap();
    assert!(
        file.tensors
            .values()
            .all(|t| format!("{:?}", t.dtype()) == "F16")
    );

    let kinds = [
        (&partial, Kind::PartialUNet),
        (&esd, Kind::Esd),
        (&delta, Kind::Delta),
        (&lora, Kind::KohyaLora),
    ];
    for (path, kind) in kinds {
        assert_eq!(identify(here.path().join(path)).unwrap().kind, kind);
    }
    // Strength, and several edits on top of each other.
    let twice = line(
        here.path(),
        "export run:0.25 --edit run:0.75 --to single --out two.safetensors --json",
    )
    .json();
    assert_eq!(
        (&twice["path"], &twice["edits"][1]["strength"]),
        (&"two.safetensors".into(), &0.75.into())
    );
    assert!(
        apart(
            &picture(here.path(), "two", &["--model", "two.safetensors"]),
            &ours
        ) <= 1
    );
}

/// `erasing-esd-v2`: what ESD's own code says of a file, there and back.
#[test]
fn esds_own_format_says_what_was_done() {
    let here = folder();
    let here = here.path();
    let words = "erase church --method esd --no-judge --quiet --out run --set iterations=1 --set sampling_steps=2 \
                 --set trajectories=7 --batch 1 --train-method kv --eta 1.5";
    line(here, words).done();
    line(
        here,
        "export run --to esd --out a.safetensors --base-repo someone/emoji --quiet",
    )
    .done();
    let file = TensorFile::open(here.join("a.safetensors")).unwrap();
    let edit = scumble_erase::Edit::open(&here.join("run/edit.safetensors")).unwrap();
    let names: Vec<&String> = edit.changes.keys().map(|(_, name)| name).collect();
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), names);
    for (key, value) in [
        ("format", "erasing-esd-v2"),
        ("family", "sd"),
        ("component", "unet"),
        ("base_model_id", "someone/emoji"),
        ("train_method", "esd-x-strict"),
        ("erase_concept", "church"),
        ("erase_from", ""),
        ("num_inference_steps", "2"),
        ("guidance_scale", "3.0"),
        ("negative_guidance", "2.5"),
        ("batch_size", "1"),
        ("resolution", "32"),
        ("scumble.method", "esd"),
    ] {
        assert_eq!(file.metadata[key], value, "{key}");
    }
    let sheet = line(here, "inspect a.safetensors --json").json();
    assert_eq!(sheet["kind"], "partial U-Net (erasing-esd-v2)");
    assert_eq!(sheet["metadata"]["train_method"], "esd-x-strict");
    assert!(sheet["relative_change"].as_f64().unwrap() > 0.0, "{sheet}");
    // What was read is written again as it was said, and it is the same change.
    line(
        here,
        "export a.safetensors --to esd --out b.safetensors --quiet",
    )
    .done();
    let again = TensorFile::open(here.join("b.safetensors")).unwrap();
    for (key, value) in &file.metadata {
        if !key.starts_with("scumble.") {
            assert_eq!(&again.metadata[key], value, "{key}");
        }
    }
    for (name, tensor) in &file.tensors {
        assert_eq!(tensor.bytes(), again.tensors[name].bytes(), "{name}");
    }

    // Every command that takes an edit names what it cannot read.
    let with = |name: &str, key: &str, value: &str| {
        let mut metadata = file.metadata.clone();
        metadata.insert(key.into(), value.into());
        scumble_nn::files::write(here.join(name), file.tensors.clone(), &metadata).unwrap();
    };
    with("sdxl.safetensors", "family", "sdxl");
    with("flux.safetensors", "family", "flux");
    with("none.safetensors", "family", "sd9");
    with("damaged.safetensors", "guidance_scale", "high");
    for (name, says) in [
        ("sdxl", "an ESD file for SDXL"),
        ("flux", "an ESD file for Flux"),
        ("none", "`family` is \"sd9\", expected one of sd, sdxl"),
        ("damaged", "`guidance_scale` is \"high\", expected a number"),
    ] {
        for words in [
            "generate church --out out --steps 1 --edit",
            "export --to delta",
        ] {
            let name = format!("{name}.safetensors");
            line(here, &format!("{words} {name}")).refused(&[&name, says]);
        }
    }
    line(here, "inspect damaged.safetensors").refused(&["damaged.safetensors", "guidance_scale"]);
    let sheet = line(here, "inspect flux.safetensors --json").json();
    assert_eq!(sheet["kind"], "an ESD file for Flux (not supported)");
    // The text encoder has no place in it.
    let text = edit_of_text_encoder(here);
    line(here, &format!("export {text} --to esd")).refused(&["partial U-Net cannot carry"]);
}

fn edit_of_text_encoder(here: &Path) -> String {
    let change = edit(&miniature(), "text_encoder", 0.1, |name| {
        name.ends_with("q_proj.weight")
    });
    change.save(&here.join("text.safetensors")).unwrap();
    "text.safetensors".into()
}

#[test]
fn the_card_says_what_was_done() {
    let here = folder();
    run_folder(here.path());
    let made = line(here.path(), "export run --to lora --rank 1 --json").json();
    assert_eq!(
        (&made["form"], &made["edit"], &made["rank"]),
        (&"lora".into(), &"run".into(), &1.into())
    );
    assert!(
        made["reconstruction_error"].as_f64().unwrap() < 1e-5,
        "{made}"
    );
    assert!(made.get("left_out").is_none());
    let card = fs_err::read_to_string(here.path().join("run/church-test-lora.md")).unwrap();
    let front = card
        .strip_prefix("---\n")
        .unwrap()
        .split_once("\n---\n")
        .unwrap()
        .0;
    for wanted in [
        "library_name: diffusers",
        "license: apache-2.0",
        "- \"concept-erasure\"",
    ] {
        assert!(front.lines().any(|l| l == wanted), "{front}");
    }
    // A folder's name is no repository, and the hubs would take it for one.
    assert!(!front.contains("base_model"), "{front}");
    let loads = "pipe.load_lora_weights(\"church-test-lora.safetensors\")";
    let wanted = [
        "church",
        "seed 3",
        "95.8% | 0.0%",
        "94.6% | 90.0%",
        "off; none is included",
        "torch_dtype=torch.float32",
        loads,
    ];
    for wanted in wanted
        .into_iter()
        .chain(["## No guarantee", &miniature().hash()])
    {
        assert!(card.contains(wanted), "no {wanted} in {card}");
    }
    line(
        here.path(),
        "export run --to diffusers --base-repo someone/emoji --license mit --dtype f16",
    )
    .done();
    let card =
        fs_err::read_to_string(here.path().join("run/church-test-diffusers/README.md")).unwrap();
    for wanted in [
        "base_model: \"someone/emoji\"\nbase_model_relation: finetune",
        "license: \"mit\"",
        "torch_dtype=torch.float16",
    ] {
        assert!(card.contains(wanted), "no {wanted} in {card}");
    }
    // Rounded weights are not those that were judged.
    assert!(
        card.contains("## Not measured") && !card.contains("95.8%"),
        "{card}"
    );
    for (form, said) in [
        ("single", "from_single_file(\"x.safetensors\""),
        ("partial", "strict=False"),
        ("esd", "apply_esd_checkpoint"),
        ("delta", "`--edit`"),
    ] {
        let made = line(
            here.path(),
            &format!("export run --to {form} --out x.safetensors --overwrite --json"),
        )
        .json();
        let card = fs_err::read_to_string(here.path().join("x.md")).unwrap();
        assert!(
            card.contains(said) && card.contains("95.8% | 0.0%"),
            "{form}: {card}"
        );
        // Nobody but diffusers knows the shapes of the miniature.
        assert_eq!(made.get("limits").is_some(), form == "single", "{made}");
        assert_eq!(
            card.contains("only diffusers"),
            form == "single",
            "{form}: {card}"
        );
    }
    // Another strength is another model.
    let half = line(
        here.path(),
        "export run:0.5 --to delta --out half.safetensors --json",
    )
    .json();
    assert_eq!(half["strength"], 0.5);
    assert!(
        !fs_err::read_to_string(here.path().join("half.md"))
            .unwrap()
            .contains("95.8%")
    );
    line(
        here.path(),
        &format!(
            "export run --to lora --judge --model {}",
            golden("odd").join("model").display()
        ),
    )
    .refused(&["--judge"]);
}

/// A change of full rank in a few matrices.
fn full_rank(here: &Path) {
    let base = miniature();
    let mut change = edit(&base, "unet", 0.0, |name| {
        name.starts_with("mid_block") && name.ends_with("attn2.to_k.weight")
    });
    for ((_, name), change) in &mut change.changes {
        let old = &base.components["unet"].tensors[name];
        let values = old
            .to_f32()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(i, v)| v + 0.05 * ((i * i) as f32 * 0.37).sin())
            .collect::<Vec<_>>();
        *change = scumble_erase::Change::Value(scumble_nn::files::HostTensor::from_f32(
            old.shape(),
            &values,
        ));
    }
    fs_err::create_dir(here.join("wide")).unwrap();
    change.save(&here.join("wide/edit.safetensors")).unwrap();
    fs_err::copy(here.join("run/run.json"), here.join("wide/run.json")).unwrap();
}

#[test]
fn a_lora_carries_the_change_or_says_that_it_does_not() {
    let here = folder();
    run_folder(here.path());
    full_rank(here.path());
    // 16 are not enough, so more are taken, and that is said.
    let made = line(here.path(), "export wide --to lora --json");
    assert!(
        made.stderr
            .contains("the lowest that misses no more than 1%"),
        "{made:?}"
    );
    let made = made.json();
    let (rank, error) = (
        made["rank"].as_u64().unwrap(),
        made["reconstruction_error"].as_f64().unwrap(),
    );
    assert!(rank > 16 && error <= 0.1, "{made}");
    let path = here.path().join("wide/church-test-lora.safetensors");
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata["ss_network_dim"], rank.to_string());
    let card = fs_err::read_to_string(path.with_extension("md")).unwrap();
    assert!(card.contains(&format!("rank {rank}")), "{card}");
    // A rank that was asked for is kept, or refused.
    line(here.path(), "export wide --to lora --rank 8 --overwrite").refused(&[
        "rank 8 misses",
        "more than 1%",
        "--allow-partial",
    ]);
    let made = line(
        here.path(),
        "export wide --to lora --rank 8 --overwrite --allow-partial --json",
    )
    .json();
    assert!(
        made["rank"] == 8 && made["reconstruction_error"].as_f64().unwrap() > 0.1,
        "{made}"
    );
    // What the edit does is not what this file does.
    let card = fs_err::read_to_string(path.with_extension("md")).unwrap();
    assert!(
        card.contains("## Not measured") && !card.contains("95.8%"),
        "{card}"
    );
    // An edit of rank 1 stays at the first rank tried.
    assert_eq!(
        line(here.path(), "export run --to lora --json").json()["rank"],
        16
    );
    assert!(
        !line(here.path(), "export run --to lora --overwrite")
            .done()
            .stderr
            .contains("lowest")
    );
}

#[test]
fn what_a_form_cannot_carry_is_refused() {
    let here = folder();
    let base = miniature();
    let save = |name: &str, component: &str, pick: fn(&str) -> bool| {
        edit(&base, component, 0.1, pick)
            .save(&here.path().join(name))
            .unwrap();
    };
    save("text.safetensors", "text_encoder", |name| {
        name.ends_with("mlp.fc1.weight")
    });
    save("vae.safetensors", "vae", |name| {
        name.ends_with("conv_in.weight")
    });
    save("biases.safetensors", "unet", |name| {
        name.ends_with("to_out.0.bias")
    });
    save("mixed.safetensors", "unet", |name| {
        name.ends_with("attn2.to_out.0.bias") || name.ends_with("attn2.to_k.weight")
    });

    line(here.path(), "export text.safetensors --to partial").refused(&[
        "text_encoder",
        "fc1.weight",
        "hint",
    ]);
    line(here.path(), "export vae.safetensors --to delta").refused(&["vae"]);
    line(here.path(), "export biases.safetensors --to lora")
        .refused(&["can carry nothing", "to_out.0.bias"]);
    line(
        here.path(),
        "export biases.safetensors --to lora --allow-partial",
    )
    .refused(&["can carry nothing"]);
    line(here.path(), "export mixed.safetensors --to lora").refused(&[
        "cannot carry",
        "%",
        "to_out.0.bias",
        "--allow-partial",
    ]);
    line(here.path(), "export mixed.safetensors --to lora --rank 0").refused(&["rank"]);
    line(here.path(), "export mixed.safetensors:0 --to delta").refused(&["changes nothing"]);
    let left: Vec<_> = fs_err::read_dir(here.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");

    let made = line(
        here.path(),
        "export mixed.safetensors --to lora --allow-partial --json",
    )
    .json();
    let left_out = made["left_out"].as_array().unwrap();
    assert!(
        left_out.len() == 7 && left_out[0]["share"].as_f64().unwrap() > 0.0,
        "{made}"
    );
    assert_eq!(made["path"], "mixed-lora.safetensors");
    line(here.path(), "export text.safetensors --to lora").done();
    line(here.path(), "export text.safetensors --to delta").done();
}

#[test]
fn nothing_is_replaced_unasked() {
    let here = folder();
    run_folder(here.path());
    let path = |name: &str| here.path().join(name);
    for form in ["diffusers", "lora"] {
        line(here.path(), &format!("export run --to {form}")).done();
        line(here.path(), &format!("export run --to {form}"))
            .refused(&["is there already", "--overwrite"]);
        line(here.path(), &format!("export run --to {form} --overwrite")).done();
    }
    assert!(path("run/church-test-diffusers/model_index.json").is_file());
    fs_err::create_dir(path("holiday")).unwrap();
    fs_err::write(path("holiday/photograph"), "dear").unwrap();
    line(
        here.path(),
        "export run --to diffusers --out holiday --overwrite",
    )
    .refused(&["is not a model's folder"]);
    assert!(path("holiday/photograph").is_file());
    fs_err::write(path("notes.txt"), "dear").unwrap();
    line(
        here.path(),
        "export run --to single --out notes.txt --overwrite",
    )
    .refused(&["notes.txt"]);
    line(
        here.path(),
        "export run --to diffusers --out notes.txt --overwrite",
    )
    .refused(&["notes.txt"]);
    line(
        here.path(),
        "export run --to partial --out run/edit.safetensors --overwrite",
    )
    .refused(&["the edit itself"]);
    line(
        here.path(),
        "export run --to diffusers --out run --overwrite",
    )
    .refused(&["the edit itself"]);
    line(here.path(), "export run --to lora --dtype int8").refused(&["--dtype", "f16"]);
    line(here.path(), "export --to lora").refused(&["no edit"]);
    assert_eq!(fs_err::read_to_string(path("notes.txt")).unwrap(), "dear");
}

#[test]
fn other_families_in_every_whole_form() {
    let here = folder();
    // Not 512 pixels, so that it is quick; SD 2.x lays its text encoder out differently in a single
    // file.
    for name in ["sd1", "sd2"] {
        let model = golden(name).join("model");
        let base = checkpoint(&model);
        let change = edit(&base, "unet", 0.3, |tensor| {
            tensor.ends_with("attn2.to_v.weight")
        });
        change
            .save(&here.path().join(format!("{name}.safetensors")))
            .unwrap();
        let edited = change.apply(&base, 1.0).unwrap();
        for form in ["diffusers", "single"] {
            let words = format!(
                "export {name}.safetensors --to {form} --model {} -q",
                model.display()
            );
            let path = here
                .path()
                .join(line(here.path(), &words).done().stdout.trim_end());
            let back = checkpoint(&path);
            for component in ["text_encoder", "unet", "vae"] {
                let (a, b) = (
                    &back.component(component).unwrap().tensors,
                    &edited.component(component).unwrap().tensors,
                );
                assert!(a.keys().eq(b.keys()), "{name} {form} {component}");
                assert!(
                    a.iter()
                        .all(|(key, tensor)| tensor.to_f32() == b[key].to_f32()),
                    "{name} {form} {component}"
                );
            }
            assert_eq!(
                back.scheduler.get("prediction_type"),
                base.scheduler.get("prediction_type")
            );
        }
    }
}

#[test]
fn inspect_says_what_things_are() {
    let here = folder();
    run_folder(here.path());
    let look = |words: &str| line(here.path(), &format!("inspect {words} --json")).json();
    let model = look("");
    assert_eq!(
        (&model["kind"], &model["parts"][1]["parameters"]),
        (&"built-in miniature".into(), &9481156.into())
    );
    assert_eq!(
        (&model["hash"], &model["config"]["pixels"]),
        (&miniature().hash().into(), &32.into())
    );

    let run = look("run");
    assert_eq!(
        (&run["kind"], &run["edit"]["concepts"][0]),
        (&"scumble edit".into(), &"church".into())
    );
    assert_eq!(
        (
            &run["changed_tensors"],
            &run["run"]["result"]["n"]["target"]
        ),
        (&7.into(), &48.into())
    );
    let changes: Vec<f64> = run["strongest"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["relative_change"].as_f64().unwrap())
        .collect();
    assert!(
        changes.is_sorted_by(|a, b| a >= b) && changes[6] > 0.0,
        "{changes:?}"
    );

    line(here.path(), "export run --to lora --rank 3").done();
    let lora = look("run/church-test-lora.safetensors");
    assert_eq!(
        lora["lora"],
        serde_json::json!({"modules": 7, "ranks": [3], "algorithms": ["LoRA"], "reaches": "unet"})
    );
    assert!(
        (lora["relative_change"].as_f64().unwrap() - run["relative_change"].as_f64().unwrap())
            .abs()
            < 1e-4
    );

    let drawn = picture(here.path(), "out", &["--edit", "run"]);
    let shown = look(drawn.to_str().unwrap());
    assert_eq!(
        (&shown["kind"], &shown["text"]["scumble"]["picture"]["seed"]),
        (&"picture".into(), &7.into())
    );
    assert_eq!(look("out")["run"]["pictures"], 1);
    // A change of a model that is not at hand is still what it is.
    let model = golden("sd1").join("model");
    edit(&checkpoint(&model), "unet", 0.3, |name| {
        name.ends_with("attn2.to_v.weight")
    })
    .save(&here.path().join("e.safetensors"))
    .unwrap();
    let far = look("e.safetensors");
    assert!(
        far.get("strongest").is_none() && far["notes"][0].as_str().unwrap().contains("--model"),
        "{far}"
    );
    assert!(
        look(&format!("e.safetensors --model {}", model.display()))["relative_change"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert!(
        line(here.path(), "inspect e.safetensors --tensors")
            .done()
            .stdout
            .contains("attn2.to_v.weight F32")
    );
}
