//! Everything that a trained method draws is used, whatever the batch: every prompt, kept caption,
//! named concept, anchor and word.
//!
//! A thing is poisoned, by a word whose vector is not a number: a run that uses it diverges, one
//! that never comes to it does not. So each run has no more steps than its examples take to come
//! round.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use common::{Memory, Run, concept, host, pipeline};
use scumble_diffusion::Pipeline;
use scumble_erase::{Captions, Error, Event, Store, methods::named};
use scumble_nn::files::{HostTensor, Tensors};
use serde_json::{Value, json};

const CONCEPTS: [&str; 3] = ["church", "truck", "owl"];
const CAPTIONS: [&str; 2] = ["dog", "rocket"];
const NAMED: &str = "fish";

/// The model with a word that is not a number.
fn poisoned(model: &Pipeline, word: &str) -> Pipeline {
    let encoded = model.tokenizer.encode(word);
    assert_eq!(encoded.length, 3, "{word} is one token");
    let mut poisoned = model.clone();
    let weights = poisoned.weights_mut("text_encoder").unwrap();
    let (name, shape) = weights
        .iter()
        .find(|(name, _)| name.ends_with("token_embedding.weight"))
        .map(|(name, weight)| (name.clone(), weight.shape.clone()))
        .unwrap();
    let mut values = host(&weights.get(&name).unwrap().flat());
    let at = encoded.ids[1] as usize * shape[1];
    values[at..at + shape[1]].fill(f32::NAN);
    weights
        .replace(
            &name,
            Tensor::from_floats(values.as_slice(), model.device()),
        )
        .unwrap();
    poisoned
}

/// Small settings with all that a method can keep.
struct Case {
    method: &'static str,
    options: Value,
    /// Whether the concepts' prompts are met in the loss, and whether what is kept is.
    prompts: bool,
    keeps: bool,
}

fn case(method: &'static str, prompts: bool, keeps: bool, options: Value) -> Case {
    Case {
        method,
        options,
        prompts,
        keeps,
    }
}

/// Every trained method. Banks have three trajectories of three steps, picture sets three pictures.
fn cases() -> Vec<Case> {
    let pictures = json!({"pictures": 3, "retain_pictures": 3, "sampling_steps": 2, "train_method": "esd-x-strict"});
    let with = |more: Value| {
        let mut all = pictures.clone();
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let bank = || json!({"trajectories": 3, "sampling_steps": 3});
    let bank_with = |more: Value| {
        let mut all = bank();
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    vec![
        case("esd", true, false, bank()),
        case(
            "esd",
            true,
            false,
            json!({"latents": "edited", "sampling_steps": 3}),
        ),
        case("all-but-one", true, false, bank()),
        case(
            "receler",
            true,
            false,
            bank_with(json!({"inner": 2, "rows": 2, "attack_steps": 1})),
        ),
        case("stereo", true, false, bank_with(json!({"rounds": 0}))),
        case(
            "ant",
            true,
            false,
            bank_with(json!({"salience": "all", "train_method": "kv", "split": 500.0})),
        ),
        case(
            "spm",
            true,
            true,
            bank_with(
                json!({"anchoring": "captions", "anchor_trajectories": 3, "gate_floor": 0.0, "warm_up": 0}),
            ),
        ),
        case(
            "spm",
            true,
            false,
            bank_with(json!({"anchoring": "gaussian-and-empty", "gate_floor": 0.0})),
        ),
        case(
            "leco",
            true,
            false,
            json!({"sampling_steps": 2, "pairs": 1}),
        ),
        case(
            "trce",
            true,
            true,
            json!({"stages": "steering", "trajectories": 1, "sampling_steps": 3, "early": 1.0,
            "keep_trajectories": 3, "keep_captions": true}),
        ),
        case(
            "advunlearn",
            true,
            true,
            bank_with(
                json!({"warmup": 1, "attack_steps": 1, "attack_batch": 2, "retain_trajectories": 3}),
            ),
        ),
        case("hirm", true, true, json!({"retain": 1.0})),
        case(
            "few-shot",
            true,
            true,
            json!({"pictures": 1, "sampling_steps": 2, "retain": 1.0, "templates": "words"}),
        ),
        case(
            "ac",
            true,
            true,
            json!({"pictures": 3, "sampling_steps": 2, "templates": 0, "augment": "none", "reg": 1.0,
            "reg_captions": 3}),
        ),
        case(
            "doco",
            true,
            true,
            json!({"pictures": 3, "sampling_steps": 2, "templates": 0, "augment": "none", "prior_captions": 3,
            "warm_up": 0, "d_width": 2}),
        ),
        case(
            "fmn",
            true,
            true,
            json!({"pictures": 1, "sampling_steps": 2, "templates": "words", "retain": 1.0,
            "retain_captions": 3, "train_method": "kv"}),
        ),
        case("salun", true, true, with(json!({"top": 1.0}))),
        case("erasediff", true, true, with(json!({}))),
        case(
            "scissorhands",
            false,
            true,
            with(json!({"draws": 1, "draw_batch": 1})),
        ),
        case("sa", true, true, with(json!({"lambda": 0.0}))),
    ]
}

/// The names that methods have for how many examples of something a step has.
const BATCHES: [&str; 3] = ["batch", "keep_batch", "retain_batch"];

fn run<'a>(model: &'a Pipeline, case: &Case, batch: usize, steps: usize) -> Run<'a> {
    let concepts = CONCEPTS
        .iter()
        .map(|name| concept(name, None, None))
        .collect();
    let known = |name: &str| {
        // Options are refused by name, so that only what a method has may be set.
        let probe = Run::of(
            case.method,
            model,
            vec![concept("church", None, None)],
            json!({name: {"no": "number"}}),
        );
        let error = probe.erase().unwrap_err();
        !error.to_string().contains("there is no option")
    };
    let mut options = case.options.clone();
    let map = options.as_object_mut().unwrap();
    map.insert("iterations".into(), json!(steps));
    for name in BATCHES.iter().filter(|name| known(name)) {
        map.insert((*name).into(), json!(batch));
    }
    if case.method == "spm" {
        map.insert("anchors".into(), json!(batch));
    }
    let mut run = Run::of(case.method, model, concepts, options);
    run.captions = Captions {
        source: "nouns".into(),
        lines: CAPTIONS.map(String::from).to_vec(),
        given: false,
    };
    run
}

