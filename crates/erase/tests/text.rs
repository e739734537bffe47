//! The erasers of the text encoder on tiny models: few-shot, HiRM, AdvUnlearn, and the soft tokens
//! of the latter.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use burn::tensor::{Device, Tensor, TensorData};
use common::{Run, bits, concept, host, pipeline, refuses_damage};
use scumble_diffusion::Pipeline;
use scumble_erase::{
    Change, Concept, Edit, Error, Event, Profile, Trainable, Variant,
    adversary::soft_token::{Attack, Gradient, Rule, Slots, Span, attack},
    data::bank::{Bank, Examples, Path, Sampling},
    data::retain::Retain,
    job::Job,
    methods::advunlearn,
    training::adam::{Adam, Moments},
};
use serde_json::{Value, json};

/// Two steps of everything, small enough for a test.
fn options(method: &str, more: Value) -> Value {
    let mut options = match method {
        "few-shot" => {
            json!({"iterations": 4, "batch": 3, "pictures": 2, "sampling_steps": 2, "lr": 1e-3})
        }
        "hirm" => json!({"iterations": 4, "batch": 2, "lr": 1e-3, "retain_batch": 3}),
        _ => json!({
            "iterations": 5, "warmup": 2, "batch": 2, "trajectories": 2, "sampling_steps": 3, "lr": 1e-3, "attack_steps": 2,
            "attack_batch": 2, "retain_batch": 2, "retain_trajectories": 3
        }),
    };
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
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

#[track_caller]
fn near(found: f32, expected: f32, tolerance: f32) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "found {found:e}, expected {expected:e}"
    );
}

/// Every method with every choice of tensors it allows.
const CHOICES: [(&str, &str); 13] = [
    ("few-shot", "text-mlp"),
    ("few-shot", "text-mlp-only"),
    ("few-shot", "text-attn"),
    ("few-shot", "text-encoder"),
    ("hirm", "text-first"),
    ("hirm", "text-first-linear"),
    ("hirm", "text-encoder"),
    ("hirm", "text-attn"),
    ("advunlearn", "text-encoder"),
    ("advunlearn", "text-first"),
    ("advunlearn", "text-mlp"),
    ("advunlearn", "esd-x"),
    ("advunlearn", "esd-u"),
];

#[test]
fn every_chosen_tensor_moves_and_no_other() {
    let model = pipeline("odd");
    let before = bits(&model);
    for (method, choice) in CHOICES {
        let edit = run(method, &model, json!({"train_method": choice}))
            .erase()
            .unwrap();
        assert_eq!(bits(&model), before, "{method} moved the frozen model");
        let trainable = Trainable::named(choice).unwrap();
        let names = trainable
            .pick_in(&model)
            .unwrap()
            .into_iter()
            .map(|n| (trainable.component(&model).to_owned(), n));
        assert_eq!(
            edit.changes.keys().cloned().collect::<BTreeSet<_>>(),
            names.collect(),
            "{method} {choice}"
        );
        // A key's bias shifts all scores of a softmax alike: its gradient is 0 but for rounding.
        for (name, new) in values(&edit)
            .iter()
            .filter(|(name, _)| !name.ends_with("k_proj.bias"))
        {
            assert_ne!(*new, before[name], "{method} {choice}: {name} did not move");
        }
        assert_eq!(
            (
                edit.about.method.as_str(),
                &edit.about.options["train_method"]
            ),
            (method, &json!(choice))
        );
    }
}

