//! LECO on tiny models: its loss, which layers get an adapter, and what entries say.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::ops::ControlFlow;

use common::{Run, bits, concept, pipeline};
use scumble_diffusion::Pipeline;
use scumble_erase::{
    Change, Edit, Event, Variant,
    methods::leco::{Entry, check, fit},
};
use scumble_nn::files::lora::LowRank;
use serde_json::{Value, json};

fn run<'a>(model: &'a Pipeline, entries: Value, more: Value) -> Run<'a> {
    let mut options = json!({"iterations": 1, "sampling_steps": 4, "batch": 3, "entries": entries});
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    Run::of("leco", model, Vec::new(), options)
}

/// The loss of the first step, where the adapter does nothing yet.
fn first(model: &Pipeline, entry: Value, more: Value) -> f64 {
    f64::from(run(model, json!([entry]), more).losses().unwrap().1[0])
}

fn factors(edit: &Edit) -> Vec<&LowRank> {
    edit.changes
        .values()
        .map(|change| match change {
            Change::LowRank(low) => low,
            other => panic!("{other:?} is no product"),
        })
        .collect()
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-3 * expected.abs(),
        "found {found:e}, expected {expected:e}"
    );
}

/// At the first step the adapted model is the frozen one, so that with `p` for target and positive
/// and `u` for unconditional and neutral the loss is `(1 + g)^2 mean (p - u)^2` where `p` is erased
/// and `(g - 1)^2 mean (p - u)^2` where it is enhanced, all at the same latents.
#[test]
fn the_loss_is_lecos_for_epsilon_and_v() {
    for name in ["odd", "sd2"] {
        let model = pipeline(name);
        let loss = |action: &str, g: f64, more: Value| {
            let mut entry = json!({"target": "a church", "action": action, "guidance_scale": g});
            entry
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            first(&model, entry, json!({}))
        };
        let one = loss("erase", 0.0, json!({}));
        assert!(one > 0.0);
        for g in [1.0, 2.5] {
            near(loss("erase", g, json!({})), (1.0 + g).powi(2) * one);
        }
        near(loss("enhance", 3.0, json!({})), 4.0 * one);
        near(loss("erase", 1.0, json!({"weight": 0.25})), one);
        // What is neutral is where the target starts from.
        let still = |more: Value| loss("enhance", 1.0, more);
        assert!(still(json!({})) < 1e-9 * one, "u + (p - u) is p");
        let apart = json!({"neutral": "a church", "unconditional": "a dog", "positive": "a dog"});
        assert!(still(apart) < 1e-9 * one, "p + (u - u) is p");
        // Another strength of an adapter that does nothing is the same.
        near(loss("erase", 0.0, json!({"multiplier": -2.0})), one);
    }
}

/// A loss of several entries is the mean of their own.
#[test]
fn entries_of_a_step_count_alike() {
    let model = pipeline("odd");
    // So small a step moves nothing: every entry is met at the frozen model.
    let losses = |entries: Value, pairs: usize, steps: usize| {
        let more = json!({"pairs": pairs, "iterations": steps, "lr": 1e-30});
        run(&model, entries, more).losses().unwrap().1
    };
    let twice = json!([{"target": "a church", "weight": 2.0}]);
    let once = json!([{"target": "a church"}]);
    near(
        losses(twice, 1, 1)[0].into(),
        2.0 * f64::from(losses(once.clone(), 1, 1)[0]),
    );
    // The same entry at two strengths is two batches.
    let both = json!([{"target": "a church"}, {"target": "a church", "multiplier": -1.0}]);
    let alone: Vec<f32> = losses(once, 1, 1);
    let (first, second) = (alone[0], losses(both, 2, 1)[0]);
    assert!(
        second > 0.0 && (0.2..5.0).contains(&(first / second)),
        "{first} {second}"
    );
}

