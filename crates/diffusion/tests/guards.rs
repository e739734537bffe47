//! Guards: what they leave alone, what their formulas give, and that gradients pass through them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{ops::ControlFlow, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use scumble_diffusion::{
    At, FlowMatching, Guard, Guidance, Noise, Output, Pipeline, Prompted, Request, Sampler, Scale,
    StepIndex, Timestep, TorchRng, Variant,
    guards::{
        ALL, Rule, Safree, Sld, a_star,
        adavd::Joint,
        safree,
        sld::Bound,
        span::{onto, orthonormal},
    },
};
use scumble_families as families;
use scumble_nn::files::{Checkpoint, OpenOptions};
use serde_json::{Map, Value, json};

/// The small model `NAME` of crates/nn/tests/golden/networks.
fn pipeline(name: &str) -> Pipeline {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../nn/tests/golden/networks")
        .join(name)
        .join("model");
    families::load(
        &Checkpoint::open(path, &OpenOptions::default()).unwrap(),
        &Device::flex(),
    )
    .unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// The model under a guard, with some of its numbers.
fn guarded(model: &Pipeline, id: &str, texts: &[&str], options: Value) -> Pipeline {
    let Value::Object(options) = options else {
        panic!("options are named")
    };
    let mut guarded = model.clone();
    guarded
        .guards
        .push(Guard::new(id, strings(texts), Variant::Fixed, Scale::Small, &options).unwrap());
    guarded
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data().iter::<f32>().collect()
}

fn request(prompts: &[&str], seed: u64) -> Request {
    let mut request = Request::new(strings(prompts), seed, 4, 3.0);
    request.sampler = Some(Sampler::Ddim);
    request
}

fn drawn(model: &Pipeline, prompts: &[&str], seed: u64) -> Vec<f32> {
    host(
        &model
            .sample(&request(prompts, seed), &mut |_| ControlFlow::Continue(()))
            .unwrap(),
    )
}

const PROMPTS: [&str; 2] = ["a cat and a dog", "a church"];

/// The tiny SDXL, with two text encoders and a pooled embedding.
fn sdxl() -> Pipeline {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sdxl/model");
    families::load(
        &Checkpoint::open(path, &OpenOptions::default()).unwrap(),
        &Device::flex(),
    )
    .unwrap()
}

#[test]
fn neutral_numbers_are_plain_guidance_bit_for_bit() {
    neutral_numbers_are_plain_guidance(&pipeline("sd1"));
}

#[test]
fn neutral_numbers_are_plain_guidance_on_sdxl_too() {
    neutral_numbers_are_plain_guidance(&sdxl());
}

fn neutral_numbers_are_plain_guidance(model: &Pipeline) {
    let plain = drawn(model, &PROMPTS, 5);
    for (id, texts, options) in [
        ("sld-max", ["a church"], json!({"scale": 0.0})),
        ("sld-max", ["a church"], json!({"warmup": 1000})),
        ("adavd", ["a church"], json!({"scale": 0.0})),
        ("a-star", ["a church"], json!({"step": 0.0})),
        (
            "a-star",
            ["a church"],
            json!({"segregation": false, "retention": false}),
        ),
        ("safree", ["a church"], json!({"alpha": 1e9})),
    ] {
        let texts = if id == "a-star" {
            vec!["cat", "dog"]
        } else {
            texts.to_vec()
        };
        assert_eq!(
            drawn(&guarded(model, id, &texts, options.clone()), &PROMPTS, 5),
            plain,
            "{id} {options}"
        );
    }
    for known in ALL.iter().filter(|known| known.presets.is_some()) {
        let texts: &[&str] = if known.id == "a-star" {
            &["cat", "dog"]
        } else {
            &["a church"]
        };
        let numbers = if known.id.starts_with("sld") {
            json!({"warmup": 0})
        } else {
            json!({})
        };
        let mut other = guarded(model, known.id, texts, numbers);
        assert!(
            drawn(&other, &PROMPTS, 5) != plain,
            "{} does something",
            known.id
        );
        other.guards[0].strength = 0.0;
        assert_eq!(
            drawn(&other, &PROMPTS, 5),
            plain,
            "{} at strength 0",
            known.id
        );
    }
    // A negative prompt that says nothing is the empty one.
    let mut silent = guarded(model, "negative", &["x"], json!({}));
    silent.guards[0].texts = vec![String::new()];
    assert_eq!(drawn(&silent, &PROMPTS, 5), plain);
}

#[test]
fn the_negative_guard_is_a_negative_prompt() {
    let model = pipeline("sd1");
    let mut asked = request(&PROMPTS, 3);
    asked.negative_prompt = "a dog".into();
    let expected = host(
        &model
            .sample(&asked, &mut |_| ControlFlow::Continue(()))
            .unwrap(),
    );
    assert_eq!(
        drawn(
            &guarded(&model, "negative", &["a dog"], json!({})),
            &PROMPTS,
            3
        ),
        expected
    );
}

#[test]
fn a_picture_does_not_depend_on_its_batch() {
    let model = pipeline("sd1");
    for known in ALL.iter().filter(|known| known.presets.is_some()) {
        let texts: &[&str] = if known.id == "a-star" {
            &["cat", "dog"]
        } else {
            &["a church"]
        };
        let numbers = match known.id {
            "safree" => json!({"validate": true}),
            "adavd" => {
                json!({"shift": true, "joint": "whole", "unconditional": true, "span": false, "centre": 0.2, "steepness": 5.0})
            }
            _ => json!({}),
        };
        let model = guarded(&model, known.id, texts, numbers);
        let together = drawn(&model, &PROMPTS, 7);
        let apart = [
            drawn(&model, &PROMPTS[..1], 7),
            drawn(&model, &PROMPTS[1..], 8),
        ]
        .concat();
        let largest = apart.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (a, b) in together.iter().zip(&apart) {
            assert!((a - b).abs() <= 1e-5 * largest, "{}: {a} and {b}", known.id);
        }
    }
}

#[test]
fn guards_of_different_places_act_together_and_two_of_one_do_not() {
    let model = pipeline("sd1");
    let mut all = guarded(&model, "sld-strong", &["a church"], json!({"warmup": 0}));
    for (id, texts) in [
        ("safree", vec!["a church"]),
        ("adavd", vec!["a church"]),
        ("a-star", vec!["cat", "dog"]),
    ] {
        let before = drawn(&all, &PROMPTS, 5);
        all = guarded(&all, id, &texts, json!({}));
        assert_ne!(drawn(&all, &PROMPTS, 5), before, "{id}");
    }
    for other in ["negative", "sld-weak", "safree", "adavd", "a-star"] {
        let two = guarded(&all, other, &["a dog"], json!({}));
        let error = two
            .sample(&request(&PROMPTS, 5), &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        assert!(error.to_string().contains("two guards"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn guards_say_what_is_wrong() {
    let new = |id: &str, options: Value| {
        let Value::Object(options) = options else {
            panic!("options are named")
        };
        Guard::new(
            id,
            strings(&["a church"]),
            Variant::Fixed,
            Scale::Small,
            &options,
        )
    };
    for (id, options, said) in [
        ("sld", json!({}), "there is no guard `sld`"),
        ("spm", json!({}), "trained adapters"),
        ("sld-max", json!({"warm": 3}), "no option `warm`"),
        ("sld-max", json!({"warmup": -3}), "warmup"),
        ("sld-max", json!({"scale": -3.0}), "scale"),
        ("safree", json!({"validate": 3}), "validate"),
    ] {
        let error = new(id, options).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(
        Guard::new(
            "negative",
            strings(&[" "]),
            Variant::Fixed,
            Scale::Small,
            &Map::new()
        )
        .is_err()
    );
    // The scale on which paper and diffusers disagree, and the bound on which paper and code do.
    let rule = |form| match Guard::new(
        "sld-weak",
        strings(&["x"]),
        form,
        Scale::Published,
        &Map::new(),
    )
    .unwrap()
    .rule
    {
        Rule::Sld(rule) => rule,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (
            rule(Variant::Paper).scale,
            rule(Variant::Reference).scale,
            rule(Variant::Fixed).scale
        ),
        (200.0, 20.0, 200.0)
    );
    assert_eq!(
        (rule(Variant::Paper).bound, rule(Variant::Fixed).bound),
        (Bound::Max, Bound::Min)
    );
    // Data: out and in again.
    let guard = new("adavd", json!({"shift": true})).unwrap();
    assert_eq!(
        serde_json::from_str::<Guard>(&serde_json::to_string(&guard).unwrap()).unwrap(),
        guard
    );
}

type Numbers = (usize, f64, f64, f64, f64);

/// golden/sld.py: three steps of six numbers, guidance 4; warm-up, scale, threshold, momentum and
/// memory in front.
const SLD: [(Numbers, [f32; 18]); 3] = [
    (
        (1, 200.0, 0.0, 0.0, 0.0),
        [
            0.0127598, 0.0536904, 0.0693695, 0.0524231, 0.0108212, -0.03587, 0.1181519, 0.0941858,
            0.0259226, -0.0545324, -0.059655, -0.0077731, 0.0280545, -0.0666779, -0.1300507,
            -0.004166, -0.0268149, -0.0368524,
        ],
    ),
    (
        (1, 2000.0, 0.025, 0.5, 0.7),
        [
            0.0127598, 0.0536904, 0.0693695, 0.0524231, 0.0108212, -0.03587, 0.0029196, 0.0050825,
            0.004855, 0.0023442, -0.0012692, -0.0051736, 0.0160233, 0.0180226, 0.0115455,
            -0.0003615, -0.0120986, -0.0189002,
        ],
    ),
    (
        (0, 30.0, 0.01, 0.3, 0.4),
        [
            0.0124419, 0.0517851, 0.0612373, 0.0443974, 0.0090587, -0.03561, 0.1020189, 0.0745559,
            0.0217068, -0.0498971, -0.1022045, -0.0917915, 0.0268128, -0.0494106, -0.1286093,
            -0.1093644, -0.057978, 0.0099767,
        ],
    ),
];

#[test]
fn the_recursion_of_sld() {
    let wave = |seed: f64| {
        let values: Vec<f32> = (0..6)
            .map(|k| (0.02 * (f64::from(0.7f32) * f64::from(k) + seed).sin()) as f32)
            .collect();
        Tensor::<4>::from_data(TensorData::new(values, [1, 1, 2, 3]), &Device::flex())
    };
    for ((warmup, scale, threshold, momentum, memory), expected) in SLD {
        let rule = Sld {
            warmup,
            scale,
            threshold,
            momentum,
            memory,
            bound: Bound::Min,
        };
        let mut state = None;
        let mut found = Vec::new();
        for i in 0..3 {
            let f = i as f64;
            let (prompt, empty, concept) =
                (wave(1.0 + f), wave(2.0 + 2.0 * f), wave(1.3 + 1.1 * f));
            let (gamma, next) = rule.step(prompt.clone(), empty.clone(), concept, state);
            state = Some(next);
            let mut towards = prompt - empty.clone();
            if rule.acts(StepIndex(i)) {
                towards = towards - gamma;
            }
            found.extend(host(&(empty + towards * 4.0)));
        }
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 2e-6, "{rule:?}: {a}, expected {b}");
        }
    }
}

fn rows(n: usize, width: usize, seed: u64) -> Tensor<2> {
    let values = TorchRng::new(seed).normal((n * width).max(16));
    Tensor::from_data(
        TensorData::new(values[..n * width].to_vec(), [n, width]),
        &Device::flex(),
    )
}

#[test]
fn projections_are_projections() {
    let concept = rows(3, 20, 1);
    // A row that the others span adds nothing.
    let twice = Tensor::cat(
        vec![concept.clone(), concept.clone().narrow(0, 0, 1) * 2.0],
        0,
    );
    let p = onto(Tensor::eye(20, &Device::flex()), &orthonormal(&twice));
    let near = |a: &Tensor<2>, b: &Tensor<2>| {
        host(&(a.clone() - b.clone()))
            .iter()
            .all(|x| x.abs() < 1e-5)
    };
    assert!(near(&p.clone().matmul(p.clone()), &p), "idempotent");
    assert!(near(&p.clone().transpose(), &p), "symmetric");
    assert!(
        near(&concept.clone().matmul(p.clone()), &concept),
        "keeps the span"
    );
    let trace: f32 = (p * Tensor::eye(20, &Device::flex())).sum().into_scalar();
    assert!((trace - 3.0).abs() < 1e-4, "of rank 3: {trace}");
}

/// Where a guard says that it has no effect, the picture is the plain one bit for bit; where it
/// does not, it is another.
#[test]
fn guards_say_when_they_have_no_effect() {
    let model = pipeline("sd1");
    let words = ["cat", "dog"];
    for (id, options, guidance, because) in [
        (
            "sld-max",
            json!({"warmup": 4}),
            3.0,
            Some("its warm-up of 4 steps outlasts the run's 4"),
        ),
        ("sld-weak", json!({}), 3.0, Some("warm-up of 15")),
        ("sld-max", json!({"warmup": 3}), 3.0, None),
        ("sld-max", json!({}), 1.0, Some("the guidance scale is 1")),
        (
            "sld-max",
            json!({"scale": 0.0}),
            3.0,
            Some("its scale is 0"),
        ),
        ("sld-max", json!({"scale": 0.0, "bound": "max"}), 3.0, None),
        (
            "negative",
            json!({}),
            0.5,
            Some("at 1 or less only the prompt"),
        ),
        ("negative", json!({}), 1.5, None),
        ("safree", json!({}), 1.0, None),
        ("adavd", json!({"scale": 0.0}), 3.0, Some("its scale is 0")),
        ("adavd", json!({}), 1.0, None),
        ("a-star", json!({"step": 0.0}), 3.0, Some("its step is 0")),
        ("a-star", json!({"steps": 0}), 3.0, Some("of no step")),
        (
            "a-star",
            json!({"segregation": false, "retention": false}),
            3.0,
            Some("neither"),
        ),
        (
            "a-star",
            json!({"segregation": false, "steps": 1}),
            3.0,
            Some("the step before"),
        ),
        (
            "a-star",
            json!({"segregation": false, "steps": 2}),
            3.0,
            None,
        ),
        ("a-star", json!({}), 1.0, None),
    ] {
        let guarded = guarded(&model, id, &words, options.clone());
        let said = guarded.guards[0].no_effect(4, guidance);
        assert_eq!(
            said.is_some(),
            because.is_some(),
            "{id} {options}: {said:?}"
        );
        assert!(
            said.iter()
                .zip(because)
                .all(|(said, because)| said.contains(because)),
            "{said:?}"
        );
        let mut asked = request(&PROMPTS, 5);
        asked.guidance_scale = guidance;
        let run = |model: &Pipeline| {
            host(
                &model
                    .sample(&asked, &mut |_| ControlFlow::Continue(()))
                    .unwrap(),
            )
        };
        assert_eq!(
            run(&guarded) == run(&model),
            because.is_some(),
            "{id} {options} at {guidance}"
        );
    }
    let mut off = guarded(&model, "adavd", &words, json!({}));
    off.guards[0].strength = 0.0;
    assert_eq!(
        off.guards[0].no_effect(4, 3.0).as_deref(),
        Some("its strength is 0")
    );
    assert!(
        guarded(&model, "a-star", &["cat", "Cat "], json!({})).guards[0]
            .no_effect(4, 3.0)
            .is_some()
    );
}

type SafreeCase = ((usize, usize, usize, usize, f64, f64), f64, usize, [f32; 3]);

/// golden/safree.py: tokens, width, words, concepts, how near the states lie to the masked
/// prompts', seed; then beta, the number of filtered steps, and the first numbers of the first
/// token filtered.
const SAFREE: [SafreeCase; 3] = [
    (
        (8, 24, 3, 1, 0.15, 0.0),
        0.3833426,
        1,
        [-0.127089, 0.096205, 0.240819],
    ),
    (
        (10, 24, 3, 5, 0.04, 1.0),
        0.4261799,
        1,
        [0.219976, 0.205400, -0.030012],
    ),
    (
        (6, 24, 2, 3, 0.06, 2.0),
        0.5341957,
        6,
        [0.031559, -0.022433, -0.161191],
    ),
];

#[test]
fn safree_measures_every_token_and_filters_as_many_steps() {
    let wave = |n: usize, width: usize, seed: f64| {
        let values: Vec<f32> = (0..n * width)
            .map(|i| (0.37 * (i * i) as f64 + seed).sin() as f32)
            .collect();
        Tensor::<2>::from_data(TensorData::new(values, [n, width]), &Device::flex())
    };
    let Rule::Safree(rule) = ALL
        .iter()
        .find(|known| known.id == "safree")
        .unwrap()
        .presets
        .unwrap()()
    .paper
    else {
        panic!("safree is a rule of its own")
    };
    for ((tokens, width, words, concepts, near, seed), beta, steps, first) in SAFREE {
        let masked = wave(words, width, seed);
        let states = wave(tokens, words, seed + 0.4).matmul(masked.clone()) * near
            + wave(tokens, width, seed + 0.9) * 0.3;
        let filtered = safree::filtered(
            &states,
            &orthonormal(&masked),
            &orthonormal(&wave(concepts, width, seed + 2.3)),
        );
        for (a, b) in host(&filtered).iter().zip(&first) {
            assert!((a - b).abs() < 1e-5, "{a}, expected {b}");
        }
        let found = safree::turned(&states, &filtered, words + 2);
        assert!((found - beta).abs() < 1e-5, "{found}, expected {beta}");
        assert_eq!(rule.steps(found), steps, "beta {found}");
    }
}

/// A prompt's number of filtered steps: of all its tokens turned, however few are triggers, and
/// whatever the guard's strength.
#[test]
fn safree_validates_before_triggers_are_chosen() {
    let model = pipeline("sd1");
    let alone = |alpha: f64, strength: f64| {
        let numbers = json!({"validate": true, "alpha": alpha, "tau": 0.0, "most": 40.0});
        let mut model = guarded(&model, "safree", &["a church"], numbers);
        model.guards[0].strength = strength;
        let prompt = model.prompted(&strings(&["a cat and a dog"]));
        let denoiser = model.denoiser();
        let shape = model.latent_shape(1, None, None).unwrap();
        let x = Tensor::from_data(
            TensorData::new(TorchRng::new(9).normal(shape.iter().product()), shape),
            model.device(),
        );
        let mut rule = model
            .guidance(3.0, &prompt, &model.prompted(&strings(&[""])))
            .unwrap();
        let mut plain = pipeline("sd1")
            .guidance(3.0, &prompt, &model.prompted(&strings(&[""])))
            .unwrap();
        let timesteps = [Timestep::from(500)];
        // The first step at which the prediction is the plain one.
        (0..60).find(|&i| {
            let at = At::each(&denoiser, &timesteps, StepIndex(i));
            host(&rule.predict(&at, x.clone()).unwrap().raw())
                == host(&plain.predict(&at, x.clone()).unwrap().raw())
        })
    };
    let whole = alone(0.0, 1.0);
    assert!(whole.is_some_and(|steps| steps > 1), "{whole:?}");
    assert_eq!(alone(0.01, 1.0), whole, "fewer triggers");
    assert_eq!(alone(0.0, 0.5), whole, "half the strength");
}

#[test]
fn the_published_negative_prompt_of_safree() {
    let model = pipeline("sd1");
    let both = guarded(
        &model,
        "safree",
        &["a church", "a dog"],
        json!({"negative": true}),
    );
    let plain = guarded(&model, "safree", &["a church", "a dog"], json!({}));
    let mut asked = request(&PROMPTS, 3);
    asked.negative_prompt = "a church, a dog".into();
    let expected = host(
        &plain
            .sample(&asked, &mut |_| ControlFlow::Continue(()))
            .unwrap(),
    );
    assert_eq!(drawn(&both, &PROMPTS, 3), expected);
    let two = guarded(&both, "negative", &["a cat"], json!({}));
    let error = two
        .sample(&request(&PROMPTS, 5), &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("negative prompt"), "{error}");
    let of = |form| match Guard::new(
        "safree",
        strings(&["x"]),
        form,
        Scale::Published,
        &Map::new(),
    )
    .unwrap()
    .rule
    {
        Rule::Safree(Safree { negative, .. }) => negative,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        [Variant::Paper, Variant::Reference, Variant::Fixed].map(of),
        [false, true, false]
    );
    // Edits of before have no such number.
    let before = json!({"id": "safree", "texts": ["x"], "rule": {"kind": "safree", "alpha": 0.01, "validate": true, "most": 10.0,
        "sharpness": 2.5, "tau": 5.333, "pads": false}});
    assert!(serde_json::from_value::<Guard>(before).is_ok());
}

#[test]
fn segregation_and_retention_have_the_papers_bounds() {
    let map = |values: &[f32]| Tensor::<1>::from_floats(values, &Device::flex());
    let value = |loss: Option<Tensor<1>>| -> f32 { loss.unwrap().into_scalar() };
    let (a, b, c) = (
        map(&[1.0, 0.0, 0.0, 0.5]),
        map(&[0.0, 1.0, 0.2, 0.0]),
        map(&[0.3, 0.1, 0.9, 0.4]),
    );
    assert_eq!(
        value(a_star::segregation(&[a.clone(), b.clone()])),
        0.0,
        "apart"
    );
    assert_eq!(
        value(a_star::segregation(&[a.clone(), a.clone()])),
        0.5,
        "in one place"
    );
    let three = value(a_star::segregation(&[a.clone(), b.clone(), c.clone()]));
    assert!((0.0..=1.5).contains(&three) && three > 0.0, "{three}");
    assert!(a_star::segregation(std::slice::from_ref(&a)).is_none());
    let all = [a.clone(), b.clone(), c.clone()];
    assert_eq!(value(a_star::retention(&all, &all)), 1.5, "kept: M / 2");
    assert_eq!(
        value(a_star::retention(&[a.clone(), b.clone()], &[b, a])),
        2.0,
        "lost: M"
    );
}

/// A number that depends on the prediction after three steps of a run, for embedded tokens of the
/// prompts.
fn outcome(model: &Pipeline, prompt: &Prompted, embedded: Tensor<3>) -> Tensor<1> {
    let n = prompt.len();
    let prompt = model
        .prompted_from(&prompt.texts, embedded, prompt.lengths.clone())
        .unwrap();
    let negative = model.prompted(&vec![String::new(); n]);
    let mut rule = model.guidance(3.0, &prompt, &negative).unwrap();
    let denoiser = model.denoiser();
    let shape = model.latent_shape(n, None, None).unwrap();
    let x = Tensor::from_data(
        TensorData::new(TorchRng::new(9).normal(shape.iter().product()), shape),
        model.device(),
    );
    let weights = Tensor::from_data(
        TensorData::new(TorchRng::new(4).normal(shape.iter().product()), shape),
        model.device(),
    );
    let mut epsilon: Tensor<4> = x.zeros_like();
    for (i, t) in [900u16, 600, 300].into_iter().enumerate() {
        let timesteps = vec![Timestep::from(t); n];
        epsilon = rule
            .predict(&At::each(&denoiser, &timesteps, StepIndex(i)), x.clone())
            .unwrap()
            .raw();
    }
    (epsilon * weights).sum()
}

#[test]
fn gradients_reach_the_embedded_prompt() {
    let model = pipeline("sd1");
    let prompt = model.prompted(&strings(&PROMPTS));
    let momentum =
        json!({"scale": 0.01, "threshold": 1e9, "momentum": 0.5, "memory": 0.7, "warmup": 1});
    for (id, texts, options) in [
        ("negative", ["a church"], json!({})),
        ("sld-max", ["a church"], momentum),
        ("safree", ["a church"], json!({})),
        ("adavd", ["a church"], json!({})),
    ] {
        let model = guarded(&model, id, &texts, options);
        let leaf = prompt.embedded.clone().autodiff().require_grad();
        let loss = outcome(&model, &prompt, leaf.clone());
        let gradient = leaf.grad(&loss.backward()).unwrap();
        let values = host(&gradient);
        assert!(
            values.iter().all(|x| x.is_finite()) && values.iter().any(|x| x.abs() > 0.0),
            "{id}"
        );
        // Along itself, against central differences: long ones bend, short ones drown in rounding,
        // some length between holds.
        let size: f32 = gradient.clone().powi_scalar(2).sum().sqrt().into_scalar();
        let direction = gradient / size;
        let at = |h: f64| -> f64 {
            f64::from(
                outcome(
                    &model,
                    &prompt,
                    prompt.embedded.clone() + direction.clone() * h,
                )
                .into_scalar::<f32>(),
            )
        };
        let differences = [1e-2, 3e-3, 1e-3, 3e-4].map(|h| (at(h) - at(-h)) / (2.0 * h));
        let near =
            |difference: &f64| (f64::from(size) - difference).abs() < 0.02 * difference.abs();
        assert!(
            differences.iter().any(near),
            "{id}: {size} and {differences:?}"
        );
        // The plain rule has another gradient: the guard is on the path. A negative prompt adds
        // what does not depend on the prompt.
        if id == "negative" {
            continue;
        }
        let mut bare = model.clone();
        bare.guards.clear();
        let loss = outcome(&bare, &prompt, leaf.clone());
        let plain = host(&leaf.grad(&loss.backward()).unwrap());
        assert!(
            plain
                .iter()
                .zip(&values)
                .any(|(a, b)| (a - b).abs() > 1e-6 * b.abs()),
            "{id}"
        );
    }
}

#[test]
fn values_lose_their_part_along_the_concept_once() {
    let model = pipeline("sd1");
    let published = json!({"span": false});
    let once = guarded(&model, "adavd", &["a church"], published.clone());
    // Twice as strong is a reflection, and another picture; the concept given twice is one
    // direction.
    let twice = guarded(
        &model,
        "adavd",
        &["a church", "a church"],
        published.clone(),
    );
    assert_eq!(drawn(&twice, &PROMPTS, 5), drawn(&once, &PROMPTS, 5));
    let two = guarded(&model, "adavd", &["a church", "a dog"], published);
    assert_ne!(drawn(&two, &PROMPTS, 5), drawn(&once, &PROMPTS, 5));
}

/// The shift is in every form but the miniature's; what it is measured on is the joint vector, for
/// which its centre is meant.
#[test]
fn adavd_shifts_as_published() {
    let of = |form, scale| match Guard::new("adavd", strings(&["x"]), form, scale, &Map::new())
        .unwrap()
        .rule
    {
        Rule::AdaVd(rule) => (rule.shift, rule.joint, rule.unconditional, rule.span),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        of(Variant::Paper, Scale::Small),
        (true, Joint::Cosine, false, false)
    );
    assert_eq!(
        of(Variant::Reference, Scale::Small),
        (true, Joint::Whole, true, false)
    );
    assert_eq!(
        of(Variant::Fixed, Scale::Published),
        of(Variant::Paper, Scale::Small)
    );
    assert_eq!(
        of(Variant::Fixed, Scale::Small),
        (false, Joint::None, false, true)
    );
    let model = pipeline("sd1");
    let with = |joint: &str, unconditional: bool, scale: f64| {
        let numbers = json!({"shift": true, "joint": joint, "unconditional": unconditional, "span": false, "centre": 0.5, "scale": scale});
        drawn(
            &guarded(&model, "adavd", &["a church", "a dog"], numbers),
            &PROMPTS,
            5,
        )
    };
    let all = [
        with("none", false, 1.0),
        with("cosine", false, 1.0),
        with("whole", false, 1.0),
        with("whole", true, 1.0),
    ];
    assert!(
        (0..4).all(|i| (0..i).all(|k| all[i] != all[k])),
        "four rules, four pictures"
    );
    assert_eq!(with("whole", true, 0.0), drawn(&model, &PROMPTS, 5));
    // Edits of before have no such number.
    let before = json!({"id": "adavd", "texts": ["x"], "rule": {"kind": "adavd", "scale": 1.0, "shift": false, "steepness": 100.0,
        "centre": 0.93, "span": false, "unconditional": false}});
    assert!(serde_json::from_value::<Guard>(before).is_ok());
}

#[test]
fn a_star_moves_the_latents_of_prompts_with_several_of_its_words() {
    let model = pipeline("sd1");
    let plain = drawn(&model, &["a church", "a cat"], 5);
    let moved = guarded(&model, "a-star", &["cat", "dog"], json!({}));
    assert_eq!(
        drawn(&moved, &["a church", "a cat"], 5),
        plain,
        "one word, or none, is left alone"
    );
    // Whatever the sampler, and by the rule alone.
    let prompt = model.prompted(&strings(&["a cat and a dog"]));
    let negative = model.prompted(&strings(&[""]));
    let denoiser = model.denoiser();
    let shape = model.latent_shape(1, None, None).unwrap();
    let x = Tensor::from_data(
        TensorData::new(TorchRng::new(9).normal(shape.iter().product()), shape),
        model.device(),
    );
    let timesteps = [Timestep::from(900)];
    let at = At::each(&denoiser, &timesteps, StepIndex(0));
    for sampler in [
        Sampler::Ddim,
        Sampler::Euler,
        Sampler::UniPc,
        Sampler::DpmPp2m,
        Sampler::Pndm,
    ] {
        let mut asked = request(&PROMPTS, 5);
        asked.sampler = Some(sampler);
        let run = |model: &Pipeline| {
            host(
                &model
                    .sample(&asked, &mut |_| ControlFlow::Continue(()))
                    .unwrap(),
            )
        };
        assert_ne!(run(&moved), run(&model), "{sampler}");
    }
    let mut rule = moved.guidance(3.0, &prompt, &negative).unwrap();
    assert!(rule.moves_latents());
    let new = rule.latents(&at, x.clone()).unwrap();
    assert_ne!(host(&new), host(&x));
    assert!(host(&new).iter().all(|v| v.is_finite()));
}

#[test]
fn a_star_on_prompts_of_one_concept_minds_no_neighbour() {
    let model = pipeline("sd1");
    let moved = guarded(
        &model,
        "a-star",
        &["cat", "dog", "church"],
        json!({"maps": "prompts", "sharpness": 5.0}),
    );
    let beside = |model: &Pipeline, other: &str| drawn(model, &["a cat and a dog", other], 3);
    let half = |values: Vec<f32>| values[..values.len() / 2].to_vec();
    let (with_one, with_three) = (
        beside(&moved, "a church"),
        beside(&moved, "a cat and a dog and a church"),
    );
    assert!(with_one.iter().all(|v| v.is_finite()));
    assert_eq!(
        half(with_one.clone()),
        half(with_three.clone()),
        "a prompt of three concepts is looked at by itself"
    );
    let plain = beside(&model, "a church");
    assert_ne!(half(with_one.clone()), half(plain.clone()));
    assert_eq!(
        with_one[plain.len() / 2..],
        plain[plain.len() / 2..],
        "one word is left alone"
    );
    assert_ne!(with_three, beside(&model, "a cat and a dog and a church"));
    let words = guarded(
        &model,
        "a-star",
        &["cat", "dog", "church"],
        json!({"sharpness": 5.0}),
    );
    assert_ne!(beside(&words, "a church"), with_one, "other maps");
}

/// The model on straight lines: its answer is taken for a velocity.
fn straight(name: &str) -> Pipeline {
    let flow = FlowMatching::from_config(Path::new("scheduler_config.json"), &json!({})).unwrap();
    let mut model = pipeline(name);
    model.schedule = flow.into();
    model.sampler = Some(Sampler::Ddim);
    model
}

/// Two steps of SLD on a flow-matching model are its formula on velocities, momentum and all.
#[test]
fn sld_on_velocities_is_its_formula() {
    let model = straight("sd1");
    let (scale, threshold, momentum, memory, g) = (40.0, 0.02, 0.5, 0.7, 3.0);
    let numbers = json!({
        "warmup": 0, "scale": scale, "threshold": threshold, "momentum": momentum, "memory": memory
    });
    let guarded = guarded(&model, "sld-max", &["a church"], numbers);
    let prompts = strings(&PROMPTS);
    let negative = guarded.prompted(&strings(&["", ""]));
    let mut rule = guarded
        .guidance(g, &guarded.prompted(&prompts), &negative)
        .unwrap();
    let shape = model.latent_shape(2, None, None).unwrap();
    let denoiser = guarded.denoiser();
    let mut nu: Vec<f64> = vec![0.0; shape.iter().product()];
    for (i, t) in [1000u16, 700].into_iter().enumerate() {
        let values = TorchRng::new(9 + i as u64).normal(nu.len());
        let x = Tensor::<4>::from_data(TensorData::new(values, shape), model.device());
        let t = vec![Timestep::from(t); 2];
        let says = |texts: &[String]| -> Vec<f64> {
            let said = model.predict(x.clone(), &t, &model.context(texts), None);
            host(&said.unwrap().velocity().unwrap())
                .into_iter()
                .map(f64::from)
                .collect()
        };
        let p = says(&prompts);
        let (zero, s) = (
            says(&strings(&["", ""])),
            says(&strings(&["a church", "a church"])),
        );
        let at = At::each(&denoiser, &t, StepIndex(i));
        let found = rule.predict(&at, x.clone()).unwrap();
        assert_eq!(found.output(), Output::Velocity);
        let found = host(&found.velocity().unwrap());
        let mut bounded = 0;
        for k in 0..p.len() {
            let apart = p[k] - s[k];
            let mu = if apart < threshold {
                (scale * apart.abs()).min(1.0)
            } else {
                0.0
            };
            bounded += usize::from(mu > 0.0);
            let gamma = mu * (s[k] - zero[k]) + momentum * nu[k];
            nu[k] = memory * nu[k] + (1.0 - memory) * gamma;
            let expected = zero[k] + g * (p[k] - zero[k] - gamma);
            // A number at the threshold itself may fall to either side.
            let close = (apart - threshold).abs() < 1e-5;
            assert!(
                close || (f64::from(found[k]) - expected).abs() < 2e-4 * expected.abs().max(1.0),
                "step {i}, number {k}: {}, expected {expected}",
                found[k]
            );
        }
        assert!(bounded > 0, "step {i}");
    }
}

/// A flow-matching model is drawn through the same call: DDIM is Euler's method there, what needs a
/// noise schedule is refused.
#[test]
fn a_flow_matching_model_is_drawn_by_eulers_method() {
    let model = straight("sd1");
    let (prompts, g) = (strings(&PROMPTS), 3.0);
    let mut asked = request(&PROMPTS, 5);
    let mut seen = Vec::new();
    let found = model
        .sample(&asked, &mut |progress| {
            seen.push(progress.timestep.get());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0], 1000.0);

    let shape = model.latent_shape(2, None, None).unwrap();
    let mut x = Noise::each(5, 2).draw(shape, model.device());
    let levels: Vec<f64> = seen
        .iter()
        .map(|t| f64::from(*t) / 1000.0)
        .chain([0.0])
        .collect();
    for (pair, t) in levels.windows(2).zip(&seen) {
        let t = vec![Timestep::new(*t).unwrap(); 2];
        let says = |texts: &[String]| {
            let said = model.predict(x.clone(), &t, &model.context(texts), None);
            said.unwrap().raw()
        };
        let (p, zero) = (says(&prompts), says(&strings(&["", ""])));
        let v = zero.clone() + (p - zero) * g;
        x = x + v * (pair[1] - pair[0]);
    }
    for (a, b) in host(&found).iter().zip(host(&x)) {
        assert!((a - b).abs() < 1e-3 * b.abs().max(1.0), "{a}, expected {b}");
    }

    let straight = [Sampler::Ddim, Sampler::Euler];
    for sampler in Sampler::ALL.into_iter().filter(|s| !straight.contains(s)) {
        asked.sampler = Some(sampler);
        let error = model
            .sample(&asked, &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        let expected = format!("{sampler} follows a noise schedule");
        assert!(error.to_string().contains(&expected), "{error}");
        assert!(error.hint().unwrap().contains("euler"));
    }
    asked.sampler = None;
    asked.eta = 0.5;
    let error = model
        .sample(&asked, &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("no fresh noise"), "{error}");
}
