//! ESD on tiny models: its target, what it changes, the bank it learns from, and being interrupted.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use burn::tensor::Tensor;
use common::{Memory, Run, bits, concept, host, pipeline};
use scumble_diffusion::Pipeline;
use scumble_erase::{
    Change, Concept, Edit, Error, Event, Profile, Trainable, Wording, World,
    data::bank::{Bank, Path, Sampling},
    drift,
    job::Job,
};
use scumble_nn::files::{HostTensor, Tensors};
use serde_json::{Value, json};

const TRAJECTORIES: usize = 3;
const STEPS: usize = 4;
/// All examples of the bank.
const EXAMPLES: usize = TRAJECTORIES * STEPS;

/// A few steps on a small bank, with other options on top.
fn options(more: Value) -> Value {
    let mut options = json!({
        "iterations": 6, "trajectories": TRAJECTORIES, "sampling_steps": STEPS, "batch": 2, "lr": 1e-3, "eta": 1.0,
        "start_guidance": 3.0
    });
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    options
}

/// One step whose batch is the whole bank, so that its loss is that of the target over every
/// example.
fn whole_bank(more: Value) -> Value {
    let mut options = options(json!({"iterations": 1, "batch": EXAMPLES}));
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    options
}

fn church() -> Vec<Concept> {
    vec![concept("a church", None, None)]
}

fn values(edit: &Edit) -> BTreeMap<String, Vec<u32>> {
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

/// A column of the recorded groups, in f64.
fn column(groups: &[Tensors], name: &str) -> Vec<f64> {
    groups
        .iter()
        .flat_map(|g| g[name].to_f32().unwrap())
        .map(f64::from)
        .collect()
}

fn mean_of_squares(values: impl Iterator<Item = f64>) -> f64 {
    let list: Vec<f64> = values.map(|v| v * v).collect();
    list.iter().sum::<f64>() / list.len() as f64
}

#[track_caller]
fn near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "found {found:e}, expected {expected:e}"
    );
}

/// At the first step the edited network is the frozen one, so the loss is the distance from the
/// frozen prediction for the trained prompt `p` to the target, which the bank's own numbers give in
/// closed form.
#[test]
fn the_first_loss_is_the_formula() {
    let model = pipeline("odd");
    let first = |concepts: Vec<Concept>, more: Value| {
        let run = Run::new(&model, concepts, whole_bank(more));
        let (_, losses) = run.losses().unwrap();
        let groups = run.store.groups();
        let eps: Vec<Vec<f64>> = (0..3)
            .map_while(|k| {
                groups[0]
                    .contains_key(&format!("eps.{k}"))
                    .then(|| column(&groups, &format!("eps.{k}")))
            })
            .collect();
        (f64::from(losses[0]), eps)
    };
    let apart = |a: &[f64], b: &[f64]| mean_of_squares(a.iter().zip(b).map(|(a, b)| a - b));
    for eta in [0.0, 0.5, 1.0, 2.0] {
        // eps*(e) - (eps*(0) - eta (eps*(e) - eps*(0))): both forms, which are the same without
        // `from`.
        let (paper, eps) = first(church(), json!({"eta": eta, "form": "paper"}));
        near(
            paper,
            (1.0 + eta) * (1.0 + eta) * apart(&eps[0], &eps[1]),
            1e-5,
        );
        let (present, _) = first(church(), json!({"eta": eta, "form": "present"}));
        assert_eq!(present.to_bits(), paper.to_bits());
        assert_eq!(eps.len(), 2);
        // eps*(p) - (eps*(p) - (eta + 1) (eps*(e) - eps*(0)))
        let from = || vec![concept("a church", None, Some("a church in ink style"))];
        let (present, eps) = first(from(), json!({"eta": eta, "form": "present"}));
        near(
            present,
            (1.0 + eta) * (1.0 + eta) * apart(&eps[2], &eps[1]),
            1e-5,
        );
        // eps*(p) - (eps*(0) - eta (eps*(e) - eps*(0)))
        let (paper, eps) = first(from(), json!({"eta": eta, "form": "paper"}));
        let by_hand =
            (0..eps[0].len()).map(|i| eps[0][i] - eps[1][i] + eta * (eps[2][i] - eps[1][i]));
        near(paper, mean_of_squares(by_hand), 1e-5);
        // eps*(e) - (eps*(a) - eta (eps*(e) - eps*(a)))
        let (anchored, eps) = first(
            vec![concept("a church", Some("a house"), None)],
            json!({"eta": eta}),
        );
        near(
            anchored,
            (1.0 + eta) * (1.0 + eta) * apart(&eps[0], &eps[2]),
            1e-5,
        );
    }
}

