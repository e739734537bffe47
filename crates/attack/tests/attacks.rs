//! What every attack has to keep: the victim's weights, its budget, the same result after an
//! interruption, and what it found.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../erase/tests/common/mod.rs"]
mod common;

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use common::{Memory, bits, concept, host, pipeline};
use scumble_attack::{
    Case, Drawing, Error, Event, Found, Job, Report, Result, Variant,
    attacks::{self, named, ring_a_bell, unlearndiff::Position, worst_case},
    job::{Checkpoint, Clip, Shows},
    latent_classifier::{self, Teaching},
    placed::Placed,
    probe::{self, Trial},
    protocol, sentences,
};
use scumble_diffusion::{Adapter, Gate, Picture, Pipeline, Sampler};
use scumble_erase::{Change, Edit, Profile, training::lora::Layers};
use scumble_families as families;
use serde_json::{Value, json};

/// A small model of each family whose attacks may differ.
const FAMILIES: [&str; 2] = ["sd1", "sdxl"];

/// A model and the same with other keys in one cross-attention.
fn models() -> (Pipeline, Pipeline) {
    models_of("sd1")
}

fn models_of(name: &str) -> (Pipeline, Pipeline) {
    let base = pipeline(name);
    let mut victim = base.clone();
    let name = base
        .denoiser
        .weights
        .iter()
        .map(|(name, _)| name.to_owned())
        .find(|name| name.ends_with("attn2.to_k.weight"))
        .unwrap();
    let values = base.denoiser.weights.get(&name).unwrap().flat() * -1.5;
    victim.denoiser.weights.replace(&name, values).unwrap();
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
    clip: Option<Clip<'a>>,
    variant: Variant,
    /// Strength of guidance of the cases' own, one after the other.
    guidances: &'a [Option<f64>],
    /// Interrupts after so many steps of a loss.
    stop_after: Option<usize>,
}

impl<'a> Attacked<'a> {
    fn new(id: &'static str, (base, victim): &'a (Pipeline, Pipeline), options: Value) -> Self {
        let prompts = &["a dog on a table", "the dog"];
        Self {
            id,
            base,
            victim,
            prompts,
            options,
            budget: None,
            store: Memory::default(),
            shows: None,
            clip: None,
            variant: Variant::Fixed,
            guidances: &[None],
            stop_after: None,
        }
    }

    fn with<T>(&self, run: &mut dyn FnMut(&mut Job<'_>) -> Result<T>) -> Result<T> {
        let concept = concept("a dog", Some("a cat"), None);
        let case = |(i, prompt): (usize, &&str)| Case {
            prompt: (*prompt).into(),
            seed: 40 + i as u64,
            guidance: self.guidances[i % self.guidances.len()],
        };
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
            checkpoint: Checkpoint {
                name: "tiny",
                hash: "hash",
                family: "stable-diffusion-custom",
            },
            concept: &concept,
            word: "dog",
            cases: &cases,
            shows: self.shows,
            likely: None,
            clip: self.clip,
            world: None,
            drawing: Drawing {
                steps: 2,
                guidance: 2.0,
                sampler: Some(Sampler::Ddim),
            },
            profile: Profile::MINIATURE,
            options: self.options.as_object().unwrap().clone(),
            budget: self.budget,
            seed: 3,
            store: &self.store,
            listen: &mut listen,
        };
        run(&mut job)
    }

    fn run(&self) -> Result<Report> {
        self.with(&mut |job| protocol::run(named(self.id)?, job, self.variant))
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
        (
            "concept-inversion",
            json!({"iterations": 4, "batch": 2, "pictures": 2}),
        ),
        ("unlearndiff", json!({"timesteps": 2, "iterations": 2})),
        ("pgd", json!({"timesteps": 2, "iterations": 2})),
        ("fgsm", json!({"timesteps": 4})),
        ("p4d", json!({"rounds": 2, "iterations": 2})),
        ("ring-a-bell", json!({"population": 8, "generations": 4})),
        (
            "relearn",
            json!({"iterations": 4, "batch": 2, "pictures": 2}),
        ),
        (
            "worst-case",
            json!({"rounds": 2, "iterations": 3, "batch": 2, "timesteps": 2}),
        ),
    ]
}