#[test]
fn a_damaged_state_is_refused_by_name() {
    let model = pipeline("odd");
    let run = run("advunlearn", &model, json!({"attack_init": "latest"}));
    // Two steps of the warm-up, and two with soft tokens, which the next begins at.
    refuses_damage(&run, 4, &|_| true);
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let model = pipeline("odd");
    for (method, more) in [
        ("few-shot", json!({})),
        (
            "few-shot",
            json!({"retain": 1.0, "retain_batch": 3, "bound": 0.5}),
        ),
        ("hirm", json!({"lr_schedule": "linear"})),
        ("advunlearn", json!({})),
        (
            "advunlearn",
            json!({"attack_init": "latest", "attack": "fast"}),
        ),
        ("advunlearn", json!({"attack_init": "rolling"})),
        (
            "advunlearn",
            json!({"attack_init": "latest", "retain_mode": "iter", "train_method": "esd-x", "clean": 1}),
        ),
    ] {
        let undisturbed = values(&run(method, &model, more.clone()).erase().unwrap());
        for stops in [vec![1], vec![3], vec![1, 2, 3]] {
            let run = run(method, &model, more.clone());
            for &stop in &stops {
                let result = run.listened(&mut |event| match event {
                    Event::Step {
                        done,
                        loss: Some(_),
                    } if done == stop => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                });
                assert!(
                    matches!(result, Err(Error::Interrupted)),
                    "{method}: {result:?}"
                );
            }
            assert_eq!(
                values(&run.erase().unwrap()),
                undisturbed,
                "{method} {more} interrupted at {stops:?}"
            );
        }
    }
}

#[test]
fn seeds_and_variants_make_other_edits() {
    let model = pipeline("odd");
    for method in ["few-shot", "hirm", "advunlearn"] {
        let fixed = run(method, &model, json!({}));
        let same = values(&fixed.clone().erase().unwrap());
        assert_eq!(
            same,
            values(&run(method, &model, json!({})).erase().unwrap())
        );
        let other = Run {
            seed: 8,
            ..run(method, &model, json!({"towards": "random"}))
        };
        let other = if method == "hirm" {
            other
        } else {
            Run {
                seed: 8,
                ..run(method, &model, json!({}))
            }
        };
        assert!(same != values(&other.erase().unwrap()), "{method}");
        // Beyond the miniature the default is the published form, which few-shot has one of.
        let differ = match method {
            "few-shot" => &[][..],
            "hirm" => &[Variant::Paper, Variant::Reference],
            _ => &[Variant::Reference],
        };
        for &variant in differ {
            let run = Run {
                variant,
                ..run(method, &model, json!({}))
            };
            assert!(
                same != values(&run.erase().unwrap()),
                "{method} {variant:?}"
            );
        }
    }
}

#[test]
fn several_concepts_share_a_run() {
    let model = pipeline("odd");
    for method in ["few-shot", "hirm", "advunlearn"] {
        let concepts: Vec<Concept> = vec![
            concept("a church", None, None),
            concept("a dog", Some("a cat"), None),
        ];
        let edit = Run {
            concepts,
            ..run(method, &model, json!({}))
        }
        .erase()
        .unwrap();
        assert_eq!(edit.about.concepts, ["a church", "a dog"], "{method}");
        let none = Run {
            concepts: vec![],
            ..run(method, &model, json!({}))
        };
        assert!(
            matches!(
                none.erase(),
                Err(Error::Model(scumble_nn::Error::Input { .. }))
            ),
            "{method}"
        );
    }
}

#[test]
fn impossible_options_are_refused_by_name() {
    let model = pipeline("odd");
    for (method, key, value) in [
        ("few-shot", "iterations", json!(11)),
        ("few-shot", "iterations", json!(0)),
        ("few-shot", "lr", json!(-1.0)),
        ("few-shot", "batch", json!(0)),
        ("few-shot", "t_max", json!(1000)),
        ("few-shot", "bound", json!(-1.0)),
        ("few-shot", "train_method", json!("esd-x")),
        ("few-shot", "templates", json!("poem")),
        ("hirm", "coefficient", json!(0.0)),
        ("hirm", "at", json!("attention")),
        ("hirm", "train_method", json!("esd-x")),
        ("hirm", "retain", json!(-1.0)),
        ("hirm", "iterations", json!(0)),
        ("advunlearn", "attack_lr", json!(0.0)),
        ("advunlearn", "attack_tokens", json!(0)),
        ("advunlearn", "clean", json!(3)),
        ("advunlearn", "eta", json!(f64::NAN)),
        ("advunlearn", "attack", json!("slow")),
    ] {
        let run = run(method, &model, json!({key: value}));
        let error = run
            .listened(&mut |event| panic!("{method} {key} {value}: {event:?}"))
            .unwrap_err();
        assert!(
            matches!(error, Error::Model(scumble_nn::Error::Input { .. })),
            "{method} {key} {value}: {error:?}"
        );
        assert!(!error.to_string().ends_with('.'), "{error}");
    }
    // A context of 11 holds start, 2 words and end: 7 places are left.
    let full = run("advunlearn", &model, json!({"attack_tokens": 8}))
        .erase()
        .unwrap_err();
    assert!(full.to_string().contains("no room for 8"), "{full}");
    let pictures = Some(Tensor::zeros([2, 3, 12, 12], model.device()));
    let two = Run {
        pictures,
        concepts: vec![
            concept("a church", None, None),
            concept("a dog", None, None),
        ],
        ..run("few-shot", &model, json!({}))
    };
    assert!(two.erase().unwrap_err().to_string().contains("one concept"));
}

