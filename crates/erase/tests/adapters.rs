//! Methods that train adapters, or choose what moves: SPM, ANT and RealEra's second part, on tiny
//! models.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeSet, ops::ControlFlow};

use common::{Run, bits, checkpoint, concept, host, pipeline};
use scumble_diffusion::Pipeline;
use scumble_erase::{Change, Concept, Edit, Error, Event, Variant};
use scumble_nn::files::HostTensor;
use serde_json::{Value, json};

const STEPS: usize = 4;

fn with(base: Value, more: Value) -> Value {
    let mut all = base;
    all.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    all
}

fn church() -> Vec<Concept> {
    vec![concept("a church", None, None)]
}

fn spm<'a>(model: &'a Pipeline, more: Value) -> Run<'a> {
    let few = json!({
        "iterations": 5, "trajectories": 2, "sampling_steps": STEPS, "batch": 2, "anchors": 2, "anchor_trajectories": 3, "lr": 1e-2,
        "warm_up": 0
    });
    Run::of("spm", model, church(), with(few, more))
}

fn ant<'a>(model: &'a Pipeline, more: Value) -> Run<'a> {
    let few = json!({
        "iterations": 4, "trajectories": 2, "sampling_steps": STEPS, "batch": 2, "salience_examples": 2, "lr": 1e-3, "rank": 2
    });
    // The split divides these trajectories; published it lies above all of their steps.
    Run::of(
        "ant",
        model,
        church(),
        with(few, with(json!({"split": 500.0}), more)),
    )
}

fn realera<'a>(model: &'a Pipeline, more: Value) -> Run<'a> {
    let few = json!({
        "lora_iterations": 4, "trajectories": 2, "sampling_steps": STEPS, "batch": 2, "neighbours": 2, "pinned": 2, "templates": 0
    });
    Run::of("realera", model, church(), with(few, more))
}

fn leco<'a>(model: &'a Pipeline, more: Value) -> Run<'a> {
    let few = json!({"iterations": 4, "sampling_steps": 3, "pairs": 2, "batch": 2, "lr": 1e-2});
    Run::of("leco", model, church(), with(few, more))
}

/// Every number of an edit.
fn numbers(edit: &Edit) -> Vec<(String, Vec<u32>)> {
    let read = |t: &HostTensor| {
        t.to_f32()
            .unwrap()
            .into_iter()
            .map(f32::to_bits)
            .collect::<Vec<_>>()
    };
    let one = |((_, name), change): (&(String, String), &Change)| {
        let values = match change {
            Change::Value(v) | Change::Difference(v) | Change::Added(v) => read(v),
            Change::LowRank(low) => [read(&low.down), read(&low.up)].concat(),
        };
        (name.clone(), values)
    };
    edit.changes.iter().map(one).collect()
}

/// What a model predicts for a prompt.
fn predicted(model: &Pipeline, prompt: &str) -> Vec<f32> {
    let shape = model.latent_shape(1, None, None).unwrap();
    let x = scumble_diffusion::Noise::each(3, 1).draw(shape, model.device());
    let t = [scumble_diffusion::Timestep::from(500)];
    let prediction = model.predict(x, &t, &model.context(&[prompt.to_owned()]), None);
    host(&prediction.unwrap().raw())
}

fn mean_of_squares(values: impl Iterator<Item = f64>) -> f64 {
    let list: Vec<f64> = values.map(|v| v * v).collect();
    list.iter().sum::<f64>() / list.len() as f64
}

/// The numbers of the concept's own bank, which is the one recorded first or last by its prompt's
/// predictions.
fn first_bank(run: &Run<'_>) -> [Vec<f64>; 3] {
    let groups = run.store.groups();
    let bank = groups
        .iter()
        .find(|g| g.contains_key("eps.1") && g["t"].len() == 2 * STEPS)
        .unwrap();
    ["eps.0", "eps.1", "t"].map(|name| {
        bank[name]
            .to_f32()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect()
    })
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-4 * expected.abs(),
        "found {found:e}, expected {expected:e}"
    );
}