/// Steps within which all of `n` examples come round.
fn round(n: usize, batch: usize) -> usize {
    n.div_ceil(batch) + 1
}

#[test]
fn every_prompt_is_used() {
    every_prompt_is_used_on("odd", 3);
}

/// The same on a model with two text encoders, by the methods that take one.
#[test]
fn every_prompt_is_used_on_sdxl() {
    every_prompt_is_used_on("sdxl", 1);
}

/// Whether a case's method takes the model of this name.
fn on(model: &str, case: &Case) -> bool {
    model != "sdxl" || named(case.method).unwrap().families().contains(&"sdxl")
}

fn every_prompt_is_used_on(name: &str, largest_batch: usize) {
    let model = pipeline(name);
    for case in cases().iter().filter(|case| case.prompts && on(name, case)) {
        for batch in 1..=largest_batch {
            // Nine examples of a bank, three pictures; sampled anew, a prompt is drawn by chance.
            let steps = if case.options["latents"] == "edited" {
                25
            } else {
                round(9, batch)
            };
            for word in CONCEPTS {
                let sick = poisoned(&model, word);
                let result = run(&sick, case, batch, steps).erase();
                assert!(
                    matches!(result, Err(Error::Diverged { .. })),
                    "{} at batch {batch} never uses `{word}` within {steps} steps: {:?}",
                    case.method,
                    result.map(|edit| edit.changes.len())
                );
            }
            let healthy = run(&model, case, batch, 2).erase();
            assert!(healthy.is_ok(), "{}: {healthy:?}", case.method);
        }
    }
}

#[test]
fn everything_to_be_kept_is_used() {
    everything_to_be_kept_is_used_on("odd", 3);
}

/// The same on a model with two text encoders, by the methods that take one.
#[test]
fn everything_to_be_kept_is_used_on_sdxl() {
    everything_to_be_kept_is_used_on("sdxl", 1);
}

fn everything_to_be_kept_is_used_on(name: &str, largest_batch: usize) {
    let model = pipeline(name);
    for case in cases().iter().filter(|case| case.keeps && on(name, case)) {
        for batch in 1..=largest_batch {
            // Nine examples of a bank; two captions, a name and the empty prompt by turns; few-shot
            // takes ten steps at most.
            let steps = round(9, batch).min(10);
            for word in [CAPTIONS.as_slice(), &[NAMED]].concat() {
                let sick = poisoned(&model, word);
                let with = Run {
                    preserve: vec![concept(NAMED, None, None)],
                    ..run(&sick, case, batch, steps)
                };
                let result = with.erase();
                assert!(
                    matches!(result, Err(Error::Diverged { .. })),
                    "{} at batch {batch} never uses `{word}` within {steps} steps: {:?}",
                    case.method,
                    result.map(|edit| edit.changes.len())
                );
            }
        }
    }
}

