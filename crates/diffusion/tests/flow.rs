//! Flow matching: the samplers on a Gaussian whose velocity is known, and against diffusers
//! (`golden/flow.py`); the conversions of interpolants.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{ops::ControlFlow, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use scumble_diffusion::{
    Error, FlowMatching, Interpolant, Output, Result, Scales, Schedule, StepIndex, Timestep,
    TorchRng,
    flow::{Levels, Shift},
    prediction::Prediction,
    samplers::{Callback, FlowRun, Model, Step, flow_match_euler, flow_match_heun},
};
use serde_json::{Value, json};

const SHAPE: [usize; 4] = [2, 4, 3, 5];

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/flow.json")).expect("the golden file is JSON")
}

fn flow(config: &Value) -> Result<FlowMatching> {
    FlowMatching::from_config(Path::new("scheduler/scheduler_config.json"), config)
}

fn tensor(shape: [usize; 4], value: impl Fn(f64) -> f64) -> Tensor<4> {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|i: usize| value(i as f64) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn initial() -> Tensor<4> {
    tensor(SHAPE, |i| 1.4 * (0.7 * i + 0.3).sin())
}

fn other() -> Tensor<4> {
    tensor(SHAPE, |i| (1.3 * i + 2.1).cos())
}

fn network(x: Tensor<4>, t: Timestep) -> Tensor<4> {
    let shift = 0.2 * (0.01 * f64::from(t.get())).sin();
    x.clone()
        .mul_scalar(1.7)
        .sin()
        .mul_scalar(0.3)
        .add(x.mul_scalar(0.1))
        .add_scalar(shift)
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("latents are f32")
}

/// The largest difference relative to the largest expected value.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| {
        values
            .map(|v| {
                if v.is_finite() {
                    v.abs()
                } else {
                    f32::INFINITY
                }
            })
            .fold(0.0, f32::max)
    };
    let difference = largest(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    f64::from(difference) / f64::from(largest(&mut expected.iter().copied()))
}

type Sampler =
    fn(&FlowRun<'_>, Tensor<4>, &mut Model<'_, Error>, &mut Callback<'_>) -> Result<Tensor<4>>;

const EULER: Sampler = flow_match_euler::<Error>;
const HEUN: Sampler = flow_match_heun::<Error>;

/// A velocity as a sampler is told it.
fn followed(velocity: Tensor<4>, x: Tensor<4>, step: Step) -> Result<Prediction> {
    Prediction::new(velocity, x, vec![step.scales], Output::Velocity)
}

fn quiet(
    sampler: Sampler,
    levels: &Levels,
    x: Tensor<4>,
    mut velocity: impl FnMut(Tensor<4>, Step) -> Tensor<4>,
) -> Result<Tensor<4>> {
    let model = &mut |x: Tensor<4>, step: Step| followed(velocity(x.clone(), step), x, step);
    sampler(&FlowRun::new(levels), x, model, &mut |_| {
        ControlFlow::Continue(())
    })
}

#[test]
fn samplers_are_those_of_diffusers() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 50, "{}", cases.len());
    let (mut worst, mut worst_of_heun) = (0.0f64, 0.0f64);
    for case in cases {
        let name = format!(
            "{} in {} steps, {} tokens, sigmas {}",
            case["config"], case["steps"], case["tokens"], case["given"]
        );
        let config = &golden["configs"][case["config"].as_str().unwrap()];
        let model = flow(config).unwrap();
        let mu = case["tokens"].as_u64().map(|tokens| match model.shift() {
            Shift::Dynamic(shift) => shift.mu(tokens as usize),
            Shift::Static(_) => panic!("{name} has no dynamic shift"),
        });
        if let Some(mu) = mu {
            assert!(
                (mu - case["mu"].as_f64().unwrap()).abs() < 1e-9,
                "{name}: mu {mu}"
            );
        }
        let levels =
            match serde_json::from_value::<Option<Vec<f64>>>(case["given"].clone()).unwrap() {
                Some(sigmas) => model.levels_of(&sigmas, mu).unwrap(),
                None => model
                    .levels(case["steps"].as_u64().unwrap() as usize, mu)
                    .unwrap(),
            };
        let heun = config["_class_name"] == "FlowMatchHeunDiscreteScheduler";
        let (mut labels, mut sigmas, mut second, mut done) = (Vec::new(), Vec::new(), None, 0);
        let found = (if heun { HEUN } else { EULER })(
            &FlowRun::new(&levels),
            initial(),
            &mut |x: Tensor<4>, step: Step| {
                assert_eq!(step.index, StepIndex(labels.len()));
                labels.push(step.timestep.get());
                sigmas.push(step.scales.sigma as f32);
                followed(network(x.clone(), step.timestep), x, step)
            },
            &mut |progress| {
                done += 1;
                if progress.index == StepIndex(1) {
                    second = Some(values(progress.latents()));
                }
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        assert_eq!(done, labels.len());
        let expected = |key: &str| serde_json::from_value::<Vec<f32>>(case[key].clone()).unwrap();
        let near = |found: &[f32], expected: &[f32]| {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1e-3))
        };
        assert!(
            near(&labels, &expected("timesteps")),
            "{name}: {labels:?}, not {:?}",
            expected("timesteps")
        );
        if !heun {
            sigmas.push(0.0);
            assert!(
                near(&sigmas, &expected("sigmas")),
                "{name}: {sigmas:?}, not {:?}",
                expected("sigmas")
            );
        }
        // diffusers' Heun computes v as (x - (x - v sigma)) / sigma in f32, which at sigma 0.001
        // loses three of seven digits.
        let (worst, most) = if heun {
            (&mut worst_of_heun, 5e-5)
        } else {
            (&mut worst, 5e-6)
        };
        *worst = worst.max(distance(&values(found), &expected("x")));
        if let Some(second) = second {
            *worst = worst.max(distance(&second[..8], &expected("second")));
        }
        assert!(*worst < most, "{name}: {worst:e}");
    }
    println!("largest relative difference: {worst:e}, of Heun {worst_of_heun:e}");
}