// Few-shot.

/// ```python
/// x = torch.tensor([.5, -1.25, 3., .001], requires_grad=True)
/// optimiser = torch.optim.Adam([x], lr=.01, betas=(.9, .98), eps=1e-6, weight_decay=.1)
/// for g in ([.1, -2., 0., 1e-4], [.3, 1., -.5, 1e-4], [-.2, .25, .5, -3e-4]):
///     x.grad = torch.tensor(g); optimiser.step(); print(x.tolist())
/// ```
#[test]
fn adam_takes_torchs_settings() {
    let tensor = |values: [f32; 4]| {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [4]), &Device::flex())
    };
    let adam = Adam {
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-6,
        weight_decay: 0.1,
        decoupled: false,
    };
    let mut x = tensor([0.5, -1.25, 3.0, 0.001]);
    let mut moments = Moments::zeros_like(&x);
    let gradients = [
        [0.1, -2.0, 0.0, 1e-4],
        [0.3, 1.0, -0.5, 1e-4],
        [-0.2, 0.25, 0.5, -3e-4],
    ];
    let expected = [
        [0.490_000_07, -1.240_000_1, 2.99, -0.008_950_251],
        [0.480_549_3, -1.236_631_4, 2.988_575, -0.003_400_422_2],
        [0.476_118_12, -1.234_372_7, 2.982_343_2, 0.003_897_126_8],
    ];
    for (t, (gradient, expected)) in gradients.into_iter().zip(expected).enumerate() {
        x = moments.step_with(adam, x, tensor(gradient), 0.01, t + 1);
        for (found, expected) in host(&x).iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-6,
                "step {}: {found} {expected}",
                t + 1
            );
        }
    }
}

/// The error of the pictures rises, not above the bound by more than one step; the retain term
/// holds captions still.
#[test]
fn few_shot_ascends_up_to_its_bound_and_retains() {
    let model = pipeline("odd");
    let losses = |more: Value| {
        let mut all = json!({"iterations": 10, "lr": 1e-2, "t_min": 0, "t_max": 99, "batch": 8});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        run("few-shot", &model, all).losses().unwrap()
    };
    let (free, falling) = losses(json!({}));
    // The same examples without training: steps differ in what they draw more than in what one step
    // does.
    let (_, still) = losses(json!({"lr": 1e-9}));
    assert!(
        falling.iter().skip(5).sum::<f32>() < still.iter().skip(5).sum::<f32>(),
        "minus the error: {falling:?} {still:?}"
    );
    let bound = -falling[0] * 0.5;
    let (_, bounded) = losses(json!({"bound": bound}));
    assert!(
        bounded.iter().all(|loss| -loss <= bound * 1.0001),
        "{bounded:?}"
    );
    let (kept, _) = losses(json!({"retain": 100.0, "retain_batch": 5}));
    let drift = |edit: &Edit| {
        let prompts: Vec<String> = ["", "a dog", "a cat on a table", "a red car", "the moon"]
            .map(String::from)
            .into();
        let edited = edit.apply_to(&model, 1.0).unwrap();
        scumble_erase::data::retain::hidden_drift(&model, &edited, &prompts).into_scalar::<f32>()
    };
    assert!(
        drift(&kept) < 0.5 * drift(&free),
        "{} {}",
        drift(&kept),
        drift(&free)
    );
    assert_eq!(drift(&Edit::default()), 0.0);
}