#[test]
fn spm_begins_at_its_formula() {
    let model = pipeline("odd");
    for (eta, lambda, anchoring) in [
        (1.0, 1.0, "captions"),
        (2.0, 1000.0, "captions"),
        (0.0, 5.0, "gaussian"),
        (1.0, 1000.0, "gaussian-and-empty"),
    ] {
        // Adapters begin as nothing, so anchors are where they should be and only the erasing term
        // counts.
        let more = json!({"eta": eta, "lambda": lambda, "anchoring": anchoring, "batch": 2 * STEPS, "iterations": 1});
        let run = spm(&model, more);
        let (_, losses) = run.losses().unwrap();
        let [own, empty, _] = first_bank(&run);
        let expected = mean_of_squares(own.iter().zip(&empty).map(|(a, b)| (1.0 + eta) * (a - b)));
        near(losses[0].into(), expected);
    }
}

#[test]
fn spm_is_factors_with_a_gate() {
    for name in ["odd", "sd1", "sd2"] {
        let model = pipeline(name);
        let edit = spm(&model, json!({"iterations": 1})).erase().unwrap();
        let matrices = model
            .denoiser
            .weights
            .iter()
            .filter(|(n, w)| n.contains("attentions.") && w.shape.len() >= 2)
            .count();
        assert_eq!(
            edit.changes.len(),
            matrices,
            "{name}: every linear layer and 1x1 convolution of the transformers"
        );
        for ((component, at), change) in &edit.changes {
            let Change::LowRank(low) = change else {
                panic!("{at} is no product")
            };
            assert_eq!(
                (component.as_str(), low.rank(), low.scale()),
                ("unet", 1, 1.0)
            );
            // Where four levels leave a single place, self-attention has nothing to choose from,
            // and no gradient.
            let idle = name != "odd"
                && at.contains("mid_block")
                && (at.contains("attn1.to_q") || at.contains("attn1.to_k"));
            assert!(
                idle || low.up.to_f32().unwrap().iter().any(|v| *v != 0.0),
                "{name}: {at} moved"
            );
        }
        let gate = edit.about.gate.clone().unwrap();
        assert_eq!(gate.prompts, ["church"], "the article says nothing");
        assert!(gate.floor > 0.0 && !edit.merges());

        let applied = edit.apply_to(&model, 1.0).unwrap();
        assert_ne!(
            predicted(&applied, "a church"),
            predicted(&model, "a church")
        );
        // Saved and read it is the same.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edit.safetensors");
        edit.save(&path).unwrap();
        let again = Edit::open(&path).unwrap();
        assert_eq!(
            (numbers(&again), &again.about),
            (numbers(&edit), &edit.about)
        );
        assert_eq!(
            predicted(&again.apply_to(&model, 1.0).unwrap(), "a church"),
            predicted(&applied, "a church")
        );
    }
}

