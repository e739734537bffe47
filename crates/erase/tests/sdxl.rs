//! Erasing from a model with two text encoders: closed forms on the rows of both, and what is refused.
//! What trained methods use of its prompts is in `turns.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Run, concept, host, pipeline};
use scumble_erase::{
    catalogue,
    methods::{self, named},
};
use scumble_families as families;
use serde_json::json;

/// Hidden states of a prompt so many tokens before its pads, `[width]`: 1 is the end token, 2 the
/// last word.
fn row(model: &scumble_diffusion::Pipeline, prompt: &str, from_pads: usize) -> Vec<f32> {
    let at = model.tokenizer.encode(prompt).length - from_pads;
    host(&model.encode(&[prompt.to_owned()]).tokens.narrow(1, at, 1))
}

fn times(matrix: &[f32], x: &[f32]) -> Vec<f32> {
    let row = |row: &[f32]| row.iter().zip(x).map(|(a, b)| a * b).sum();
    matrix.chunks_exact(x.len()).map(row).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

#[test]
fn closed_forms_bring_the_concepts_rows_to_the_anchors() {
    let model = pipeline("sdxl");
    let width = model.context_width();
    for (method, options) in [
        ("uce", json!({})),
        ("rece", json!({})),
        ("realera", json!({})),
        ("trce", json!({"stages": "mapping"})),
        ("speed", json!({})),
        ("oce", json!({})),
        (
            "mace",
            json!({"iterations": 2, "pictures": 2, "sampling_steps": 2}),
        ),
    ] {
        // TRCE maps the rows behind the words.
        let from_pads = if method == "trce" { 1 } else { 2 };
        let [church, cat] = ["church", "cat"].map(|prompt| row(&model, prompt, from_pads));
        assert_eq!(church.len(), width);
        let concepts = vec![concept("church", Some("cat"), None)];
        let edit = Run::of(method, &model, concepts, options).erase().unwrap();
        let edited = edit.apply_to(&model, 1.0).unwrap();
        assert!(!edit.changes.is_empty(), "{method}");
        let (mut before, mut after) = (0.0, 0.0);
        for (component, name) in edit.changes.keys() {
            assert_eq!(component, "unet", "{method}");
            let numbers = |of: &scumble_diffusion::Pipeline| {
                let weight = of.denoiser.weights.get(name).unwrap();
                assert_eq!(weight.shape[1], width, "{method} {name}");
                host(&weight.flat())
            };
            let (old, new) = (numbers(&model), numbers(&edited));
            assert!(new.iter().all(|x| x.is_finite()), "{method} {name}");
            let wanted = times(&old, &cat);
            before += distance(&times(&old, &church), &wanted);
            after += distance(&times(&new, &church), &wanted);
        }
        assert!(after != before, "{method}");
        // RECE's rounds also move rows that nobody has said, which on random numbers is most of it;
        // OCE goes orthogonal to the concept and not towards an anchor; MACE's prior holds it back.
        let most = match method {
            "rece" | "oce" => f32::INFINITY,
            "mace" => 1.0,
            _ => 0.7,
        };
        assert!(after < most * before, "{method}: {after} of {before}");
    }
}

#[test]
fn a_family_names_the_components_of_its_pipelines() {
    for (name, id) in [("odd", "sd"), ("sdxl", "sdxl")] {
        let model = pipeline(name);
        let family = families::of(&model);
        assert_eq!(family.id, id);
        let ids: Vec<&str> = family.components.iter().map(|c| c.id).collect();
        assert_eq!(ids, model.component_names());
        let encoders: Vec<&str> = model.encoder_widths().iter().map(|(id, _)| *id).collect();
        assert_eq!(family.text_encoders(), encoders);
        for component in ids {
            for (name, _) in model.weights(component).unwrap().iter() {
                assert!(family.role(component, name).is_some(), "{component} {name}");
            }
        }
    }
}

/// ESD's code of 2025 has a trainer for each, with settings of its own.
#[test]
fn esd_has_the_published_settings_of_each_family() {
    for (name, lr, eta, guidance) in [("odd", 5e-5, 1.0, 3.0), ("sdxl", 2e-4, 0.0, 2.0)] {
        let settings = catalogue::settings(named("esd").unwrap(), &pipeline(name)).unwrap();
        let reference = |key: &str| {
            let setting = settings.iter().find(|setting| setting.key == key);
            setting.unwrap().defaults[1].as_f64().unwrap()
        };
        assert_eq!(catalogue::COLUMNS[1], "reference");
        let found = ["lr", "eta", "anchor_eta", "start_guidance"].map(reference);
        assert_eq!(found, [lr, eta, eta, guidance], "{name}");
    }
}

#[test]
fn methods_of_one_text_encoder_say_so() {
    let model = pipeline("sdxl");
    for method in methods::ALL {
        let works = method.works_on("sdxl");
        assert_eq!(works.is_ok(), method.families().contains(&"sdxl"));
        assert!(method.works_on("sd").is_ok(), "{}", method.id);
        if let Err(error) = works {
            assert!(error.to_string().contains("text encoder"), "{error}");
            // Whoever asks all the same is refused too, before anything is trained.
            let concepts = vec![concept("church", Some("cat"), None)];
            let result = Run::of(method.id, &model, concepts, json!({})).erase();
            assert!(result.unwrap_err().to_string().contains("has two"));
        }
    }
    assert!(named("esd").unwrap().works_on("flux").is_err());
}