/// Pictures whose numbers are normal with this mean and deviation; all there is to know about their
/// flow is known.
#[derive(Clone, Copy)]
struct Gaussian {
    mean: f64,
    deviation: f64,
}

impl Gaussian {
    /// Variance of `(1 - sigma) x_0 + sigma epsilon`.
    fn variance(self, sigma: f64) -> f64 {
        ((1.0 - sigma) * self.deviation).powi(2) + sigma * sigma
    }

    /// The expectation of `epsilon - x_0`, given x.
    fn velocity(self, x: Tensor<4>, sigma: f64) -> Tensor<4> {
        let slope = (sigma - (1.0 - sigma) * self.deviation.powi(2)) / self.variance(sigma);
        x.sub_scalar((1.0 - sigma) * self.mean)
            .mul_scalar(slope)
            .sub_scalar(self.mean)
    }

    /// Where the flow takes `x` from one level to a lower one: quantiles stay quantiles.
    fn flowed(self, x: Tensor<4>, from: f64, to: f64) -> Tensor<4> {
        let stretch = (self.variance(to) / self.variance(from)).sqrt();
        x.sub_scalar((1.0 - from) * self.mean)
            .mul_scalar(stretch)
            .add_scalar((1.0 - to) * self.mean)
    }
}

const PICTURES: Gaussian = Gaussian {
    mean: 0.7,
    deviation: 0.4,
};

#[test]
fn the_error_on_a_gaussian_falls_with_the_order() {
    let x = initial();
    for shift in [1.0, 3.0] {
        let model = flow(&json!({"shift": shift})).unwrap();
        let exact = values(PICTURES.flowed(x.clone(), 1.0, 0.0));
        let error = |sampler: Sampler, steps: usize| {
            // As FLUX spreads them: the last step becomes shorter with the others.
            let sigmas: Vec<f64> = (0..steps).map(|i| 1.0 - i as f64 / steps as f64).collect();
            let levels = model.levels_of(&sigmas, None).unwrap();
            let found = quiet(sampler, &levels, x.clone(), |x, step| {
                PICTURES.velocity(x, step.scales.sigma)
            })
            .unwrap();
            distance(&values(found), &exact)
        };
        for (sampler, order, most) in [(EULER, 1.0, 0.02), (HEUN, 2.0, 0.001)] {
            let errors: Vec<f64> = [16, 32, 64, 128]
                .into_iter()
                .map(|steps| error(sampler, steps))
                .collect();
            for pair in errors.windows(2) {
                let found = (pair[0] / pair[1]).log2();
                assert!(
                    (found - order).abs() < 0.3,
                    "shift {shift}, order {order}: {errors:?} has {found:.2}"
                );
            }
            assert!(errors[3] < most, "shift {shift}, order {order}: {errors:?}");
        }
    }
}

