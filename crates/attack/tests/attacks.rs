//! What every attack has to keep: the victim's weights, its budget, the same result after an interruption, and what it found.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../erase/tests/common/mod.rs"]
mod common;

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use common::{Memory, bits, concept, host, pipeline};
use scumble_attack::{
    Case, Drawing, Error, Event, Found, Job, Report, Result, Variant,
    attacks::{self, named, ring_a_bell, worst_case},
    job::{Checkpoint, Shows},
    probe::{self, Probe, Trial},
    protocol,
};
use scumble_diffusion::{Adapter, Gate, Picture, Pipeline, Sampler};
use scumble_erase::{Change, Edit, lora::Layers};
use serde_json::{Value, json};

/// A model and the same with other keys in one cross-attention.
fn models() -> (Pipeline, Pipeline) {
    let base = pipeline("sd1");
    let mut victim = base.clone();
    let name =
        base.unet.weights.iter().map(|(name, _)| name.to_owned()).find(|name| name.ends_with("attn2.to_k.weight")).unwrap();
    let values = base.unet.weights.get(&name).unwrap().flat() * -1.5;
    victim.unet.weights.replace(&name, values).unwrap();
    (base, victim)
}

/// One attack; the fields are what tests vary.
struct Attacked<'a> {
    id: &'static str,
    base: &'a Pipeline,
    victim: &'a Pipeline,
    prompts: &'a [&'a str],
    options: Value,
    budget: Option<usize>,
    store: Memory,
    shows: Option<&'a Shows<'a>>,
    /// Interrupts after so many steps of a loss.
    stop_after: Option<usize>,
}

impl<'a> Attacked<'a> {
    fn new(id: &'static str, (base, victim): &'a (Pipeline, Pipeline), options: Value) -> Self {
        let prompts = &["a dog on a table", "the dog"];
        Self { id, base, victim, prompts, options, budget: None, store: Memory::default(), shows: None, stop_after: None }
    }