/// Prompts of the anchor, as the user gives them.
#[test]
fn every_prompt_of_an_anchor_is_used() {
    let model = pipeline("odd");
    let own = ["dog", "rocket", "apple"];
    for (method, more) in [
        ("ac", json!({})),
        (
            "doco",
            json!({"warm_up": 0, "d_width": 2, "surgery": "none", "prior": 0.0}),
        ),
    ] {
        for batch in 1..=3 {
            for word in own {
                let sick = poisoned(&model, word);
                let mut options = json!({"pictures": 3, "sampling_steps": 2, "prompts": own, "kind": "style", "batch": batch,
                    "augment": "none", "iterations": round(3, batch)});
                options
                    .as_object_mut()
                    .unwrap()
                    .extend(more.as_object().unwrap().clone());
                let result =
                    Run::of(method, &sick, vec![concept("church", None, None)], options).erase();
                assert!(
                    matches!(result, Err(Error::Diverged { .. })),
                    "{method} at batch {batch}: `{word}`"
                );
            }
        }
    }
}

/// Of an entry of LECO's prompt files all four prompts count, whatever the batch; and all entries
/// come up.
#[test]
fn every_prompt_of_an_entry_is_used() {
    let model = pipeline("odd");
    let words = ["church", "dog", "rocket", "apple"];
    for (word, batch) in words
        .into_iter()
        .flat_map(|word| [1, 2, 3].map(|batch| (word, batch)))
    {
        let sick = poisoned(&model, word);
        let entry = json!({"target": "church", "positive": "dog", "unconditional": "rocket", "neutral": "apple", "batch_size": batch});
        let options = json!({"sampling_steps": 2, "iterations": 1, "entries": [entry]});
        let result = Run::of("leco", &sick, Vec::new(), options).erase();
        assert!(
            matches!(result, Err(Error::Diverged { .. })),
            "`{word}` at batch {batch}"
        );
        // One of four entries, so many a step.
        let entries: Vec<Value> = words.iter().map(|w| json!({"target": w})).collect();
        let options = json!({"sampling_steps": 2, "pairs": batch, "iterations": 4usize.div_ceil(batch), "entries": entries});
        let result = Run::of("leco", &sick, Vec::new(), options).erase();
        assert!(
            matches!(result, Err(Error::Diverged { .. })),
            "`{word}`, {batch} entries a step"
        );
    }
}

/// STEREO's rounds erase the word found last, within two steps.
#[test]
fn stereo_erases_the_words_it_finds() {
    let model = pipeline("odd");
    for (says, batch) in [("newest", 1), ("both", 1), ("both", 2), ("both", 3)] {
        let options = json!({
            "rounds": 2, "round_iterations": 2, "iterations": 3, "trajectories": 2, "sampling_steps": 2, "batch": batch,
            "attack": "trajectories", "attack_steps": 2, "attack_tokens": 1, "round_says": says
        });
        let run = Run::of(
            "stereo",
            &model,
            vec![concept("church", None, None)],
            options,
        );
        let width = model.encoders.first.config.hidden_size;
        // As large as a number can be: a state with a NaN would be refused before it is used.
        let word = HostTensor::from_f32([1, 1, width], &vec![f32::MAX; width]);
        run.store
            .put("stereo-word-0", Tensors::from([("word".to_owned(), word)]))
            .unwrap();
        let mut rounds = 0;
        let result = run.listened(&mut |event| {
            rounds += usize::from(matches!(
                event,
                Event::Stage {
                    name: "training",
                    ..
                }
            ));
            ControlFlow::Continue(())
        });
        assert!(
            matches!(result, Err(Error::Diverged { .. })),
            "{says}: {:?}",
            result.map(|_| ())
        );
        assert_eq!(
            rounds, 2,
            "{says} at batch {batch}: the round after the word was found"
        );
    }
}

#[test]
fn stereos_last_erasure_takes_every_anchor() {
    let model = pipeline("odd");
    let anchors = ["dog", "rocket", "apple"];
    for (word, batch) in anchors
        .into_iter()
        .flat_map(|word| [1, 2, 3].map(|batch| (word, batch)))
    {
        let sick = poisoned(&model, word);
        let options = json!({"rounds": 0, "iterations": round(3, batch) - 1, "trajectories": 2, "sampling_steps": 2, "batch": batch,
            "anchors": anchors});
        let result = Run::of(
            "stereo",
            &sick,
            vec![concept("church", None, None)],
            options,
        )
        .erase();
        assert!(
            matches!(result, Err(Error::Diverged { .. })),
            "`{word}` at batch {batch}"
        );
    }
}

