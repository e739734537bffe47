//! Erasing from a flow-matching model: a tiny U-Net whose answer is taken for a velocity. What the
//! methods compute is computed again by their formulas on velocities.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use common::{Run, bits, concept, host, pipeline};
use scumble_diffusion::{FlowMatching, Interpolant, Output, Pipeline, Sampler, Timestep};
use scumble_erase::{Change, Concept, Edit};
use scumble_nn::files::Tensors;
use serde_json::{Value, json};

const TRAJECTORIES: usize = 3;
const STEPS: usize = 4;
const GUIDANCE: f64 = 3.0;

/// The small model `name` on straight lines, its noise levels shifted as SD 3's are.
fn straight(name: &str) -> Pipeline {
    let config = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0});
    let flow = FlowMatching::from_config(Path::new("scheduler_config.json"), &config).unwrap();
    let mut model = pipeline(name);
    model.schedule = flow.into();
    model.sampler = Some(Sampler::Ddim);
    model
}

/// One step whose batch is the whole bank, with other options on top.
fn options(more: Value) -> Value {
    let mut options = json!({
        "iterations": 1, "batch": TRAJECTORIES * STEPS, "trajectories": TRAJECTORIES, "sampling_steps": STEPS,
        "lr": 1e-3, "eta": 1.5, "start_guidance": GUIDANCE, "form": "present"
    });
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    options
}

fn church() -> Vec<Concept> {
    vec![concept("a church", None, Some("a church in ink style"))]
}

fn numbers(edit: &Edit) -> Vec<f32> {
    let one = |change: &Change| match change {
        Change::Value(v) | Change::Difference(v) | Change::Added(v) => v.to_f32().unwrap(),
        Change::LowRank(low) => [low.down.to_f32().unwrap(), low.up.to_f32().unwrap()].concat(),
    };
    edit.changes.values().flat_map(one).collect()
}

/// A recorded column: a tensor `[n, channels, h, w]`.
fn column(model: &Pipeline, group: &Tensors, name: &str) -> Tensor<4> {
    let host = &group[name];
    let shape: [usize; 4] = host.shape().try_into().unwrap();
    Tensor::from_data(
        TensorData::new(host.to_f32().unwrap(), shape),
        model.device(),
    )
}

fn doubles(x: &Tensor<4>) -> Vec<f64> {
    host(x).into_iter().map(f64::from).collect()
}

fn mean_of_squares(values: impl Iterator<Item = f64>) -> f64 {
    let list: Vec<f64> = values.map(|v| v * v).collect();
    list.iter().sum::<f64>() / list.len() as f64
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, f64::max)
}

/// The recorded answers are velocities, the trajectory follows them from level to level, and the
/// first loss is the distance from `v(p)` to `v(p) - (eta + 1) (v(e) - v(0))`.
#[test]
fn esd_moves_velocities_as_its_formula_says() {
    for name in ["odd", "sd1"] {
        let model = straight(name);
        let run = Run::new(&model, church(), options(json!({})));
        let (edit, losses) = run.losses().unwrap();
        assert!(numbers(&edit).iter().all(|v| v.is_finite()));

        let groups = run.store.groups();
        let mut squares = Vec::new();
        let mut noisiest = 0.0f32;
        for group in &groups {
            let x = column(&model, group, "x");
            let labels = group["t"].to_f32().unwrap();
            let t: Vec<Timestep> = labels.iter().map(|&t| Timestep::new(t).unwrap()).collect();
            noisiest = labels.iter().copied().fold(noisiest, f32::max);
            let says = |prompt: &str| {
                let context = model.context(&vec![prompt.to_owned(); t.len()]);
                let said = model.predict(x.clone(), &t, &context, None).unwrap();
                assert_eq!(said.output(), Output::Velocity);
                assert_eq!(host(&said.velocity().unwrap()), host(&said.raw()));
                doubles(&said.raw())
            };
            let of = ["a church in ink style", "", "a church"].map(says);
            for (k, expected) in of.iter().enumerate() {
                let found = doubles(&column(&model, group, &format!("eps.{k}")));
                let apart = largest(found.iter().zip(expected).map(|(a, b)| a - b));
                assert!(
                    apart <= 1e-5 * largest(expected.iter().copied()),
                    "{name}, answer {k}: {apart:e}"
                );
            }
            let [v_p, v_0, v_e] = of;
            let target = |i: usize| v_p[i] - 2.5 * (v_e[i] - v_0[i]);
            squares.push(mean_of_squares((0..v_p.len()).map(|i| v_p[i] - target(i))));

            // x' = x + (sigma' - sigma) (v(0) + g (v(p) - v(0))), one batch of paths behind the other.
            let each = v_p.len() / STEPS;
            let x = doubles(&x);
            let level = |step: usize| f64::from(labels[step * t.len() / STEPS]) / 1000.0;
            for step in 0..STEPS - 1 {
                let down = level(step + 1) - level(step);
                let apart = (step * each..(step + 1) * each).map(|i| {
                    let v = v_0[i] + GUIDANCE * (v_p[i] - v_0[i]);
                    x[i + each] - (x[i] + down * v)
                });
                let apart = largest(apart);
                assert!(apart < 1e-4, "{name}, step {step}: {apart:e}");
            }
        }
        assert_eq!(noisiest, 1000.0, "a trajectory begins with noise alone");
        let sizes = groups.iter().map(|group| group["t"].len() as f64);
        let all: f64 = sizes.clone().sum();
        let expected = sizes.zip(&squares).map(|(n, mean)| n * mean).sum::<f64>() / all;
        let found = f64::from(losses[0]);
        assert!(
            (found - expected).abs() <= 1e-4 * expected,
            "{name}: found {found:e}, expected {expected:e}"
        );
    }
}