#[test]
fn the_distribution_on_a_gaussian_is_its_own() {
    let shape = [8, 4, 16, 16];
    let count = shape.iter().product::<usize>();
    let noise = Tensor::from_data(
        TensorData::new(TorchRng::new(3).normal(count), shape),
        &Device::flex(),
    );
    let model = flow(&json!({"shift": 3.0})).unwrap();
    for (sampler, steps) in [(EULER, 64), (HEUN, 16)] {
        let levels = model.levels(steps, None).unwrap();
        let found = values(
            quiet(sampler, &levels, noise.clone(), |x, step| {
                PICTURES.velocity(x, step.scales.sigma)
            })
            .unwrap(),
        );
        let mean = found.iter().map(|&v| f64::from(v)).sum::<f64>() / count as f64;
        let variance = found
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / count as f64;
        // Three standard errors of 8192 numbers, and the sampler's own error.
        let error = 3.0 * PICTURES.deviation / (count as f64).sqrt();
        assert!((mean - PICTURES.mean).abs() < error + 0.005, "mean {mean}");
        assert!(
            (variance.sqrt() - PICTURES.deviation).abs() < error + 0.01,
            "deviation {}",
            variance.sqrt()
        );
    }
}

#[test]
fn samplers_by_name_know_the_size_of_the_picture() {
    let dynamic = json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "use_dynamic_shifting": true,
        "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096, "shift": 3.0,
    });
    let own = flow(&dynamic).unwrap();
    let path = Path::new("scheduler/scheduler_config.json");
    let class = json!({"_class_name": "FlowMatchHeunDiscreteScheduler"});
    let heun = scumble_diffusion::Sampler::default_for(path, &class).unwrap();
    assert_eq!(heun.to_string(), "heun");
    let Shift::Dynamic(shift) = own.shift() else {
        panic!("it is dynamic")
    };
    // Latents of 8 x 12 are 4 x 6 tokens.
    let start = tensor([1, 4, 8, 12], |i| (0.7 * i + 0.3).sin());
    let levels = own
        .levels_of(&[1.0, 0.75, 0.5, 0.25], Some(shift.mu(24)))
        .unwrap();
    assert!(levels.sigmas()[1] > 0.75, "shifted: {levels:?}");
    let straight = Schedule::from(own);
    let run = scumble_diffusion::samplers::Run::new(&straight, 4);
    let mut model = |x: Tensor<4>, step: Step| followed(network(x.clone(), step.timestep), x, step);
    let mut none = |shape: [usize; 4]| Tensor::zeros(shape, &Device::flex());
    for (name, sampler) in [("heun", HEUN), ("euler", EULER), ("ddim", EULER)] {
        let named: scumble_diffusion::Sampler = name.parse().unwrap();
        let found = named
            .sample::<Error>(&run, start.clone(), &mut model, &mut none, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected = sampler(
            &FlowRun::new(&levels),
            start.clone(),
            &mut model,
            &mut |_| ControlFlow::Continue(()),
        );
        assert_eq!(values(found), values(expected.unwrap()), "{name}");
    }
    let fixed = Schedule::from(flow(&json!({"shift": 3.0})).unwrap());
    let asked = scumble_diffusion::samplers::timesteps(heun, &fixed, 4).unwrap();
    assert_eq!(asked.len(), 7);
    assert!(
        schedule("epsilon")
            .usable_by(heun)
            .unwrap_err()
            .to_string()
            .contains("straight lines")
    );
    assert!(fixed.usable_by("pndm".parse().unwrap()).is_err());
}

#[test]
fn a_run_may_start_in_the_middle_and_stop_early() {
    let model = flow(&json!({})).unwrap();
    let levels = model.levels(40, None).unwrap();
    let at = |i: usize| PICTURES.flowed(initial(), 1.0, levels.sigmas()[i]);
    for (sampler, per_level) in [(EULER, 1), (HEUN, 2)] {
        let run = FlowRun {
            levels: &levels,
            start: Some(StepIndex(10)),
        };
        let mut first = None;
        let found = sampler(
            &run,
            at(10),
            &mut |x: Tensor<4>, step: Step| {
                first.get_or_insert(step);
                followed(PICTURES.velocity(x.clone(), step.scales.sigma), x, step)
            },
            &mut |progress| {
                assert_eq!(progress.len, per_level * 40 - (per_level - 1));
                if progress.index.0 == per_level * 20 - 1 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )
        .unwrap();
        let first = first.unwrap();
        assert_eq!(
            (first.index.0, first.scales.sigma),
            (per_level * 10, levels.sigmas()[10])
        );
        assert!(distance(&values(found), &values(at(20))) < 0.02);

        let run = FlowRun {
            levels: &levels,
            start: Some(StepIndex(40)),
        };
        let error = sampler(
            &run,
            initial(),
            &mut |x: Tensor<4>, step| followed(x.clone(), x, step),
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("cannot start at level 40: there are 40"),
            "{error}"
        );
        let error = quiet(sampler, &levels, initial(), |x, _| x.narrow(0, 0, 1))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("expected a prediction of shape [2, 4, 3, 5], found [1, 4, 3, 5]"),
            "{error}"
        );
    }
}