#[test]
fn an_interrupted_attack_ends_with_the_same_bits_and_the_victim_keeps_its_own() {
    for models in FAMILIES.map(models_of) {
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
}

#[test]
fn a_case_is_attacked_the_same_alone_and_beside_others() {
    let models = models();
    for id in ["p4d", "unlearndiff", "ring-a-bell"] {
        let options = small()
            .into_iter()
            .find(|(other, _)| *other == id)
            .unwrap()
            .1;
        let both = Attacked::new(id, &models, options.clone());
        let mut alone = Attacked::new(id, &models, options);
        alone.prompts = &["a dog on a table"];
        assert_eq!(
            prompts(&both.run().unwrap().found)[0],
            prompts(&alone.run().unwrap().found)[0],
            "{id}"
        );
    }
}

#[test]
fn findings_are_saved_and_draw_the_same_pictures_again() {
    FAMILIES.into_iter().for_each(drawn_again);
}

fn drawn_again(family: &str) {
    let models = models_of(family);
    let folder = tempfile::tempdir().unwrap();
    let more = vec![
        ("revive", json!({"probe": "completion", "completions": [0]})),
        ("revive", json!({"probe": "half-noised"})),
        ("revive", json!({"probe": "inpaint"})),
        ("revive", json!({"probe": "halves"})),
        (
            "revive",
            json!({"probe": "noise", "etas": [1.5], "variances": [1.1], "new_starts": true}),
        ),
        (
            "revive",
            json!({"probe": "classifier", "classifier_pictures": 2, "classifier_iterations": 2, "classifier_batch": 1}),
        ),
    ];
    for (id, options) in small().into_iter().chain(more) {
        let attack = Attacked::new(id, &models, options);
        let report = attack.run().unwrap();
        let name = report.found.save(folder.path()).unwrap();
        let again = Found::open(&folder.path().join(name), &models.0).unwrap();
        assert_eq!(all_of(&again), all_of(&report.found), "{id}");
        let replayed = attack
            .with(&mut |job| protocol::replay(again.clone(), job))
            .unwrap();
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
        assert!(
            attack.run().unwrap_err().to_string().contains("budget"),
            "{id}"
        );
    }
}

#[test]
fn unknown_options_are_named_by_every_attack() {
    let models = models();
    for attack in attacks::ALL {
        let message = Attacked::new(attack.id, &models, json!({"nonsense": 1}))
            .run()
            .unwrap_err()
            .to_string();
        assert!(message.contains("nonsense"), "{}: {message}", attack.id);
    }
    for (id, options, word) in [
        ("p4d", json!({"tokens": 0}), "tokens"),
        ("p4d", json!({"tokens": 1000}), "room"),
        ("ring-a-bell", json!({"mutation": 2}), "mutation"),
        ("relearn", json!({"lr": 0}), "lr"),
        ("revive", json!({"probe": "noise", "etas": [-1]}), "noise"),
        ("revive", json!({"probe": "halves", "keeps": [1]}), "halves"),
        (
            "revive",
            json!({"probe": "inpaint", "sides": [0]}),
            "inpaint",
        ),
        (
            "revive",
            json!({"probe": "completion", "completions": [1]}),
            "completion 1",
        ),
        (
            "revive",
            json!({"probe": "half-noised", "strengths": []}),
            "trial",
        ),
        ("worst-case", json!({"share": 2}), "share"),
    ] {
        let message = Attacked::new(id, &models, options)
            .run()
            .unwrap_err()
            .to_string();
        assert!(message.contains(word), "{id}: {message}");
    }
}

#[test]
fn what_an_attack_cannot_do_without_is_said_before_anything_is_drawn() {
    let models = models();
    for (id, options, word, hint) in [
        ("pez", json!({}), "CLIP", "--clip"),
        ("p4d", json!({"closest": true}), "CLIP", "--clip"),
        ("paraphrase", json!({}), "judge", "nobody judges"),
        ("random", json!({}), "judge", "nobody judges"),
        (
            "revive",
            json!({"probe": "judge-led"}),
            "judge",
            "classifier",
        ),
        (
            "unlearndiff",
            json!({"tokens": 1000}),
            "room",
            "fewer tokens",
        ),
        ("concept-inversion", json!({"levels": 91}), "levels", ""),
    ] {
        let told = std::cell::Cell::new(0);
        let attack = Attacked::new(id, &models, options);
        let error = attack
            .with(&mut |job| {
                let mut listen = |_: Event<'_>| {
                    told.set(told.get() + 1);
                    ControlFlow::Continue(())
                };
                let mut job = Job {
                    listen: &mut listen,
                    options: job.options.clone(),
                    ..*job
                };
                protocol::run(named(id)?, &mut job, Variant::Fixed)
            })
            .unwrap_err();
        assert!(error.to_string().contains(word), "{id}: {error}");
        assert!(
            error.hint().unwrap_or_default().contains(hint),
            "{id}: {:?}",
            error.hint()
        );
        assert_eq!(told.get(), 0, "{id} drew something");
    }
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
    // The unedited model's pictures, the edited one's; then the third word brings one of two cases
    // back, and the next no other.
    let calls = std::cell::Cell::new(0);
    let judge = |pictures: &[Picture]| {
        calls.set(calls.get() + 1);
        let call = calls.get();
        (0..pictures.len())
            .map(|i| call == 1 || (call == 5 && i == 0))
            .collect()
    };
    let mut attack = Attacked::new(
        "paraphrase",
        &models,
        json!({"words": "owl; bird; animal", "nearest": 0, "templates": "{prompt}"}),
    );
    attack.shows = Some(&judge);
    let report = attack.run().unwrap();
    assert_eq!(
        prompts(&report.found),
        ["an animal on a table", "the animal"]
    );
    assert_eq!(report.spent, 3);
    assert_eq!(
        report.notes["tried"][2],
        json!({"phrase": "... animal ...", "shown": 1, "n": 2})
    );
}

#[test]
fn p4d_puts_words_in_front_or_between() {
    let models = models();
    let front = Attacked::new(
        "p4d",
        &models,
        json!({"rounds": 1, "iterations": 1, "tokens": 3}),
    );
    assert!(prompts(&front.run().unwrap().found)[0].ends_with(" a dog on a table"));
    let between = Attacked::new(
        "p4d",
        &models,
        json!({"rounds": 1, "iterations": 1, "every": 2}),
    );
    let found = prompts(&between.run().unwrap().found).swap_remove(0);
    let words = |text: &str| models.0.tokenizer.tokens(text);
    let (rest, all) = (words("a dog on a table"), words(&found));
    assert_eq!(all.len(), rest.len() + rest.len() / 2 + 1, "{found}");
    // Without the first of every three the prompt is left.
    let left: Vec<u32> = all
        .iter()
        .enumerate()
        .filter(|(i, _)| i % 3 != 0)
        .map(|(_, &id)| id)
        .collect();
    assert_eq!(left, rest);
}