#[test]
fn few_shot_takes_the_users_pictures() {
    let model = pipeline("odd");
    let own = run("few-shot", &model, json!({}));
    own.erase().unwrap();
    assert_eq!(own.store.recorded.get(), 1, "the model drew some");
    let size = model.autoencoder.config.factor() * model.denoiser.config.sample_size;
    let given = Run {
        pictures: Some(Tensor::ones([3, 3, size, size], model.device()) * 0.3),
        ..run("few-shot", &model, json!({}))
    };
    let edit = given.erase().unwrap();
    assert_eq!(
        given.store.recorded.get(),
        0,
        "nothing is drawn where pictures are given"
    );
    assert_ne!(values(&edit), values(&own.erase().unwrap()));
    // Drawn pictures are shared between runs.
    let again = Run {
        store: own.store.beside(),
        ..run("few-shot", &model, json!({"lr": 1e-4}))
    };
    again.erase().unwrap();
    assert_eq!(own.store.recorded.get(), 1);
}

// HiRM.

/// ```python
/// encoder = CLIPTextModel.from_pretrained('networks/odd/model/text_encoder', dtype=torch.float64)
/// p, a = ids('a church'), ids('a cat')             # they differ at position 2 only
/// h, g = encoder(p)[0], encoder(a)[0]
/// print(((h - g)[:, 2:] ** 2).mean(), ((h - g) ** 2).mean(), (h ** 2).mean())
/// encoder.text_model.encoder.layers[-1].self_attn.out_proj.register_forward_hook(lambda m, i, o: print((o ** 2).mean()))
/// encoder(p)
/// ```
#[test]
fn hirms_first_loss_is_transformers() {
    let model = pipeline("odd");
    let first = |more: Value| {
        let mut all = json!({"iterations": 1, "batch": 1, "retain": 0.0});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let concepts = vec![concept("a church", Some("a cat"), None)];
        Run {
            concepts,
            ..run("hirm", &model, all)
        }
        .losses()
        .unwrap()
        .1[0]
    };
    near(
        first(json!({"towards": "anchor", "positions": "concept"})),
        GOLDEN[0],
        1e-4,
    );
    near(
        first(json!({"towards": "anchor", "positions": "all"})),
        GOLDEN[1],
        1e-4,
    );
    // A random target of no length leaves the mean square of what is pulled.
    near(
        first(json!({"towards": "random", "positions": "all", "coefficient": 1e-9})),
        GOLDEN[2],
        1e-4,
    );
    near(
        first(
            json!({"towards": "random", "positions": "all", "coefficient": 1e-9, "at": "attention"}),
        ),
        GOLDEN[3],
        1e-4,
    );
    // A long one leaves its own: every position has norm c, or all of them together.
    near(
        first(json!({"towards": "random", "positions": "all", "coefficient": 1e6})),
        1e12 / 10.0,
        1e-3,
    );
    near(
        first(
            json!({"towards": "random", "positions": "all", "coefficient": 1e6, "direction": "whole"}),
        ),
        1e12 / 110.0,
        1e-3,
    );
}

const GOLDEN: [f32; 4] = [1.668_761_9, 1.365_350_6, 1.182_571, 1.258_662];

#[test]
fn hirm_goes_to_the_anchor_and_retains() {
    let model = pipeline("odd");
    let concepts = vec![concept("a church", Some("a cat"), None)];
    let more = json!({"iterations": 60, "lr": 1e-2, "train_method": "text-encoder", "retain": 1.0, "retain_batch": 5, "towards": "anchor"});
    let (edit, losses) = Run {
        concepts,
        ..run("hirm", &model, more)
    }
    .losses()
    .unwrap();
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
    let edited = edit.apply_to(&model, 1.0).unwrap();
    let apart = |a: Tensor<3>, b: Tensor<3>| (a - b).powi_scalar(2).mean().into_scalar::<f32>();
    let said = |model: &Pipeline, text: &str| model.encode(&[text.to_owned()]).tokens;
    assert!(
        apart(said(&edited, "a church"), said(&model, "a cat"))
            < 0.5 * apart(said(&model, "a church"), said(&model, "a cat"))
    );
}

