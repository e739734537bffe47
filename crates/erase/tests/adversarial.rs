//! Methods that train against what brings a concept back, and TRCE's two stages.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeSet, ops::ControlFlow};

use burn::tensor::Tensor;
use common::{Run, bits, concept, host, pipeline, refuses_damage};
use scumble_diffusion::{Pipeline, Timestep};
use scumble_erase::{Change, Edit, Error, Event, training::bottleneck};
use scumble_nn::{Context, Watch};
use serde_json::{Value, json};

fn run<'a>(method: &'static str, model: &'a Pipeline, more: Value) -> Run<'a> {
    let mut options = match method {
        "trce" => {
            json!({"iterations": 4, "trajectories": 2, "sampling_steps": 4, "keep_trajectories": 2, "lambda": 1e-2,
                         "templates": 2, "batch": 3, "lr": 1e-3})
        }
        "receler" => {
            json!({"iterations": 4, "inner": 3, "trajectories": 2, "sampling_steps": 3, "rows": 2, "attack_steps": 2,
                            "batch": 2, "lr": 1e-2})
        }
        _ => {
            json!({"iterations": 3, "rounds": 2, "round_iterations": 2, "attack_steps": 3, "trajectories": 2, "sampling_steps": 3,
                    "batch": 2, "lr": 1e-3, "last_lr": 1e-3, "pictures": 2, "picture_steps": 2, "attack_sentences": ["a {}"],
                    "attack_begin": "thing"})
        }
    };
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    Run::of(method, model, vec![concept("church", None, None)], options)
}

