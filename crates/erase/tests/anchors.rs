//! Methods that learn from pictures of anchors or of the concept, on tiny models: Ablating
//! Concepts, All but One, DoCo, Forget-Me-Not.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use burn::tensor::Tensor;
use common::{Run, concept, host, pipeline, refuses_damage};
use scumble_diffusion::{Noise, Pipeline, Timestep};
use scumble_erase::{Change, Concept, Edit, Error, Event, Variant, drift};
use scumble_nn::{Context, Watch};
use serde_json::{Value, json};

const METHODS: [&str; 4] = ["ac", "all-but-one", "doco", "fmn"];

/// Few, small and quick.
fn options(method: &str, more: Value) -> Value {
    let mut options = match method {
        "ac" => {
            json!({"iterations": 4, "batch": 3, "pictures": 2, "sampling_steps": 2, "templates": 0, "augment": "none"})
        }
        "all-but-one" => {
            json!({"iterations": 4, "batch": 3, "trajectories": 2, "sampling_steps": 3})
        }
        "doco" => {
            json!({"iterations": 4, "warm_up": 3, "d_width": 4, "batch": 3, "pictures": 2, "sampling_steps": 2,
            "prior_captions": 3, "templates": 0, "augment": "none"})
        }
        _ => {
            json!({"iterations": 4, "batch": 3, "pictures": 2, "sampling_steps": 2, "retain": 1.0, "retain_captions": 3,
            "retain_batch": 2, "templates": "words"})
        }
    };
    options["lr"] = json!(1e-3);
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    options
}

fn church(anchor: Option<&str>) -> Vec<Concept> {
    vec![concept("a church", anchor, None)]
}

fn run<'a>(
    method: &'static str,
    model: &'a Pipeline,
    concepts: Vec<Concept>,
    more: Value,
) -> Run<'a> {
    Run::of(method, model, concepts, options(method, more))
}

fn bits(edit: &Edit) -> BTreeMap<String, Vec<u32>> {
    let one = |((component, name), change): (&(String, String), &Change)| {
        let Change::Value(value) = change else {
            panic!("{name} is no plain value")
        };
        (
            format!("{component}.{name}"),
            value
                .to_f32()
                .unwrap()
                .into_iter()
                .map(f32::to_bits)
                .collect(),
        )
    };
    edit.changes.iter().map(one).collect()
}

fn first(run: &Run<'_>) -> f64 {
    run.losses().unwrap().1[0].into()
}

#[track_caller]
fn near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "found {found:e}, expected {expected:e}"
    );
}