#[test]
fn an_adapter_of_this_rank_and_alpha_lies_beside_the_layers_chosen() {
    let model = pipeline("odd");
    let entries = json!([{"target": "a church"}]);
    let names = |of: &dyn Fn(&str) -> bool| -> Vec<String> {
        let fits = |(name, w): &(&String, &scumble_nn::weights::Weight)| {
            name.contains("attentions.") && w.shape.len() >= 2 && of(name)
        };
        let weights = model.denoiser.weights.iter().filter(fits);
        weights.map(|(name, _)| name.clone()).collect()
    };
    for (method, of) in [
        ("full", &(|_: &str| true) as &dyn Fn(&str) -> bool),
        ("esd-all", &|_: &str| true),
        ("xattn", &|name: &str| name.contains("attn2")),
        ("esd-x", &|name: &str| name.contains("attn2")),
        ("noxattn", &|name: &str| !name.contains("attn2")),
        ("innoxattn", &|name: &str| !name.contains("attn2")),
        ("selfattn", &|name: &str| name.contains("attn1")),
    ] {
        let more = json!({"train_method": method, "rank": 3, "alpha": 1.5});
        let edit = run(&model, entries.clone(), more).erase().unwrap();
        let changed: Vec<String> = edit.changes.keys().map(|(_, name)| name.clone()).collect();
        assert_eq!(changed, names(of), "{method}");
        for low in factors(&edit) {
            assert_eq!((low.rank(), low.alpha, low.scale()), (3, 1.5, 0.5));
            assert!(low.up.to_f32().unwrap().iter().any(|v| *v != 0.0));
        }
        assert!(edit.merges() && edit.about.concepts.is_empty());
        let applied = edit.apply_to(&model, 1.0).unwrap();
        assert_ne!(bits(&applied), bits(&model));
    }
    let error = run(&model, entries, json!({"train_method": "kv"}))
        .erase()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("train_method") && error.contains("xattn"),
        "{error}"
    );
}

/// Adam's first step goes by the sign of the gradient, which the multiplier turns round.
#[test]
fn an_entry_at_the_opposite_sign_moves_the_adapter_the_other_way() {
    let model = pipeline("odd");
    let up = |multiplier: f64| -> Vec<f32> {
        let entries = json!([{"target": "a church", "multiplier": multiplier}]);
        let edit = run(&model, entries, json!({})).erase().unwrap();
        factors(&edit)
            .iter()
            .flat_map(|low| low.up.to_f32().unwrap())
            .collect()
    };
    let (there, back) = (up(1.0), up(-1.0));
    let moved = there.iter().filter(|v| **v != 0.0).count();
    let opposite = there
        .iter()
        .zip(&back)
        .filter(|(a, b)| **a != 0.0 && (**a + **b).abs() < 1e-3 * a.abs())
        .count();
    assert!(opposite * 100 > moved * 95, "{opposite} of {moved}");
}

#[test]
fn training_goes_where_the_entry_says() {
    let model = pipeline("odd");
    for action in ["erase", "enhance"] {
        let entries = json!([{"target": "a church", "positive": "a dog", "action": action, "guidance_scale": 2.0}]);
        let more = json!({"iterations": 40, "lr": 3e-3, "alpha": 4.0, "sampling_steps": 3});
        let (_, losses) = run(&model, entries, more).losses().unwrap();
        let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
        let (begun, ended) = (mean(&losses[..8]), mean(&losses[32..]));
        assert!(ended < 0.9 * begun, "{action}: {begun} to {ended}");
    }
}

#[test]
fn published_labels_are_above_the_latents() {
    // With trailing timesteps both labels would be one.
    let model = pipeline("sd1");
    let loss = |more: Value| first(&model, json!({"target": "a church"}), more);
    let own = loss(json!({}));
    assert_ne!(own, loss(json!({"label": "published"})));
    assert_ne!(own, loss(json!({"sampler": "ddpm"})));
    let published = Run {
        variant: Variant::Reference,
        ..run(&model, json!([{"target": "a church"}]), json!({}))
    };
    assert_eq!(
        f64::from(published.losses().unwrap().1[0]),
        loss(json!({"label": "published"}))
    );
}