/// Every number of an edit, and where it stands.
fn numbers(edit: &Edit) -> Vec<(String, Vec<u32>)> {
    let flat = |t: &scumble_nn::files::HostTensor| {
        t.to_f32().unwrap().into_iter().map(f32::to_bits).collect()
    };
    let one = |((component, name), change): (&(String, String), &Change)| match change {
        Change::Value(t) | Change::Added(t) => (format!("{component}.{name}"), flat(t)),
        Change::LowRank(low) => {
            let both = [flat(&low.down), flat(&low.up)].concat();
            (format!("{component}.{name}"), both)
        }
        other => panic!("{name}: {other:?}"),
    };
    edit.changes.iter().map(one).collect()
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let model = pipeline("odd");
    for (method, more) in [
        ("trce", json!({})),
        ("trce", json!({"accumulate": true})),
        ("receler", json!({})),
        (
            "receler",
            json!({"attack_examples": "fresh", "attacked": 0.5}),
        ),
        ("stereo", json!({})),
        (
            "stereo",
            json!({"attack": "trajectories", "attack_begin": "", "round_says": "both"}),
        ),
    ] {
        let undisturbed = numbers(&run(method, &model, more.clone()).erase().unwrap());
        // Counted over all stages that have a loss: STEREO's rounds, then its last erasure.
        for stops in [vec![1], vec![3], vec![1, 1, 2]] {
            let run = run(method, &model, more.clone());
            for &stop in &stops {
                let mut seen = 0;
                let result = run.listened(&mut |event| {
                    seen += usize::from(matches!(event, Event::Step { loss: Some(_), .. }));
                    if seen == stop {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                assert!(
                    matches!(result, Err(Error::Interrupted)),
                    "{method}: {result:?}"
                );
            }
            assert_eq!(
                numbers(&run.erase().unwrap()),
                undisturbed,
                "{method} {more} interrupted at {stops:?}"
            );
        }
    }
}

#[test]
fn a_damaged_state_is_refused_by_name() {
    let model = pipeline("odd");
    for (method, more, stop) in [
        ("trce", json!({"accumulate": true}), 2),
        ("receler", json!({}), 2),
        ("stereo", json!({"attack": "trajectories"}), 3),
        ("stereo", json!({}), 6),
    ] {
        refuses_damage(&run(method, &model, more), stop, &|_| true);
    }
}

#[test]
fn trces_stages_move_different_tensors_and_add_up() {
    let model = pipeline("odd");
    let names = |edit: &Edit| -> BTreeSet<String> {
        edit.changes.keys().map(|(_, name)| name.clone()).collect()
    };
    let [both, mapping, steering] = ["both", "mapping", "steering"].map(|stages| {
        run("trce", &model, json!({"stages": stages}))
            .erase()
            .unwrap()
    });
    assert!(
        names(&mapping)
            .iter()
            .all(|name| name.contains("attn2.to_k") || name.contains("attn2.to_v"))
    );
    assert!(
        names(&steering)
            .iter()
            .all(|name| name.contains("attn1.") || name.contains("attn2.to_q"))
    );
    assert!(names(&mapping).is_disjoint(&names(&steering)));
    assert_eq!(
        names(&both),
        names(&mapping).union(&names(&steering)).cloned().collect()
    );
    // The first stage is the same with and without the second, which begins where the first ended.
    for (name, values) in numbers(&mapping) {
        assert!(numbers(&both).contains(&(name.clone(), values)), "{name}");
    }
    let moved = |edit: &Edit| {
        numbers(edit)
            .into_iter()
            .filter(|(name, _)| name.contains("attn1."))
            .collect::<Vec<_>>()
    };
    assert_ne!(moved(&both), moved(&steering));
}

/// The hinge is never below 0, and opens with the margin.
#[test]
fn steering_stops_at_its_margin() {
    let model = pipeline("odd");
    let losses = |margin: f64| {
        let options = json!({"stages": "steering", "contrast": 0.0, "margin": margin, "keep": 0.0});
        run("trce", &model, options).losses().unwrap().1
    };
    let (narrow, wide) = (losses(0.0), losses(10.0));
    assert!(
        narrow.iter().all(|&loss| (0.0..1.0).contains(&loss)),
        "{narrow:?}"
    );
    assert!(
        wide.iter().all(|&loss| (8.0..12.0).contains(&loss)),
        "{wide:?}"
    );
}

#[test]
fn fresh_bottlenecks_change_nothing_and_trained_ones_are_added() {
    let model = pipeline("odd");
    let fresh = bottleneck::attached(&model, 3, 5).unwrap();
    let x = Tensor::<4>::ones([2, 4, 8, 8], model.device()) * 0.3;
    let context = Context::from(model.encode(&["a church".into(), String::new()]));
    let t = [7u16, 500].map(Timestep::from);
    let watched = |model: &Pipeline, watch: Option<&mut Watch>| {
        host(&model.predict(x.clone(), &t, &context, watch).unwrap().raw())
    };
    let out = |model: &Pipeline| watched(model, None);
    assert_eq!(out(&fresh), out(&model));
    let mut watch = Watch::maps();
    let watched = watched(&fresh, Some(&mut watch));
    for (a, b) in watched.iter().zip(out(&model)) {
        // The fused attention has its own exponential.
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    assert_eq!(watch.maps.len(), watch.added.len());
    for map in &watch.maps {
        assert!(
            host(&map.clone().sum_dim(3))
                .iter()
                .all(|sum| (sum - 1.0).abs() < 1e-5),
            "attention adds up to 1"
        );
    }

    let before = bits(&model);
    let edit = run("receler", &model, json!({})).erase().unwrap();
    assert_eq!(bits(&model), before, "the model itself stays");
    assert!(
        !edit.merges()
            && edit
                .changes
                .keys()
                .all(|(_, name)| name.contains(".attn2.eraser."))
    );
    assert_ne!(out(&edit.apply_to(&model, 1.0).unwrap()), out(&model));
    assert_eq!(out(&edit.apply_to(&model, 0.0).unwrap()), out(&model));
    // An edit file keeps them; a plain checkpoint cannot.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edit.safetensors");
    edit.save(&path).unwrap();
    let read = Edit::open(&path).unwrap();
    assert_eq!(
        out(&read.apply_to(&model, 1.0).unwrap()),
        out(&edit.apply_to(&model, 1.0).unwrap())
    );
    let error = edit
        .apply(&common::checkpoint("odd"), 1.0)
        .map(drop)
        .unwrap_err();
    assert!(
        error.to_string().contains("eraser") && error.hint().unwrap().contains("--edit"),
        "{error}"
    );
}

#[test]
fn receler_is_held_where_the_concept_is() {
    let model = pipeline("odd");
    let plain = run("receler", &model, json!({"local": 0.0, "rows": 0}))
        .losses()
        .unwrap()
        .1;
    let held = run(
        "receler",
        &model,
        json!({"local": 1e3, "rows": 0, "mask_threshold": 1.0}),
    )
    .losses()
    .unwrap()
    .1;
    assert_eq!(
        plain[0].to_bits(),
        held[0].to_bits(),
        "at first nothing is added anywhere"
    );
    assert_ne!(plain[1].to_bits(), held[1].to_bits());
    // Everywhere is inside: nothing is held.
    let open = run(
        "receler",
        &model,
        json!({"local": 1e3, "rows": 0, "mask_threshold": 0.0}),
    )
    .losses()
    .unwrap()
    .1;
    assert_eq!(open, plain);
}

/// The published code never zeroes gradients: Adam sees their running sum. At the first step that
/// is the gradient.
#[test]
fn trces_gradients_may_add_up() {
    let model = pipeline("odd");
    let of = |iterations: usize, accumulate: bool| {
        let more = json!({"stages": "steering", "iterations": iterations, "accumulate": accumulate, "margin": 10.0});
        numbers(&run("trce", &model, more).erase().unwrap())
    };
    assert_eq!(of(1, true), of(1, false));
    assert_ne!(of(3, true), of(3, false));
}

/// Each word for the concept has trajectories of its own, in a sentence as published.
#[test]
fn trce_steers_every_synonym() {
    let model = pipeline("odd");
    let groups = |synonyms: Value| {
        let run = run(
            "trce",
            &model,
            json!({"stages": "steering", "synonyms": synonyms, "trajectories": 3, "keep_trajectories": 2}),
        );
        run.erase().unwrap();
        // Trajectories towards the concept have a safe companion, those to keep have none.
        let of =
            |g: &scumble_nn::files::Tensors| g.contains_key("eps.2").then(|| g["t"].shape()[0]);
        run.store.groups().iter().filter_map(of).sum::<usize>() / 4
    };
    assert_eq!(
        (
            groups(json!([])),
            groups(json!(["house", ["fish", "bread"]]))
        ),
        (3, 9)
    );
    let odd = run("trce", &model, json!({"synonyms": [["fish"]]}));
    let message = odd.erase().map(|_| ()).unwrap_err().to_string();
    assert!(
        message.contains("synonyms is [[\"fish\"]], expected one of these for each: a word"),
        "{message}"
    );
    let error = run("trce", &model, json!({"sentence": "a photo"}))
        .erase()
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("sentence"), "{error}");
}

/// Steps that cannot move anything are announced.
#[test]
fn a_step_size_that_moves_nothing_is_said() {
    let model = pipeline("odd");
    let notes = |more: Value| {
        let mut notes = Vec::new();
        let run = run("trce", &model, more);
        let listen = &mut |event: Event<'_>| {
            if let Event::Note(text) = event {
                notes.push(text.to_owned());
            }
            ControlFlow::Continue(())
        };
        run.listened(listen).unwrap();
        notes.iter().any(|note| note.contains("hardly moves"))
    };
    assert!(notes(json!({"stages": "steering", "lr": 1e-6})));
    assert!(!notes(
        json!({"stages": "steering", "lr": 1e-6, "accumulate": true})
    ));
    assert!(!notes(json!({"stages": "steering", "lr": 1e-3})));
}

/// The last erasure's target at the first step, where the network is still the frozen one: with `c`
/// the prompt and `a` the anchor, `a - eta (c - 0)`, published, or `a - eta (c - a)`.
#[test]
fn stereo_goes_away_from_the_empty_prompt_towards_the_anchor() {
    let model = pipeline("odd");
    for (past, eta) in [("empty", 1.0), ("anchor", 1.0), ("empty", 0.5)] {
        let mut run = run(
            "stereo",
            &model,
            json!({"rounds": 0, "past": past, "eta": eta, "batch": 6, "iterations": 1}),
        );
        run.concepts = vec![concept("church", Some("house"), None)];
        let found = run.losses().unwrap().1[0];
        let group = run
            .store
            .groups()
            .into_iter()
            .find(|g| g.contains_key("eps.2"))
            .unwrap();
        let column = |k: usize| group[&format!("eps.{k}")].to_f32().unwrap();
        let (own, empty, anchor) = (column(0), column(1), column(2));
        let from = if past == "empty" { &empty } else { &anchor };
        let apart = |i: usize| {
            f64::from(own[i]) - (f64::from(anchor[i]) - eta * f64::from(own[i] - from[i]))
        };
        let expected = (0..own.len()).map(|i| apart(i).powi(2)).sum::<f64>() / own.len() as f64;
        assert!(
            (f64::from(found) - expected).abs() < 1e-4 * expected,
            "{past} {eta}: {found} {expected}"
        );
    }
}

/// The rounds and the last erasure have their own step sizes.
#[test]
fn stereo_steps_as_far_as_published() {
    let model = pipeline("odd");
    let before = bits(&model);
    // One step of Adam moves a number by the step size.
    let edit = run(
        "stereo",
        &model,
        json!({"rounds": 0, "iterations": 1, "last_lr": 1e-3, "weight_decay": 0.0}),
    )
    .erase()
    .unwrap();
    let mut moved: Vec<f32> = Vec::new();
    for (name, new) in numbers(&edit) {
        let old = &before[&name];
        moved.extend(
            new.iter()
                .zip(old)
                .map(|(a, b)| (f32::from_bits(*a) - f32::from_bits(*b)).abs()),
        );
    }
    let most = moved.into_iter().fold(0.0f32, f32::max);
    assert!((most - 1e-3).abs() < 1e-5, "{most}");
}

#[test]
fn pictures_are_for_words_learnt_from_pictures() {
    let model = pipeline("odd");
    let factor = model.autoencoder.config.factor();
    let [_, _, h, w] = model.latent_shape(1, None, None).unwrap();
    let given = Some(Tensor::<4>::zeros(
        [3, 3, h * factor, w * factor],
        model.device(),
    ));
    let of = |more: Value| with_pictures(&run("stereo", &model, more), given.clone());
    assert!(
        of(json!({"attack": "trajectories"}))
            .unwrap_err()
            .to_string()
            .contains("--pictures")
    );
    let (edit, recorded) = of(json!({})).unwrap();
    assert!(!edit.changes.is_empty());
    assert_eq!(recorded, 1, "trajectories alone, no picture is drawn");
}

fn with_pictures(
    run: &Run<'_>,
    pictures: Option<Tensor<4>>,
) -> scumble_erase::Result<(Edit, usize)> {
    let run = Run {
        pictures,
        ..run.clone()
    };
    Ok((run.erase()?, run.store.recorded.get()))
}

/// The adversarial rows' steps look at the erasure's examples, as published, or at others.
#[test]
fn recelers_rows_learn_on_the_steps_examples() {
    let model = pipeline("odd");
    let losses = |seen: &str| {
        run("receler", &model, json!({"attack_examples": seen}))
            .losses()
            .unwrap()
            .1
    };
    assert_ne!(losses("same")[0].to_bits(), losses("fresh")[0].to_bits());
}

#[test]
fn impossible_options_are_refused_by_name() {
    let model = pipeline("odd");
    for (method, key, value) in [
        ("trce", "stages", json!("three")),
        ("trce", "early", json!(0.0)),
        ("trce", "margin", json!(-1.0)),
        ("trce", "keep_batch", json!(0)),
        ("receler", "inner", json!(0)),
        ("receler", "mask_threshold", json!(2.0)),
        ("receler", "attack_lr", json!(0.0)),
        ("receler", "rows", json!(100_000)),
        ("receler", "attack_examples", json!("some")),
        ("trce", "sentence", json!("no place")),
        ("stereo", "last_lr", json!(0.0)),
        ("stereo", "attack_sentences", json!([])),
        ("stereo", "round_says", json!("nothing")),
        ("stereo", "rounds", json!(1000)),
        ("stereo", "attack_steps", json!(0)),
        ("stereo", "train_method", json!("text-encoder")),
        ("stereo", "eta", json!("much")),
    ] {
        let error = run(method, &model, json!({key: value}))
            .listened(&mut |event| panic!("{method} {key} {value}: {event:?}"))
            .unwrap_err();
        assert!(
            matches!(error, Error::Model(scumble_nn::Error::Input { .. })),
            "{method} {key} {value}: {error:?}"
        );
    }
}