/// Of single examples half are attacked: every second.
#[test]
fn a_share_of_single_examples_is_every_so_many_th() {
    let model = pipeline("odd");
    let losses = |attacked: f64| {
        // So small a step moves nothing: the losses differ in who is attacked alone.
        let options = json!({"iterations": 4, "inner": 2, "rows": 2, "attack_steps": 1, "trajectories": 2, "sampling_steps": 3,
            "batch": 1, "lr": 1e-30, "attacked": attacked, "local": 0.0});
        Run::of(
            "receler",
            &model,
            vec![concept("church", None, None)],
            options,
        )
        .losses()
        .unwrap()
        .1
    };
    let (never, always, half) = (losses(0.0), losses(1.0), losses(0.5));
    for step in 0..4 {
        assert_ne!(never[step].to_bits(), always[step].to_bits());
        let expected = if step % 2 == 1 {
            always[step]
        } else {
            never[step]
        };
        assert_eq!(half[step].to_bits(), expected.to_bits(), "step {step}");
    }
}

/// What the user wants kept is, or the run does not begin.
#[test]
fn what_would_have_no_effect_is_refused() {
    let model = pipeline("odd");
    let few = |more: Value| {
        let mut options = json!({"iterations": 2});
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        options
    };
    for (method, off) in [
        ("ac", json!({"reg": 0.0})),
        ("ac", json!({"reg": 1.0, "reg_captions": 0})),
        ("doco", json!({"surgery": "none", "prior": 0.0})),
        ("doco", json!({"prior_captions": 0})),
        ("fmn", json!({"retain": 0.0})),
        ("few-shot", json!({"retain": 0.0})),
        ("hirm", json!({"retain": 0.0})),
        ("spm", json!({"anchoring": "gaussian", "gate_floor": 0.0})),
        ("spm", json!({"anchors": 0, "gate_floor": 0.0})),
        ("ant", json!({"form": "weights"})),
        (
            "ant",
            json!({"form": "adapters", "rho": 0.0, "rho_preserve": 0.0}),
        ),
        (
            "trce",
            json!({"stages": "steering", "keep_captions": false}),
        ),
        ("trce", json!({"stages": "mapping", "preserve_scale": 0.0})),
        ("advunlearn", json!({"retain": 0.0})),
        ("advunlearn", json!({"retain_trajectories": 0})),
        ("sa", json!({"gamma": 0.0, "lambda": 0.0})),
        ("salun", json!({"alpha": 0.0})),
    ] {
        let plain = Run::of(
            method,
            &model,
            vec![concept("church", None, None)],
            few(off.clone()),
        );
        for (flag, run) in [
            (
                "--preserve",
                Run {
                    preserve: vec![concept("dog", None, None)],
                    ..plain.clone()
                },
            ),
            (
                "--captions",
                Run {
                    captions: Captions::of_user("mine.txt", vec!["a dog".into()], &[]),
                    ..plain.clone()
                },
            ),
        ] {
            let error = run.erase().map(|_| ()).unwrap_err();
            assert!(
                error.to_string().contains(flag) && error.hint().is_some(),
                "{method} {off} {flag}: {error}"
            );
            assert_eq!(
                run.store.recorded.get(),
                0,
                "{method}: nothing was computed"
            );
        }
    }
    // Published settings too: those that keep nothing say so.
    for (method, variant) in ["few-shot", "hirm", "spm", "ac", "doco", "fmn", "ant"]
        .into_iter()
        .flat_map(|method| {
            [
                scumble_erase::Variant::Paper,
                scumble_erase::Variant::Reference,
            ]
            .map(|variant| (method, variant))
        })
    {
        let run = Run {
            variant,
            preserve: vec![concept("dog", None, None)],
            store: Memory::default(),
            ..Run::of(
                method,
                &model,
                vec![concept("church", None, None)],
                json!({}),
            )
        };
        let error = run.erase().map(|_| ()).unwrap_err();
        assert!(
            error.to_string().contains("--preserve has no effect"),
            "{method} {variant:?}: {error}"
        );
    }
}

/// All of what the user names is kept, however little is drawn otherwise.
#[test]
fn everything_that_was_named_is_among_what_is_kept() {
    let model = pipeline("odd");
    let names = ["dog", "apple", "rocket", "guitar", "fish"];
    for word in names {
        let sick = poisoned(&model, word);
        let few = json!({"anchoring": "captions", "gate_floor": 0.0, "anchors": 3, "anchor_trajectories": 2, "trajectories": 2,
            "sampling_steps": 2, "iterations": 7, "warm_up": 0});
        let mut run = Run::of("spm", &sick, vec![concept("church", None, None)], few);
        run.preserve = names.iter().map(|name| concept(name, None, None)).collect();
        assert!(matches!(run.erase(), Err(Error::Diverged { .. })), "{word}");
    }
}