// What is to be kept.

#[test]
fn the_retain_set_is_what_was_said() {
    let model = pipeline("odd");
    let base = run("hirm", &model, json!({}));
    let mut listen = |_: Event<'_>| ControlFlow::Continue(());
    let mut of = |preserve: &[Concept]| {
        let job = job(&model, &base, preserve, &mut listen);
        Retain::of(&job)
    };
    let plain = of(&[]);
    let batch = plain.batch(5, 0);
    assert_eq!(batch[0], "", "guidance asks the empty prompt at every step");
    assert_eq!(
        batch[1..].iter().collect::<BTreeSet<_>>(),
        base.captions.lines.iter().collect()
    );
    assert_eq!(plain.some(9).len(), 4);
    assert!(plain.batch(0, 0).is_empty());
    let named = of(&[concept("a mosque", None, None)]);
    assert_eq!(
        named
            .batch(5, 3)
            .iter()
            .filter(|p| *p == "a mosque")
            .count(),
        2
    );
    assert_eq!(named.some(2)[0], "a mosque");
    // What was named is all there, with as many captions beside it.
    let many = of(&["a mosque", "a tree", "a fish"].map(|name| concept(name, None, None)));
    let some = many.some(2);
    assert_eq!(
        (some.len(), &some[..3]),
        (6, &["a mosque", "a tree", "a fish"].map(String::from)[..])
    );
    // A step of one prompt: everything in turn.
    let single: BTreeSet<String> = (0..12).flat_map(|step| named.batch(1, step)).collect();
    assert_eq!(
        single.len(),
        6,
        "{single:?}: the empty prompt, the name, four captions"
    );
    assert!(Retain::default().is_empty() && Retain::default().batch(4, 0).is_empty());
}

// Soft tokens.

fn job<'a>(
    model: &'a Pipeline,
    run: &'a Run<'_>,
    preserve: &'a [Concept],
    listen: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Job<'a> {
    Job {
        pipeline: model,
        base: "tiny",
        base_hash: "hash of tiny",
        family: "",
        profile: Profile::SD,
        concepts: &run.concepts,
        preserve,
        captions: &run.captions,
        encoded: Default::default(),
        pictures: None,
        masks: None,
        count: None,
        options: Default::default(),
        seed: 7,
        store: &run.store,
        listen,
    }
}

fn bank(model: &Pipeline, prompts: &[String]) -> Bank {
    let run = run("hirm", model, json!({}));
    let mut listen = |_: Event<'_>| ControlFlow::Continue(());
    let mut job = job(model, &run, &[], &mut listen);
    let path = |(i, prompt): (usize, &String)| Path {
        prompt: prompt.clone(),
        also: vec![],
        seed: i as u64,
    };
    let paths: Vec<Path> = prompts.iter().enumerate().map(path).collect();
    Bank::record(
        &mut job,
        &paths,
        Sampling {
            steps: 4,
            guidance: 3.0,
        },
    )
    .unwrap()
}

/// A soft token that is a word's own vector is that word.
#[test]
fn a_soft_token_stands_where_a_word_would() {
    let model = pipeline("odd");
    let prompts = ["church on a table", "cat"].map(String::from);
    let text = model.text_network();
    let ids = |word: &str| model.tokenizer.tokens(word);
    let (owl, dog) = (ids("owl"), ids("dog"));
    assert_eq!(
        (owl.len(), dog.len()),
        (1, 1),
        "the test wants words of one token"
    );
    let slots = Slots::new(&model, &prompts, 2, Span::Tokens).unwrap();
    assert_eq!(slots.len(), 2);
    let soft = text.embed(&[[owl.clone(), dog.clone()].concat(), [dog, owl].concat()]);
    let found = slots.encode(&text, &soft, &[(0, 0), (1, 1), (1, 0)]);
    let expected = model
        .encode(&["owl dog church on a table", "dog owl cat", "owl dog cat"].map(String::from));
    assert_eq!(host(&found.tokens), host(&expected.tokens));
    // Counted in words, a prompt of more tokens than words loses the end of its text, and as many
    // tokens as there are places.
    let long = [String::from("xylophone")];
    let whole = model.tokenizer.encode(&long[0]);
    assert!(whole.length > 3, "the test wants a word of several tokens");
    let by_words = Slots::new(&model, &long, 1, Span::Words).unwrap();
    let by_tokens = Slots::new(&model, &long, 1, Span::Tokens).unwrap();
    let start = by_tokens.random(&model, 1, 3);
    assert_ne!(
        host(&by_words.encode(&text, &start, &[(0, 0)]).tokens),
        host(&by_tokens.encode(&text, &start, &[(0, 0)]).tokens)
    );
    assert_eq!(start.dims(), [1, 1, 10]);
}