/// Training goes down, on recorded trajectories; on the edited model's own it runs.
#[test]
fn esd_learns_on_velocities() {
    let model = straight("odd");
    let run = Run::new(&model, church(), options(json!({"iterations": 30})));
    let (edit, losses) = run.losses().unwrap();
    assert!(
        losses[29] < 0.8 * losses[0],
        "{} to {}",
        losses[0],
        losses[29]
    );
    let before = bits(&model);
    let edited = edit.apply_to(&model, 1.0).unwrap();
    assert!(bits(&edited) != before);
    assert!(numbers(&edit).iter().all(|v| v.is_finite()));

    let own = options(json!({"latents": "edited", "iterations": 3, "batch": 2}));
    let (edit, losses) = Run::new(&model, church(), own).losses().unwrap();
    assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.0));
    assert!(numbers(&edit).iter().all(|v| v.is_finite()));
}

/// What is noised is `(1 - sigma) x_0 + sigma n`, and what is to be answered `n - x_0`.
#[test]
fn pictures_are_noised_on_straight_lines() {
    let model = straight("odd");
    let wave = |f: f64| {
        let shape = model.latent_shape(2, None, None).unwrap();
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (f * i as f64).sin() as f32).collect();
        Tensor::<4>::from_data(TensorData::new(values, shape), model.device())
    };
    let (x0, noise) = (wave(0.7), wave(1.3));
    let t = [250u16, 900].map(Timestep::from);
    let x = model.schedule.add_noise(x0.clone(), noise.clone(), &t);
    let target = model
        .schedule
        .regression_target(x0.clone(), noise.clone(), &t);
    let (x, target) = (doubles(&x.unwrap()), doubles(&target.unwrap()));
    let (x0, noise) = (doubles(&x0), doubles(&noise));
    let half = x.len() / 2;
    for i in 0..x.len() {
        let sigma = if i < half { 0.25 } else { 0.9 };
        let expected = (1.0 - sigma) * x0[i] + sigma * noise[i];
        assert!((x[i] - expected).abs() < 1e-6);
        assert!((target[i] - (noise[i] - x0[i])).abs() < 1e-6);
    }
}

/// Every method that trains does so on velocities too.
#[test]
fn trained_methods_run_on_velocities() {
    let model = straight("odd");
    let bank = json!({"trajectories": 2, "sampling_steps": 3, "batch": 2});
    let with = |more: Value| {
        let mut all = bank.clone();
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    for (method, options) in [
        (
            "spm",
            with(json!({"iterations": 2, "anchors": 2, "anchor_trajectories": 2})),
        ),
        (
            "ant",
            with(json!({"iterations": 2, "salience_examples": 2, "split": 500.0})),
        ),
        (
            "receler",
            with(json!({"iterations": 2, "inner": 2, "rows": 2, "attack_steps": 2})),
        ),
        (
            "realera",
            with(json!({"lora_iterations": 2, "neighbours": 2, "pinned": 2, "templates": 0})),
        ),
        (
            "leco",
            json!({"iterations": 2, "sampling_steps": 3, "pairs": 2, "batch": 2}),
        ),
        (
            "ac",
            json!({"iterations": 2, "batch": 2, "pictures": 2, "sampling_steps": 2, "templates": 0, "augment": "none",
                      "sampler": "ddim"}),
        ),
        (
            "trce",
            with(json!({"iterations": 2, "keep_trajectories": 2, "lambda": 1e-2, "templates": 2})),
        ),
    ] {
        let (edit, losses) = Run::of(
            method,
            &model,
            vec![concept("church", Some("house"), None)],
            options,
        )
        .losses()
        .unwrap_or_else(|error| panic!("{method}: {error}"));
        assert!(!losses.is_empty(), "{method}");
        assert!(
            losses.iter().all(|loss| loss.is_finite()),
            "{method}: {losses:?}"
        );
        assert!(numbers(&edit).iter().all(|v| v.is_finite()), "{method}");
    }
}

#[test]
fn what_needs_a_noise_schedule_is_refused_by_name() {
    let model = straight("odd");
    let error = Run::new(&model, church(), options(json!({"sampler": "pndm"})))
        .erase()
        .unwrap_err();
    assert!(
        error.to_string().contains("pndm follows a noise schedule"),
        "{error}"
    );
}