/// A gate that opens at the concept alone leaves every other prompt to the bit; without one all
/// move.
#[test]
fn a_closed_gate_leaves_the_frozen_model() {
    let model = pipeline("odd");
    let mut edit = spm(&model, json!({"gate_floor": 0.999, "lr": 0.1}))
        .erase()
        .unwrap();
    let gated = edit.apply_to(&model, 1.0).unwrap();
    for prompt in ["a dog", "", "the moon"] {
        assert_eq!(
            predicted(&gated, prompt),
            predicted(&model, prompt),
            "{prompt}"
        );
    }
    assert_ne!(predicted(&gated, "a church"), predicted(&model, "a church"));
    edit.about.gate = None;
    let open = edit.apply_to(&model, 1.0).unwrap();
    assert_ne!(predicted(&open, "a dog"), predicted(&model, "a dog"));
    // With the gate wide open they are the same, but for rounding.
    for (a, b) in predicted(&gated, "a church")
        .into_iter()
        .zip(predicted(&open, "a church"))
    {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

/// A membrane for each concept, one on top of the other; and what it was made on does not matter,
/// only the architecture.
#[test]
fn membranes_stack_and_move_to_another_checkpoint() {
    let model = pipeline("odd");
    let one = |name: &str| {
        let mut run = spm(&model, json!({"gate_floor": 0.99, "lr": 0.1}));
        run.concepts = vec![concept(name, None, None)];
        run.erase().unwrap()
    };
    let (church, dog) = (one("a church"), one("a dog"));
    let both = dog
        .apply_to(&church.apply_to(&model, 1.0).unwrap(), 1.0)
        .unwrap();
    assert_eq!(both.adapter_rank(), 2);
    for (prompt, edit) in [("a church", &church), ("a dog", &dog)] {
        let alone = predicted(&edit.apply_to(&model, 1.0).unwrap(), prompt);
        for (a, b) in predicted(&both, prompt).into_iter().zip(alone) {
            assert!((a - b).abs() < 1e-4, "{prompt}: {a} {b}");
        }
    }
    assert_eq!(predicted(&both, "the moon"), predicted(&model, "the moon"));

    // Fine-tuned: the same names and shapes, other numbers.
    let mut tuned = model.clone();
    let name = "conv_out.weight";
    let moved = tuned.denoiser.weights.get(name).unwrap().flat() * 1.5;
    tuned.denoiser.weights.replace(name, moved).unwrap();
    let applied = church.apply_to(&tuned, 1.0).unwrap();
    assert_ne!(
        predicted(&applied, "a church"),
        predicted(&tuned, "a church")
    );
    assert_eq!(
        predicted(&applied, "the moon"),
        predicted(&tuned, "the moon")
    );
    let error = church.apply_to(&pipeline("sd1"), 1.0).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
}

#[test]
fn factors_are_exported_as_they_are() {
    let model = pipeline("odd");
    let edit = spm(&model, json!({})).erase().unwrap();
    let base = checkpoint("odd");
    for (rank, strength) in [(1, 1.0), (4, 0.5)] {
        let found = edit.low_rank(&base, rank, strength).unwrap();
        assert_eq!(
            (found.error, found.left_out.len(), found.low_rank.len()),
            (0.0, 0, edit.changes.len())
        );
        for low in &found.low_rank {
            let Change::LowRank(own) =
                &edit.changes[&("unet".to_owned(), format!("{}.weight", low.module))]
            else {
                panic!()
            };
            assert_eq!(low.down.to_f32(), own.down.to_f32());
            let up: Vec<f32> = own
                .up
                .to_f32()
                .unwrap()
                .iter()
                .map(|v| v * strength as f32)
                .collect();
            assert_eq!(low.up.to_f32().unwrap(), up);
        }
    }
    // Of a higher rank than is asked for: the best of that rank.
    let wide = spm(&model, json!({"rank": 3})).erase().unwrap();
    let found = wide.low_rank(&base, 1, 1.0).unwrap();
    assert!(found.error > 0.0 && found.low_rank.iter().all(|low| low.rank() == 1));
}

#[test]
fn interrupted_runs_end_with_the_same_bits() {
    let model = pipeline("odd");
    let two = || {
        vec![
            concept("a church", None, None),
            concept("a dog", Some("a cat"), None),
        ]
    };
    let mut several = ant(&model, json!({"form": "adapters"}));
    several.concepts = two();
    for fresh in [
        spm(&model, json!({})),
        spm(
            &model,
            json!({"anchoring": "gaussian-and-empty", "latents": "edited", "anchors": 3}),
        ),
        ant(&model, json!({})),
        several,
        realera(&model, json!({})),
        leco(&model, json!({"sampler": "ddpm"})),
    ] {
        let run = || Run {
            store: common::Memory::default(),
            ..fresh.clone()
        };
        let whole = numbers(&run().erase().unwrap());
        let stopped = run();
        for stop in [1, 3] {
            let result = stopped.listened(&mut |event| match event {
                Event::Step {
                    done,
                    loss: Some(_),
                } if done == stop => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
            assert!(
                matches!(result, Err(Error::Interrupted)),
                "{}",
                fresh.method
            );
        }
        assert_eq!(
            numbers(&stopped.erase().unwrap()),
            whole,
            "{}",
            fresh.method
        );
    }
}

/// What is kept has nothing to learn at first. The rest is a mean over the examples on the other
/// side of the split, however many of a trajectory lie there: published, both sides are
/// expectations of their own.
#[test]
fn ant_reverses_a_mean_over_its_side_of_the_split() {
    let model = pipeline("odd");
    for (keep, split, guidance) in [
        ("early", 400.0, 1.0),
        ("late", 400.0, 1.0),
        ("nowhere", 400.0, 1.0),
        ("early", 700.0, 1.0),
        ("early", 400.0, 7.5),
    ] {
        let more = |batch: usize| {
            json!({
                "keep": keep, "split": split, "eta": 1.0, "alpha_1": 3.0, "alpha_2": 7.0, "batch": batch, "keep_batch": 2,
                "salience": "all", "iterations": 1, "guidance": guidance
            })
        };
        let probe = ant(&model, more(1));
        probe.erase().unwrap();
        let [own, empty, t] = first_bank(&probe);
        let each = own.len() / t.len();
        let reversed = |i: usize| match keep {
            "early" => t[i / each] <= split,
            "late" => t[i / each] > split,
            _ => true,
        };
        let all = (0..t.len()).filter(|&i| reversed(i * each)).count();
        // All of that side at once.
        let (_, losses) = ant(&model, more(all)).losses().unwrap();
        // Guided predictions lie so much farther apart.
        let apart = (0..own.len())
            .filter(|&i| reversed(i))
            .map(|i| 2.0 * guidance * (own[i] - empty[i]));
        near(losses[0].into(), mean_of_squares(apart));
        assert!(keep == "nowhere" || (all > 0 && all < t.len()));
    }
}

/// alpha / rank: with a small alpha the same steps move less, and what is made one edit is that
/// much smaller.
#[test]
fn ants_adapters_have_an_alpha() {
    let model = pipeline("odd");
    let size = |more: Value| {
        let mut run = ant(
            &model,
            with(
                json!({"form": "adapters", "lr": 0.01, "iterations": 1, "lambda": 0.1}),
                more,
            ),
        );
        run.concepts = vec![
            concept("a church", None, None),
            concept("a cat", None, None),
        ];
        let applied = run.erase().unwrap().apply_to(&model, 1.0).unwrap();
        let pairs = predicted(&applied, "a church")
            .into_iter()
            .zip(predicted(&model, "a church"));
        mean_of_squares(pairs.map(|(a, b)| f64::from(a) - f64::from(b))).sqrt()
    };
    // Adam's step does not see the factor, the change does.
    let (whole, part) = (
        size(json!({"rank": 4, "alpha": 4.0})),
        size(json!({"rank": 4, "alpha": 1.0})),
    );
    assert!(
        (0.15..0.4).contains(&(part / whole)),
        "{part:e} of {whole:e}"
    );
    let (more, wide) = (
        size(json!({"rank": 4, "alpha": 1.0, "scale": 2.0})),
        size(json!({"rank": 4, "alpha": 1.0, "layers": "transformers"})),
    );
    assert!(
        more > 1.5 * part && wide > 0.0,
        "{more:e} {part:e} {wide:e}"
    );
}

/// Published numbers for several concepts: adapters of rank 64 and alpha 1, times 4.3, keeping
/// weighs 0.5 and the empty prompt 2.5.
#[test]
fn ants_published_numbers_for_several_concepts() {
    let model = pipeline("odd");
    let mut run = Run {
        variant: Variant::Reference,
        ..ant(&model, json!({"iterations": 1, "templates": 2}))
    };
    run.concepts = vec![
        concept("a church", None, None),
        concept("a cat", None, None),
    ];
    assert_eq!(
        run.erase().unwrap().about.options["rho"],
        json!(20.0),
        "without a domain captions are it"
    );
    run.preserve = ["a dog", "the moon", "a red car", "a fish"]
        .map(|name| concept(name, None, None))
        .to_vec();
    let options = run.erase().unwrap().about.options;
    for (key, value) in [
        ("alpha", 1.0),
        ("scale", 4.3),
        ("alpha_1", 0.5),
        ("alpha_2", 2.5),
        ("guidance", 7.5),
        ("rho", 2e-12),
        ("lambda", 0.0),
    ] {
        assert_eq!(options[key], json!(value), "{key}");
    }
    assert_eq!(options["layers"], json!("transformers"));
}

/// The names and positions of the numbers that an edit moves.
fn moved(model: &Pipeline, edit: &Edit) -> BTreeSet<(String, usize)> {
    let before = bits(model);
    numbers(edit)
        .into_iter()
        .flat_map(|(name, new)| {
            let old = &before[&format!("unet.{name}")];
            new.iter()
                .zip(old)
                .enumerate()
                .filter(|(_, (a, b))| a != b)
                .map(|(i, _)| (name.clone(), i))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn ant_moves_the_most_salient_numbers() {
    let model = pipeline("odd");
    let of = |more: Value| {
        let base = json!({"iterations": 1, "lr": 1e-2, "train_method": "kv", "trajectories": 1, "salience_examples": STEPS, "keep": "nowhere", "alpha_2": 0.5});
        moved(&model, &ant(&model, with(base, more)).erase().unwrap())
    };
    let (most, least, all) = (
        of(json!({"salience": "most"})),
        of(json!({"salience": "least"})),
        of(json!({"salience": "all"})),
    );
    assert!(most.is_disjoint(&least), "a number is salient or not");
    let share = most.len() as f64 / all.len() as f64;
    assert!((0.45..=0.55).contains(&share), "{share}");
    assert!(most.is_subset(&all) && least.is_subset(&all));
    // Salient on every trajectory: fewer with each.
    let four = of(json!({"salience": "most", "trajectories": 4}));
    assert!(
        !four.is_empty() && four.len() < most.len(),
        "{} {}",
        four.len(),
        most.len()
    );
    let fewer = of(json!({"salience": "most", "salient": 0.1}));
    assert!(fewer.is_subset(&most) && fewer.len() < most.len() / 3);
}

/// Published: the masks of five seeds and of each word, all intersected; trained is the one prompt.
#[test]
fn ants_synonyms_have_to_pick_a_number_too() {
    let model = pipeline("odd");
    let base = json!({
        "iterations": 1, "lr": 1e-2, "train_method": "kv", "trajectories": 2, "salience_examples": STEPS,
        "keep": "nowhere", "alpha_2": 0.5, "salience_trajectories": 1
    });
    let of = |name: &str, more: Value| {
        let mut run = ant(&model, with(base.clone(), more));
        run.concepts = vec![concept(name, None, None)];
        run.concepts[0].name = name.rsplit(' ').next().unwrap().to_uppercase();
        moved(&model, &run.erase().unwrap())
    };
    let (church, dog, cat) = (
        of("a church", json!({})),
        of("a dog", json!({})),
        of("a cat", json!({})),
    );
    let both = of("a church", json!({"synonyms": ["dog", "cat"]}));
    let expected: BTreeSet<_> = church.intersection(&dog).cloned().collect();
    let expected: BTreeSet<_> = expected.intersection(&cat).cloned().collect();
    assert!(!both.is_empty() && both.len() < church.len());
    assert_eq!(both, expected);
    // What is recorded and what has to agree are two things; 0 asks every trajectory.
    let (one, all) = (
        church.len(),
        of("a church", json!({"salience_trajectories": 0})),
    );
    assert!(all.is_subset(&church) && all.len() < one);
    assert_eq!(of("a church", json!({"salience_trajectories": 9})), all);
}

#[test]
fn ant_ranks_within_each_tensor_where_it_is_asked_to() {
    let model = pipeline("odd");
    let base = json!({
        "iterations": 1, "lr": 1e-2, "train_method": "kv", "trajectories": 1, "salience_examples": STEPS, "keep": "nowhere"
    });
    let share = |over: &str, salience: &str| {
        let count = |more: Value| {
            let moved = moved(
                &model,
                &ant(&model, with(base.clone(), more)).erase().unwrap(),
            );
            let mut counts = std::collections::BTreeMap::<String, f64>::new();
            for (name, _) in moved {
                *counts.entry(name).or_default() += 1.0;
            }
            counts
        };
        let all = count(json!({"salience": "all"}));
        let some = count(json!({"salience_over": over, "salience": salience}));
        all.into_iter()
            .map(|(name, n)| some.get(&name).copied().unwrap_or_default() / n)
            .collect::<Vec<f64>>()
    };
    for salience in ["most", "least"] {
        let even = |shares: &[f64]| shares.iter().all(|s| (0.45..=0.55).contains(s));
        let (tensor, network) = (share("tensor", salience), share("network", salience));
        assert!(even(&tensor) && !even(&network), "{tensor:?} {network:?}");
    }
}

#[test]
fn ants_synonyms_are_refused_where_there_is_no_mask() {
    let model = pipeline("odd");
    let refused = |run: &Run<'_>| run.erase().unwrap_err().to_string();
    for more in [
        json!({"synonyms": ["dog"], "salience": "all"}),
        json!({"synonyms": ["dog"], "form": "adapters"}),
    ] {
        let message = refused(&ant(&model, more));
        assert!(message.contains("synonyms have no effect"), "{message}");
    }
    let mut two = ant(&model, json!({"synonyms": ["dog"], "form": "weights"}));
    two.concepts.push(concept("a cat", None, None));
    assert!(refused(&two).contains("synonyms have no effect"));
    let same = ant(&model, json!({"synonyms": ["a church"]}));
    let message = refused(&same);
    assert!(message.contains("changes no prompt"), "{message}");
}

#[test]
fn several_concepts_are_one_edit_of_keys_and_values() {
    let model = pipeline("odd");
    let mut run = ant(&model, json!({"lr": 0.05}));
    run.concepts = vec![
        concept("a church", None, None),
        concept("a cat in ink style", Some("a cat"), None),
    ];
    let edit = run.erase().unwrap();
    let (kv, others): (Vec<_>, Vec<_>) = edit
        .changes
        .keys()
        .map(|(_, name)| name)
        .partition(|n| n.contains("attn2.to_"));
    assert!(!kv.is_empty() && others.is_empty());
    assert!(
        kv.iter()
            .all(|n| n.ends_with("to_k.weight") || n.ends_with("to_v.weight"))
    );
    // What is kept when they are made one moves less the more that weighs.
    let away = |rho: f64, prompt: &str| {
        let run = Run {
            options: with(run.options.clone(), json!({"rho": rho})),
            store: run.store.beside(),
            ..run.clone()
        };
        let applied = run.erase().unwrap().apply_to(&model, 1.0).unwrap();
        let pairs = predicted(&applied, prompt)
            .into_iter()
            .zip(predicted(&model, prompt));
        mean_of_squares(pairs.map(|(a, b)| f64::from(a) - f64::from(b)))
    };
    assert!(away(0.1, "a church") > 0.0);
    assert!(away(1000.0, "the moon") < 0.01 * away(0.0, "the moon"));
    assert!(edit.merges());
}

#[test]
fn realeras_adapter_is_added_to_its_closed_form() {
    let model = pipeline("odd");
    let closed = realera(&model, json!({"lora_iterations": 0}))
        .erase()
        .unwrap();
    let run = realera(&model, json!({"lora_lr": 0.02}));
    let (both, losses) = run.losses().unwrap();
    assert_eq!(losses.len(), 4);
    assert_eq!(
        closed.changes.keys().collect::<Vec<_>>(),
        both.changes.keys().collect::<Vec<_>>()
    );
    for ((key, a), b) in closed.changes.iter().zip(both.changes.values()) {
        let (Change::Value(a), Change::Value(b)) = (a, b) else {
            panic!("{key:?} is no value")
        };
        let (rows, columns) = (a.shape()[0], a.shape()[1]);
        let delta: Vec<f64> = b
            .to_f32()
            .unwrap()
            .iter()
            .zip(a.to_f32().unwrap())
            .map(|(b, a)| f64::from(*b) - f64::from(a))
            .collect();
        let size = |i: usize| {
            (0..columns)
                .map(|j| delta[i * columns + j].powi(2))
                .sum::<f64>()
        };
        let largest = (0..rows)
            .max_by(|&i, &j| size(i).total_cmp(&size(j)))
            .unwrap();
        assert!(size(largest) > 1e-8, "{key:?} moved");
        // Rank one: every row is a multiple of the longest.
        for i in 0..rows {
            let along: f64 = (0..columns)
                .map(|j| delta[i * columns + j] * delta[largest * columns + j])
                .sum();
            let rest = size(i) - along * along / size(largest);
            assert!(
                rest.abs() <= 1e-4 * size(largest),
                "{key:?} row {i}: {rest:e} of {:e}",
                size(largest)
            );
        }
    }
}

#[test]
fn impossible_options_are_named() {
    let model = pipeline("odd");
    for (run, name) in [
        (spm(&model, json!({"rank": 0})), "rank"),
        (spm(&model, json!({"lambda": -1.0})), "lambda"),
        (spm(&model, json!({"gate_floor": 1.0})), "gate_floor"),
        (spm(&model, json!({"anchoring": "none"})), "anchoring"),
        (spm(&model, json!({"lr": 0.0})), "lr"),
        (spm(&model, json!({"cycles": 0})), "cycles"),
        (ant(&model, json!({"keep_batch": 0})), "keep_batch"),
        (ant(&model, json!({"alpha": 0.0})), "alpha"),
        (ant(&model, json!({"salient": 0.0})), "salient"),
        (ant(&model, json!({"split": -1.0})), "split"),
        (ant(&model, json!({"train_method": "text-mlp"})), "text-mlp"),
        (ant(&model, json!({"keep": "both"})), "keep"),
        (
            ant(&model, json!({"keep": "late", "split": 5000.0})),
            "split",
        ),
        (realera(&model, json!({"lora_rank": 0})), "lora_rank"),
        (realera(&model, json!({"lambda_3": -1.0})), "lambda_3"),
        (realera(&model, json!({"lora_lr": 0.0})), "lora_lr"),
    ] {
        let error = run.erase().unwrap_err();
        assert!(
            matches!(error, Error::Model(scumble_nn::Error::Input { .. }))
                && error.to_string().contains(name),
            "{name}: {error}"
        );
    }
}

/// Every variant runs as it is published, given fewer steps.
#[test]
fn published_forms_run() {
    let model = pipeline("odd");
    let few = json!({"iterations": 2, "sampling_steps": 3, "trajectories": 2});
    for variant in [Variant::Paper, Variant::Reference] {
        for method in ["spm", "ant"] {
            let mut options = few.clone();
            if method == "ant" {
                options["salience_examples"] = json!(1);
                options["split"] = json!(500.0);
            }
            let run = Run {
                variant,
                ..Run::of(method, &model, church(), options)
            };
            let edit = run.erase().unwrap();
            assert!(!edit.changes.is_empty(), "{method}");
            if let Some(gate) = edit.about.gate {
                assert_eq!(
                    (gate.prompts, gate.floor),
                    (vec!["a church".to_owned()], 0.0)
                );
            }
        }
    }
}

/// What is kept stays closer with anchors than without, where no gate helps.
#[test]
fn anchors_hold_what_they_name() {
    let model = pipeline("odd");
    let away = |anchors: usize| {
        let more = json!({"anchors": anchors, "lambda": 50.0, "iterations": 40, "lr": 0.02, "batch": 2, "anchor_trajectories": 4});
        let mut edit = spm(&model, more).erase().unwrap();
        edit.about.gate = None;
        let applied = edit.apply_to(&model, 1.0).unwrap();
        let one = |prompt: &str| {
            let pairs = predicted(&applied, prompt)
                .into_iter()
                .zip(predicted(&model, prompt));
            mean_of_squares(pairs.map(|(a, b)| f64::from(a) - f64::from(b)))
        };
        ["a dog", "a cat on a table", "a red car"]
            .map(one)
            .iter()
            .sum::<f64>()
    };
    let (with, without) = (away(4), away(0));
    assert!(with < 0.5 * without, "{with:e} {without:e}");
}
