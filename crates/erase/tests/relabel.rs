//! The erasers that give a concept's prompts other labels, on tiny models: SalUn, EraseDiff,
//! ScissorHands, Selective Amnesia.

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
    Captions, Change, Edit, Error, Event, Profile, Trainable, Variant,
    data::forget::{Pull, Relabel, Set, Sets},
    job::Job,
    methods::{erasediff, named, sa, salun, scissorhands},
    seeds::stream,
    training::gradients::{self, Gradients, dot, plus},
    training::passes,
};
use serde_json::{Value, json};

const METHODS: [&str; 4] = ["salun", "erasediff", "scissorhands", "sa"];

/// A few steps of everything, small enough for a test.
fn options(method: &str, more: Value) -> Value {
    let mut options = json!({
        "iterations": 4, "lr": 1e-3, "train_method": "esd-x", "pictures": 3, "retain_pictures": 4, "sampling_steps": 2,
        "guidance": 3.0, "batch": 2, "retain_batch": 3
    });
    let own = match method {
        "scissorhands" => json!({"sparsity": 0.95, "draws": 3, "draw_batch": 2}),
        "sa" => json!({"fisher_pictures": 3, "fisher_timesteps": 4}),
        _ => json!({}),
    };
    for some in [own, more] {
        options
            .as_object_mut()
            .unwrap()
            .extend(some.as_object().unwrap().clone());
    }
    options
}