/// What a concept's prompts become, and what is stored of entries.
#[test]
fn concepts_are_entries_too() {
    let model = pipeline("odd");
    let mut plain = run(&model, json!([]), json!({"eta": 1.5}));
    plain.concepts = vec![
        concept("a church", None, None),
        concept("a dog", Some("a cat"), None),
        concept("a fish", None, Some("a fish on a table")),
    ];
    let edit = plain.erase().unwrap();
    assert_eq!(edit.about.concepts, ["a church", "a dog", "a fish"]);
    let entries: Vec<Entry> =
        serde_json::from_value(edit.about.options["entries"].clone()).unwrap();
    let prompts: Vec<_> = entries
        .iter()
        .map(|e| (&*e.target, e.positive(), &*e.unconditional, e.neutral()))
        .collect();
    assert_eq!(
        prompts,
        [
            ("a church", "a church", "", ""),
            ("a dog", "a dog", "a cat", "a cat"),
            ("a fish on a table", "a fish", "", "a fish on a table"),
        ]
    );
    let scales: Vec<f64> = entries.iter().map(|e| e.guidance_scale).collect();
    assert_eq!(scales, [1.5, 1.5, 2.5]);
    let side = model.denoiser.config.sample_size * model.autoencoder.config.factor();
    assert!(
        entries
            .iter()
            .all(|e| e.batch_size == Some(3) && e.resolution == Some([side, side]))
    );
    // The stored entries make the same edit.
    let stored = edit.about.options["entries"].clone();
    let options = json!({"iterations": 1, "sampling_steps": 4, "entries": stored});
    let mut again = Run::of("leco", &model, Vec::new(), options);
    again.concepts = plain.concepts.clone();
    let again = again.erase().unwrap();
    for (a, b) in factors(&edit).iter().zip(factors(&again)) {
        assert_eq!(a.up.to_f32(), b.up.to_f32());
    }
}

#[test]
fn sizes_are_obeyed_or_it_is_said() {
    let model = pipeline("odd");
    let factor = model.autoencoder.config.factor();
    let notes = |entry: Value| {
        let mut notes = Vec::new();
        run(&model, json!([entry]), json!({}))
            .listened(&mut |event| {
                if let Event::Note(text) = event {
                    notes.push(text.to_owned());
                }
                ControlFlow::Continue(())
            })
            .map(|_| notes)
    };
    let side = 8 * factor;
    assert_eq!(
        notes(json!({"target": "a", "resolution": [side, 2 * side]}))
            .unwrap()
            .len(),
        1
    );
    let varied = json!({"target": "a", "resolution": [128, 128], "dynamic_resolution": true});
    assert_eq!(notes(varied).unwrap().len(), 1);
    let wide = json!({"target": "a", "resolution": [side, 2 * side], "dynamic_resolution": true});
    let said = notes(wide).unwrap();
    assert!(
        said[0].contains("`dynamic_resolution` of entry 1 has no effect"),
        "{said:?}"
    );
}

#[test]
fn what_is_impossible_is_named_by_entry_and_key() {
    let model = pipeline("odd");
    let second = |change: &dyn Fn(&mut Entry)| {
        let mut entries = vec![Entry::erasing("a church"), Entry::erasing("a dog")];
        change(&mut entries[1]);
        entries
    };
    for (key, change) in [
        (
            "guidance_scale",
            &(|e: &mut Entry| e.guidance_scale = f64::NAN) as &dyn Fn(&mut Entry),
        ),
        ("multiplier", &|e: &mut Entry| e.multiplier = 0.0),
        ("weight", &|e: &mut Entry| e.weight = -1.0),
        ("batch_size", &|e: &mut Entry| e.batch_size = Some(5000)),
        ("resolution", &|e: &mut Entry| e.resolution = Some([0, 64])),
    ] {
        let error = check(&second(change)).unwrap_err().to_string();
        assert!(error.contains("entry 2") && error.contains(key), "{error}");
    }
    let odd = model.autoencoder.config.factor() * 8 + 1;
    let long = "church ".repeat(100);
    for (key, change) in [
        (
            "resolution",
            &(move |e: &mut Entry| e.resolution = Some([odd, odd])) as &dyn Fn(&mut Entry),
        ),
        ("neutral", &move |e: &mut Entry| {
            e.neutral = Some(long.clone())
        }),
    ] {
        let error = fit(&second(change), &model).unwrap_err().to_string();
        assert!(error.contains("entry 2") && error.contains(key), "{error}");
    }
    for (more, says) in [
        (json!({"eta": 2.0}), "eta has no effect"),
        (json!({"sampling_steps": 1}), "expected 2 to"),
        (json!({"rank": 0}), "rank is 0"),
        (json!({"alpha": 0.0}), "alpha is 0"),
        (json!({"sampler": "pndm"}), "`ddim` or `ddpm`"),
    ] {
        let error = run(&model, json!([{"target": "a"}]), more)
            .erase()
            .unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let said = run(&model, json!([{"target": "a", "batch_size": 1}]), json!({}));
    let error = said.erase().unwrap_err().to_string();
    assert!(error.contains("batch has no effect"), "{error}");
    let nothing = run(&model, json!([]), json!({})).erase().unwrap_err();
    assert!(nothing.to_string().contains("no concept"), "{nothing}");
}