#[test]
fn what_should_move_moves_and_nothing_else() {
    let model = pipeline("odd");
    let base = common::bits(&model);
    for (method, train_method, moves) in [
        ("ac", None, &["attn2.to_k", "attn2.to_v"][..]),
        ("doco", None, &["attn2.to_k", "attn2.to_v"]),
        ("all-but-one", Some("esd-x"), &["attn2"]),
        ("fmn", Some("attention"), &["attn1", "attn2"]),
    ] {
        let more = train_method.map_or(json!({}), |name| json!({"train_method": name}));
        let edit = run(method, &model, church(Some("a house")), more)
            .erase()
            .unwrap();
        assert_eq!(edit.about.method, method);
        let expected: BTreeSet<String> = base
            .keys()
            .filter(|name| {
                name.starts_with("unet.") && moves.iter().any(|part| name.contains(part))
            })
            .cloned()
            .collect();
        let changed = bits(&edit);
        assert_eq!(
            changed.keys().cloned().collect::<BTreeSet<_>>(),
            expected,
            "{method}"
        );
        assert!(
            changed.iter().any(|(name, new)| *new != base[name]),
            "{method} changes nothing"
        );
    }
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let model = pipeline("odd");
    for method in METHODS {
        let fresh = || run(method, &model, church(Some("a house")), json!({}));
        let undisturbed = bits(&fresh().erase().unwrap());
        // Steps with a loss: DoCo's discriminator takes three before the network begins.
        let total = if method == "doco" { 7 } else { 4 };
        let run = fresh();
        for _ in 0..total {
            let mut seen = 0;
            let result = run.listened(&mut |event| match event {
                Event::Step { loss: Some(_), .. } => {
                    seen += 1;
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            });
            assert!(
                matches!(result, Err(Error::Interrupted)) && seen == 1,
                "{method}: {result:?}"
            );
        }
        assert_eq!(bits(&run.erase().unwrap()), undisturbed, "{method}");
    }
}

/// The paper's third choice of what moves: the vectors of the words that are the concept's alone.
#[test]
fn the_concepts_own_words_may_move_alone() {
    let model = pipeline("odd");
    let base = common::bits(&model);
    let tokens =
        |text: &str| -> BTreeSet<u32> { model.tokenizer.tokens(text).into_iter().collect() };
    let alone = &tokens("church") - &tokens("a house");
    assert!(!alone.is_empty());
    for (more, own) in [
        (json!({}), alone.clone()),
        (json!({"teacher": "current", "reg": 0.5}), alone.clone()),
        (json!({"loss": "noise"}), alone.clone()),
    ] {
        let mut options = json!({"train_method": "embedding"});
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let edit = run("ac", &model, church(Some("a house")), options)
            .erase()
            .unwrap();
        let changed = bits(&edit);
        let name = "text_encoder.text_model.embeddings.token_embedding.weight";
        assert_eq!(changed.keys().collect::<Vec<_>>(), [name]);
        let width = model.token_width();
        let moved: BTreeSet<u32> = changed[name]
            .iter()
            .zip(&base[name])
            .enumerate()
            .filter(|(_, (new, old))| new != old)
            .map(|(i, _)| (i / width) as u32)
            .collect();
        assert_eq!(moved, own, "{more}");
        assert_eq!(edit.about.options["train_method"], "embedding");
    }
    // With the anchor's own words alone there is nothing to move.
    let error = run(
        "ac",
        &model,
        vec![concept("a house", Some("a red house"), None)],
        json!({"train_method": "embedding"}),
    );
    let error = error.erase().map(drop).unwrap_err();
    assert!(
        error.to_string().contains("train_method=embedding") && error.hint().is_some(),
        "{error}"
    );
    // Other methods have no such choice, and nobody looks for a memorised picture's prompts here.
    for (method, option) in [
        ("doco", json!({"train_method": "embedding"})),
        ("ac", json!({"copy_detector": "sscd.safetensors"})),
    ] {
        let error = run(method, &model, church(Some("a house")), option.clone());
        let error = error.erase().map(drop).unwrap_err().to_string();
        let name = option.as_object().unwrap().keys().next().unwrap();
        assert!(
            error.contains(name.as_str()) || error.contains("embedding"),
            "{method}: {error}"
        );
    }
}

#[test]
fn a_damaged_state_is_refused_by_name() {
    let model = pipeline("odd");
    // DoCo's discriminator takes three steps before the network begins, and goes on beside it.
    for stop in [2, 5] {
        let run = run("doco", &model, church(Some("a house")), json!({}));
        refuses_damage(&run, stop, &|_| true);
    }
}

#[test]
fn bad_options_are_refused_by_name() {
    let model = pipeline("odd");
    for (method, key, value) in [
        ("ac", "batch", json!(0)),
        ("ac", "lr", json!(-1.0)),
        ("ac", "loss", json!("both")),
        ("ac", "reg", json!(-0.5)),
        ("ac", "train_method", json!("text-attn")),
        ("all-but-one", "lambda", json!(-1.0)),
        ("all-but-one", "trajectories", json!(0)),
        ("doco", "d_lr", json!(0.0)),
        ("doco", "surgery", json!("plastic")),
        ("doco", "d_width", json!(0)),
        ("ac", "sampler", json!("brush")),
        ("ac", "sampling_eta", json!(0.5)),
        ("ac", "kind", json!("thing")),
        ("doco", "augment", json!("twist")),
        ("fmn", "ti", json!(true)),
        ("fmn", "end", json!("last")),
        ("fmn", "retain", json!(-1.0)),
        ("fmn", "pictures", json!(0)),
    ] {
        let error = run(method, &model, church(None), json!({key: value}))
            .erase()
            .unwrap_err();
        let named = if key == "train_method" {
            "text-attn"
        } else {
            key
        };
        assert!(error.to_string().contains(named), "{method} {key}: {error}");
    }
    let error = run(
        "fmn",
        &model,
        church(None),
        json!({"words": false, "end": "none"}),
    )
    .erase()
    .unwrap_err();
    assert!(error.to_string().contains("words"), "{error}");
    let mut bare = run("doco", &model, church(None), json!({}));
    bare.captions.lines.clear();
    assert!(
        bare.erase()
            .unwrap_err()
            .hint()
            .unwrap()
            .contains("--captions")
    );
}

#[test]
fn what_would_not_be_preserved_is_refused() {
    let model = pipeline("odd");
    for (method, off, on) in [
        (
            "ac",
            json!({"reg": 1.0}),
            json!({"reg": 1.0, "reg_captions": 3}),
        ),
        ("doco", json!({"surgery": "none", "prior": 0.0}), json!({})),
        ("fmn", json!({"retain": 0.0}), json!({})),
    ] {
        let with = |more: Value| Run {
            preserve: vec![concept("a dog", None, None)],
            ..run(method, &model, church(None), more)
        };
        assert!(
            with(off)
                .erase()
                .unwrap_err()
                .hint()
                .unwrap()
                .contains("--set"),
            "{method}"
        );
        with(on).erase().unwrap();
    }
}

#[test]
fn variants_run() {
    let model = pipeline("odd");
    for method in METHODS {
        for variant in [Variant::Paper, Variant::Reference] {
            let more = if method == "fmn" {
                json!({"templates": "object", "ti_words": 2, "ti_iterations": 2})
            } else {
                json!({})
            };
            let run = Run {
                variant,
                ..run(method, &model, church(Some("a house")), more)
            };
            assert!(!run.erase().unwrap().changes.is_empty(), "{method}");
        }
    }
}

// Ablating Concepts.

/// Twice the same tokens: nothing is to be learned from the anchor's prediction, the noise still
/// is.
#[test]
fn both_prompts_see_the_same_noisy_picture() {
    let model = pipeline("odd");
    let same = || church(Some("a  church"));
    for teacher in ["current", "frozen"] {
        assert!(first(&run("ac", &model, same(), json!({"teacher": teacher}))) < 1e-9);
        assert!(
            first(&run(
                "ac",
                &model,
                church(Some("a house")),
                json!({"teacher": teacher})
            )) > 1e-9
        );
    }
    assert!(first(&run("ac", &model, same(), json!({"loss": "noise"}))) > 1e-3);
}

#[test]
fn the_teacher_is_another_after_the_first_step_only() {
    let model = pipeline("odd");
    let losses = |teacher: &str| {
        run(
            "ac",
            &model,
            church(Some("a house")),
            json!({"teacher": teacher, "lr": 1e-2}),
        )
        .losses()
        .unwrap()
        .1
    };
    let (current, frozen) = (losses("current"), losses("frozen"));
    assert_eq!(current[0].to_bits(), frozen[0].to_bits());
    assert_ne!(current[2].to_bits(), frozen[2].to_bits());
}

#[test]
fn the_start_token_is_left_alone_unless_asked() {
    let model = pipeline("odd");
    let with = |detach: bool| {
        run(
            "ac",
            &model,
            church(Some("a house")),
            json!({"detach_start": detach}),
        )
        .losses()
        .unwrap()
    };
    let ((detached, a), (whole, b)) = (with(true), with(false));
    assert_eq!(a[0].to_bits(), b[0].to_bits());
    assert_ne!(bits(&detached), bits(&whole));
}

#[test]
fn the_regulariser_is_denoising_and_has_its_weight() {
    let model = pipeline("odd");
    let with = |reg: f64, captions: usize| {
        first(&run(
            "ac",
            &model,
            church(Some("a house")),
            json!({"reg": reg, "reg_captions": captions}),
        ))
    };
    let plain = with(0.0, 0);
    for captions in [0, 3] {
        let (one, two) = (with(1.0, captions) - plain, with(2.0, captions) - plain);
        assert!(one > 1e-3);
        near(two, 2.0 * one, 1e-4);
    }
    // The anchor's own pictures, and the captions'.
    assert!((with(1.0, 0) - with(1.0, 3)).abs() > 1e-6);
}

/// The start token's keys and values get no gradient from the regulariser either, as published.
#[test]
fn the_regulariser_leaves_the_start_token_alone() {
    let model = pipeline("odd");
    // Nothing is to be learnt from the anchor's prediction, so the first step is the regulariser's
    // alone.
    let with = |detach: bool| {
        let more = json!({"detach_start": detach, "reg": 1.0, "iterations": 1});
        bits(
            &run("ac", &model, church(Some("a  church")), more)
                .erase()
                .unwrap(),
        )
    };
    assert_ne!(with(true), with(false));
}

/// Changed pictures give other losses, and the same ones in a run again.
#[test]
fn pictures_may_be_changed_before_every_use() {
    let model = pipeline("odd");
    for method in ["ac", "doco"] {
        let with = |augment: &str| {
            let more = json!({"augment": augment, "batch": 4});
            let (edit, losses) = run(method, &model, church(Some("a house")), more)
                .losses()
                .unwrap();
            assert!(
                losses.iter().all(|loss| loss.is_finite()),
                "{method} {augment}: {losses:?}"
            );
            bits(&edit)
        };
        let all = ["none", "flip", "resize"].map(with);
        assert!(all[0] != all[1] && all[1] != all[2], "{method}");
        assert_eq!(with("resize"), all[2], "{method}");
    }
}

/// A user's prompts of the anchor are drawn, one picture each, and the concept is asked for in
/// them.
#[test]
fn anchors_are_drawn_from_the_users_prompts() {
    let model = pipeline("odd");
    let own = json!({"prompts": ["a house on a tree", "the house"], "pictures": 2});
    let first_of = |anchor: Option<&str>, more: Value| {
        let run = run("ac", &model, church(anchor), more);
        (
            run.losses().map(|(_, losses)| losses[0]),
            run.store.recorded.get(),
        )
    };
    let (plain, _) = first_of(Some("a house"), json!({}));
    let (with, drawn) = first_of(Some("a house"), own.clone());
    assert_ne!(plain.unwrap(), with.unwrap());
    assert_eq!(drawn, 1);
    let error = first_of(Some("a dog"), own.clone()).0.unwrap_err();
    assert!(
        error.to_string().contains("does not name the anchor"),
        "{error}"
    );
    let mut style = own;
    style["kind"] = json!("style");
    first_of(None, style).0.unwrap();
}

#[test]
fn pictures_are_drawn_once_for_ac_and_doco() {
    let model = pipeline("odd");
    let one = run("ac", &model, church(Some("a house")), json!({}));
    one.erase().unwrap();
    assert_eq!(one.store.recorded.get(), 1);
    let two = Run {
        store: one.store.beside(),
        ..run(
            "doco",
            &model,
            church(Some("a house")),
            json!({"guidance": 6.0}),
        )
    };
    two.erase().unwrap();
    assert_eq!(
        one.store.recorded.get(),
        2,
        "the pictures of captions are new, those of anchors are not"
    );
}

/// Past the anchor by eta, the distance to the teacher is 1 + eta times as long.
#[test]
fn eta_goes_past_the_anchor() {
    let model = pipeline("odd");
    for method in ["ac", "all-but-one"] {
        let with = |eta: f64| {
            first(&run(
                method,
                &model,
                church(Some("a house")),
                json!({"eta": eta}),
            ))
        };
        near(with(0.5), 2.25 * with(0.0), 1e-4);
    }
}

// All but One.

/// At the first step the network is the frozen one: its guidance against the replacement's, and an
/// unconditional prediction that has not moved.
#[test]
fn the_first_loss_is_the_formula() {
    let model = pipeline("odd");
    for (anchor, expected) in [(Some("a house"), 2), (None, 1)] {
        for lambda in [0.0, 3.0] {
            let run = run(
                "all-but-one",
                &model,
                church(anchor),
                json!({"iterations": 1, "batch": 6, "lambda": lambda}),
            );
            let found = first(&run);
            let group = run.store.groups().remove(0);
            let column = |k: usize| group[&format!("eps.{k}")].to_f32().unwrap();
            let (own, other) = (column(0), column(expected));
            let squares = own
                .iter()
                .zip(&other)
                .map(|(a, b)| f64::from(a - b).powi(2));
            near(found, squares.sum::<f64>() / own.len() as f64, 1e-4);
        }
    }
}

#[test]
fn lambda_pins_the_unconditional_prediction() {
    let model = pipeline("odd");
    let moved = |lambda: f64| {
        let more = json!({"iterations": 40, "lambda": lambda, "lr": 1e-2, "train_method": "esd-x"});
        let edit = run("all-but-one", &model, church(Some("a house")), more)
            .erase()
            .unwrap();
        drift::unconditional(&model, &edit.apply_to(&model, 1.0).unwrap()).unwrap()
    };
    let (free, pinned) = (moved(0.0), moved(30.0));
    assert!(pinned < 0.5 * free, "{pinned} {free}");
}

// DoCo.

#[test]
fn surgery_and_prior_are_asked_for_apart() {
    let model = pipeline("odd");
    let with = |more: Value| {
        bits(
            &run("doco", &model, church(Some("a house")), more)
                .erase()
                .unwrap(),
        )
    };
    let all: Vec<_> = [
        json!({"surgery": "none", "prior": 0.0}),
        json!({"surgery": "none", "prior": 1.0}),
        json!({"surgery": "projection", "prior": 1.0}),
        json!({"surgery": "published", "prior": 1.0}),
        json!({"surgery": "projection", "prior": 1.0, "d_uncleared": true}),
    ]
    .map(with)
    .into();
    for i in 0..all.len() {
        assert!(all[i + 1..].iter().all(|other| *other != all[i]), "{i}");
    }
}

/// Where both prompts are the same there is nothing to tell apart: the discriminator's loss stays
/// what guessing costs.
#[test]
fn the_discriminator_learns_to_tell_prompts_apart() {
    let model = pipeline("odd");
    let warm = |anchor: &str| {
        let more = json!({"warm_up": 120, "iterations": 1, "d_lr": 5e-3, "batch": 4});
        let (_, losses) = run("doco", &model, church(Some(anchor)), more)
            .losses()
            .unwrap();
        losses[100..120].iter().sum::<f32>() / 20.0
    };
    let guessing = 2.0 * 2.0f32.ln();
    assert!(
        warm("a  church") > 0.9999 * guessing,
        "{}",
        warm("a  church")
    );
    assert!(
        warm("a red car on the moon at night") < 0.995 * guessing,
        "{}",
        warm("a red car on the moon at night")
    );
}

// Forget-Me-Not.

/// Attention of the model at these positions, over one noisy latent: the norm over all maps.
fn attention(model: &Pipeline, prompt: &str, at: &[usize]) -> f64 {
    let x = Noise::each(3, 1).draw(model.latent_shape(1, None, None).unwrap(), model.device());
    let mut watch = Watch::maps();
    let hidden = model.encode(&[prompt.to_owned()]);
    let t = [Timestep::from(500)];
    model
        .predict(x, &t, &Context::from(hidden), Some(&mut watch))
        .unwrap();
    let mut sum = 0.0;
    for map in watch.maps {
        let [_, heads, places, tokens] = map.dims();
        let values = host(&map);
        assert_eq!(values.len(), heads * places * tokens);
        for row in values.chunks(tokens) {
            sum += at.iter().map(|&i| f64::from(row[i]).powi(2)).sum::<f64>();
        }
    }
    sum.sqrt()
}

#[test]
fn attention_leaves_the_concepts_tokens() {
    let model = pipeline("odd");
    let prompt = "a cat and a dog";
    let concepts = vec![Concept {
        name: "dog".into(),
        ..concept(prompt, None, None)
    }];
    let at: Vec<usize> = model
        .tokenizer
        .span(prompt, "dog")
        .unwrap()
        .into_iter()
        .flatten()
        .collect();
    let end = model.tokenizer.encode(prompt).length - 1;
    assert!(!at.is_empty() && at.iter().all(|&i| i < end));
    let more = |end: &str, words: bool| json!({"iterations": 60, "lr": 1e-2, "retain": 0.0, "train_method": "esd-x", "end": end, "words": words});
    let before = attention(&model, prompt, &at);
    let edit = run("fmn", &model, concepts.clone(), more("none", true))
        .erase()
        .unwrap();
    let edited = edit.apply_to(&model, 1.0).unwrap();
    assert!(
        attention(&edited, prompt, &at) < 0.7 * before,
        "{} {before}",
        attention(&edited, prompt, &at)
    );
    // It goes somewhere: the other positions have what these lost.
    let others: Vec<usize> = (0..model.tokenizer.context())
        .filter(|i| !at.contains(i))
        .collect();
    assert!(attention(&edited, prompt, &others) > attention(&model, prompt, &others));

    let before = attention(&model, prompt, &[end]);
    let edit = run("fmn", &model, concepts, more("first", false))
        .erase()
        .unwrap();
    let edited = edit.apply_to(&model, 1.0).unwrap();
    assert!(attention(&edited, prompt, &[end]) < 0.7 * before);
}

/// The loss of the first step is the norm of the maps, example by example; what is kept adds
/// nothing before anything moved.
#[test]
fn the_norm_grows_with_the_positions() {
    let model = pipeline("odd");
    let with = |end: &str, retain: f64| {
        first(&run(
            "fmn",
            &model,
            church(None),
            json!({"end": end, "retain": retain, "words": true, "iterations": 1}),
        ))
    };
    let (none, one, all) = (with("none", 0.0), with("first", 0.0), with("all", 0.0));
    assert!(none < one && one < all, "{none} {one} {all}");
    near(with("none", 5.0), none, 1e-6);
}

/// Forget-Me-Not's first stage: the concept's new words are what the prompt says and what attention
/// leaves.
#[test]
fn new_words_stand_for_the_concept() {
    let model = pipeline("odd");
    let with = |more: Value| {
        let base = json!({"templates": "object", "retain": 0.0, "end": "none", "iterations": 2, "ti_words": 2, "ti_iterations": 3});
        let mut all = base;
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        run("fmn", &model, church(None), all)
    };
    let (named, learnt) = (with(json!({})), with(json!({"ti": true})));
    let [a, b] = [&named, &learnt].map(first);
    assert!(a > 0.0 && b > 0.0 && (a - b).abs() > 1e-6, "{a} {b}");
    // They are kept with the run, and a run again finds them.
    assert!(learnt.store.own.borrow().contains_key("fmn-words-0"));
    let before = learnt.store.own.borrow()["fmn-words-0"]["word"]
        .to_f32()
        .unwrap();
    learnt.erase().unwrap();
    assert_eq!(
        learnt.store.own.borrow()["fmn-words-0"]["word"]
            .to_f32()
            .unwrap(),
        before
    );
    // Lengths are pulled to 0.4, a tenth of what is missing in each of three steps.
    let words = |more: Value| {
        let run = with(more);
        run.erase().unwrap();
        let words = run.store.own.borrow()["fmn-words-0"]["word"]
            .to_f32()
            .unwrap();
        words
            .chunks(words.len() / 2)
            .map(|row| row.iter().map(|v| v * v).sum::<f32>().sqrt())
            .collect::<Vec<f32>>()
    };
    let (free, pulled) = (
        words(json!({"ti": true, "ti_length": 0.0})),
        words(json!({"ti": true, "ti_length": 0.4})),
    );
    for (free, pulled) in free.into_iter().zip(pulled) {
        assert!((pulled - 0.4).abs() < (free - 0.4).abs(), "{pulled} {free}");
    }
    let error = with(json!({"ti": true, "templates": "words"}))
        .erase()
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("ti needs a sentence"), "{error}");
}

#[test]
fn the_users_pictures_are_one_concepts() {
    let model = pipeline("odd");
    let pictures = Tensor::<4>::zeros([2, 3, 12, 12], model.device());
    let shape = model.latent_shape(1, None, None).unwrap();
    let factor = model.autoencoder.config.factor();
    let pictures = pictures
        .slice([0..2, 0..3, 0..12, 0..12])
        .repeat_dim(2, shape[2] * factor / 12)
        .repeat_dim(3, shape[3] * factor / 12);
    let one = Run {
        pictures: Some(pictures.clone()),
        ..run("fmn", &model, church(None), json!({"retain": 0.0}))
    };
    one.erase().unwrap();
    assert_eq!(one.store.recorded.get(), 0, "nothing is drawn");
    let two = Run {
        concepts: vec![
            concept("a church", None, None),
            concept("a dog", None, None),
        ],
        ..one
    };
    assert!(two.erase().unwrap_err().to_string().contains("one concept"));
}