/// With eta -1 the target is the frozen prediction itself. Nothing is left only if every example's
/// latents, timestep, prompt and predictions belong together, in the bank and on the edited model's
/// own trajectories.
#[test]
fn nothing_is_to_be_learned_at_eta_minus_one() {
    for (name, tolerance) in [("odd", 1e-9), ("sd1", 1e-9), ("sd2", 1e-7)] {
        let model = pipeline(name);
        let objects = [
            concept("a church", None, None),
            concept("a cat and a dog", None, None),
            concept("ink", None, None),
        ];
        for (concepts, more) in [
            (objects.to_vec(), json!({"form": "paper"})),
            (
                objects.to_vec(),
                json!({"form": "paper", "latents": "edited"}),
            ),
            (
                vec![
                    concept("a church", Some("a house"), None),
                    concept("a dog", Some("a cat"), None),
                ],
                json!({}),
            ),
            (
                vec![
                    concept("church", None, Some("a church in ink style")),
                    concept("cat", None, Some("a cat")),
                ],
                json!({}),
            ),
        ] {
            let mut more = more;
            more["eta"] = json!(-1.0);
            more["sampling_steps"] = json!(3);
            let (_, losses) = Run::new(&model, concepts, whole_bank(more))
                .losses()
                .unwrap();
            assert!(f64::from(losses[0]) < tolerance, "{name}: {}", losses[0]);
        }
    }
}

/// In a v model the distance is in v, which is what is recorded.
#[test]
fn a_v_model_learns_in_v() {
    let model = pipeline("sd2");
    let run = Run::new(&model, church(), whole_bank(json!({"eta": 1.0})));
    let (_, losses) = run.losses().unwrap();
    let groups = run.store.groups();
    let (prompt, empty) = (column(&groups, "eps.0"), column(&groups, "eps.1"));
    let apart = (0..prompt.len()).map(|i| 2.0 * (prompt[i] - empty[i]));
    near(losses[0].into(), mean_of_squares(apart), 1e-4);
}

/// A style has anchors, an object beside it has none: each keeps its own target, in either order.
#[test]
fn concepts_with_and_without_anchors_go_together() {
    let model = pipeline("odd");
    let (church, ink) = (
        concept("a church", None, None),
        concept("a cat in ink style", Some("a cat"), None),
    );
    for concepts in [vec![church.clone(), ink.clone()], vec![ink, church]] {
        let order: Vec<bool> = concepts
            .iter()
            .map(|c| c.prompts[0].anchor.is_some())
            .collect();
        let run = Run::new(
            &model,
            concepts,
            options(json!({"iterations": 1, "trajectories": 4, "batch": 4 * STEPS, "eta": 1.0})),
        );
        let (_, losses) = run.losses().unwrap();
        let groups = run.store.groups();
        assert_eq!(groups.len(), 1);
        let [own, empty, also] = ["eps.0", "eps.1", "eps.2"].map(|name| column(&groups, name));
        let path = groups[0]["path"].to_i64().unwrap();
        let each = own.len() / path.len();
        let apart = (0..own.len()).map(|i| {
            let anchored = order[path[i / each] as usize % 2];
            2.0 * (own[i] - if anchored { also[i] } else { empty[i] })
        });
        near(losses[0].into(), mean_of_squares(apart), 1e-5);
    }
}

/// `anchor_eta` is for prompts with an anchor; where only `eta` is set it is for all.
#[test]
fn anchored_prompts_have_an_eta_of_their_own() {
    let model = pipeline("odd");
    let first = |more: Value| {
        let concepts = vec![concept("a cat in ink style", Some("a cat"), None)];
        f64::from(
            Run::new(&model, concepts, whole_bank(more))
                .losses()
                .unwrap()
                .1[0],
        )
    };
    let one = first(json!({"eta": 1.0}));
    near(first(json!({"eta": 3.0})), 4.0 * one, 1e-5);
    near(first(json!({"eta": 3.0, "anchor_eta": 1.0})), one, 1e-5);
    near(
        first(json!({"eta": 1.0, "anchor_eta": 2.0})),
        2.25 * one,
        1e-5,
    );
}

#[test]
fn the_trained_prompt_is_from() {
    // The bank's trajectories follow `from`, and the loss is that of its prediction: eta -1 in the
    // paper's form leaves the distance from eps*(from) to eps*(erase).
    let model = pipeline("odd");
    let with = |from: Option<&str>| {
        let run = Run::new(
            &model,
            vec![concept("a church", None, from)],
            whole_bank(json!({"form": "paper", "eta": -1.0})),
        );
        let (_, losses) = run.losses().unwrap();
        (f64::from(losses[0]), run.store.groups())
    };
    let (loss, groups) = with(Some("a cat"));
    near(
        loss,
        mean_of_squares(
            column(&groups, "eps.0")
                .iter()
                .zip(column(&groups, "eps.2"))
                .map(|(p, e)| p - e),
        ),
        1e-5,
    );
    // A church erased from itself is a church erased.
    let (plain, same) = (with(None), with(Some("a church")));
    assert!(plain.0 < 1e-9 && same.0 < 1e-9);
    assert_eq!(column(&plain.1, "x"), column(&same.1, "x"));
    assert_ne!(column(&plain.1, "x"), column(&groups, "x"));
}