    fn with<T>(&self, run: &mut dyn FnMut(&mut Job<'_>) -> Result<T>) -> Result<T> {
        let concept = concept("a dog", Some("a cat"), None);
        let case = |(i, prompt): (usize, &&str)| Case { prompt: (*prompt).into(), seed: 40 + i as u64 };
        let cases: Vec<Case> = self.prompts.iter().enumerate().map(case).collect();
        let mut left = self.stop_after;
        let mut listen = |event: Event<'_>| {
            if let (Event::Step { loss: Some(_), .. }, Some(left)) = (event, left.as_mut()) {
                *left -= 1;
                if *left == 0 {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        let mut job = Job {
            base: self.base,
            victim: self.victim,
            checkpoint: Checkpoint { name: "tiny", hash: "hash", family: "stable-diffusion-custom" },
            concept: &concept,
            word: "dog",
            cases: &cases,
            shows: self.shows,
            likely: None,
            clip: None,
            world: None,
            drawing: Drawing { steps: 2, guidance: 2.0, sampler: Some(Sampler::Ddim) },
            miniature: true,
            options: self.options.as_object().unwrap().clone(),
            budget: self.budget,
            seed: 3,
            store: &self.store,
            listen: &mut listen,
        };
        run(&mut job)
    }

    fn run(&self) -> Result<Report> {
        self.with(&mut |job| protocol::run(named(self.id)?, job, Variant::Fixed))
    }
}

fn prompts(found: &Found) -> Vec<String> {
    match found {
        Found::Cases(cases) => cases.iter().map(|case| case.prompt.clone()).collect(),
        other => panic!("expected prompts, found {other:?}"),
    }
}

/// Everything that a finding holds, as text.
fn all_of(found: &Found) -> String {
    match found {
        Found::Weights(edit) => edit.content_hash(),
        Found::Prefixes(vectors) => format!("{:?}", host(vectors)),
        other => format!("{other:?}"),
    }
}

/// Small options of each attack that runs without a judge and a CLIP.
fn small() -> Vec<(&'static str, Value)> {
    vec![
        ("concept-inversion", json!({"iterations": 4, "batch": 2, "pictures": 2})),
        ("unlearndiff", json!({"timesteps": 2, "iterations": 2})),
        ("pgd", json!({"timesteps": 2, "iterations": 2})),
        ("fgsm", json!({"timesteps": 4})),
        ("p4d", json!({"rounds": 2, "iterations": 2})),
        ("ring-a-bell", json!({"population": 8, "generations": 4})),
        ("relearn", json!({"iterations": 4, "batch": 2, "pictures": 2})),
        ("worst-case", json!({"rounds": 2, "iterations": 3, "batch": 2, "timesteps": 2})),
    ]
}

#[test]
fn an_interrupted_attack_ends_with_the_same_bits_and_the_victim_keeps_its_own() {
    let models = models();
    let (before, edited) = (bits(&models.0), bits(&models.1));
    for (id, options) in small() {
        let whole = Attacked::new(id, &models, options.clone());
        let found = whole.run().unwrap().found;
        let mut cut = Attacked::new(id, &models, options);
        cut.stop_after = Some(3);
        assert!(matches!(cut.run(), Err(Error::Interrupted)), "{id}");
        cut.stop_after = None;
        assert_eq!(all_of(&cut.run().unwrap().found), all_of(&found), "{id}");
    }
    assert_eq!((bits(&models.0), bits(&models.1)), (before, edited));
}

#[test]
fn a_case_is_attacked_the_same_alone_and_beside_others() {
    let models = models();
    for id in ["p4d", "unlearndiff", "ring-a-bell"] {
        let options = small().into_iter().find(|(other, _)| *other == id).unwrap().1;
        let both = Attacked::new(id, &models, options.clone());
        let mut alone = Attacked::new(id, &models, options);
        alone.prompts = &["a dog on a table"];
        assert_eq!(prompts(&both.run().unwrap().found)[0], prompts(&alone.run().unwrap().found)[0], "{id}");
    }
}

#[test]
fn findings_are_saved_and_draw_the_same_pictures_again() {
    let models = models();
    let folder = tempfile::tempdir().unwrap();
    let width = models.0.text_encoder.config.hidden_size;
    let more = vec![
        ("revive", json!({"probe": "half-noised"})),
        ("revive", json!({"probe": "inpaint"})),
        ("revive", json!({"probe": "noisier", "etas": [1.5]})),
    ];
    for (id, options) in small().into_iter().chain(more) {
        let attack = Attacked::new(id, &models, options);
        let report = attack.run().unwrap();
        let name = report.found.save(folder.path()).unwrap();
        let again = Found::open(&folder.path().join(name), width, models.0.device()).unwrap();
        assert_eq!(all_of(&again), all_of(&report.found), "{id}");
        let replayed = attack.with(&mut |job| protocol::replay(again.clone(), job)).unwrap();
        assert_eq!(replayed.pictures[2], report.pictures[2], "{id}");
        assert_eq!((replayed.budget, replayed.spent), (0, 0));
    }
}

#[test]
fn budgets_are_kept_and_zero_is_refused() {
    let models = models();
    for (id, options) in small() {
        let mut attack = Attacked::new(id, &models, options);
        attack.budget = Some(1);
        let report = attack.run().unwrap();
        assert_eq!((report.budget, report.spent), (1, 1), "{id}");
        attack.budget = Some(0);
        assert!(attack.run().unwrap_err().to_string().contains("budget"), "{id}");
    }
}

#[test]
fn unknown_options_are_named_by_every_attack() {
    let models = models();
    for attack in attacks::ALL {
        let message = Attacked::new(attack.id, &models, json!({"nonsense": 1})).run().unwrap_err().to_string();
        assert!(message.contains("nonsense"), "{}: {message}", attack.id);
    }
    for (id, options, word) in [
        ("p4d", json!({"tokens": 0}), "tokens"),
        ("p4d", json!({"tokens": 1000}), "room"),
        ("ring-a-bell", json!({"mutation": 2}), "mutation"),
        ("relearn", json!({"lr": 0}), "lr"),
        ("revive", json!({"probe": "noisier", "etas": [0.5]}), "noisier"),
        ("revive", json!({"probe": "inpaint", "keeps": [1]}), "inpaint"),
        ("revive", json!({"probe": "half-noised", "strengths": []}), "trial"),
        ("worst-case", json!({"share": 2}), "share"),
    ] {
        let message = Attacked::new(id, &models, options).run().unwrap_err().to_string();
        assert!(message.contains(word), "{id}: {message}");
    }
    // What an attack cannot do without.
    for (id, word) in [("pez", "CLIP"), ("paraphrase", "judge"), ("random", "judge")] {
        let message = Attacked::new(id, &models, json!({})).run().unwrap_err().to_string();
        assert!(message.contains(word), "{id}: {message}");
    }
    let message = Attacked::new("revive", &models, json!({"probe": "classifier"})).run().unwrap_err().to_string();
    assert!(message.contains("judge"), "{message}");
}

#[test]
fn a_concept_that_the_base_never_shows_is_an_error() {
    let models = models();
    let never = |pictures: &[Picture]| vec![false; pictures.len()];
    let mut attack = Attacked::new("paraphrase", &models, json!({}));
    attack.shows = Some(&never);
    let message = attack.run().unwrap_err().to_string();
    assert!(message.contains("none of 2 pictures"), "{message}");
}

#[test]
fn paraphrases_end_with_the_first_word_that_shows_the_concept() {
    let models = models();
    // The unedited model's pictures, the edited one's; then the third word brings one of two cases back, and the next no other.
    let calls = std::cell::Cell::new(0);
    let judge = |pictures: &[Picture]| {
        calls.set(calls.get() + 1);
        let call = calls.get();
        (0..pictures.len()).map(|i| call == 1 || (call == 5 && i == 0)).collect()
    };
    let mut attack =
        Attacked::new("paraphrase", &models, json!({"words": "owl; bird; animal", "nearest": 0, "templates": "{prompt}"}));
    attack.shows = Some(&judge);
    let report = attack.run().unwrap();
    assert_eq!(prompts(&report.found), ["an animal on a table", "the animal"]);
    assert_eq!(report.spent, 3);
    assert_eq!(report.notes["tried"][2], json!({"phrase": "... animal ...", "shown": 1, "n": 2}));
}

#[test]
fn p4d_puts_words_in_front_or_between() {
    let models = models();
    let front = Attacked::new("p4d", &models, json!({"rounds": 1, "iterations": 1, "tokens": 3}));
    assert!(prompts(&front.run().unwrap().found)[0].ends_with(" a dog on a table"));
    let between = Attacked::new("p4d", &models, json!({"rounds": 1, "iterations": 1, "every": 2}));
    let found = prompts(&between.run().unwrap().found).swap_remove(0);
    let words = |text: &str| models.0.tokenizer.tokens(text);
    let (mut rest, all) = (words("a dog on a table"), words(&found));
    let groups = rest.len().div_ceil(2);
    assert_eq!(all.len(), rest.len() + groups, "{found}");
    // Without the first of every three the prompt is left.
    let left: Vec<u32> = all.iter().enumerate().filter(|(i, _)| i % 3 != 0).map(|(_, &id)| id).collect();
    assert_eq!(left, std::mem::take(&mut rest));
}

#[test]
fn a_longer_genetic_search_comes_nearer_and_is_kept_for_other_edits() {
    let models = models();
    let distance = |generations: usize, store: &Memory| {
        let mut attack =
            Attacked::new("ring-a-bell", &models, json!({"population": 12, "generations": generations, "tokens": 4}));
        attack.store = store.beside();
        let notes = attack.run().unwrap().notes;
        let left: Vec<f64> = notes["distance"].as_array().unwrap().iter().map(|pair| pair[1].as_f64().unwrap()).collect();
        left.iter().sum::<f64>()
    };
    let store = Memory::default();
    let (first, last) = (distance(1, &store), distance(30, &store));
    assert!(last < first, "{first} {last}");
    let found = store.found.get();
    assert_eq!(distance(30, &store), last);
    assert_eq!(store.found.get(), found + 1);
    // The concept's vector is the mean difference of its prompts' hidden states.
    let vector = Attacked::new("ring-a-bell", &models, json!({})).with(&mut |job| Ok(ring_a_bell::concept_vector(job))).unwrap();
    let encode = |text: &str| models.0.encode(&[text.to_owned()]);
    assert_eq!(host(&vector), host(&(encode("a dog") - encode("a cat"))));
}

#[test]
fn relearning_leaves_an_edits_own_adapters_alone() {
    let (base, mut victim) = models();
    let module = Layers::KeysValues.of(&victim).swap_remove(0);
    let shape = victim.unet.weights.get(&format!("{module}.weight")).unwrap().shape.clone();
    let device = victim.device().clone();
    let adapter = Adapter {
        module: module.clone(),
        down: Tensor::ones([2, shape[1]], &device) * 0.1,
        up: Tensor::ones([shape[0], 2], &device) * 0.1,
    };
    let layers = Layers::Transformers.of(&victim);
    victim.attach(&[adapter], Some(Gate { prompts: vec!["a dog".into()], power: 1.0, factor: 1.0, floor: 0.0 })).unwrap();
    assert_eq!(Layers::Transformers.of(&victim), layers, "an adapter is no layer");
    let before = bits(&victim);
    let models = (base, victim);
    let report = Attacked::new("relearn", &models, json!({"iterations": 3, "batch": 2, "pictures": 2, "rank": 3})).run().unwrap();
    assert_eq!(bits(&models.1), before);
    let Found::Weights(edit) = &report.found else { panic!("expected an edit") };
    let Change::LowRank(low) = &edit.changes[&("unet".to_owned(), format!("{module}.weight"))] else {
        panic!("expected factors")
    };
    assert_eq!((low.down.shape()[0], low.up.shape()[1], low.alpha), (3, 3, 3.0));
    // Up begins at zero, and the eraser's columns are not among what was trained.
    let up = low.up.to_f32().unwrap();
    assert!(up.iter().any(|&x| x != 0.0) && up.iter().all(|&x| x.abs() < 0.05), "{up:?}");
    let changed = edit.apply_to(&models.1, 1.0).unwrap();
    assert_eq!(changed.adapter_rank(), 2);
    assert_ne!(report.pictures[1], report.pictures[2]);

    // It is the edit of the model with the adapter that was trained: the same as one laid over the file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(report.found.save(folder.path()).unwrap());
    assert_eq!(Edit::open(&file).unwrap().about.method, "relearn");
}

#[test]
fn probes_begin_where_they_say() {
    let models = models();
    let attack = Attacked::new("revive", &models, json!({}));
    let shape = models.0.latent_shape(2, None, None).unwrap();
    let target = Tensor::<4>::ones(shape, models.0.device()) * 0.5;
    let apart = |trial: Trial| {
        let rows = [0, 1];
        let texts = ["a dog".to_owned(), String::new()];
        let drawn = attack
            .with(&mut |job| {
                let job = &Job {
                    drawing: Drawing { steps: 50, ..job.drawing },
                    listen: &mut *job.listen,
                    options: job.options.clone(),
                    ..*job
                };
                probe::mixed(job, &[trial; 2], &texts, &rows, &target)
            })
            .unwrap();
        assert_eq!(drawn.dims(), shape);
        host(&(drawn - target.clone()).abs().mean())[0]
    };
    let half = |amount: f64| apart(Trial { probe: Probe::HalfNoised, amount });
    assert!(half(0.02) < 0.2, "{}", half(0.02));
    assert!(half(0.02) < half(0.9));
    // More noise is another picture; with eta 1 nothing is added to DDPM's.
    let noisier = |amount: f64| apart(Trial { probe: Probe::Noisier, amount });
    assert_ne!(noisier(1.0), noisier(1.5));
}

#[test]
fn the_worst_prompts_are_of_the_grid() {
    let models = models();
    let attack = Attacked::new("worst-case", &models, json!({"share": 0.2, "timesteps": 2}));
    let grid = attack.with(&mut |job| Ok(worst_case::grid(job))).unwrap();
    assert_eq!(grid.len(), 11, "one of the two cases is a sentence of the grid");
    let report = attack.run().unwrap();
    assert!(prompts(&report.found).iter().all(|prompt| grid.contains(prompt)));
    let worst = report.notes["worst"].as_array().unwrap();
    assert_eq!(worst.len(), 2);
    let loss = |i: usize| worst[i]["loss"].as_f64().unwrap();
    assert!(loss(0) <= loss(1));
    // An edit that changes nothing leaves every prompt as it was.
    let same = (models.0.clone(), models.0.clone());
    let report = Attacked::new("worst-case", &same, json!({"timesteps": 2})).run().unwrap();
    assert_eq!(report.notes["worst"][0]["loss"].as_f64(), Some(0.0));
}