fn run<'a>(method: &'static str, model: &'a Pipeline, more: Value) -> Run<'a> {
    Run::of(
        method,
        model,
        vec![concept("a church", None, None)],
        options(method, more),
    )
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

/// A job about `a church`, for what methods are made of.
fn with_job<T>(model: &Pipeline, store: &Memory, body: impl FnOnce(&mut Job<'_>) -> T) -> T {
    with_concept(model, store, "a church", body)
}

fn with_concept<T>(
    model: &Pipeline,
    store: &Memory,
    name: &str,
    body: impl FnOnce(&mut Job<'_>) -> T,
) -> T {
    let concepts = vec![concept(name, None, None)];
    let captions = Captions {
        source: "test".into(),
        lines: ["a dog", "a red car", "the moon"]
            .map(String::from)
            .to_vec(),
        given: false,
    };
    body(&mut Job {
        pipeline: model,
        base: "tiny",
        base_hash: "hash of tiny",
        family: "stable-diffusion-custom",
        profile: Profile::SD,
        concepts: &concepts,
        preserve: &[],
        captions: &captions,
        encoded: Default::default(),
        pictures: None,
        masks: None,
        count: None,
        options: serde_json::Map::new(),
        seed: 7,
        store,
        listen: &mut |_| ControlFlow::Continue(()),
    })
}

fn sets() -> Sets {
    Sets {
        pictures: 5,
        retain_pictures: 4,
        sampling_steps: 2,
        batch: 2,
        retain_batch: 2,
        ..Sets::small(&[])
    }
}

fn flat(gradients: &Gradients) -> Vec<f32> {
    gradients.values().flat_map(host).collect()
}

#[track_caller]
fn close(a: &Gradients, b: &Gradients, tolerance: f64) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let apart = plus(a.clone(), b.clone(), -1.0);
    let (apart, size) = (dot(&apart, &apart).sqrt(), dot(b, b).sqrt());
    assert!(
        apart <= tolerance * size && size > 0.0,
        "{apart:e} apart, of {size:e}"
    );
}

// All of them.

#[test]
fn only_what_is_chosen_moves_and_the_edit_says_how() {
    let model = pipeline("odd");
    let before = bits(&model);
    for (method, choice) in METHODS
        .into_iter()
        .flat_map(|m| ["esd-x", "esd-x-strict", "selfattn"].map(|c| (m, c)))
    {
        let run = run(method, &model, json!({"train_method": choice}));
        let (edit, losses) = run.losses().unwrap();
        assert!(
            losses.iter().all(|loss| loss.is_finite()),
            "{method}: {losses:?}"
        );
        let chosen: BTreeSet<String> = Trainable::named(choice)
            .unwrap()
            .pick_in(&model)
            .unwrap()
            .iter()
            .map(|n| format!("unet.{n}"))
            .collect();
        let moved = values(&edit);
        assert_eq!(
            moved.keys().cloned().collect::<BTreeSet<_>>(),
            chosen,
            "{method} {choice}"
        );
        assert!(
            moved.iter().any(|(name, new)| before[name] != *new),
            "{method} {choice}"
        );
        assert_eq!(
            (
                edit.about.method.as_str(),
                edit.about.options["train_method"].as_str()
            ),
            (method, Some(choice))
        );
        assert_eq!(edit.about.options["retain_pictures"], 4);
    }
    assert_eq!(bits(&model), before, "the model itself stays");
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let model = pipeline("odd");
    for method in METHODS {
        let whole = values(&run(method, &model, json!({})).erase().unwrap());
        let names = [
            "drawing pictures",
            "salience",
            "sensitivity",
            "fisher",
            "training",
        ];
        let mut stopped = 0;
        for stage in names {
            let run = run(method, &model, json!({}));
            let mut now = false;
            let mut steps = 0;
            let broken = run.listened(&mut |event| {
                match event {
                    Event::Stage { name, .. } => now = name == stage,
                    Event::Step { .. } if now => steps += 1,
                    _ => {}
                }
                if now && steps == 2 || now && steps == 1 && stage == "drawing pictures" {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            if broken.is_ok() {
                continue;
            }
            assert!(
                matches!(broken, Err(Error::Interrupted)),
                "{method} {stage}"
            );
            stopped += 1;
            let begun = model.denoiser.weights.evaluations().so_far();
            let (edit, losses) = run.losses().unwrap();
            assert_eq!(values(&edit), whole, "{method} {stage}");
            if stage == "training" {
                assert_eq!(losses.len(), 2, "{method} goes on where it stopped");
                let fresh = 3 * 2 * 2 + 4 * 2 * 2;
                let asked = model.denoiser.weights.evaluations().so_far() - begun;
                assert!(
                    asked < fresh + 100,
                    "{method} asked {asked}: pictures and passes are kept"
                );
            }
        }
        assert!(
            stopped >= if method == "erasediff" { 2 } else { 3 },
            "{method}: {stopped}"
        );
    }
}

#[test]
fn impossible_options_are_named() {
    let model = pipeline("odd");
    for (method, more, part) in [
        ("salun", json!({"top": 0.0}), "top is 0"),
        ("salun", json!({"top": 1.5}), "top is 1.5"),
        ("salun", json!({"alpha": -1.0}), "alpha is -1"),
        (
            "salun",
            json!({"past": 1.0, "target": "current"}),
            "past is 1",
        ),
        ("salun", json!({"past": -1.0}), "past is -1"),
        ("salun", json!({"dropout": 2.0}), "dropout is 2"),
        ("salun", json!({"pictures": 0}), "pictures is 0"),
        (
            "salun",
            json!({"retain_target": "current"}),
            "retain_target",
        ),
        (
            "salun",
            json!({"train_method": "text-mlp"}),
            "moves the text_encoder",
        ),
        ("salun", json!({"relabel": "nobody"}), "relabel"),
        ("salun", json!({"lambda": 1.0}), "no option `lambda`"),
        ("erasediff", json!({"eta": -0.1}), "eta is -0.1"),
        ("erasediff", json!({"inner": 100_000}), "inner is 100000"),
        ("erasediff", json!({"lr": 0.0}), "lr is 0"),
        ("scissorhands", json!({"sparsity": 1.0}), "sparsity is 1"),
        ("scissorhands", json!({"draws": 0}), "draws is 0"),
        (
            "scissorhands",
            json!({"within": "published", "train_method": "esd-x"}),
            "none of the layers",
        ),
        (
            "sa",
            json!({"fisher_timesteps": 0}),
            "fisher_timesteps is 0",
        ),
        (
            "sa",
            json!({"fisher_timesteps": 1001}),
            "fisher_timesteps is 1001",
        ),
        ("sa", json!({"gamma": -1.0}), "gamma is -1"),
    ] {
        let error = run(method, &model, more.clone())
            .erase()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(part) && !error.ends_with('.'),
            "{method} {more}: {error}"
        );
    }
    let mut nothing = run("salun", &model, json!({}));
    nothing.captions = Captions::default();
    assert!(
        nothing
            .erase()
            .unwrap_err()
            .to_string()
            .contains("no captions")
    );
}

#[test]
fn every_variant_is_there_and_runs() {
    let model = pipeline("odd");
    for method in METHODS {
        let all = with_job(&model, &Memory::default(), |job| {
            let presets = named(method).unwrap().presets(job).unwrap();
            presets.columns().map(|column| column.to_string())
        });
        assert_eq!(
            all.iter().collect::<BTreeSet<_>>().len(),
            all.len(),
            "{method}: {all:?}"
        );
        for variant in [Variant::Paper, Variant::Reference] {
            let more = json!({"iterations": 1, "train_method": "esd-all"});
            assert!(
                !Run {
                    variant,
                    ..run(method, &model, more)
                }
                .erase()
                .unwrap()
                .changes
                .is_empty()
            );
        }
    }
}

// What they learn from.

#[test]
fn labels_are_what_the_options_say() {
    let model = pipeline("odd");
    let loss = |relabel: Relabel, target: Pull| {
        let sets = Sets {
            relabel,
            target,
            ..sets()
        };
        with_job(&model, &Memory::default(), |job| {
            let set = Set::of_concepts(job, &sets).unwrap();
            set.loss(&model, &model, 4, 1, 0)
                .unwrap()
                .into_scalar::<f32>()
        })
    };
    let all = [Relabel::Instead, Relabel::Nearest, Relabel::Random]
        .map(|relabel| loss(relabel, Pull::Frozen));
    assert!(
        all.iter().all(|&l| l > 0.0) && all[0] != all[1] && all[1] != all[2],
        "{all:?}"
    );
    // As long as nothing has moved, the two teachers are the same; the noise is the same target
    // whatever the label.
    assert_eq!(loss(Relabel::Nearest, Pull::Current), all[1]);
    assert_eq!(
        loss(Relabel::Instead, Pull::Noise),
        loss(Relabel::Nearest, Pull::Noise)
    );
    // Past the label by as much again as it is away: twice the distance, four times the square.
    let away = |past: f64| {
        with_job(&model, &Memory::default(), |job| {
            let set = Set::of_concepts(job, &Sets { past, ..sets() }).unwrap();
            set.loss(&model, &model, 4, 1, 0)
                .unwrap()
                .into_scalar::<f32>()
        })
    };
    assert!((away(1.0) / away(0.0) - 4.0).abs() < 1e-3);
    // What is kept begins at 0 where the frozen model is the teacher, with and without captions.
    let kept = |retain_target, dropout| {
        let sets = Sets {
            retain_target,
            dropout,
            ..sets()
        };
        with_job(&model, &Memory::default(), |job| {
            Set::to_keep(job, &sets)
                .unwrap()
                .loss(&model, &model, 4, 1, 0)
                .unwrap()
                .into_scalar::<f32>()
        })
    };
    assert!(kept(Pull::Frozen, 0.0) < 1e-9 && kept(Pull::Frozen, 0.5) < 1e-9);
    assert!(kept(Pull::Noise, 0.0) > 1e-3 && kept(Pull::Noise, 0.0) != kept(Pull::Noise, 1.0));
}

/// The gradient of denoising is that of the loss towards the noise; with both branches at the empty
/// prompt guidance cancels out.
#[test]
fn gradients_of_denoising_are_those_of_the_loss() {
    let model = pipeline("odd");
    let at = passes::values(&model, Trainable::named("esd-x").unwrap()).unwrap();
    with_job(&model, &Memory::default(), |job| {
        let set = Set::of_concepts(job, &sets())
            .unwrap()
            .pulled_to(Pull::Noise);
        let plain = set.denoising_gradient(&model, &at, 0.0, 3, 1, 2).unwrap();
        let (_, loss) =
            gradients::of(&model, "unet", &at, &mut |m| set.loss(&model, m, 3, 1, 2)).unwrap();
        close(&plain, &loss, 1e-6);
        let guided = set.denoising_gradient(&model, &at, 7.5, 3, 1, 2).unwrap();
        let apart = plus(guided, plain, -1.0);
        assert!(dot(&apart, &apart) > 1e-12, "guidance changes it");
    });
    with_concept(&model, &Memory::default(), "", |job| {
        let set = Set::of_concepts(job, &sets()).unwrap();
        let plain = set.denoising_gradient(&model, &at, 0.0, 3, 1, 2).unwrap();
        close(
            &set.denoising_gradient(&model, &at, 7.5, 3, 1, 2).unwrap(),
            &plain,
            1e-4,
        );
    });
}

// SalUn.

/// Half of all numbers have a mask of 1; none of the others has a larger sum of gradients; and what
/// the mask leaves out does not move.
#[test]
fn the_mask_is_the_most_salient_half() {
    let model = pipeline("odd");
    let store = Memory::default();
    let options: salun::Options = with_job(&model, &store, |job| {
        job.options = self::options("salun", json!({"mask_passes": 2}))
            .as_object()
            .unwrap()
            .clone();
        job.options(salun::presets, Variant::Fixed).unwrap()
    });
    let (mask, sum) = with_job(&model, &store, |job| {
        let set = Set::of_concepts(job, &options.sets).unwrap();
        let mask = salun::mask(job, &options, &set).unwrap();
        let at = passes::values(&model, Trainable::named("esd-x").unwrap()).unwrap();
        // Two passes over three pictures, two at a time.
        let batches = (0..3).map(|k| {
            set.denoising_gradient(
                &model,
                &at,
                7.5,
                2,
                stream(job.seed, "salun/salience").seed(),
                k,
            )
            .unwrap()
        });
        (
            mask,
            batches.fold(Gradients::new(), |sum, g| plus(sum, g, 1.0)),
        )
    });
    let (mask, sum) = (flat(&mask), flat(&sum));
    let share = mask.iter().sum::<f32>() / mask.len() as f32;
    assert!((share - 0.5).abs() < 1e-3, "{share}");
    let of = |side: f32| {
        mask.iter()
            .zip(&sum)
            .filter(move |(m, _)| **m == side)
            .map(|(_, s)| s.abs())
    };
    let (least_in, most_out) = (
        of(1.0).fold(f32::MAX, f32::min),
        of(0.0).fold(0.0, f32::max),
    );
    assert!(
        least_in >= most_out && most_out > 0.0,
        "{least_in} {most_out}"
    );

    let mut erased = run("salun", &model, json!({"mask_passes": 2}));
    erased.store = store;
    erased.captions.lines = ["a dog", "a red car", "the moon"]
        .map(String::from)
        .to_vec();
    let before = bits(&model);
    let moved: Vec<bool> = values(&erased.erase().unwrap())
        .into_iter()
        .flat_map(|(name, new)| {
            new.into_iter()
                .zip(before[&name].clone())
                .map(|(a, b)| a != b)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        moved
            .iter()
            .zip(&mask)
            .all(|(moved, mask)| !moved || *mask == 1.0)
    );
    let share = moved.iter().filter(|m| **m).count() as f32 / moved.len() as f32;
    assert!(share > 0.45, "what may move does: {share}");
}

// EraseDiff.

/// The published code's constant lambda is SalUn without its mask, bit for bit.
#[test]
fn erasediff_with_a_constant_lambda_is_salun_without_a_mask() {
    let model = pipeline("odd");
    let shared = json!({"iterations": 6, "relabel": "nearest", "target": "frozen", "dropout": 0.3});
    let with = |method, more: Value| {
        let mut options = shared.clone();
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        values(&run(method, &model, options).erase().unwrap())
    };
    let salun = with("salun", json!({"top": 1.0, "alpha": 1.0}));
    assert_eq!(
        with("erasediff", json!({"dynamic": false, "lambda": 1.0})),
        salun
    );
    assert_ne!(
        with("erasediff", json!({"dynamic": false, "lambda": 0.5})),
        salun
    );
    assert_ne!(with("salun", json!({"top": 0.5, "alpha": 1.0})), salun);
}

#[test]
fn lambda_makes_every_step_forget_at_the_set_rate() {
    let device = burn::tensor::Device::flex();
    let some = |v: [f32; 2]| Gradients::from([("w".to_owned(), Tensor::from_floats(v, &device))]);
    let forget = some([1.0, 2.0]);
    for (keep, expected) in [([-3.0, 0.0], 1.1), ([0.0, 0.0], 0.5), ([4.0, 1.0], 0.0)] {
        // a = 0.5 * 5; <forget, keep> = -3, 0, 6.
        let (keep, a) = (some(keep), 2.5);
        let lambda = erasediff::lambda(&forget, &keep, a);
        assert!((lambda - expected).abs() < 1e-6, "{lambda} {expected}");
        assert!(dot(&plus(keep, forget.clone(), lambda), &forget) >= a - 1e-5);
    }
    assert_eq!(erasediff::lambda(&Gradients::new(), &forget, 1.0), 0.0);
    // The rule changes what is learnt, and so do the inner steps, which ask the network more often.
    let model = pipeline("odd");
    let edit = |more: Value| values(&run("erasediff", &model, more).erase().unwrap());
    let dynamic = edit(json!({"dynamic": true, "eta": 1.0}));
    assert_ne!(dynamic, edit(json!({"dynamic": false, "lambda": 1.0})));
    assert_ne!(
        dynamic,
        edit(json!({"dynamic": true, "eta": 1.0, "inner": 2, "inner_lr": 1e-2}))
    );
}

// ScissorHands.

fn scissors(model: &Pipeline, more: Value) -> (Gradients, Gradients, usize) {
    let store = Memory::default();
    with_job(model, &store, |job| {
        job.options = options("scissorhands", more).as_object().unwrap().clone();
        let options: scissorhands::Options =
            job.options(scissorhands::presets, Variant::Fixed).unwrap();
        let trainable = Trainable::named(&options.train_method).unwrap();
        let set = Set::of_concepts(job, &options.sets).unwrap();
        let (trimmed, count) = scissorhands::trimmed(job, &options, trainable, &set).unwrap();
        (
            passes::values(model, trainable).unwrap(),
            passes::values(&trimmed, trainable).unwrap(),
            count,
        )
    })
}

#[test]
fn the_most_sensitive_numbers_are_drawn_anew_and_no_others() {
    let model = pipeline("odd");
    for (redraw, most) in [("kaiming", 1.1), ("normal", 0.041)] {
        let (before, after, count) =
            scissors(&model, json!({"redraw": redraw, "train_method": "esd-all"}));
        let (old, new) = (flat(&before), flat(&after));
        let changed = old.iter().zip(&new).filter(|(a, b)| a != b).count();
        assert!(
            (changed as f32 - 0.05 * old.len() as f32).abs() < 0.006 * old.len() as f32,
            "{changed} of {}",
            old.len()
        );
        assert!(changed <= count, "{changed} {count}");
        for (name, new) in &after {
            let drawn: Vec<f32> = host(&before[name])
                .iter()
                .zip(host(new))
                .filter(|(a, b)| **a != *b)
                .map(|(_, b)| b)
                .collect();
            if name.ends_with(".bias") {
                assert!(drawn.iter().all(|&v| v == 0.0), "{name}");
            } else {
                assert!(drawn.iter().all(|v| v.abs() <= most), "{name}");
            }
        }
    }
    // As published: the self-attention of one block of this model, however many numbers are above
    // the threshold elsewhere.
    let (before, after, count) = scissors(
        &model,
        json!({"within": "published", "train_method": "esd-all", "sparsity": 0.5}),
    );
    let moved: Vec<&String> = before
        .keys()
        .filter(|name| host(&before[*name]) != host(&after[*name]))
        .collect();
    assert!(
        !moved.is_empty()
            && moved
                .iter()
                .all(|n| n.starts_with("up_blocks.1.attentions.1.") && n.contains("attn1"))
    );
    assert!(count < flat(&before).len() / 10, "{count}");
}

/// Repair that only looks at what is kept undoes the forgetting faster than repair without its
/// conflicting part.
#[test]
fn the_projection_holds_what_was_forgotten() {
    let model = pipeline("odd");
    let left = |projection: bool| {
        let more = json!({
            "lambda": 0.0, "projection": projection, "iterations": 25, "lr": 3e-3, "sparsity": 0.9, "batch": 6, "retain_batch": 6,
            "relabel": "instead"
        });
        let edited = run("scissorhands", &model, more)
            .erase()
            .unwrap()
            .apply_to(&model, 1.0)
            .unwrap();
        with_job(&model, &Memory::default(), |job| {
            let sets = Sets {
                relabel: Relabel::Instead,
                pictures: 8,
                ..sets()
            };
            Set::of_concepts(job, &sets)
                .unwrap()
                .loss(&model, &edited, 32, 9, 0)
                .unwrap()
                .into_scalar::<f32>()
        })
    };
    let (with, without) = (left(true), left(false));
    assert!(with < without, "{with} {without}");
}

// Selective Amnesia.

fn fisher(model: &Pipeline, store: &Memory, more: Value) -> (Gradients, Gradients) {
    with_job(model, store, |job| {
        job.options = options("sa", more).as_object().unwrap().clone();
        let options: sa::Options = job.options(sa::presets, Variant::Fixed).unwrap();
        let replayed = Set::to_keep(job, &options.sets).unwrap();
        let fisher = sa::fisher(job, &options, &replayed).unwrap();
        // By its definition: the squared sum over timesteps of one picture after the other.
        let at = passes::values(model, Trainable::named("esd-x").unwrap()).unwrap();
        let scale = 1000.0 / options.fisher_timesteps as f64;
        let mut expected = Gradients::new();
        for picture in 0..3 {
            let sum = replayed
                .gradient_over_time(model, &at, options.fisher_timesteps, job.seed, picture)
                .unwrap();
            let squared = sum
                .into_iter()
                .map(|(name, g)| (name, (g * scale).powi_scalar(2)));
            expected = plus(expected, squared.collect(), 1.0 / 3.0);
        }
        (fisher, expected)
    })
}

#[test]
fn the_fisher_information_is_computed_once() {
    let model = pipeline("odd");
    let store = Memory::default();
    let asked = || model.denoiser.weights.evaluations().so_far();
    let begun = asked();
    // Four pictures of two guided steps, and twice three pictures at 60 timesteps, forward and
    // backward.
    let (found, expected) = fisher(&model, &store, json!({"fisher_timesteps": 60}));
    assert_eq!(asked() - begun, 4 * 2 * 2 + 2 * 3 * 60 * 3);
    close(&found, &expected, 1e-5);
    assert!(flat(&found).iter().all(|&f| f >= 0.0));
    let begun = asked();
    let (again, _) = fisher(&model, &store, json!({"fisher_timesteps": 60}));
    assert_eq!(
        asked() - begun,
        3 * 60 * 3,
        "only what this test computes itself"
    );
    assert_eq!(flat(&again), flat(&found));
    let (other, _) = fisher(&model, &store, json!({"fisher_timesteps": 8}));
    assert_ne!(
        flat(&other),
        flat(&found),
        "other timesteps are another content"
    );
}

#[test]
fn elastic_weights_stay_where_they_mattered() {
    let model = pipeline("odd");
    let store = Memory::default();
    let (fisher, _) = fisher(&model, &store, json!({}));
    let far = |lambda: f64| {
        let more = json!({"lambda": lambda, "gamma": 0.0, "iterations": 20, "lr": 3e-3});
        let (edit, losses) = run("sa", &model, more).losses().unwrap();
        let edited = edit.apply_to(&model, 1.0).unwrap();
        let moved = fisher.iter().map(|(name, f)| {
            let step = edited.denoiser.weights.get(name).unwrap().flat()
                - model.denoiser.weights.get(name).unwrap().flat();
            (f.clone() * step.powi_scalar(2)).sum().into_scalar::<f32>()
        });
        (moved.sum::<f32>(), losses[0])
    };
    let ((free, first), (held, first_held)) = (far(0.0), far(100.0));
    assert!(held < 0.5 * free && held > 0.0, "{held} {free}");
    assert_eq!(first, first_held, "nothing has moved at the first step");
}