#[test]
fn only_the_chosen_tensors_change_and_the_base_stays() {
    let model = pipeline("odd");
    let before = bits(&model);
    for method in [
        "esd-x",
        "esd-x-strict",
        "esd-u",
        "esd-all",
        "selfattn",
        "xattn",
        "noxattn",
    ] {
        let run = Run::new(
            &model,
            church(),
            options(json!({"train_method": method, "iterations": 3})),
        );
        let edit = run.erase().unwrap();
        assert_eq!(bits(&model), before, "{method} moved the frozen model");
        let trainable = Trainable::named(method).unwrap();
        let chosen: BTreeSet<_> = trainable
            .pick_in(&model)
            .unwrap()
            .into_iter()
            .map(|n| ("unet".to_owned(), n))
            .collect();
        assert_eq!(
            edit.changes.keys().cloned().collect::<BTreeSet<_>>(),
            chosen,
            "{method}"
        );
        for (name, new) in values(&edit) {
            assert_ne!(new, before[&name], "{method}: {name} did not move");
        }
        let edited = bits(&edit.apply_to(&model, 1.0).unwrap());
        for (name, numbers) in &edited {
            let moved = edit
                .changes
                .keys()
                .any(|(component, n)| *name == format!("{component}.{n}"));
            assert_eq!(*numbers != before[name], moved, "{method}: {name}");
        }
        assert_eq!(
            edit.about.options["train_method"], trainable.name,
            "the published name is written, not the alias"
        );
    }
}

#[test]
fn the_loss_falls() {
    let model = pipeline("odd");
    let (_, losses) = Run::new(
        &model,
        church(),
        whole_bank(json!({"iterations": 12, "lr": 3e-3, "train_method": "esd-all"})),
    )
    .losses()
    .unwrap();
    assert!(losses[11] < 0.7 * losses[0], "{losses:?}");
    assert!(
        losses.windows(2).all(|pair| pair[1] < pair[0]),
        "{losses:?}"
    );
}

/// The second of two steps is half as long when the step size falls in a straight line.
#[test]
fn the_step_size_falls_in_a_line() {
    let model = pipeline("odd");
    let moved = |schedule: &str| {
        let run = Run::new(
            &model,
            church(),
            options(json!({"iterations": 2, "lr_schedule": schedule, "train_method": "kv"})),
        );
        interrupted(&run, training(1));
        let before = run.store.own.borrow()["esd"].clone();
        let after = run.erase().unwrap();
        let one = |((_, name), change): (&(String, String), &Change)| {
            let Change::Value(value) = change else {
                panic!("{name}")
            };
            let before = before[&format!("value.{name}")].to_f32().unwrap();
            value
                .to_f32()
                .unwrap()
                .into_iter()
                .zip(before)
                .map(|(a, b)| a - b)
                .collect::<Vec<_>>()
        };
        after.changes.iter().flat_map(one).collect::<Vec<f32>>()
    };
    for (linear, constant) in moved("linear").into_iter().zip(moved("constant")) {
        assert!(
            (constant - 2.0 * linear).abs() < 1e-6,
            "{constant} {linear}"
        );
    }
}

#[test]
fn an_empty_edit_does_not_drift() {
    let model = pipeline("odd");
    assert_eq!(
        drift::unconditional(&model, &Edit::default().apply_to(&model, 1.0).unwrap()).unwrap(),
        0.0
    );
    let edit = Run::new(&model, church(), options(json!({})))
        .erase()
        .unwrap();
    assert_eq!(
        drift::unconditional(&model, &edit.apply_to(&model, 0.0).unwrap()).unwrap(),
        0.0
    );
    let drifts = [0.5, 1.0].map(|strength| {
        drift::unconditional(&model, &edit.apply_to(&model, strength).unwrap()).unwrap()
    });
    assert!(
        0.0 < drifts[0] && drifts[0] < drifts[1] && drifts[1] < 1.0,
        "{drifts:?}"
    );
}

