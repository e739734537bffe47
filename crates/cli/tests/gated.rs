//! Edits that look at the prompt: at generation, several at once, as files of other tools, and in
//! words.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::{Path, PathBuf};

use scumble_diffusion::Gate;
use scumble_erase::{About, Change, Edit};
use scumble_nn::files::{HostTensor, Kind, LowRank, TensorFile, identify, write};
use support::{apart, edit, folder, line, miniature, pixels, scumble};

/// A membrane of rank one beside every cross-attention value matrix, which opens at one word alone.
fn membrane(here: &Path, concept: &str, phase: f32) -> Edit {
    let plain = edit(&miniature(), "unet", 1.0, |name| {
        name.ends_with("attn2.to_v.weight")
    });
    let wave = |n: usize, at: f32| {
        (0..n)
            .map(|i| (at + 1.3 * i as f32).sin())
            .collect::<Vec<_>>()
    };
    let factors = |((component, name), change): ((String, String), Change)| {
        let Change::Value(weight) = change else {
            panic!("{name} is a value")
        };
        let (rows, columns) = (weight.shape()[0], weight.shape()[1]);
        let up: Vec<f32> = wave(rows, phase).iter().map(|v| 0.3 * v).collect();
        let low = LowRank {
            component: component.clone(),
            module: name.strip_suffix(".weight").unwrap().into(),
            down: HostTensor::from_f32([1, columns], &wave(columns, 2.0 * phase)),
            up: HostTensor::from_f32([rows, 1], &up),
            alpha: 1.0,
        };
        ((component, name), Change::LowRank(low))
    };
    let gate = Gate {
        prompts: vec![concept.into()],
        power: 1.0,
        factor: 1.0,
        floor: 0.95,
    };
    let about = About {
        concepts: vec![concept.into()],
        gate: Some(gate),
        ..plain.about
    };
    let edit = Edit {
        about,
        changes: plain.changes.into_iter().map(factors).collect(),
    };
    fs_err::create_dir(here.join(concept)).unwrap();
    edit.save(&here.join(concept).join("edit.safetensors"))
        .unwrap();
    edit
}

fn draw(here: &Path, prompt: &str, words: &str) -> PathBuf {
    let name = format!("{prompt} {words}").replace(['/', ' '], "-");
    let mut args = vec![
        "generate",
        prompt,
        "--steps",
        "4",
        "--guidance-scale",
        "4",
        "--seed",
        "7",
        "--json",
        "-q",
        "--sampler",
        "ddim",
    ];
    args.extend(["--output-dir", &name]);
    args.extend(words.split_whitespace());
    here.join(
        scumble(here, args).json()["pictures"][0]["file"]
            .as_str()
            .unwrap(),
    )
}

#[test]
fn membranes_act_on_their_own_prompts_alone_and_stack() {
    let here = folder();
    let here = here.path();
    membrane(here, "church", 0.1);
    membrane(here, "owl", 0.8);
    let look = |prompt: &str, words: &str| pixels(&draw(here, prompt, words));
    let both = "--edit church --edit owl";
    assert_eq!(look("a dog", both), look("a dog", ""));
    assert_ne!(look("a church", "--edit church"), look("a church", ""));
    assert_ne!(look("an owl", "--edit owl"), look("an owl", ""));
    for (prompt, own) in [("a church", "--edit church"), ("an owl", "--edit owl")] {
        assert!(
            apart(&draw(here, prompt, both), &draw(here, prompt, own)) <= 1,
            "{prompt}"
        );
        assert!(
            apart(
                &draw(here, prompt, "--edit owl --edit church"),
                &draw(here, prompt, own)
            ) <= 1,
            "{prompt}"
        );
    }
    // Half the strength is another picture, none is the plain one.
    assert_ne!(
        look("a church", "--edit church:0.5"),
        look("a church", "--edit church")
    );
    assert_eq!(look("a church", "--edit church:0"), look("a church", ""));
}