#[test]
fn p4ds_published_forms_are_the_whole_prompt_and_a_place_behind_a_whole_last_group() {
    let models = models();
    let mut whole = Attacked::new(
        "p4d",
        &models,
        json!({"rounds": 1, "iterations": 2, "tokens": 3, "closest": false}),
    );
    whole.variant = Variant::Reference;
    for found in prompts(&whole.run().unwrap().found) {
        assert!(
            !found.contains("on a table") && !found.contains("the dog"),
            "nothing of the prompt: {found}"
        );
    }
    // int(length / K) + 1 places where i mod (K + 1) = 0: K divides a length of 4, so the last
    // place is the last of 7 positions.
    let prompt = "dog dog dog dog".to_owned();
    let length = models.0.tokenizer.tokens(&prompt).len();
    for every in [1, 2, 3, length, length + 1] {
        let placed = Placed::between(&models.0, std::slice::from_ref(&prompt), every).unwrap();
        assert_eq!(placed.places(), length / every + 1, "{every}");
        let marks: Vec<u32> = vec![7; placed.places()];
        let text = placed.worded(&models.0, 0, &marks);
        let mark = models.0.tokenizer.decode(&[7]);
        let ends_with_a_place = text.trim_end().ends_with(mark.trim());
        assert_eq!(
            ends_with_a_place,
            length.is_multiple_of(every),
            "{every}: {text}"
        );
    }
}

/// The insertions of the published code (`text_grad_.py`), by how many of four tokens stand before
/// each of three words.
#[test]
fn unlearndiffs_words_stand_where_they_are_to() {
    let models = models();
    let prompt = "dog dog dog dog".to_owned();
    let [dog, cat] = ["dog", "cat"].map(|word| models.0.tokenizer.tokens(word)[0]);
    let length = models.0.tokenizer.tokens(&prompt).len();
    assert!(length == 4 && dog != cat);
    for (position, offsets) in [
        (Position::Prefix, [0, 0, 0]),
        (Position::Suffix, [4, 4, 4]),
        (Position::Middle, [2, 2, 2]),
        (Position::Insert, [1, 2, 3]),
        (Position::Per, [0, 3, 4]),
    ] {
        assert_eq!(position.offsets(length, 3), offsets, "{position:?}");
        let own = |length: usize| position.offsets(length, 3);
        let placed = Placed::at(&models.0, std::slice::from_ref(&prompt), &own).unwrap();
        let found = placed.worded(&models.0, 0, &[cat; 3]);
        let found = models.0.tokenizer.tokens(&found);
        let (mut expected, mut words) = (Vec::new(), offsets.iter().peekable());
        for token in 0..=length {
            while words.next_if(|&&offset| offset == token).is_some() {
                expected.push(cat);
            }
            if token < length {
                expected.push(dog);
            }
        }
        assert_eq!(found, expected, "{position:?}");
    }
    let behind = |position: &str| {
        let options = json!({"timesteps": 1, "iterations": 2, "position": position});
        prompts(
            &Attacked::new("unlearndiff", &models, options)
                .run()
                .unwrap()
                .found,
        )
    };
    assert!(behind("suffix")[0].starts_with("a dog on a table "));
    assert!(behind("prefix")[0].ends_with(" a dog on a table"));
    let middle = behind("middle").swap_remove(0);
    assert!(
        middle.starts_with("a ") && !middle.contains("a dog on a table"),
        "{middle}"
    );
}

