//! Attacks on a flow-matching model: a tiny U-Net whose answer is taken for a velocity.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../erase/tests/common/mod.rs"]
mod common;

use std::{ops::ControlFlow, path::Path};

use burn::tensor::{Tensor, TensorData};
use common::{Memory, concept, host, pipeline};
use scumble_attack::{
    Case, Drawing, Event, Job, Variant,
    attacks::named,
    job::Checkpoint,
    predict::{Aim, Goal, Noisy},
    protocol,
};
use scumble_diffusion::{
    FlowMatching, Guard, Interpolant, Noise, Pipeline, Sampler, Scale, Timestep,
};
use scumble_erase::Profile;
use serde_json::{Value, json};

/// The small model on straight lines, and the same with other keys in one cross-attention.
fn models() -> (Pipeline, Pipeline) {
    let flow = FlowMatching::from_config(Path::new("scheduler_config.json"), &json!({})).unwrap();
    let mut base = pipeline("sd1");
    base.schedule = flow.into();
    base.sampler = Some(Sampler::Ddim);
    let mut victim = base.clone();
    let weights = &base.denoiser.weights;
    let name = weights
        .iter()
        .map(|(name, _)| name.to_owned())
        .find(|name| name.ends_with("attn2.to_k.weight"))
        .unwrap();
    let values = weights.get(&name).unwrap().flat() * -1.5;
    victim.denoiser.weights.replace(&name, values).unwrap();
    (base, victim)
}

const DRAWING: Drawing = Drawing {
    steps: 4,
    guidance: 2.0,
    sampler: Some(Sampler::Ddim),
};

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Pictures noised to two levels, with the clean pictures and the noise.
fn noisy(model: &Pipeline) -> (Noisy, Tensor<4>, Tensor<4>) {
    let shape = model.latent_shape(2, None, None).unwrap();
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (0.7 * i as f32).sin()).collect();
    let x0 = Tensor::<4>::from_data(TensorData::new(values, shape), model.device());
    let noise = Noise::each(3, 2).draw(shape, model.device());
    let t = [400u16, 999].map(Timestep::from).to_vec();
    let schedule = &model.schedule;
    let noisy = Noisy {
        x: schedule.add_noise(x0.clone(), noise.clone(), &t).unwrap(),
        target: schedule
            .regression_target(x0.clone(), noise.clone(), &t)
            .unwrap(),
        t,
    };
    (noisy, x0, noise)
}

/// The loss of the attacks is `mean |v - (n - x_0)|^2`, against the velocity of the noise, and a
/// step along its gradient in the prompt's tokens makes it smaller.
#[test]
fn the_denoising_loss_is_in_velocities_and_can_be_followed() {
    let (base, victim) = models();
    let (noisy, x0, noise) = noisy(&victim);
    let texts = strings(&["a dog on a table", "the dog"]);
    let asked = victim.prompted(&texts);
    let aim = Aim::new(&base, &victim, Goal::Noise, false, DRAWING);
    let wanted = aim.wanted(&noisy, &base.prompted(&texts)).unwrap();
    let found = host(&aim.errors(&noisy, &asked, wanted.clone()).unwrap());

    let said = victim
        .predict(
            noisy.x.clone(),
            &noisy.t,
            &asked.conditioning.clone().into(),
            None,
        )
        .unwrap();
    let (said, x0, noise) = (host(&said.raw()), host(&x0), host(&noise));
    let each = said.len() / 2;
    for (row, found) in found.into_iter().enumerate() {
        let square = |i: usize| f64::from(said[i] - (noise[i] - x0[i])).powi(2);
        let expected = (row * each..(row + 1) * each).map(square).sum::<f64>() / each as f64;
        assert!(
            (f64::from(found) - expected).abs() < 1e-5 * expected,
            "{found} {expected}"
        );
    }

    let mut embedded = asked.embedded.clone();
    let mut losses = Vec::new();
    for _ in 0..6 {
        let leaf = embedded.clone().autodiff().require_grad();
        let prompted = victim
            .prompted_from(&texts, leaf.clone(), asked.lengths.clone())
            .unwrap();
        let loss = aim.errors(&noisy, &prompted, wanted.clone()).unwrap().sum();
        losses.push(loss.clone().inner().into_scalar::<f32>());
        let gradient = leaf.grad(&loss.backward()).unwrap();
        let size = gradient
            .clone()
            .powi_scalar(2)
            .sum()
            .sqrt()
            .reshape([1, 1, 1]);
        embedded = embedded - gradient / size * 0.01;
    }
    assert!(
        losses.windows(2).all(|pair| pair[1] < pair[0]),
        "{losses:?}"
    );
}