#[test]
fn the_attack_finds_its_way_back() {
    let model = pipeline("odd");
    let prompts = [String::from("a church")];
    let bank = bank(&model, &prompts);
    // A model that was taught to see another prompt's picture.
    let more = json!({"iterations": 30, "lr": 1e-2, "towards": "anchor", "train_method": "text-encoder", "retain": 0.0});
    let concepts = vec![concept("a church", Some("a cat"), None)];
    let edited = Run {
        concepts,
        ..run("hirm", &model, more)
    }
    .erase()
    .unwrap()
    .apply_to(&model, 1.0)
    .unwrap();
    let slots = Slots::new(&edited, &prompts, 1, Span::Tokens).unwrap();
    let mut all = |_: usize| -> scumble_erase::Result<(Examples, Vec<usize>)> {
        Ok((
            bank.examples(&(0..bank.len()).collect::<Vec<_>>()),
            vec![0; bank.len()],
        ))
    };
    for rule in [Rule::Pgd, Rule::Fast] {
        let search = Attack {
            steps: 25,
            lr: 3e-2,
            rule,
            gradient: Gradient::Fresh,
        };
        let start = slots.random(&edited, 2, 5);
        let (soft, losses) = attack(&edited, &slots, start.clone(), search, &mut all).unwrap();
        assert!(losses[24] < 0.95 * losses[0], "{rule:?}: {losses:?}");
        assert_eq!(soft.dims(), [2, 1, 10]);
        // As published, the tokens of the last step are thrown away: one step returns where it
        // began.
        let one = Attack {
            steps: 1,
            gradient: Gradient::Summed,
            ..search
        };
        assert_eq!(
            host(
                &attack(&edited, &slots, start.clone(), one, &mut all)
                    .unwrap()
                    .0
            ),
            host(&start)
        );
        // The first step of Adam is as long as the step size, whatever the gradient.
        let one = Attack { steps: 1, ..search };
        let moved = attack(&edited, &slots, start.clone(), one, &mut all)
            .unwrap()
            .0
            - start.clone();
        assert!(
            host(&moved).iter().all(|m| (m.abs() - 3e-2).abs() < 1e-4),
            "{moved}"
        );
        // Summed gradients go another way from the third step on.
        let mut three = |gradient| {
            host(
                &attack(
                    &edited,
                    &slots,
                    start.clone(),
                    Attack {
                        steps: 4,
                        gradient,
                        ..search
                    },
                    &mut all,
                )
                .unwrap()
                .0,
            )
        };
        assert_ne!(three(Gradient::Fresh), three(Gradient::Summed), "{rule:?}");
    }
}

// AdvUnlearn.