#[test]
fn impossible_options_are_refused_before_anything_is_computed() {
    let model = pipeline("odd");
    for (key, value) in [
        ("lr", json!(0.0)),
        ("lr", json!(-1e-5)),
        ("lr", json!(f64::NAN)),
        ("lr", json!("fast")),
        ("eta", json!(f64::NAN)),
        ("eta", json!(null)),
        ("iterations", json!(0)),
        ("iterations", json!(-3)),
        ("iterations", json!(1e18)),
        ("batch", json!(0)),
        ("trajectories", json!(0)),
        ("sampling_steps", json!(0)),
        ("form", json!("future")),
        ("lr_schedule", json!("wave")),
        ("latents", json!("fresh")),
        ("train_method", json!("esd-y")),
        ("train_method", json!(5)),
        ("start_guidance", json!("high")),
    ] {
        let run = Run::new(&model, church(), options(json!({key: value})));
        let error = run
            .listened(&mut |event| panic!("{key} {value}: {event:?}"))
            .unwrap_err();
        assert!(
            matches!(error, Error::Model(scumble_nn::Error::Input { .. })),
            "{key} {value}: {error:?}"
        );
        assert!(run.store.groups().is_empty() && run.store.own.borrow().is_empty());
    }
    let error = Run::new(&model, church(), options(json!({"learning_rate": 1e-3})))
        .erase()
        .unwrap_err();
    assert!(error.to_string().contains("`learning_rate`"), "{error}");
    let hint = error.hint().unwrap();
    for known in [
        "train_method",
        "iterations",
        "lr",
        "eta",
        "form",
        "latents",
        "batch",
        "trajectories",
        "sampling_steps",
        "start_guidance",
    ] {
        assert!(hint.contains(known), "{hint}");
    }
    assert!(matches!(
        Run::new(&model, vec![], options(json!({}))).erase(),
        Err(Error::Model(scumble_nn::Error::Input { .. }))
    ));
    // More steps than the model has timesteps.
    assert!(matches!(
        Run::new(&model, church(), options(json!({"sampling_steps": 1001}))).erase(),
        Err(Error::Model(_))
    ));
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_others() {
    let model = pipeline("odd");
    for latents in ["frozen", "edited"] {
        let run = |seed| Run {
            seed,
            ..Run::new(
                &model,
                church(),
                options(json!({"latents": latents, "iterations": 3})),
            )
        };
        let first = values(&run(1).erase().unwrap());
        assert_eq!(first, values(&run(1).erase().unwrap()));
        assert_ne!(first, values(&run(2).erase().unwrap()));
    }
}

#[test]
fn several_concepts_share_a_run() {
    let model = pipeline("odd");
    for latents in ["frozen", "edited"] {
        let concepts: Vec<Concept> = ["a church", "a dog", "a cat"]
            .map(|text| concept(text, None, None))
            .into();
        let run = Run::new(
            &model,
            concepts,
            options(json!({"latents": latents, "trajectories": 1})),
        );
        let (edit, losses) = run.losses().unwrap();
        assert_eq!(edit.about.concepts, ["a church", "a dog", "a cat"]);
        assert_eq!(losses.len(), 6);
        // Every prompt has a trajectory, even where fewer were asked for.
        let paths: BTreeSet<i64> = run
            .store
            .groups()
            .iter()
            .flat_map(|g| g["path"].to_i64().unwrap())
            .collect();
        assert_eq!(paths.len(), if latents == "frozen" { 3 } else { 0 });
    }
}

// The bank.

fn bank(model: &Pipeline, paths: &[Path], store: &Memory) -> Bank {
    let mut listen = |_: Event<'_>| ControlFlow::Continue(());
    let mut job = Job {
        pipeline: model,
        base: "tiny",
        base_hash: "hash of tiny",
        family: "",
        profile: Profile::SD,
        concepts: &[],
        preserve: &[],
        captions: &Default::default(),
        encoded: Default::default(),
        pictures: None,
        masks: None,
        count: None,
        options: Default::default(),
        seed: 0,
        store,
        listen: &mut listen,
    };
    Bank::record(
        &mut job,
        paths,
        Sampling {
            steps: STEPS,
            guidance: 3.0,
        },
    )
    .unwrap()
}

#[test]
fn the_bank_holds_what_the_frozen_network_says() {
    for name in ["odd", "sd2"] {
        let model = pipeline(name);
        let path = |prompt: &str, also: [&str; 2], seed| Path {
            prompt: prompt.into(),
            also: also.map(String::from).into(),
            seed,
        };
        let paths = [
            path("a church", ["a house", "ink"], 3),
            path("a cat", ["a dog", ""], 4),
            path("a church", ["a cat", "a dog"], 5),
        ];
        let bank = bank(&model, &paths, &Memory::default());
        assert_eq!(bank.len(), paths.len() * STEPS);
        let denoiser = model.denoiser();
        for i in 0..bank.len() {
            let e = bank.examples(&[i]);
            let path = &paths[e.path[0]];
            let prompts = [
                (&path.prompt, &e.raw_prompt),
                (&String::new(), &e.raw_empty),
                (&path.also[0], &e.raw_also[0]),
                (&path.also[1], &e.raw_also[1]),
            ];
            for (prompt, recorded) in prompts {
                let context = model.encode(std::slice::from_ref(prompt)).into();
                let found = denoiser
                    .predict(e.x.clone(), &e.t, &context, None)
                    .unwrap()
                    .raw();
                let largest = host(&found).iter().fold(0f32, |m, v| m.max(v.abs()));
                let apart = host(&(found - recorded.clone()))
                    .iter()
                    .fold(0f32, |m, v| m.max(v.abs()));
                assert!(
                    apart <= 1e-5 * largest,
                    "{name}, example {i}, `{prompt}`: {apart:e} of {largest:e}"
                );
            }
        }
        // Each trajectory meets every timestep of the sampler once, from its own noise.
        let all = bank.examples(&(0..bank.len()).collect::<Vec<_>>());
        for p in 0..paths.len() {
            let labels: Vec<f32> = (0..bank.len())
                .filter(|&i| all.path[i] == p)
                .map(|i| all.t[i].get())
                .collect();
            assert_eq!(labels.len(), STEPS);
            assert!(
                labels.windows(2).all(|pair| pair[1] < pair[0]),
                "{labels:?}"
            );
        }
        let starts: BTreeSet<Vec<u32>> = (0..bank.len())
            .filter(|&i| all.t[i].get() == all.t.iter().map(|t| t.get()).fold(0.0, f32::max))
            .map(|i| {
                host(&bank.examples(&[i]).x)
                    .iter()
                    .map(|v| v.to_bits())
                    .collect()
            })
            .collect();
        assert_eq!(starts.len(), paths.len());
    }
}

/// What a batch picks does not depend on the groups in which trajectories were recorded: a path is
/// the same alone.
#[test]
fn a_trajectory_is_the_same_in_any_company() {
    let model = pipeline("odd");
    // 36 latent pixels: 28 trajectories go together, so 30 make two groups.
    let paths: Vec<Path> = (0..30)
        .map(|i| Path {
            prompt: format!("a {}", ["cat", "dog", "church"][i % 3]),
            also: vec![],
            seed: i as u64,
        })
        .collect();
    let store = Memory::default();
    let together = bank(&model, &paths, &store);
    assert_eq!(store.groups().len(), 2);
    let all = together.examples(&(0..together.len()).collect::<Vec<_>>());
    for p in [0, 1, 29] {
        let alone = bank(&model, &paths[p..=p], &Memory::default());
        let alone = alone.examples(&(0..STEPS).collect::<Vec<_>>());
        let rows: Vec<usize> = (0..together.len()).filter(|&i| all.path[i] == p).collect();
        let same = together.examples(&rows);
        assert_eq!(same.t, alone.t);
        for (a, b) in [
            (&same.x, &alone.x),
            (&same.raw_prompt, &alone.raw_prompt),
            (&same.raw_empty, &alone.raw_empty),
        ] {
            let most = |x: Tensor<4>| host(&x).iter().fold(0f32, |m, v| m.max(v.abs()));
            let apart = most(a.clone() - b.clone()) / most(b.clone());
            assert!(apart < 1e-4, "path {p}: {apart:e}");
        }
    }
}

/// With a step too small to move an f32, each step's loss is that of its example: an epoch must
/// show every example once.
#[test]
fn every_example_is_seen_once_an_epoch() {
    let model = pipeline("odd");
    let run = Run::new(
        &model,
        church(),
        options(json!({"iterations": 3 * EXAMPLES, "batch": 1, "lr": 1e-30, "train_method": "kv"})),
    );
    let (edit, losses) = run.losses().unwrap();
    let before = bits(&model);
    assert!(
        values(&edit).iter().all(|(name, new)| *new == before[name]),
        "the step was to be too small"
    );
    let groups = run.store.groups();
    let (own, empty) = (column(&groups, "eps.0"), column(&groups, "eps.1"));
    let each = own.len() / EXAMPLES;
    let mut expected: Vec<f64> = (0..EXAMPLES)
        .map(|i| mean_of_squares((i * each..(i + 1) * each).map(|j| 2.0 * (own[j] - empty[j]))))
        .collect();
    expected.sort_by(f64::total_cmp);
    assert!(
        expected.windows(2).all(|pair| pair[1] > 1.001 * pair[0]),
        "examples must differ for this test: {expected:?}"
    );
    let mut orders = BTreeSet::new();
    for epoch in losses.chunks(EXAMPLES) {
        orders.insert(epoch.iter().map(|l| l.to_bits()).collect::<Vec<_>>());
        let mut seen: Vec<f64> = epoch.iter().map(|&l| l.into()).collect();
        seen.sort_by(f64::total_cmp);
        seen.iter()
            .zip(&expected)
            .for_each(|(seen, expected)| near(*seen, *expected, 1e-4));
    }
    assert_eq!(orders.len(), 3, "each epoch has its own order");
    // Every timestep equally often.
    let mut counts = BTreeMap::new();
    for t in column(&groups, "t") {
        *counts.entry(t as u32).or_insert(0) += 1;
    }
    assert_eq!(
        counts.into_values().collect::<Vec<_>>(),
        [TRAJECTORIES; STEPS]
    );
}

#[test]
fn a_bank_is_shared_between_runs() {
    let model = pipeline("odd");
    let first = Run::new(&model, church(), options(json!({"iterations": 1})));
    first.erase().unwrap();
    assert_eq!(
        (first.store.recorded.get(), first.store.found.get()),
        (1, 0)
    );
    // Other targets, other tensors, other steps: the same latents and predictions.
    for more in [
        json!({"eta": 3.0}),
        json!({"train_method": "esd-u"}),
        json!({"form": "paper", "iterations": 2, "batch": 5, "lr": 1e-5}),
    ] {
        let other = Run {
            store: first.store.beside(),
            options: options(more),
            ..first.clone()
        };
        other.erase().unwrap();
        assert_eq!(first.store.recorded.get(), 1);
    }
    assert_eq!(first.store.found.get(), 3);
    // What the bank is made of: another seed, prompt, guidance or number of steps is another bank.
    for (concepts, seed, more) in [
        (church(), 8, json!({})),
        (vec![concept("a dog", None, None)], 7, json!({})),
        (
            vec![concept("a church", Some("a house"), None)],
            7,
            json!({}),
        ),
        (church(), 7, json!({"start_guidance": 1.5})),
        (church(), 7, json!({"sampling_steps": 2})),
    ] {
        let before = first.store.recorded.get();
        Run {
            store: first.store.beside(),
            options: options(more),
            concepts,
            seed,
            ..first.clone()
        }
        .erase()
        .unwrap();
        assert_eq!(first.store.recorded.get(), before + 1);
    }
}

#[test]
fn a_damaged_bank_is_an_error() {
    let model = pipeline("odd");
    let run = Run::new(&model, church(), options(json!({})));
    run.erase().unwrap();
    let whole = run.store.shared.borrow().clone();
    let (hash, good) = whole.first_key_value().unwrap();
    let rows = good["t"].len();
    for (name, broken) in [
        ("x", None),
        ("eps.1", None),
        ("t", None),
        ("path", None),
        (
            "x",
            Some(HostTensor::from_f32(
                [rows, 4, 3, 12],
                &good["x"].to_f32().unwrap(),
            )),
        ),
        ("eps.0", Some(good["eps.0"].rows(0..rows - 1).unwrap())),
        ("t", Some(good["t"].rows(0..rows - 1).unwrap())),
        (
            "t",
            Some(HostTensor::from_f32([rows], &vec![f32::NAN; rows])),
        ),
        ("t", Some(HostTensor::from_f32([rows], &vec![-1.0; rows]))),
        ("path", Some(HostTensor::from_i64([rows], &vec![-1; rows]))),
        ("path", Some(HostTensor::from_i64([rows], &vec![99; rows]))),
        ("path", Some(good["path"].rows(0..1).unwrap())),
        (
            "x",
            Some(HostTensor::from_i64([rows, 4, 6, 6], &vec![0; rows * 144])),
        ),
    ] {
        let mut group = good.clone();
        match broken {
            Some(tensor) => group.insert(name.into(), tensor),
            None => group.remove(name),
        };
        let store = Memory::default();
        store.shared.borrow_mut().insert(hash.clone(), group);
        let error = Run {
            store,
            ..run.clone()
        }
        .erase()
        .unwrap_err();
        assert!(error.to_string().contains("damaged"), "{name}: {error}");
    }
}

// Interruptions.

/// Runs until the event for which `stop` is true; the listener must be obeyed at once.
fn interrupted(run: &Run<'_>, stop: impl Fn(Event<'_>) -> bool) {
    let mut stopped = false;
    let result = run.listened(&mut |event| {
        assert!(!stopped, "{event:?} after the interruption");
        if stop(event) {
            stopped = true;
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
}

fn training(step: usize) -> impl Fn(Event<'_>) -> bool {
    move |event| matches!(event, Event::Step { done, loss: Some(_) } if done == step)
}

fn recording(step: usize) -> impl Fn(Event<'_>) -> bool {
    move |event| matches!(event, Event::Step { done, loss: None } if done == step)
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let model = pipeline("odd");
    for more in [
        json!({"lr_schedule": "linear"}),
        json!({"latents": "edited"}),
        json!({"train_method": "esd-all", "batch": 5}),
    ] {
        let fresh = || Run::new(&model, church(), options(more.clone()));
        let undisturbed = values(&fresh().erase().unwrap());
        for stops in [
            vec![1],
            vec![3],
            vec![6],
            vec![2, 4],
            vec![1, 2, 3, 4, 5, 6],
        ] {
            let run = fresh();
            for &step in &stops {
                interrupted(&run, training(step));
            }
            let mut stages = Vec::new();
            let edit = run
                .listened(&mut |event| {
                    if let Event::Stage {
                        name: "training",
                        total,
                        done,
                    } = event
                    {
                        stages.push((total, done));
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(
                values(&edit),
                undisturbed,
                "{more} interrupted at {stops:?}"
            );
            assert_eq!(
                stages,
                [(6, *stops.last().unwrap())],
                "what was done is not done again"
            );
            // Finished, and asked again.
            assert_eq!(values(&run.erase().unwrap()), undisturbed);
        }
    }
}

#[test]
fn an_interrupted_recording_continues() {
    let model = pipeline("odd");
    // Two groups: 28 trajectories, then 2.
    let fresh = || {
        Run::new(
            &model,
            church(),
            options(json!({"trajectories": 30, "sampling_steps": 2, "iterations": 3})),
        )
    };
    let whole = fresh();
    let undisturbed = values(&whole.erase().unwrap());
    for (stops, recorded) in [
        (vec![28], 0),
        (vec![28, 56], 0),
        (vec![58], 1),
        (vec![28, 58], 1),
    ] {
        let run = fresh();
        for &step in &stops {
            interrupted(&run, recording(step));
        }
        assert_eq!(run.store.recorded.get(), recorded);
        interrupted(&run, training(2));
        assert_eq!(
            run.store.recorded.get(),
            2,
            "a recorded group is not recorded again"
        );
        assert_eq!(values(&run.erase().unwrap()), undisturbed, "{stops:?}");
        assert_eq!(run.store.recorded.get(), 2);
    }
}

#[test]
fn a_damaged_state_is_an_error() {
    let model = pipeline("odd");
    let run = Run::new(&model, church(), options(json!({"train_method": "kv"})));
    interrupted(&run, training(2));
    let good = run.store.own.borrow()["esd"].clone();
    assert_eq!(good["step"].to_i64().unwrap(), [2]);
    let name = good
        .keys()
        .find_map(|key| key.strip_prefix("value."))
        .unwrap()
        .to_owned();
    for (key, broken) in [
        ("step".to_owned(), None),
        ("step".to_owned(), Some(HostTensor::from_i64([1], &[-1]))),
        (format!("m.{name}"), None),
        (format!("value.{name}"), None),
        (
            format!("v.{name}"),
            Some(HostTensor::from_f32([3], &[0.0; 3])),
        ),
        (
            format!("value.{name}"),
            Some(HostTensor::from_f32([3], &[0.0; 3])),
        ),
        (
            "value.conv_in.weight".to_owned(),
            Some(good[&format!("value.{name}")].clone()),
        ),
    ] {
        let mut state = good.clone();
        match broken {
            Some(tensor) => state.insert(key.clone(), tensor),
            None => state.remove(&key),
        };
        run.store.own.borrow_mut().insert("esd".into(), state);
        let error = run.erase().unwrap_err();
        let (message, hint) = (error.to_string(), error.hint().unwrap_or_default());
        assert!(
            message.contains("`esd`") && message.contains(&format!("`{key}`")),
            "{key}: {error}"
        );
        assert!(
            hint.contains("damaged") && hint.contains("--overwrite"),
            "{hint}"
        );
    }
}

#[test]
fn a_diverging_run_says_where_and_keeps_what_was_stored() {
    let model = pipeline("odd");
    let run = Run::new(
        &model,
        church(),
        options(json!({"lr": 1e30, "train_method": "esd-all"})),
    );
    let Err(Error::Diverged { step, loss }) = run.erase() else {
        panic!("1e30 is a step too large")
    };
    assert_eq!(step, 2);
    assert!(!loss.is_finite());
    let error = run.erase().unwrap_err();
    assert!(
        error.to_string().contains("step 2") && error.hint().unwrap().contains("--lr"),
        "{error}"
    );

    // Stored after the first step; the second does not touch it.
    interrupted(&run, training(1));
    let stored = run.store.own.borrow()["esd"].clone();
    assert!(matches!(run.erase(), Err(Error::Diverged { step: 2, .. })));
    let kept = run.store.own.borrow()["esd"].clone();
    assert!(
        stored
            .iter()
            .all(|(name, tensor)| tensor.bytes() == kept[name].bytes())
    );

    // Infinite after the only step, whose loss was finite: no such edit is handed out or stored.
    let run = Run::new(
        &model,
        church(),
        options(json!({"lr": 1e300, "iterations": 1})),
    );
    assert!(matches!(run.erase(), Err(Error::Diverged { step: 1, .. })));
    assert!(matches!(
        run.listened(&mut |event| if training(1)(event) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }),
        Err(Error::Diverged { .. })
    ));
    assert!(run.store.own.borrow().is_empty());
}

// Concepts, as far as ESD needs them.

#[test]
fn a_concept_is_worded() {
    let world = World::emoji();
    let new = |name: &str, wording: Wording| Concept::new(name, &wording, Some(&world));
    // An object: its caption, and its caption taken out of its captions in every style.
    let plain = new("church", Wording::default()).unwrap();
    assert_eq!(plain.prompts[0], concept("a church", None, None).prompts[0]);
    assert_eq!(plain.prompts.len(), 1 + world.styles.len());
    for (prompt, style) in plain.prompts[1..].iter().zip(&world.styles) {
        let caption = format!("a church in {style} style");
        assert_eq!(
            *prompt,
            concept("a church", None, Some(caption.as_str())).prompts[0]
        );
    }
    let anchored = new(
        "church",
        Wording {
            anchor: Some("a house".into()),
            ..Wording::default()
        },
    )
    .unwrap();
    // With an anchor: every caption and the anchor in its place.
    assert_eq!(
        anchored.prompts[0],
        concept("a church", Some("a house"), None).prompts[0]
    );
    assert_eq!(anchored.prompts.len(), 1 + world.styles.len());
    let inked = concept("a church in ink style", Some("a house in ink style"), None);
    assert_eq!(anchored.prompts[5], inked.prompts[0]);
    let style = new("ink", Wording::default()).unwrap();
    assert_eq!(style.prompts.len(), 16);
    assert_eq!(
        style.prompts[0],
        concept("a cat in ink style", Some("a cat"), None).prompts[0]
    );
    let from = new(
        "ink",
        Wording {
            from: Some("a picture".into()),
            ..Wording::default()
        },
    )
    .unwrap();
    assert!(
        from.prompts
            .iter()
            .all(|p| p.anchor.is_none() && p.from.as_deref() == Some("a picture"))
    );
    let template = Wording {
        template: Some("{concept} and {object}".into()),
        objects: vec!["a cat".into()],
        ..Wording::default()
    };
    assert_eq!(
        new("a dog", template).unwrap().prompts,
        concept("a dog and a cat", None, None).prompts
    );
    for (name, wording) in [
        (" ", Wording::default()),
        (
            "church",
            Wording {
                anchor: Some("A Church".into()),
                ..Wording::default()
            },
        ),
        (
            "church",
            Wording {
                anchor: Some("a house".into()),
                from: Some("a town".into()),
                ..Wording::default()
            },
        ),
        (
            "dog",
            Wording {
                template: Some("a {object}".into()),
                ..Wording::default()
            },
        ),
    ] {
        let error = new(name, wording).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
    }
    let instead = |c: &Concept| {
        c.prompts
            .iter()
            .map(|p| (p.asks().to_owned(), p.instead()))
            .collect::<Vec<_>>()
    };
    assert_eq!(instead(&plain)[0], ("a church".into(), String::new()));
    assert_eq!(
        instead(&plain)[5],
        ("a church in ink style".into(), String::new())
    );
    assert_eq!(
        instead(&anchored)[5],
        (
            "a church in ink style".into(),
            "a house in ink style".into()
        )
    );
    assert_eq!(plain.prompts[5].without(), "in ink style");
    assert_eq!(anchored.prompts[5].without(), "a house in ink style");
    assert_eq!(
        instead(&style)[0],
        ("a cat in ink style".into(), "a cat".into())
    );
    // What is kept beside it: without the captions that both ask for.
    let beside = Concept::apart(std::slice::from_ref(&style), vec![plain.clone()]).unwrap();
    assert_eq!(beside[0].prompts.len(), plain.prompts.len() - 1);
    let error =
        Concept::apart(&[plain], vec![new("Church", Wording::default()).unwrap()]).unwrap_err();
    assert!(error.to_string().contains("--preserve `Church`"), "{error}");
    // Eleven positions, two of them for start and end.
    let long = Concept::new(&"cat ".repeat(10), &Wording::default(), None).unwrap();
    assert!(
        long.fits(&pipeline("odd").tokenizer)
            .unwrap_err()
            .to_string()
            .contains("11 tokens")
    );
}

/// The counts above assume these sizes.
#[test]
fn the_small_model_is_as_small_as_assumed() {
    assert_eq!(
        pipeline("odd").latent_shape(1, None, None).unwrap(),
        [1, 4, 6, 6]
    );
}

/// Trajectories by the checkpoint's own scheduler, as the code of 2025 samples: kept apart from
/// DDIM's.
#[test]
fn trajectories_may_be_another_samplers() {
    let model = pipeline("odd");
    let few = |more: Value| {
        let mut options =
            json!({"iterations": 2, "trajectories": 2, "sampling_steps": 4, "batch": 2});
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        Run::new(&model, vec![concept("a church", None, None)], options)
    };
    let ddim = few(json!({}));
    let (_, first) = ddim.losses().unwrap();
    let pndm = Run {
        store: ddim.store.beside(),
        ..few(json!({"sampler": "pndm"}))
    };
    let (_, other) = pndm.losses().unwrap();
    assert_ne!(first, other);
    let examples = |store: &Memory| {
        store
            .groups()
            .iter()
            .map(|g| g["t"].shape()[0])
            .collect::<Vec<_>>()
    };
    let mut lengths = examples(&pndm.store);
    lengths.sort_unstable();
    // Two trajectories of four steps; the first steps of PNDM take four predictions each (one is
    // taken twice in SD 1.4's form).
    assert_eq!(lengths, [8, 26]);
    few(json!({"sampler": "own"})).erase().unwrap();
    for (more, says) in [
        (json!({"sampler": "euler-a"}), "draws noise"),
        (json!({"sampler": "brush"}), "no sampler"),
        (json!({"sampler": "pndm", "latents": "edited"}), "edited"),
    ] {
        let error = few(more).erase().map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