fn schedule(prediction: &str) -> Schedule {
    let config = json!({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": prediction});
    Schedule::from_config(Path::new("scheduler_config.json"), &config).unwrap()
}

/// From what a network should answer, everything that was mixed comes back, for each picture at its
/// own timestep.
#[test]
fn noise_clean_latents_and_velocity_follow_from_every_answer() {
    let (x0, noise) = (initial(), other());
    let models: [(Output, Box<dyn Interpolant>); 3] = [
        (Output::Epsilon, Box::new(schedule("epsilon"))),
        (Output::V, Box::new(schedule("v_prediction"))),
        (
            Output::Velocity,
            Box::new(flow(&json!({"shift": 3.0})).unwrap()),
        ),
    ];
    for (output, model) in models {
        assert_eq!(model.output(), output);
        for t in [
            vec![Timestep::from(40), Timestep::from(700)],
            vec![Timestep::from(500)],
        ] {
            let scales = model.all_scales(&t);
            let x = model.q_sample(x0.clone(), noise.clone(), &t).unwrap();
            let raw = model
                .regression_target(x0.clone(), noise.clone(), &t)
                .unwrap();
            let near = |what: &str, found: Result<Tensor<4>>, expected: Tensor<4>| {
                let d = distance(&values(found.unwrap()), &values(expected));
                assert!(d < 5e-6, "{output:?}: {what}: {d:e}");
            };
            near(
                "epsilon",
                output.epsilon_from_raw(raw.clone(), x.clone(), &scales),
                noise.clone(),
            );
            near(
                "x0",
                output.x0_from_raw(raw.clone(), x.clone(), &scales),
                x0.clone(),
            );
            near(
                "velocity",
                output.velocity_from_raw(raw.clone(), x.clone(), &scales),
                noise.clone().sub(x0.clone()),
            );
            near(
                "raw",
                output.raw_from_epsilon(noise.clone(), x.clone(), &scales),
                raw,
            );
        }
        for wrong in [&[][..], &[Timestep::from(1); 3]] {
            let error = model
                .q_sample(x0.clone(), noise.clone(), wrong)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("expected one timestep or 2 of them"),
                "{error}"
            );
        }
        assert!(
            model
                .q_sample(
                    x0.clone(),
                    noise.clone().narrow(0, 0, 1),
                    &[Timestep::from(1)]
                )
                .is_err()
        );
    }
}

#[test]
fn a_prediction_is_read_in_every_way() {
    let (x0, noise) = (initial(), other());
    let model = flow(&json!({})).unwrap();
    let t = [Timestep::from(300), Timestep::from(900)];
    let x = model.q_sample(x0.clone(), noise.clone(), &t).unwrap();
    let raw = model
        .regression_target(x0.clone(), noise.clone(), &t)
        .unwrap();
    let prediction =
        Prediction::new(raw.clone(), x.clone(), model.all_scales(&t), model.output()).unwrap();
    assert_eq!(values(prediction.raw()), values(raw.clone()));
    assert_eq!(values(prediction.velocity().unwrap()), values(raw.clone()));
    assert!(distance(&values(prediction.epsilon().unwrap()), &values(noise)) < 1e-6);
    assert!(distance(&values(prediction.x0().unwrap()), &values(x0)) < 1e-6);

    let message = |raw: Tensor<4>, scales: Vec<Scales>| {
        Prediction::new(raw, x.clone(), scales, Output::Velocity)
            .unwrap_err()
            .to_string()
    };
    let one = Scales::straight(0.5);
    assert!(
        message(raw.clone().narrow(0, 0, 1), vec![one])
            .contains("shape [2, 4, 3, 5], found [1, 4, 3, 5]")
    );
    assert!(message(raw, vec![one; 3]).contains("expected one timestep or 2 of them, found 3"));
}

/// At pure noise an answer of epsilon tells nothing of the picture; v and velocity do.
#[test]
fn pure_noise_is_no_division_by_zero() {
    let (raw, x) = (initial(), other());
    for scales in [Scales::straight(1.0), Scales::preserving(0.0)] {
        let error = Output::Epsilon
            .x0_from_raw(raw.clone(), x.clone(), &[scales])
            .unwrap_err()
            .to_string();
        assert!(error.contains("tells nothing else"), "{error}");
        assert!(
            Output::Epsilon
                .velocity_from_raw(raw.clone(), x.clone(), &[scales])
                .is_err()
        );
        assert_eq!(
            values(
                Output::Epsilon
                    .epsilon_from_raw(raw.clone(), x.clone(), &[scales])
                    .unwrap()
            ),
            values(raw.clone())
        );
        // Also where one picture of two is pure noise.
        assert!(
            Output::Epsilon
                .x0_from_raw(raw.clone(), x.clone(), &[Scales::straight(0.5), scales])
                .is_err()
        );
    }
    let x0 = Output::V
        .x0_from_raw(raw.clone(), x.clone(), &[Scales::preserving(0.0)])
        .unwrap();
    assert_eq!(values(x0), values(raw.clone().neg()));
    let x0 = Output::Velocity
        .x0_from_raw(raw.clone(), x.clone(), &[Scales::straight(1.0)])
        .unwrap();
    assert!(distance(&values(x0), &values(x.clone().sub(raw.clone()))) < 1e-6);
    assert!(
        Output::Velocity
            .raw_from_epsilon(raw, x, &[Scales::straight(1.0)])
            .is_err()
    );
}

#[test]
fn bad_requests_are_errors() {
    let fixed = flow(&json!({})).unwrap();
    for (steps, message) in [(0, "at least 1"), (1001, "more than the 1000 timesteps")] {
        let error = fixed.levels(steps, None).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    for sigmas in [
        &[][..],
        &[0.5, 0.5],
        &[0.5, 0.7],
        &[1.1, 0.5],
        &[1.0, 0.0],
        &[1.0, f64::NAN],
    ] {
        let error = fixed.levels_of(sigmas, None).unwrap_err().to_string();
        assert!(
            error.contains("falling numbers from 1 to above 0"),
            "{sigmas:?}: {error}"
        );
    }
    let dynamic =
        flow(&json!({"use_dynamic_shifting": true, "time_shift_type": "linear"})).unwrap();
    assert!(
        dynamic
            .levels(4, None)
            .unwrap_err()
            .to_string()
            .contains("no mu was given")
    );
    for mu in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        assert!(
            dynamic
                .levels(4, Some(mu))
                .unwrap_err()
                .to_string()
                .contains("expected a positive number"),
            "{mu}"
        );
    }
    for steps in [1, 2, 3, 999, 1000] {
        let levels = fixed.levels(steps, None).unwrap();
        assert_eq!(
            (
                levels.timesteps().len(),
                levels.sigmas().len(),
                levels.sigmas()[steps]
            ),
            (steps, steps + 1, 0.0)
        );
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (key, value) in [
        ("_class_name", json!("EulerDiscreteScheduler")),
        ("_class_name", json!(3)),
        ("invert_sigmas", json!(true)),
        ("use_beta_sigmas", json!(true)),
        ("stochastic_sampling", json!(true)),
        ("use_karras_sigmas", json!("yes")),
        ("use_dynamic_shifting", json!(1)),
        ("shift", json!(0)),
        ("shift", json!(-1.0)),
        ("shift", json!("3")),
        ("shift_terminal", json!(1.0)),
        ("shift_terminal", json!(-0.1)),
        ("num_train_timesteps", json!(1)),
        ("num_train_timesteps", json!(1e18)),
    ] {
        let error = flow(&json!({key: value})).unwrap_err().to_string();
        assert!(
            error.starts_with("scheduler/scheduler_config.json: ")
                && error.contains(&format!("`{key}`")),
            "{key}: {error}"
        );
    }
    for (key, value) in [
        ("time_shift_type", json!("cubic")),
        ("time_shift_type", json!(2)),
        ("base_shift", json!("low")),
        ("max_shift", json!([])),
        ("base_image_seq_len", json!(0)),
        ("max_image_seq_len", json!(256)),
    ] {
        let error = flow(&json!({"use_dynamic_shifting": true, key: value.clone()}))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
        // Not read, so not looked at.
        assert!(flow(&json!({key: value})).is_ok(), "{key}");
    }
    let error = flow(&json!({"use_karras_sigmas": true, "use_exponential_sigmas": true}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("`use_exponential_sigmas`"), "{error}");
    assert!(flow(&json!([1])).is_err());
    assert!(
        flow(&json!({"_class_name": "DDIMScheduler"}))
            .unwrap_err()
            .hint()
            .is_some()
    );
}