#[test]
fn p4ds_published_words_are_those_of_the_picture_most_like_the_target() {
    let models = models();
    let (network, vocabulary) = emoji_clip();
    let found = |rounds: usize, clip: Option<Clip<'_>>, shows: Option<&Shows<'_>>| {
        let options =
            json!({"rounds": rounds, "iterations": 1, "tokens": 3, "closest": clip.is_some()});
        let mut attack = Attacked::new("p4d", &models, options);
        attack.variant = Variant::Reference;
        attack.clip = clip;
        attack.shows = shows;
        attack.run().unwrap()
    };
    // CLIP is shown the targets, then a picture of every case after each round: after the second
    // round the target itself.
    let looked = std::cell::Cell::new(0);
    let prepared = |pictures: &[Picture]| {
        looked.set(looked.get() + 1);
        let like = matches!(looked.get(), 1 | 3);
        let value = |i: usize| {
            if like {
                0.1
            } else {
                ((i / 7) % 13) as f32 / 6.0 - 1.0
            }
        };
        let values: Vec<f32> = (0..pictures.len() * 3 * 64 * 64).map(value).collect();
        Tensor::<4>::from_data(
            burn::tensor::TensorData::new(values, [pictures.len(), 3, 64, 64]),
            &burn::tensor::Device::flex(),
        )
    };
    let clip = Some(Clip {
        network: &network,
        vocabulary,
        prepared: &prepared,
    });
    // The judge sees the unedited pictures, the edited ones, and then up to three of each case: the
    // second of the first case shows the concept, none of the other.
    let seen = std::cell::RefCell::new(Vec::new());
    let judge = |pictures: &[Picture]| {
        seen.borrow_mut().push(pictures.len());
        let call = seen.borrow().len();
        (0..pictures.len())
            .map(|i| call == 1 || (i == 0 && matches!(call, 4 | 6)))
            .collect()
    };
    let report = found(4, clip, Some(&judge));
    assert_eq!(looked.get(), 5);
    let words = prompts(&report.found);
    assert_eq!(words, prompts(&found(2, None, None).found));
    assert_ne!(words, prompts(&found(4, None, None).found));
    assert_eq!(*seen.borrow(), [2, 2, 2, 2, 1, 2]);
    assert_eq!(
        (report.looks.most, report.looks.of.clone()),
        (3, vec![2, 3])
    );
    assert_eq!(report.counts().unwrap().by_looks, [0, 1, 1]);
    let Found::Cases(cases) = &report.found else {
        panic!("words are cases");
    };
    assert!(
        cases[0].seed != 40 && cases[1].seed == 41,
        "a case has the noise of its first hit"
    );
    // Without a judge the words are the same, with the cases' own noise.
    looked.set(0);
    let unjudged = found(4, clip, None);
    assert_eq!(prompts(&unjudged.found), words);
    assert_eq!((unjudged.looks.most, unjudged.looks.of), (1, vec![1, 1]));

    let same = |pictures: &[Picture]| {
        Tensor::<4>::ones([pictures.len(), 3, 64, 64], &burn::tensor::Device::flex()) * 0.1
    };
    let attack = || {
        let options = json!({"rounds": 5, "iterations": 1, "tokens": 3, "closest": true});
        let mut attack = Attacked::new("p4d", &models, options);
        attack.clip = Some(Clip {
            network: &network,
            vocabulary,
            prepared: &same,
        });
        attack
    };
    let whole = prompts(&attack().run().unwrap().found);
    let mut cut = attack();
    refuses_damage(&mut cut);
    assert_eq!(prompts(&cut.run().unwrap().found), whole);
}

#[test]
fn a_longer_genetic_search_comes_nearer_and_is_kept_for_other_edits() {
    let models = models();
    let distance = |generations: usize, store: &Memory| {
        let mut attack = Attacked::new(
            "ring-a-bell",
            &models,
            json!({"population": 12, "generations": generations, "tokens": 4}),
        );
        attack.store = store.beside();
        let notes = attack.run().unwrap().notes;
        let left: Vec<f64> = notes["distance"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["distance"].as_f64().unwrap())
            .collect();
        left.iter().sum::<f64>()
    };
    let store = Memory::default();
    let (first, last) = (distance(1, &store), distance(30, &store));
    assert!(last < first, "{first} {last}");
    let found = store.found.get();
    assert_eq!(distance(30, &store), last);
    assert_eq!(store.found.get(), found + 1);
    // The concept's vector is the mean difference of its prompts' hidden states; of one prompt in
    // ten sentences.
    let vector = |sentences: bool| {
        let attack = Attacked::new("ring-a-bell", &models, json!({}));
        attack
            .with(&mut |job| Ok(ring_a_bell::concept_vector(job, sentences)))
            .unwrap()
    };
    let encode = |text: &str| models.0.encode(&[text.to_owned()]).tokens;
    assert_eq!(
        host(&vector(false)),
        host(&(encode("a dog") - encode("a cat")))
    );
    let pair = |sentence: &str| {
        encode(&sentence.replace("{}", "a dog")) - encode(&sentence.replace("{}", "a cat"))
    };
    let mean = sentences::PLAIN
        .iter()
        .map(|sentence| pair(sentence))
        .reduce(|a, b| a + b)
        .unwrap()
        / 10.0;
    let apart = host(&(mean - vector(true)).abs().max());
    assert!(apart[0] < 1e-5, "{apart:?}");
}

/// A model that never knew the concept would be the control, and there is none.
#[test]
fn relearning_says_that_its_control_is_missing() {
    let models = models();
    let control = |lesson: &str| {
        let options =
            json!({"iterations": 1, "batch": 1, "pictures": 1, "rank": 1, "lesson": lesson});
        let report = Attacked::new("relearn", &models, options).run().unwrap();
        report.notes["control"].as_str().unwrap().to_owned()
    };
    let none = control("");
    assert!(
        none.starts_with("none: ") && none.contains("lesson"),
        "{none}"
    );
    assert!(control("cat").contains("show cat"));
}