/// Before the first attack, and without the retain term, it is ESD in the paper's form on the same
/// examples.
#[test]
fn the_warm_up_is_esd() {
    let model = pipeline("odd");
    let adv = json!({"iterations": 2, "warmup": 2, "retain": 0.0, "train_method": "esd-x", "start_guidance": 3.0, "form": "paper"});
    let (edit, losses) = run("advunlearn", &model, adv).losses().unwrap();
    let esd = json!({
        "iterations": 2, "batch": 2, "trajectories": 2, "sampling_steps": 3, "lr": 1e-3, "lr_schedule": "constant", "eta": 1.0,
        "form": "paper", "train_method": "esd-x", "start_guidance": 3.0
    });
    let (same, expected) = Run::of("esd", &model, vec![concept("a church", None, None)], esd)
        .losses()
        .unwrap();
    assert_eq!(losses.len(), 2);
    // Which examples of the bank a step takes is each method's own: the first losses agree where
    // all of them are taken.
    assert_eq!(edit.changes.len(), same.changes.len());
    let whole = json!({
        "iterations": 1, "warmup": 1, "retain": 0.0, "train_method": "esd-x", "batch": 6, "form": "paper", "start_guidance": 3.0
    });
    let all = run("advunlearn", &model, whole).losses().unwrap().1[0];
    let esd = json!({
        "iterations": 1, "batch": 6, "trajectories": 2, "sampling_steps": 3, "eta": 1.0, "form": "paper", "train_method": "esd-x",
        "start_guidance": 3.0
    });
    let expected_all = Run::of("esd", &model, vec![concept("a church", None, None)], esd)
        .losses()
        .unwrap()
        .1[0];
    near(all, expected_all, 1e-5);
    assert!(expected.iter().all(|loss| loss.is_finite()));
}

#[test]
fn attack_and_retain_terms_do_what_they_say() {
    let model = pipeline("odd");
    let losses = |more: Value| run("advunlearn", &model, more).losses().unwrap().1;
    // At the first step nothing has moved, so the retain term is 0 but for rounding.
    let with = losses(json!({"iterations": 1, "warmup": 1, "retain": 1.0}))[0];
    let without = losses(json!({"iterations": 1, "warmup": 1, "retain": 0.0}))[0];
    near(with, without, 1e-4);
    let alone = losses(json!({"iterations": 2, "warmup": 2, "retain_mode": "iter", "lr": 1e-30}));
    assert_eq!(alone.len(), 4, "a step of its own after each step");
    assert!(
        alone[1] < 1e-6 && alone[3] < 1e-6 && alone[0] > 1e-4,
        "{alone:?}"
    );
    // The attack changes what is trained on; clean examples are not attacked.
    let attacked = losses(json!({"iterations": 1, "warmup": 0, "retain": 0.0}))[0];
    assert!(
        (attacked - without).abs() > 1e-4 * without,
        "{attacked} {without}"
    );
    let clean = losses(json!({"iterations": 1, "warmup": 0, "retain": 0.0, "clean": 2}))[0];
    assert_eq!(clean.to_bits(), without.to_bits());
    // With the retain term captions stay nearer to where they were.
    let drift = |retain: f64| {
        let more =
            json!({"iterations": 12, "warmup": 6, "retain": retain, "retain_batch": 6, "lr": 5e-3});
        let edited = run("advunlearn", &model, more)
            .erase()
            .unwrap()
            .apply_to(&model, 1.0)
            .unwrap();
        let prompts: Vec<String> = ["a dog", "a cat on a table", "a red car", "the moon"]
            .map(String::from)
            .into();
        scumble_erase::data::retain::hidden_drift(&model, &edited, &prompts).into_scalar::<f32>()
    };
    assert!(drift(10.0) < drift(0.0), "{} {}", drift(10.0), drift(0.0));
}

/// The numbers that are told, by hand: 2 trajectories and 3 kept prompts of 3 steps with 2
/// predictions each; 3 attacked steps of 2 attack steps on 2 examples; 5 training steps of 2 + 2
/// examples.
#[test]
fn the_cost_is_counted() {
    let model = pipeline("odd");
    let mut notes = Vec::new();
    let run = run("advunlearn", &model, json!({}));
    run.listened(&mut |event| {
        if let Event::Note(text) = event {
            notes.push(text.to_owned());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let cost = notes
        .iter()
        .find(|note| note.starts_with("U-Net evaluations"))
        .unwrap();
    assert!(
        cost.contains(
            ": 30 to record, 12 forward and backward in attacks, 20 in training; 94 in all"
        ),
        "{cost}"
    );
    let rows: usize = run
        .store
        .groups()
        .iter()
        .map(|group| group["t"].to_f32().unwrap().len())
        .sum();
    assert_eq!(2 * rows, 30, "what was recorded");
    assert_eq!(advunlearn::PUBLISHED, [1_555_000, 30_000]);
}