#[test]
fn a_membrane_travels_in_kohyas_file() {
    let here = folder();
    let here = here.path();
    let own = membrane(here, "church", 0.1);
    let made = line(
        here,
        "export church --to lora --rank 4 --out spm.safetensors --json",
    );
    assert!(made.stderr.contains("acts on every prompt"), "{made:?}");
    assert_eq!(made.json()["reconstruction_error"], 0.0);
    let path = here.join("spm.safetensors");
    assert_eq!(identify(&path).unwrap().kind, Kind::KohyaLora);
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata["prompts"], "church");
    assert_eq!(file.metadata["ss_network_dim"], "1");
    // SPM's infer_spm.py reads both.
    assert_eq!(
        (
            file.metadata["rank"].as_str(),
            file.metadata["alpha"].as_str()
        ),
        ("1", "1")
    );
    let card = fs_err::read_to_string(path.with_extension("md")).unwrap();
    assert!(
        card.contains("## Not measured"),
        "a gate that is lost changes what is drawn: {card}"
    );
    // The factors themselves, not an approximation of their product.
    for ((_, name), change) in &own.changes {
        let Change::LowRank(low) = change else {
            panic!("{name}")
        };
        let key = format!("lora_unet_{}", low.module.replace('.', "_"));
        for (end, factor) in [("lora_down", &low.down), ("lora_up", &low.up)] {
            assert_eq!(
                file.tensors[&format!("{key}.{end}.weight")].bytes(),
                factor.bytes(),
                "{key}"
            );
        }
    }

    let look = |prompt: &str, words: &str| pixels(&draw(here, prompt, words));
    assert_eq!(
        look("a church", "--edit spm.safetensors"),
        look("a church", "--edit church")
    );
    assert_eq!(look("a dog", "--edit spm.safetensors"), look("a dog", ""));
    // As a plain LoRA it is open to all.
    assert_ne!(look("a dog", "--lora spm.safetensors"), look("a dog", ""));
    assert!(
        apart(
            &draw(here, "a church", "--lora spm.safetensors"),
            &draw(here, "a church", "--edit church")
        ) <= 1
    );
    let said = line(
        here,
        "generate dog --steps 1 --lora spm.safetensors --out lora",
    )
    .stderr;
    assert!(said.contains("acts on every prompt"), "{said}");
    let said = line(
        here,
        "generate dog --steps 1 --edit spm.safetensors --out edit",
    )
    .stderr;
    assert!(
        said.contains("an SPM: acts as far as a prompt is close to `church`"),
        "{said}"
    );

    // As a guard: the words of a gate for adapters that have none, and other words for those that
    // have some.
    let guarded = "--lora spm.safetensors --guard spm=church";
    assert!(
        apart(
            &draw(here, "a church", guarded),
            &draw(here, "a church", "--edit church")
        ) <= 1
    );
    assert_ne!(
        look("a dog", guarded),
        look("a dog", "--lora spm.safetensors")
    );
    assert_eq!(
        look("a church", "--edit church --guard spm=owl"),
        look("a church", "")
    );
    assert_eq!(
        look("a church", "--edit church --guard spm"),
        look("a church", "--edit church")
    );

    // As SPM's own code writes it: its gate is the square of closeness.
    let mut published = file.clone();
    published.metadata.remove("scumble.gate");
    published
        .metadata
        .insert("prompts".into(), "church, a chapel".into());
    write(
        here.join("published.safetensors"),
        published.tensors,
        &published.metadata,
    )
    .unwrap();
    let said = line(here, "inspect published.safetensors").done().stdout;
    assert!(
        said.contains("`church`, `a chapel` (power 2, factor 1, floor 0.000)"),
        "{said}"
    );
    // The file says so itself, whatever model is at hand.
    let odd = support::golden("odd").join("model");
    let far = line(
        here,
        &format!(
            "inspect published.safetensors --model {} --json",
            odd.display()
        ),
    );
    assert_eq!(far.status, Some(2), "it does not fit: {far:?}");
    let strange: scumble_nn::files::Tensors = file
        .tensors
        .iter()
        .map(|(key, t)| (key.replace("mid_block", "mid_blocks"), t.clone()))
        .collect();
    write(here.join("strange.safetensors"), strange, &file.metadata).unwrap();
    let said = line(here, "inspect strange.safetensors").done().stdout;
    assert!(
        said.contains("acts as far as a prompt is close to `church`")
            && said.contains("not measured"),
        "{said}"
    );
    assert_ne!(
        look("a dog", "--edit published.safetensors"),
        look("a dog", ""),
        "somewhat close is somewhat open"
    );
}

#[test]
fn merged_it_acts_on_every_prompt_and_says_so() {
    let here = folder();
    let here = here.path();
    membrane(here, "church", 0.1);
    for form in ["single", "diffusers"] {
        let made = line(
            here,
            &format!("export church --to {form} --out {form}.safetensors"),
        )
        .done();
        assert!(made.stderr.contains("acts on every prompt"), "{made:?}");
        let model = format!("--model {form}.safetensors");
        assert!(
            apart(
                &draw(here, "a church", &model),
                &draw(here, "a church", "--edit church")
            ) <= 1
        );
        assert_ne!(
            pixels(&draw(here, "a dog", &model)),
            pixels(&draw(here, "a dog", ""))
        );
    }
    let sheet = line(here, "inspect church --json").json();
    assert!(
        sheet["gate"].as_str().unwrap().contains("`church`"),
        "{sheet}"
    );
    assert_eq!(sheet["edit"]["gate"]["floor"], 0.95);
}