/// With the base model's prediction as the goal the model itself has nothing to find, and inside a
/// guard's loss the guided velocities are compared.
#[test]
fn the_base_models_velocity_is_a_goal() {
    let (base, victim) = models();
    let (noisy, ..) = noisy(&victim);
    let texts = strings(&["a dog on a table", "the dog"]);
    let error = |victim: &Pipeline| {
        let aim = Aim::new(&base, victim, Goal::Base, true, DRAWING);
        let wanted = aim.wanted(&noisy, &base.prompted(&texts)).unwrap();
        let asked = victim.prompted(&texts);
        host(&aim.errors(&noisy, &asked, wanted).unwrap())
    };
    assert!(error(&base).iter().all(|loss| *loss == 0.0));
    assert!(error(&victim).iter().all(|loss| *loss > 0.0));
    let mut guarded = base.clone();
    let numbers = json!({"warmup": 0});
    guarded.guards.push(
        Guard::new(
            "sld-max",
            strings(&["a dog"]),
            Variant::Fixed,
            Scale::Small,
            numbers.as_object().unwrap(),
        )
        .unwrap(),
    );
    assert!(
        error(&guarded)
            .iter()
            .all(|loss| loss.is_finite() && *loss > 0.0)
    );
}

/// The losses that an attack reports, and that it ends.
fn losses(id: &str, options: Value) -> Vec<f32> {
    let (base, victim) = models();
    let concept = concept("a dog", Some("a cat"), None);
    let cases: Vec<Case> = ["a dog on a table", "the dog"]
        .into_iter()
        .enumerate()
        .map(|(i, prompt)| Case {
            prompt: prompt.into(),
            seed: 40 + i as u64,
            guidance: None,
        })
        .collect();
    let mut losses = Vec::new();
    let mut listen = |event: Event<'_>| {
        if let Event::Step {
            loss: Some(loss), ..
        } = event
        {
            losses.push(loss);
        }
        ControlFlow::Continue(())
    };
    let store = Memory::default();
    let mut job = Job {
        base: &base,
        victim: &victim,
        checkpoint: Checkpoint {
            name: "tiny",
            hash: "hash",
            family: "stable-diffusion-custom",
        },
        concept: &concept,
        word: "dog",
        cases: &cases,
        shows: None,
        likely: None,
        clip: None,
        world: None,
        drawing: DRAWING,
        profile: Profile::MINIATURE,
        options: options.as_object().unwrap().clone(),
        budget: None,
        seed: 3,
        store: &store,
        listen: &mut listen,
    };
    protocol::run(named(id).unwrap(), &mut job, Variant::Fixed)
        .unwrap_or_else(|error| panic!("{id}: {error}"));
    losses
}

#[test]
fn attacks_run_on_velocities() {
    for (id, options) in [
        (
            "concept-inversion",
            json!({"iterations": 4, "batch": 2, "pictures": 2}),
        ),
        ("unlearndiff", json!({"timesteps": 2, "iterations": 2})),
        ("p4d", json!({"rounds": 2, "iterations": 2})),
        (
            "relearn",
            json!({"iterations": 4, "batch": 2, "pictures": 2}),
        ),
    ] {
        let losses = losses(id, options);
        assert!(!losses.is_empty(), "{id}");
        assert!(
            losses.iter().all(|loss| loss.is_finite()),
            "{id}: {losses:?}"
        );
    }
}

/// Concept inversion learns a word: over a run the loss falls.
#[test]
fn concept_inversion_goes_down_on_velocities() {
    let options = json!({"iterations": 60, "batch": 4, "pictures": 4, "lr": 0.05});
    let losses = losses("concept-inversion", options);
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    let (first, last) = (mean(&losses[..15]), mean(&losses[losses.len() - 15..]));
    assert!(last < first, "{first} to {last}");
}