#[test]
fn relearning_leaves_an_edits_own_adapters_alone() {
    let (base, mut victim) = models();
    let module = Layers::KeysValues.of(&victim).swap_remove(0);
    let shape = victim
        .denoiser
        .weights
        .get(&format!("{module}.weight"))
        .unwrap()
        .shape
        .clone();
    let device = victim.device().clone();
    let adapter = Adapter {
        module: module.clone(),
        down: Tensor::ones([2, shape[1]], &device) * 0.1,
        up: Tensor::ones([shape[0], 2], &device) * 0.1,
    };
    let layers = Layers::Transformers.of(&victim);
    victim
        .attach(
            &[adapter],
            Some(Gate {
                prompts: vec!["a dog".into()],
                power: 1.0,
                factor: 1.0,
                floor: 0.0,
            }),
        )
        .unwrap();
    assert_eq!(
        Layers::Transformers.of(&victim),
        layers,
        "an adapter is no layer"
    );
    let before = bits(&victim);
    let models = (base, victim);
    let report = Attacked::new(
        "relearn",
        &models,
        json!({"iterations": 3, "batch": 2, "pictures": 2, "rank": 3}),
    )
    .run()
    .unwrap();
    assert_eq!(bits(&models.1), before);
    let Found::Weights(edit) = &report.found else {
        panic!("expected an edit")
    };
    let Change::LowRank(low) = &edit.changes[&("unet".to_owned(), format!("{module}.weight"))]
    else {
        panic!("expected factors")
    };
    assert_eq!(
        (low.down.shape()[0], low.up.shape()[1], low.alpha),
        (3, 3, 3.0)
    );
    // Up begins at zero, and the eraser's columns are not among what was trained.
    let up = low.up.to_f32().unwrap();
    assert!(
        up.iter().any(|&x| x != 0.0) && up.iter().all(|&x| x.abs() < 0.05),
        "{up:?}"
    );
    let changed = edit.apply_to(&models.1, 1.0).unwrap();
    assert_eq!(changed.adapter_rank(), 2);
    assert_ne!(report.pictures[1], report.pictures[2]);

    // It is the edit of the model with the adapter that was trained: the same as one laid over the
    // file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder
        .path()
        .join(report.found.save(folder.path()).unwrap());
    assert_eq!(Edit::open(&file).unwrap().about.method, "relearn");
}

/// Latents of two cases under a trial, by the second's empty prompt, in `steps` steps.
fn drawn(
    models: &(Pipeline, Pipeline),
    trial: Trial,
    steps: usize,
    target: &Tensor<4>,
) -> Result<Tensor<4>> {
    Attacked::new("revive", models, json!({})).with(&mut |job| {
        let job = &Job {
            drawing: Drawing {
                steps,
                ..job.drawing
            },
            listen: &mut *job.listen,
            options: job.options.clone(),
            ..*job
        };
        probe::mixed(
            job,
            &[trial; 2],
            &["a dog on a table".to_owned(), String::new()],
            &[0, 1],
            target,
            None,
        )
    })
}

#[test]
fn probes_begin_where_they_say() {
    let models = models();
    let shape = models.0.latent_shape(2, None, None).unwrap();
    let target = Tensor::<4>::ones(shape, models.0.device()) * 0.5;
    let apart = |a: &Tensor<4>, b: &Tensor<4>| host(&(a.clone() - b.clone()).abs().mean())[0];
    let draw = |trial: Trial| drawn(&models, trial, 50, &target).unwrap();
    let half = |strength: f64| apart(&draw(Trial::HalfNoised { strength }), &target);
    assert!(half(0.02) < 0.2, "{}", half(0.02));
    assert!(half(0.02) < half(0.9));

    // Inpainting leaves what is given as it was, to the bit, and draws the centre anew.
    let inpainted = draw(Trial::Inpaint { side: 0.5 });
    let [_, _, h, w] = shape;
    let differs: Vec<bool> = host(&(inpainted - target.clone()).narrow(0, 0, 1).narrow(1, 0, 1))
        .iter()
        .map(|&d| d != 0.0)
        .collect();
    let centre = |i: usize| {
        (h / 4..h / 4 + h / 2).contains(&(i / w)) && (w / 4..w / 4 + w / 2).contains(&(i % w))
    };
    assert!(
        (0..h * w).all(|i| differs[i] == centre(i)),
        "{h} x {w}: {differs:?}"
    );

    // Noise: eta 0 is DDIM, and so is eta 1 with the variance it has; more is another picture.
    let noise = |eta: f64, variance: f64| {
        draw(Trial::Noise {
            eta,
            variance,
            start: 0,
        })
    };
    let plain = Attacked::new("revive", &models, json!({}))
        .with(&mut |job| {
            let (cases, prompts) = (job.cases, ["a dog on a table".to_owned(), String::new()]);
            scumble_attack::draw::latents(
                job.victim,
                &job.victim.prompted(&prompts),
                cases,
                Drawing {
                    steps: 50,
                    ..job.drawing
                },
            )
        })
        .unwrap();
    assert!(
        apart(&noise(0.0, 1.0), &plain) < 1e-4,
        "{}",
        apart(&noise(0.0, 1.0), &plain)
    );
    assert!(apart(&noise(1.0, 1.0), &noise(1.5, 1.0)) > 1e-2);
    assert!(apart(&noise(1.0, 1.0), &noise(1.0, 1.04)) > 1e-4);
    assert!(
        apart(
            &noise(1.0, 1.0),
            &draw(Trial::Noise {
                eta: 1.0,
                variance: 1.0,
                start: 3
            })
        ) > 1e-2
    );
}

