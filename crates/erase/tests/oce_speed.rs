//! OCE and SPEED on a tiny model: what they change, what they refuse, and that they repeat.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::BTreeMap;

use common::{Run, concept, host, pipeline};
use scumble_diffusion::Pipeline;
use scumble_erase::{Change, Edit, Variant};
use serde_json::{Value, json};

fn values(edit: &Edit) -> BTreeMap<String, Vec<f32>> {
    let one = |((component, name), change): (&(String, String), &Change)| {
        let Change::Value(value) = change else {
            panic!("{name} is no plain value")
        };
        assert_eq!(component, "unet");
        (name.clone(), value.to_f32().unwrap())
    };
    edit.changes.iter().map(one).collect()
}

fn run<'a>(method: &'static str, model: &'a Pipeline, names: &[&str], options: Value) -> Run<'a> {
    Run::of(
        method,
        model,
        names.iter().map(|name| concept(name, None, None)).collect(),
        options,
    )
}

fn norm(numbers: &[f32]) -> f64 {
    numbers
        .iter()
        .map(|&x| f64::from(x).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// The options that leave some room in a text encoder of few numbers.
fn room(method: &str, more: Value) -> Value {
    let mut options = match method {
        "speed" => json!({"threshold": 1.0, "centroids": 0, "refine": false}),
        // Six wordings span all of six dimensions.
        _ => json!({"expand_prompts": "none"}),
    };
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    options
}

#[test]
fn only_values_move_and_keys_on_request() {
    let model = pipeline("odd");
    for method in ["oce", "speed"] {
        let edit = run(method, &model, &["a church"], room(method, json!({})))
            .erase()
            .unwrap();
        let changed = values(&edit);
        assert!(
            !changed.is_empty()
                && changed
                    .keys()
                    .all(|name| name.ends_with("attn2.to_v.weight")),
            "{method}"
        );
        assert_eq!(edit.about.method, method);
        assert_eq!(edit.about.options["prior"]["n"], 4);
        let both = values(
            &run(
                method,
                &model,
                &["a church"],
                room(method, json!({"keys": true})),
            )
            .erase()
            .unwrap(),
        );
        assert_eq!(both.len(), 2 * changed.len());
        assert!(
            changed.iter().all(|(name, value)| both[name] == *value),
            "keys do not disturb values"
        );
    }
}

#[test]
fn oce_keeps_the_size_of_every_matrix() {
    let model = pipeline("odd");
    for options in [
        json!({"expand_prompts": "none"}),
        json!({"subspace": "contrast", "rank": 2, "whiten": 1.0}),
    ] {
        let edit = run("oce", &model, &["a church", "a dog"], options)
            .erase()
            .unwrap();
        for (name, new) in values(&edit) {
            let old = host(&model.denoiser.weights.get(&name).unwrap().flat());
            assert!((norm(&new) / norm(&old) - 1.0).abs() < 1e-6, "{name}");
            assert_ne!(new, old, "{name}");
        }
    }
}

#[test]
fn several_at_once_are_not_one() {
    let model = pipeline("odd");
    for method in ["oce", "speed"] {
        let edit = |names: &[&str]| {
            values(
                &run(method, &model, names, room(method, json!({})))
                    .erase()
                    .unwrap(),
            )
        };
        let (one, other, both) = (
            edit(&["a church"]),
            edit(&["a bird"]),
            edit(&["a church", "a bird"]),
        );
        assert!(one != other && one != both && other != both, "{method}");
    }
}

#[test]
fn the_same_seed_is_the_same_edit() {
    let model = pipeline("odd");
    let edit = |seed: u64, more: Value| {
        let options = room("speed", more);
        values(
            &Run {
                seed,
                ..run("speed", &model, &["a church"], options)
            }
            .erase()
            .unwrap(),
        )
    };
    let refined = || json!({"refine": true, "threshold": 0.9});
    assert_eq!(edit(7, refined()), edit(7, refined()));
    assert_ne!(
        edit(7, refined()),
        edit(8, refined()),
        "perturbations are drawn"
    );
    assert_eq!(edit(7, json!({})), edit(8, json!({})), "nothing else is");
    let oce = |seed: u64| {
        values(
            &Run {
                seed,
                ..run("oce", &model, &["a church"], room("oce", json!({})))
            }
            .erase()
            .unwrap(),
        )
    };
    assert_eq!(oce(7), oce(8));
    // What was kept from the first run serves the next.
    let first = run("speed", &model, &["a church"], room("speed", json!({})));
    let fresh = values(&first.erase().unwrap());
    assert_eq!(first.store.recorded.get(), 1);
    assert_eq!(values(&first.erase().unwrap()), fresh);
    assert_eq!(
        (first.store.recorded.get(), first.store.found.get()),
        (1, 1)
    );
}

#[test]
fn speed_goes_past_the_anchor_in_proportion() {
    let model = pipeline("odd");
    let edit = |overshoot: f64| {
        let options = room("speed", json!({"overshoot": overshoot}));
        values(
            &run("speed", &model, &["a church"], options)
                .erase()
                .unwrap(),
        )
    };
    let (plain, twice) = (edit(0.0), edit(1.0));
    for (name, plain) in plain {
        let old = host(&model.denoiser.weights.get(&name).unwrap().flat());
        let change =
            |new: &[f32]| -> Vec<f32> { new.iter().zip(&old).map(|(n, o)| n - o).collect() };
        let (once, double) = (change(&plain), change(&twice[&name]));
        let apart: Vec<f32> = once.iter().zip(&double).map(|(a, b)| 2.0 * a - b).collect();
        assert!(norm(&apart) < 1e-4 * norm(&double), "{name}");
    }
}

#[test]
fn the_variants_are_recorded() {
    let model = pipeline("odd");
    let edit = |variant| {
        Run {
            variant,
            ..run("oce", &model, &["a church"], room("oce", json!({})))
        }
        .erase()
        .unwrap()
        .about
        .options
    };
    assert_eq!(edit(Variant::Paper)["sign"], "column");
    assert_eq!(edit(Variant::Fixed)["sign"], "least");
    assert_eq!(
        edit(Variant::Fixed)["subspace"],
        "words",
        "off the miniature the published form"
    );
}

#[test]
fn impossible_requests_are_refused() {
    let model = pipeline("odd");
    for (method, options, says) in [
        ("oce", json!({"lambda": -1.0}), "lambda is -1"),
        ("oce", json!({"erase_scale": -2.0}), "erase_scale is -2"),
        ("oce", json!({"rank": 0}), "rank is 0"),
        ("oce", json!({"erase_scale": 0.0}), "changes nothing"),
        (
            "oce",
            json!({"lambda": 0.0, "general_scale": 0.0, "preserve_scale": 0.0}),
            "singular",
        ),
        ("oce", json!({"sign": "none"}), "the option sign"),
        ("speed", json!({"lambda": 0.0}), "singular"),
        ("speed", json!({"threshold": 0.0}), "every direction"),
        ("speed", json!({"threshold": -1.0}), "threshold is -1"),
        ("speed", json!({"eta": 1.0}), "no option `eta`"),
    ] {
        let error = run(method, &model, &["a church"], room(method, options))
            .erase()
            .unwrap_err();
        assert!(error.to_string().contains(says), "{method}: {error}");
    }
    for method in ["oce", "speed"] {
        let mut alone = run(method, &model, &["a church"], room(method, json!({})));
        alone.captions.lines.clear();
        let error = alone.erase().unwrap_err();
        let says = if method == "oce" {
            "no caption to keep"
        } else {
            "the retain set is empty"
        };
        assert!(
            error.to_string().contains(says) && error.hint().unwrap().contains("--captions"),
            "{error}"
        );
        // Preserved concepts are something to keep.
        alone.preserve = vec![concept("a dog", None, None)];
        alone.options = room(method, json!({}));
        if method == "oce" {
            alone.options = room(method, json!({"general_scale": 0.0}));
        }
        alone.erase().unwrap();
    }
}

/// The rows of the published scripts.
#[test]
fn the_tasks_are_the_published_settings() {
    let model = pipeline("odd");
    let options = |method: &'static str, names: &[&str], task: &str| {
        let mut run = run(method, &model, names, json!({"task": task}));
        run.variant = Variant::Reference;
        if method == "speed" {
            // A model this small has no direction that is used so little.
            run.options["threshold"] = json!(1.0);
            run.options["centroids"] = json!(0);
        } else {
            // Words in six wordings would span all of six dimensions.
            run.options["subspace"] = json!("contrast");
        }
        run.erase()
            .unwrap_or_else(|error| panic!("{method} {task}: {error}"))
            .about
            .options
    };
    for (task, weights, expand) in [
        ("object", [2000.0, 10.0, 0.0, 10.0], "object"),
        ("style", [500.0, 10.0, 1.0, 10.0], "art"),
        ("nudity", [3000.0, 20.0, 0.0, 10.0], "object"),
        ("celebrity", [3500.0, 50.0, 5.0, 10.0], "none"),
    ] {
        let found = options("oce", &["a church"], task);
        let keys = ["erase_scale", "general_scale", "preserve_scale", "lambda"];
        assert_eq!(
            keys.map(|key| found[key].as_f64().unwrap()),
            weights,
            "{task}"
        );
        assert_eq!(found["expand_prompts"], expand, "{task}");
    }
    for (task, lambda, ridge, filter, rows, retained) in [
        ("few", 1.0, 0.0, true, "last", "last"),
        ("celebrity", 0.05, 0.0, false, "last", "last"),
        ("nudity", 0.7, 0.5, true, "all", "empty"),
    ] {
        let found = options("speed", &["a church"], task);
        assert_eq!(
            (found["lambda"].as_f64(), found["ridge"].as_f64()),
            (Some(lambda), Some(ridge)),
            "{task}"
        );
        assert_eq!(
            (&found["filter"], &found["rows"], &found["retained"]),
            (&json!(filter), &json!(rows), &json!(retained)),
            "{task}"
        );
    }
}