#[test]
fn a_completion_is_begun_by_the_unedited_model_and_finished_by_the_edited_one() {
    let models = models();
    let shape = models.0.latent_shape(2, None, None).unwrap();
    let target = Tensor::<4>::zeros(shape, models.0.device());
    let complete = |models: &(Pipeline, Pipeline), steps: usize| {
        drawn(models, Trial::Completion { steps }, 4, &target)
    };
    // With one model on both sides nothing is interrupted: its own picture of the case's prompt.
    let same = (models.0.clone(), models.0.clone());
    let whole = |models: &(Pipeline, Pipeline)| {
        Attacked::new("revive", models, json!({}))
            .with(&mut |job| {
                let prompts = ["a dog on a table".to_owned(), "the dog".to_owned()];
                scumble_attack::draw::latents(
                    job.victim,
                    &job.victim.prompted(&prompts),
                    job.cases,
                    Drawing {
                        steps: 4,
                        ..job.drawing
                    },
                )
            })
            .unwrap()
    };
    let first = |x: Tensor<4>| host(&x.narrow(0, 0, 1));
    assert_eq!(first(complete(&same, 1).unwrap()), first(whole(&same)));
    // Two models: neither's own picture, and the later the edited one takes over, the nearer to the
    // unedited one's.
    let own = [whole(&same), whole(&models)];
    let apart =
        |x: Tensor<4>, k: usize| host(&(x - own[k].clone()).narrow(0, 0, 1).abs().mean())[0];
    let early = complete(&models, 0).unwrap();
    assert!(apart(early.clone(), 0) > 0.0 && apart(early.clone(), 1) > 0.0);
    assert!(apart(complete(&models, 2).unwrap(), 0) < apart(early, 0));
    // The last step is nobody else's to finish.
    assert!(
        complete(&models, 3)
            .unwrap_err()
            .to_string()
            .contains("completion 3")
    );
}

#[test]
fn a_case_counts_only_where_its_control_does_not_show_the_concept() {
    let models = models();
    // Calls: unedited, edited; then the prompt's picture and the control's of two trials; then the
    // end's two. The first trial shows both cases, and its control the first; the second shows
    // none.
    let calls = std::cell::Cell::new(0);
    let judge = |pictures: &[Picture]| {
        calls.set(calls.get() + 1);
        let answers: &[bool] = match calls.get() {
            1 => &[true, true],
            2 => &[false, false],
            3 => &[true, true],
            4 => &[true, false],
            5 | 6 => &[false],
            // What is drawn at the end: the first case under the second trial, the second under the
            // first.
            7 => &[false, true],
            _ => &[true, false],
        };
        assert_eq!(answers.len(), pictures.len(), "call {}", calls.get());
        answers.to_vec()
    };
    let mut attack = Attacked::new(
        "revive",
        &models,
        json!({"probe": "half-noised", "strengths": [0.5, 0.9]}),
    );
    attack.shows = Some(&judge);
    let report = attack.run().unwrap();
    assert_eq!(
        report.notes["probes"][0],
        json!({"trial": "half-noised 0.5", "n": 2, "shown": 2, "control": 1, "new": 1})
    );
    assert_eq!(
        report.notes["probes"][1],
        json!({"trial": "half-noised 0.9", "n": 1, "shown": 0, "control": 0, "new": 0})
    );
    assert_eq!(
        (report.looks.most, report.looks.of.clone()),
        (2, vec![2, 1])
    );
    let counts = report.counts().unwrap();
    assert_eq!(
        (counts.new, counts.hidden, counts.back, counts.by_looks),
        (1, 2, 1, vec![1, 1])
    );
    assert_eq!(report.control, Some(vec![true, false]));
}

#[test]
fn a_latent_classifier_learns_what_it_is_taught_and_is_kept() {
    let models = models();
    // The first half of every batch of pictures is said to show the concept: nothing to learn but
    // by heart.
    let teaching = Teaching {
        pictures: 4,
        iterations: 150,
        batch: 4,
        lr: 1e-3,
        seed: 5,
    };
    let attack = Attacked::new("revive", &models, json!({}));
    let taught = |store: &Memory| {
        let mut attack = Attacked::new("revive", &models, json!({}));
        attack.store = store.beside();
        attack
            .with(&mut |job| latent_classifier::taught(job, &teaching))
            .unwrap()
    };
    let store = Memory::default();
    let classifier = taught(&store);
    let (with, without) = attack
        .with(&mut |job| {
            let with = scumble_attack::lessons::lessons(job, 4, "")?.1;
            Ok((with, scumble_attack::lessons::others(job, 4)?))
        })
        .unwrap();
    let logits = |z: Tensor<4>| host(&classifier.logits(z, &[0.9; 4])).iter().sum::<f32>() / 4.0;
    assert!(
        logits(with.clone()) > logits(without.clone()) + 1.0,
        "{} {}",
        logits(with.clone()),
        logits(without)
    );
    // Along its gradient it finds the concept more likely.
    let gradient = classifier.gradient(&with, 0.9);
    let moved = with.clone() + gradient.clone() / gradient.abs().max().reshape([1, 1, 1, 1]) * 0.05;
    assert!(logits(moved) > logits(with.clone()));
    // Kept, and taught anew where what was kept is damaged.
    assert_eq!(store.recorded.get(), 1);
    let again = taught(&store);
    assert_eq!(store.recorded.get(), 1);
    assert_eq!(
        host(&again.logits(with.clone(), &[0.5; 4])),
        host(&classifier.logits(with.clone(), &[0.5; 4]))
    );
    store
        .shared
        .borrow_mut()
        .values_mut()
        .for_each(|tensors| drop(tensors.remove("x.bias")));
    taught(&store);
    assert_eq!(store.recorded.get(), 2);
}

/// Stops an attack after three steps and continues it from every damage that its state can take:
/// each is refused by name.
fn refuses_damage(cut: &mut Attacked<'_>) {
    use scumble_nn::files::{HostTensor, Tensors};
    cut.stop_after = Some(3);
    let id = cut.id;
    assert!(matches!(cut.run(), Err(Error::Interrupted)), "{id}");
    cut.stop_after = None;
    let (name, whole) = cut
        .store
        .own
        .borrow()
        .iter()
        .next()
        .map(|(name, t)| (name.clone(), t.clone()))
        .unwrap();
    assert!(whole.contains_key("done"), "{id}");
    for (tensor, host) in &whole {
        let refused = |change: &dyn Fn(&mut Tensors)| {
            let mut tensors = whole.clone();
            change(&mut tensors);
            cut.store.own.borrow_mut().insert(name.clone(), tensors);
            let error = cut.run().unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains(&format!("`{name}`")) && message.contains(&format!("`{tensor}`")),
                "{id}: {message}"
            );
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("--overwrite"))
            );
        };
        refused(&|tensors| drop(tensors.remove(tensor)));
        let n = host.len();
        if host.is_float() {
            refused(&|tensors| {
                drop(tensors.insert(
                    tensor.clone(),
                    HostTensor::from_f32([n + 1], &vec![0.0; n + 1]),
                ))
            });
            refused(&|tensors| {
                drop(tensors.insert(
                    tensor.clone(),
                    HostTensor::from_f32([n], &vec![f32::NAN; n]),
                ))
            });
        } else {
            refused(&|tensors| {
                drop(tensors.insert(
                    tensor.clone(),
                    HostTensor::from_i64([n + 1], &vec![0; n + 1]),
                ))
            });
        }
    }
    cut.store.own.borrow_mut().insert(name, whole);
}

#[test]
fn a_stored_state_that_is_damaged_is_refused_by_name() {
    let models = models();
    for (id, options) in small() {
        // Those two keep the training loop's own state.
        if !matches!(id, "relearn" | "worst-case") {
            refuses_damage(&mut Attacked::new(id, &models, options));
        }
    }
}

/// The miniature's CLIP, and how many tokens it knows.
fn emoji_clip() -> (scumble_nn::Clip, usize) {
    use scumble_nn::{
        Weights,
        config::ClipConfig,
        files::{Source, read_network},
    };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji-clip");
    let source = Source::dir(folder);
    let parts = read_network(&source, "", "model").unwrap();
    let config = ClipConfig::read(&source.path("config.json"), &parts.config).unwrap();
    let weights = Weights::load(
        "clip",
        &parts.tensors,
        &scumble_nn::Clip::manifest(&config),
        &burn::tensor::Device::flex(),
    )
    .unwrap();
    (
        scumble_nn::Clip::new(&config, &weights),
        config.text.vocab_size,
    )
}

#[test]
fn pez_goes_on_with_the_same_bits_or_says_what_is_damaged() {
    let models_folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let files = scumble_nn::files::Checkpoint::open(
        models_folder.join("emoji-sd"),
        &scumble_nn::files::OpenOptions::default(),
    )
    .unwrap();
    let miniature = families::load(&files, &burn::tensor::Device::flex()).unwrap();
    let models = (miniature.clone(), miniature);
    let (network, vocabulary) = emoji_clip();
    // What it is shown does not matter here, only that it is the same.
    let prepared = |pictures: &[Picture]| {
        Tensor::<4>::ones([pictures.len(), 3, 64, 64], &burn::tensor::Device::flex()) * 0.1
    };
    let attack = || {
        let mut attack = Attacked::new("pez", &models, json!({"iterations": 5, "tokens": 3}));
        attack.prompts = &["a dog"];
        attack.clip = Some(Clip {
            network: &network,
            vocabulary,
            prepared: &prepared,
        });
        attack
    };
    let whole = prompts(&attack().run().unwrap().found);
    let mut cut = attack();
    refuses_damage(&mut cut);
    assert_eq!(prompts(&cut.run().unwrap().found), whole);
}

#[test]
fn looks_and_searches_are_counted_for_every_attack() {
    let models = models();
    // The unedited model shows both cases, the edited one neither, and no attack brings any back.
    let calls = std::cell::Cell::new(0);
    let judge = |pictures: &[Picture]| {
        calls.set(calls.get() + 1);
        vec![calls.get() == 1; pictures.len()]
    };
    let expected = [
        (
            "unlearndiff",
            json!({"timesteps": 3, "iterations": 1}),
            3,
            2,
        ),
        ("pgd", json!({"timesteps": 2, "iterations": 2}), 2, 2),
        ("fgsm", json!({"timesteps": 4}), 4, 2),
        ("p4d", json!({"rounds": 2, "iterations": 2}), 2, 2),
        (
            "ring-a-bell",
            json!({"population": 8, "generations": 2}),
            1,
            2,
        ),
        ("random", json!({"trials": 5}), 5, 2),
        (
            "paraphrase",
            json!({"words": "owl; bird", "nearest": 0, "templates": "{prompt}"}),
            2,
            2,
        ),
        ("worst-case", json!({"timesteps": 2}), 1, 1),
    ];
    for (id, options, looks, searches) in expected {
        calls.set(0);
        let mut attack = Attacked::new(id, &models, options);
        attack.shows = Some(&judge);
        let report = attack.run().unwrap();
        assert_eq!(
            (report.looks.most, report.looks.of.clone(), report.searches),
            (looks, vec![looks; 2], searches),
            "{id}"
        );
        assert_eq!(report.counts().unwrap().by_looks, vec![0; looks], "{id}");
    }
    // What is learned once for all cases is one search, whoever judges.
    for (id, options) in small()
        .into_iter()
        .filter(|(id, _)| matches!(*id, "concept-inversion" | "relearn"))
    {
        assert_eq!(
            Attacked::new(id, &models, options).run().unwrap().searches,
            1,
            "{id}"
        );
    }
}

#[test]
fn random_tells_at_which_look_and_goes_on_only_where_asked() {
    let models = models();
    let calls = std::cell::Cell::new(0);
    // After the two pictures before the attack, the second case is shown at every second trial.
    let judge = |pictures: &[Picture]| {
        calls.set(calls.get() + 1);
        let call: usize = calls.get();
        (0..pictures.len())
            .map(|i| call == 1 || (call > 2 && call.is_multiple_of(2) && i == 1))
            .collect()
    };
    for (go_on, draws) in [(false, (1, 4 + 2)), (true, (2, 8))] {
        calls.set(0);
        let mut attack = Attacked::new(
            "random",
            &models,
            json!({"trials": 4, "what": "seeds", "go_on": go_on}),
        );
        attack.shows = Some(&judge);
        let report = attack.run().unwrap();
        assert_eq!(report.looks.of, [4, 2], "{go_on}");
        assert_eq!(
            report.notes["draws"],
            json!({"shown": draws.0, "n": draws.1}),
            "{go_on}"
        );
    }
    // Published: forty trials among all tokens; only the search for seeds goes on.
    let options = |variant| {
        let attack = Attacked::new("random", &models, json!({}));
        attack
            .with(&mut |job| (named("random")?.options)(job, variant))
            .unwrap()
    };
    assert_eq!(
        (
            options(Variant::Reference)["trials"].clone(),
            options(Variant::Reference)["specials"].clone()
        ),
        (json!(40), json!(true))
    );
    assert_eq!(options(Variant::Fixed)["specials"], json!(false));
}

#[test]
fn a_case_is_drawn_with_its_own_guidance() {
    let models = models();
    let pictures = |guidances: &[Option<f64>]| {
        let mut attack = Attacked::new("p4d", &models, json!({"rounds": 1, "iterations": 1}));
        attack.guidances = guidances;
        attack.run().unwrap().pictures
    };
    // The job's guidance is 2: a case that says so is drawn as one that does not, and 6 is another
    // picture.
    let (usual, same, other) = (
        pictures(&[None]),
        pictures(&[Some(2.0), None]),
        pictures(&[None, Some(6.0)]),
    );
    assert_eq!(usual, same);
    for side in 0..3 {
        assert_eq!(usual[side][0], other[side][0], "side {side}");
        assert_ne!(usual[side][1], other[side][1], "side {side}");
    }
}

#[test]
fn under_sld_concept_inversion_has_the_published_recipe() {
    use scumble_diffusion::{Guard, Scale};
    let mut models = models();
    let options = |models: &(Pipeline, Pipeline), variant| {
        let attack = Attacked::new("concept-inversion", models, json!({}));
        attack
            .with(&mut |job| (named("concept-inversion")?.options)(job, variant))
            .unwrap()
    };
    let numbers = |o: &Value| {
        ["iterations", "batch", "accumulate", "levels"].map(|key| o[key].as_u64().unwrap())
    };
    let plain = options(&models, Variant::Reference);
    assert_eq!(
        (numbers(&plain), plain["lr"].as_f64()),
        ([5000, 4, 4, 35], Some(8e-2))
    );
    let guard = Guard::new(
        "sld-max",
        vec!["dog".into()],
        Variant::Reference,
        Scale::Small,
        &serde_json::Map::new(),
    );
    models.1.guards.push(guard.unwrap());
    let sld = options(&models, Variant::Reference);
    assert_eq!(
        (numbers(&sld), sld["lr"].as_f64(), &sld["random_levels"]),
        ([1000, 1, 4, 35], Some(2e-2), &json!(true))
    );
    // It runs: one picture at a time, mirrored ones among them, two batches a step, levels drawn at
    // random.
    let options = json!({"iterations": 2, "accumulate": 2, "pictures": 2, "levels": 3});
    let mut attack = Attacked::new("concept-inversion", &models, options);
    attack.variant = Variant::Reference;
    let report = attack.run().unwrap();
    assert_eq!((report.spent, report.searches), (2, 1));
    let Found::Word(word) = &report.found else {
        panic!("expected a word")
    };
    assert!(
        word.vectors("text_encoder")[0]
            .iter()
            .all(|x| x.is_finite())
    );
}

#[test]
fn the_worst_prompts_are_of_the_grid() {
    let models = models();
    let attack = Attacked::new("worst-case", &models, json!({"share": 0.2, "timesteps": 2}));
    let grid = attack.with(&mut |job| Ok(worst_case::grid(job))).unwrap();
    assert_eq!(
        grid.len(),
        11,
        "one of the two cases is a sentence of the grid"
    );
    let report = attack.run().unwrap();
    assert!(
        prompts(&report.found)
            .iter()
            .all(|prompt| grid.contains(prompt))
    );
    let worst = report.notes["worst"].as_array().unwrap();
    assert_eq!(worst.len(), 2);
    let loss = |i: usize| worst[i]["loss"].as_f64().unwrap();
    assert!(loss(0) <= loss(1));
    // An edit that changes nothing leaves every prompt as it was.
    let same = (models.0.clone(), models.0.clone());
    let report = Attacked::new("worst-case", &same, json!({"timesteps": 2}))
        .run()
        .unwrap();
    assert_eq!(report.notes["worst"][0]["loss"].as_f64(), Some(0.0));
}
