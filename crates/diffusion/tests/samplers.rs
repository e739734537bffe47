//! The samplers against diffusers (`golden/samplers.py`), and what must hold whatever diffusers
//! does.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{ops::ControlFlow, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use scumble_diffusion::{
    Interpolant, Output, Prediction, Result, Scales, Schedule, StepIndex, Timestep,
    samplers::{Run, Sampler, Step, timesteps},
};
use serde_json::{Value, json};

const SHAPE: [usize; 4] = [2, 4, 3, 5];

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/samplers.json")).expect("the golden file is JSON")
}

fn schedule(config: &Value) -> Result<Schedule> {
    Schedule::from_config(Path::new("scheduler/scheduler_config.json"), config)
}

/// The scheduler_config.json of Stable Diffusion 1.4, with some keys changed (or removed, by null).
fn sd14(changes: Value) -> Value {
    let mut config = golden()["configs"]["sd14"].take();
    if let (Value::Object(config), Value::Object(changes)) = (&mut config, changes) {
        config.extend(changes);
    }
    config
}

fn tensor(value: impl Fn(f64) -> f64) -> Tensor<4> {
    let values: Vec<f32> = (0..SHAPE.iter().product())
        .map(|i: usize| value(i as f64) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, SHAPE), &Device::flex())
}

fn initial() -> Tensor<4> {
    tensor(|i| 1.4 * (0.7 * i + 0.3).sin())
}

fn fresh(k: usize) -> Tensor<4> {
    tensor(|i| (1.3 * i + 2.1 * k as f64).cos())
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

/// Runs a sampler without noise and to the end.
fn quiet(
    sampler: Sampler,
    run: &Run<'_>,
    x: Tensor<4>,
    mut epsilon: impl FnMut(Tensor<4>, Step) -> Tensor<4>,
) -> Result<Tensor<4>> {
    sampler.sample(
        run,
        x,
        &mut |x: Tensor<4>, step: Step| {
            Prediction::of_epsilon(epsilon(x.clone(), step), x, step.scales)
        },
        &mut |_| tensor(|_| 0.0),
        &mut |_| ControlFlow::Continue(()),
    )
}

#[test]
fn schedules_are_those_of_diffusers() {
    let golden = golden();
    for (name, config) in golden["configs"].as_object().unwrap() {
        let schedule = schedule(config).unwrap();
        for (t, expected) in golden["alphas_cumprod"][name].as_object().unwrap() {
            let (t, expected): (u16, f64) = (t.parse().unwrap(), expected.as_f64().unwrap());
            let found = schedule.alpha_bar(t.into());
            assert!(
                (found - expected).abs() < 1e-7 && (found / expected - 1.0).abs() < 2e-5,
                "{name} at {t}: {found}, not {expected}"
            );
        }
    }
}

#[test]
fn samplers_are_those_of_diffusers() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 180);
    let mut worst = 0.0f64;
    let mut failures = Vec::new();
    for case in cases {
        let name = format!(
            "{} on {}, {} steps, eta {}, start {}",
            case["sampler"], case["config"], case["steps"], case["eta"], case["start"]
        );
        let schedule = schedule(&golden["configs"][case["config"].as_str().unwrap()]).unwrap();
        let sampler: Sampler = case["sampler"].as_str().unwrap().parse().unwrap();
        let steps = case["steps"].as_u64().unwrap() as usize;
        let start = case["start"].as_u64().map(|i| StepIndex(i as usize));
        let run = Run {
            eta: case["eta"].as_f64().unwrap(),
            start,
            ..Run::new(&schedule, steps)
        };
        let list = timesteps(sampler, &schedule, steps).unwrap();

        let x = match start {
            None => initial(),
            Some(StepIndex(i))
                if sampler == Sampler::DpmPp2mKarras
                    || schedule.noise().unwrap().use_karras_sigmas() =>
            {
                // Karras' levels are not those of the rounded timesteps: ask the sampler for the
                // one it starts at.
                let mut alpha_bar = 0.0;
                let look = |x: Tensor<4>, step: Step| {
                    alpha_bar = if step.index.0 == i {
                        step.alpha_bar
                    } else {
                        alpha_bar
                    };
                    x
                };
                quiet(sampler, &run, initial(), look).unwrap();
                initial()
                    .mul_scalar(alpha_bar.sqrt())
                    .add(fresh(100).mul_scalar((1.0 - alpha_bar).sqrt()))
            }
            Some(StepIndex(i)) => schedule
                .add_noise(initial(), fresh(100), &[list[i]])
                .unwrap(),
        };
        let (mut labels, mut drawn, mut done) = (Vec::new(), 0, 0);
        let found = sampler
            .sample(
                &run,
                x,
                &mut |x: Tensor<4>, step: Step| {
                    assert_eq!(list[step.index.0], step.timestep);
                    labels.push(step.timestep.get());
                    let raw = network(x.clone(), step.timestep);
                    Prediction::new(raw, x, vec![step.scales], schedule.output())
                },
                &mut |_| {
                    drawn += 1;
                    fresh(drawn - 1)
                },
                &mut |progress| {
                    assert_eq!(progress.index.0, start.map_or(0, |start| start.0) + done);
                    done += 1;
                    ControlFlow::Continue(())
                },
            )
            .unwrap();

        let expected: Vec<f32> = serde_json::from_value(case["timesteps"].clone()).unwrap();
        if labels.len() != expected.len()
            || labels
                .iter()
                .zip(&expected)
                .any(|(a, b)| (a - b).abs() > 1e-6 * b.max(1.0))
        {
            failures.push(format!("{name}: timesteps {labels:?}, not {expected:?}"));
            continue;
        }
        assert_eq!(done, labels.len());
        assert_eq!(
            drawn as u64,
            case["drawn"].as_u64().unwrap(),
            "{name}: noises drawn"
        );
        let expected: Vec<f32> = serde_json::from_value(case["x"].clone()).unwrap();
        let distance = distance(&values(found), &expected);
        worst = worst.max(distance);
        if distance > 2e-5 {
            failures.push(format!("{name}: {distance:e}"));
        }
    }
    println!("largest relative difference: {worst:e}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn exact_noise_leads_back_to_the_picture() {
    for changes in [
        json!({}),
        json!({"prediction_type": "v_prediction"}),
        json!({"skip_prk_steps": false}),
    ] {
        let mut config = sd14(changes);
        config["set_alpha_to_one"] = true.into();
        let schedule = schedule(&config).unwrap();
        let x0 = initial();
        for sampler in Sampler::ALL {
            if sampler == Sampler::Pndm && schedule.output() == Output::V {
                continue; // It extrapolates v, which changes along the way even where the noise does not.
            }
            let list = timesteps(sampler, &schedule, 20).unwrap();
            for start in [0, 1, 2, 12, 13, list.len() - 1] {
                let run = Run {
                    start: Some(StepIndex(start)),
                    ..Run::new(&schedule, 20)
                };
                // The level of the first step, which for rounded timesteps only the sampler knows.
                let mut level = None;
                let outcome = quiet(sampler, &run, x0.clone(), |x, step| {
                    level.get_or_insert(step.alpha_bar);
                    x
                });
                if sampler == Sampler::Pndm
                    && !schedule.noise().unwrap().skip_prk_steps()
                    && matches!(start, 1 | 2)
                {
                    assert!(
                        outcome
                            .unwrap_err()
                            .to_string()
                            .contains("inside a Runge-Kutta step")
                    );
                    continue;
                }
                let alpha_bar = level.unwrap();
                let x = x0
                    .clone()
                    .mul_scalar(alpha_bar.sqrt())
                    .add(fresh(0).mul_scalar((1.0 - alpha_bar).sqrt()));
                let found = quiet(sampler, &run, x, |x, step| {
                    let (signal, noise) = (step.alpha_bar.sqrt(), (1.0 - step.alpha_bar).sqrt());
                    x.sub(x0.clone().mul_scalar(signal)).mul_scalar(1.0 / noise)
                });
                let distance = distance(&values(found.unwrap()), &values(x0.clone()));
                assert!(distance < 1e-4, "{sampler} from {start}: {distance:e}");
            }
        }
    }
}

#[test]
fn one_step_is_enough_and_none_is_not() {
    let schedule = schedule(&sd14(json!({}))).unwrap();
    for sampler in Sampler::ALL {
        assert_eq!(timesteps(sampler, &schedule, 1).unwrap().len(), 1);
        let found = quiet(sampler, &Run::new(&schedule, 1), initial(), |x, step| {
            network(x, step.timestep)
        })
        .unwrap();
        assert!(values(found).iter().all(|v| v.is_finite()), "{sampler}");
        for (steps, message) in [
            (0, "at least 1"),
            (1001, "more than the 1000 timesteps"),
            (usize::MAX, "more than the 1000"),
        ] {
            let error = quiet(sampler, &Run::new(&schedule, steps), initial(), |x, _| x)
                .unwrap_err()
                .to_string();
            assert!(error.contains(message), "{sampler}: {error}");
            assert_eq!(
                timesteps(sampler, &schedule, steps)
                    .unwrap_err()
                    .to_string(),
                error
            );
        }
    }
}

/// Every number of steps gives a list inside the training range or an error, never a panic.
#[test]
fn every_number_of_steps_has_an_answer() {
    for spacing in [
        Value::Null,
        "leading".into(),
        "trailing".into(),
        "linspace".into(),
    ] {
        for (skip, karras) in [(true, false), (false, true)] {
            let config = json!({"timestep_spacing": spacing, "skip_prk_steps": skip, "use_karras_sigmas": karras, "steps_offset": 1});
            let schedule = schedule(&sd14(config)).unwrap();
            for sampler in Sampler::ALL {
                for steps in (1..=1000).filter(|n| {
                    *n < 5 || n % 29 == 0 || *n > 995 || matches!(n, 61 | 103 | 500 | 501)
                }) {
                    if let Ok(list) = timesteps(sampler, &schedule, steps) {
                        assert!(
                            list.iter().all(|t| (0.0..=999.0).contains(&t.get())),
                            "{sampler}, {spacing}, {steps} steps"
                        );
                        assert!(
                            list.windows(2).all(|pair| pair[1] <= pair[0]),
                            "{sampler}, {spacing}, {steps} steps"
                        );
                        assert!(
                            sampler == Sampler::Pndm || list.len() == steps,
                            "{sampler}, {spacing}, {steps} steps"
                        );
                    } else {
                        assert!(
                            steps > 500 || sampler == Sampler::Pndm && !skip && steps < 4,
                            "{sampler}, {spacing}, {steps} steps"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_callback_can_stop_and_sees_preserved_variance() {
    let schedule = schedule(&sd14(json!({}))).unwrap();
    let x0 = tensor(|_| 0.0);
    for sampler in Sampler::ALL {
        let list = timesteps(sampler, &schedule, 20).unwrap();
        let run = Run {
            start: Some(StepIndex(4)),
            ..Run::new(&schedule, 20)
        };
        let mut seen = None;
        let stopped = sampler
            .sample(
                &run,
                fresh(0),
                // The picture is black, so what is left is the noise, sqrt(1 - alpha_bar) of it.
                &mut |x: Tensor<4>, step: Step| {
                    let noise = x.clone().mul_scalar(1.0 / step.scales.sigma);
                    Prediction::of_epsilon(noise, x, step.scales)
                },
                &mut |_| x0.clone(),
                &mut |progress| {
                    assert_eq!(progress.len, list.len());
                    seen = Some(progress.latents());
                    if progress.index == StepIndex(9) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            )
            .unwrap();
        let (stopped, seen) = (values(stopped), values(seen.unwrap()));
        assert!(distance(&stopped, &seen) < 1e-6, "{sampler}");
        if !matches!(
            sampler,
            Sampler::Ddpm | Sampler::EulerAncestral | Sampler::DpmPp2mKarras
        ) {
            let level = |t| (1.0 - schedule.alpha_bar(t)).sqrt();
            let expected = values(fresh(0).mul_scalar(level(list[10]) / level(list[4])));
            assert!(distance(&stopped, &expected) < 1e-4, "{sampler}");
        }
    }
}

/// Noise beyond DDPM's, where `1 - abar' - sigma^2` is below 0 in every step. In numpy:
///
/// ```python
/// bars = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
/// i = np.arange(120)
/// x = 1.4 * np.sin(0.7 * i + 0.3)
/// for k, t in enumerate([801, 601, 401, 201, 1]):
///     a, b = bars[t], bars[t - 200] if t >= 200 else bars[0]
///     e = 0.3 * np.sin(1.7 * x) + 0.1 * x + 0.2 * np.sin(0.01 * t)
///     sigma = 1.5 * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
///     x0 = (x - np.sqrt(1 - a) * e) / np.sqrt(a)
///     x = np.sqrt(b) * x0 + np.sqrt(abs(1 - b - sigma**2)) * e + sigma * np.cos(1.3 * i + 2.1 * k)
/// print(x[:6])
/// ```
#[test]
fn ddim_takes_more_noise_than_ddpm() {
    let schedule = schedule(&sd14(json!({}))).unwrap();
    let run = Run {
        eta: 1.5,
        ..Run::new(&schedule, 5)
    };
    let mut drawn = 0;
    let epsilon = &mut |x: Tensor<4>, step: Step| {
        let shift = 0.2 * (0.01 * f64::from(step.timestep.get())).sin();
        let epsilon = x.clone().mul_scalar(1.7).sin().mul_scalar(0.3);
        let epsilon = epsilon.add(x.clone().mul_scalar(0.1)).add_scalar(shift);
        Prediction::of_epsilon(epsilon, x, step.scales)
    };
    let mut noise = |_| {
        drawn += 1;
        fresh(drawn - 1)
    };
    let found = Sampler::Ddim
        .sample(&run, initial(), epsilon, &mut noise, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let expected = [
        2.332_312,
        3.960_307,
        2.896_405_2,
        1.539_883_3,
        0.44281305,
        -1.256_355_6,
    ];
    assert!(distance(&values(found)[..6], &expected) < 1e-5);
}

#[test]
fn bad_requests_are_errors() {
    let schedule = schedule(&sd14(json!({}))).unwrap();
    let message = |run: &Run<'_>| {
        quiet(Sampler::Ddim, run, initial(), |x, _| x)
            .unwrap_err()
            .to_string()
    };
    for eta in [-0.1, f64::INFINITY, f64::NAN] {
        assert!(
            message(&Run {
                eta,
                ..Run::new(&schedule, 5)
            })
            .contains("expected a number from 0")
        );
    }
    let run = Run {
        start: Some(StepIndex(5)),
        ..Run::new(&schedule, 5)
    };
    assert!(message(&run).contains("the list has 5 steps"));
    for sampler in Sampler::ALL {
        let error = quiet(sampler, &Run::new(&schedule, 5), initial(), |x, _| {
            x.narrow(0, 0, 1)
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("expected a prediction of shape [2, 4, 3, 5], found [1, 4, 3, 5]"),
            "{error}"
        );
    }
    let error = quiet(
        Sampler::Ddim,
        &Run::new(&schedule, 1000),
        initial(),
        |x, _| x,
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("reach timestep 1000, beyond the last of training, 999"),
        "{error}"
    );
    assert!(schedule.timestep(1000).is_err());
    assert!(
        Timestep::new(-1.0).is_none()
            && Timestep::new(f32::NAN).is_none()
            && Timestep::new(946.5).unwrap().whole().is_none()
    );
}

#[test]
fn each_picture_has_its_own_timestep() {
    for (name, output) in [("epsilon", Output::Epsilon), ("v_prediction", Output::V)] {
        let schedule = schedule(&sd14(json!({"prediction_type": name}))).unwrap();
        assert_eq!(schedule.output(), output);
        let (x0, noise) = (initial(), fresh(0));
        let t = [Timestep::from(50), Timestep::from(900)];
        let x = schedule.add_noise(x0.clone(), noise.clone(), &t).unwrap();
        for (i, &t) in t.iter().enumerate() {
            let one = schedule.add_noise(x0.clone(), noise.clone(), &[t]).unwrap();
            assert!(
                distance(
                    &values(x.clone().narrow(0, i, 1)),
                    &values(one.narrow(0, i, 1))
                ) < 1e-6
            );
        }
        let raw = schedule
            .regression_target(x0.clone(), noise.clone(), &t)
            .unwrap();
        let prediction =
            Prediction::new(raw.clone(), x, schedule.all_scales(&t), schedule.output()).unwrap();
        let epsilon = prediction.epsilon().unwrap();
        assert!(distance(&values(epsilon.clone()), &values(noise.clone())) < 1e-6);
        let back = prediction.x0().unwrap();
        assert!(distance(&values(back), &values(x0.clone())) < 1e-5);
        let again = prediction.with_epsilon(epsilon).unwrap().raw();
        assert!(distance(&values(again), &values(raw)) < 1e-5);
        for wrong in [&t[..0], &[t[0]; 3]] {
            assert!(
                schedule
                    .add_noise(x0.clone(), noise.clone(), wrong)
                    .unwrap_err()
                    .to_string()
                    .contains("one timestep or 2")
            );
        }
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (key, value) in [
        ("clip_sample", json!(true)),
        ("clip_sample", json!("no")),
        ("prediction_type", json!("sample")),
        ("prediction_type", json!("flow_prediction")),
        ("beta_schedule", json!("sigmoid")),
        ("timestep_spacing", json!("random")),
        ("num_train_timesteps", json!(1_000_000_000_000u64)),
        ("num_train_timesteps", json!(100_000)),
        ("num_train_timesteps", json!(1)),
        ("num_train_timesteps", json!(-5)),
        ("num_train_timesteps", json!(10.5)),
        ("steps_offset", json!(1000)),
        ("steps_offset", json!("1")),
        ("beta_start", json!(-0.1)),
        ("beta_start", json!(0)),
        ("beta_end", json!(1.0)),
        ("beta_end", json!("0.012")),
        ("trained_betas", json!([0.1, 0.2])),
        ("trained_betas", json!(vec![json!("x"); 1000])),
        ("trained_betas", json!(vec![0.0; 1000])),
        ("use_karras_sigmas", json!("yes")),
        ("_class_name", json!("FlowMatchEulerDiscreteScheduler")),
    ] {
        let error = schedule(&sd14(json!({key: value}))).unwrap_err();
        let named = ["num_train_timesteps", "beta_start"].contains(&key)
            && error.to_string().contains("`beta_schedule`");
        assert!(
            error.to_string().contains(&format!("`{key}`")) || named,
            "{key}: {error}"
        );
        assert!(
            error
                .to_string()
                .starts_with("scheduler/scheduler_config.json: "),
            "{error}"
        );
        assert_eq!(
            key == "clip_sample" && value == json!(true) || key == "_class_name",
            error.hint().is_some(),
            "{key}"
        );
    }
    assert!(schedule(&json!([1])).is_err());
}

/// What each class reads is what its `__init__` takes in diffusers 0.42.1:
/// `inspect.signature(getattr(diffusers, NAME + "Scheduler").__init__).parameters`
#[test]
fn options_matter_to_the_classes_that_have_them_and_only_when_they_draw() {
    use Sampler::*;
    const KARRAS: Sampler = DpmPp2mKarras;
    let cases: [(&str, Value, &[Sampler]); 21] = [
        (
            "thresholding",
            json!(true),
            &[Ddim, Ddpm, DpmPp2m, KARRAS, UniPc],
        ),
        (
            "use_exponential_sigmas",
            json!(true),
            &[Lms, Euler, DpmPp2m, KARRAS, UniPc],
        ),
        (
            "use_beta_sigmas",
            json!(true),
            &[Lms, Euler, DpmPp2m, KARRAS, UniPc],
        ),
        ("use_flow_sigmas", json!(true), &[DpmPp2m, KARRAS, UniPc]),
        ("use_lu_lambdas", json!(true), &[DpmPp2m, KARRAS]),
        (
            "use_dynamic_shifting",
            json!(true),
            &[DpmPp2m, KARRAS, UniPc],
        ),
        ("euler_at_final", json!(true), &[DpmPp2m, KARRAS]),
        ("shift_terminal", json!(0.1), &[UniPc]),
        (
            "algorithm_type",
            json!("sde-dpmsolver++"),
            &[DpmPp2m, KARRAS],
        ),
        ("solver_order", json!(3), &[DpmPp2m, KARRAS, UniPc]),
        // UniPC takes the name of another class's solver for its own default.
        ("solver_type", json!("heun"), &[DpmPp2m, KARRAS]),
        (
            "final_sigmas_type",
            json!("sigma_min"),
            &[Euler, DpmPp2m, KARRAS, UniPc],
        ),
        ("lambda_min_clipped", json!(-5.1), &[DpmPp2m, KARRAS]),
        ("lower_order_final", json!(false), &[DpmPp2m, KARRAS, UniPc]),
        ("predict_x0", json!(false), &[UniPc]),
        ("disable_corrector", json!([0]), &[UniPc]),
        ("sigma_max", json!(700.0), &[Euler, UniPc]),
        ("interpolation_type", json!("log_linear"), &[Euler]),
        ("timestep_type", json!("continuous"), &[Euler]),
        (
            "variance_type",
            json!("learned_range"),
            &[Ddpm, DpmPp2m, KARRAS],
        ),
        ("variance_type", json!("fixed_large"), &[Ddpm]),
    ];
    for (key, value, concerned) in cases {
        // A PNDM folder has none of them, so it is read whatever they say, and trained on.
        let read = schedule(&sd14(json!({key: value}))).unwrap();
        assert!(read.usable().is_ok() && read.timestep(5).is_ok());
        for sampler in Sampler::ALL {
            let run = Run::new(&read, 5);
            let answers = [
                read.usable_by(sampler).map(|()| 0),
                timesteps(sampler, &read, 5).map(|list| list.len()),
                quiet(sampler, &run, initial(), |x, step| {
                    network(x, step.timestep)
                })
                .map(|_| 0),
            ];
            for answer in answers {
                assert_eq!(
                    answer.is_err(),
                    concerned.contains(&sampler),
                    "{key}: {value} with {sampler}"
                );
                if let Err(error) = answer {
                    let text = error.to_string();
                    assert!(
                        text.starts_with("scheduler/scheduler_config.json: ")
                            && text.contains(&format!("`{key}`")),
                        "{text}"
                    );
                    assert!(error.hint().unwrap().contains("--sampler"), "{text}");
                }
            }
        }
        let notes = Schedule::passed_over(&sd14(json!({key: value})));
        assert_eq!(
            notes,
            [format!(
                "scheduler: PNDMScheduler has no option `{key}`, so {value} is passed over"
            )]
        );
    }
    assert!(
        Schedule::passed_over(&sd14(
            json!({"lower_order_final": true, "solver_order": 2, "unknown": 7})
        ))
        .is_empty()
    );
    assert!(
        Schedule::passed_over(&json!({"thresholding": true})).is_empty(),
        "DDIM has it, and refuses it"
    );
}

/// A method that needs no timestep works on a model whose schedule nobody here knows.
#[test]
fn a_refused_schedule_answers_whoever_asks_it_for_something() {
    let error = schedule(&json!({"_class_name": "FlowMatchEulerDiscreteScheduler"})).unwrap_err();
    let refused = Schedule::refused(&error);
    assert_eq!(
        refused.noise().unwrap().alphas_cumprod(),
        schedule(&sd14(json!({})))
            .unwrap()
            .noise()
            .unwrap()
            .alphas_cumprod()
    );
    for sampler in Sampler::ALL {
        let found = quiet(sampler, &Run::new(&refused, 5), initial(), |x, _| x).unwrap_err();
        assert!(
            found
                .to_string()
                .contains("FlowMatchEulerDiscreteScheduler")
                && found.hint().unwrap().contains("DDIM"),
            "{found}"
        );
        assert!(timesteps(sampler, &refused, 5).is_err());
    }
    assert!(
        refused.usable().is_err()
            && refused.timestep(0).is_err()
            && refused.add_noise(initial(), fresh(0), &[]).is_err()
    );
}

/// diffusers 0.42.1, torch 2.15, in run(scheduler, 7) of golden/samplers.py; numbers 0, 1, 2, 30
/// and 119 of x. By itself diffusers ends in NaN with bh1: its last step, to sigma 0, multiplies an
/// infinite B by differences of 0. So that step is taken by
///
///     class First(UniPCMultistepScheduler):
///         def multistep_uni_p_bh_update(self, *a, order=None, **k):
///             last = self.sigmas[self.step_index + 1] == 0
///             return self.model_outputs[-1] if last else super().multistep_uni_p_bh_update(*a, order=order, **k)
///     First.from_config(SD1, solver_type="bh1", use_karras_sigmas=KARRAS)
///
/// which changes nothing with bh2.
#[test]
fn unipc_takes_both_of_its_solvers() {
    for (karras, expected) in BH1 {
        let read = schedule(&sd14(
            json!({"solver_type": "bh1", "use_karras_sigmas": karras}),
        ))
        .unwrap();
        let found = values(
            quiet(Sampler::UniPc, &Run::new(&read, 7), initial(), |x, step| {
                network(x, step.timestep)
            })
            .unwrap(),
        );
        let other = schedule(&sd14(
            json!({"solver_type": "bh2", "use_karras_sigmas": karras}),
        ))
        .unwrap();
        let plain = values(
            quiet(
                Sampler::UniPc,
                &Run::new(&other, 7),
                initial(),
                |x, step| network(x, step.timestep),
            )
            .unwrap(),
        );
        let picked: Vec<f32> = [0, 1, 2, 30, 119].map(|i| found[i]).to_vec();
        assert!(distance(&picked, &expected) < 1e-5, "{karras}: {picked:?}");
        assert!(distance(&found, &plain) > 1e-4, "the two differ");
        let unnamed = schedule(&sd14(
            json!({"solver_type": "midpoint", "use_karras_sigmas": karras}),
        ))
        .unwrap();
        let same = values(
            quiet(
                Sampler::UniPc,
                &Run::new(&unnamed, 7),
                initial(),
                |x, step| network(x, step.timestep),
            )
            .unwrap(),
        );
        assert_eq!(same, plain, "a name of another class's solver is bh2");
    }
}

const BH1: [(bool, [f32; 5]); 2] = [
    (
        false,
        [1.0629486, 11.496263, 14.440573, 7.7988644, 13.234185],
    ),
    (true, [0.6241138, 10.41872, 14.29137, 7.419_276, 11.8955]),
];

#[test]
fn the_rest_of_a_configuration_is_read() {
    let plain = schedule(&sd14(json!({}))).unwrap();
    // What diffusers writes for its DPM-Solver and Euler, neutral values and all.
    let full = sd14(json!({
        "_diffusers_version": "0.42.1", "algorithm_type": "dpmsolver++", "dynamic_thresholding_ratio": 0.995, "euler_at_final": false,
        "final_sigmas_type": "zero", "flow_shift": 1.0, "lambda_min_clipped": "-Infinity", "lower_order_final": true, "sample_max_value": 1.0,
        "solver_order": 2, "solver_type": "midpoint", "thresholding": false, "time_shift_type": "exponential", "variance_type": null,
        "interpolation_type": "linear", "sigma_min": null, "timestep_type": "discrete", "disable_corrector": [], "nobody_reads_this": 7
    }));
    assert_eq!(
        schedule(&full).unwrap().noise().unwrap().alphas_cumprod(),
        plain.noise().unwrap().alphas_cumprod()
    );

    let trained: Vec<f64> = (0..1000).map(|t| 0.001 + 1e-5 * f64::from(t)).collect();
    let linear =
        schedule(&json!({"beta_start": 0.001, "beta_end": 0.01099, "clip_sample": false})).unwrap();
    let same = schedule(&json!({"trained_betas": trained})).unwrap();
    for (a, b) in linear
        .noise()
        .unwrap()
        .alphas_cumprod()
        .iter()
        .zip(same.noise().unwrap().alphas_cumprod())
    {
        assert!((a - b).abs() < 1e-6);
    }
    assert!(
        linear.noise().unwrap().set_alpha_to_one().is_none()
            && !linear.noise().unwrap().skip_prk_steps()
            && linear.noise().unwrap().steps_offset() == 0
            && linear.noise().unwrap().timestep_spacing().is_none()
    );
    assert_eq!(linear.output(), Output::Epsilon);
}

#[test]
fn names_are_those_users_type() {
    for sampler in Sampler::ALL {
        for name in sampler.names() {
            assert_eq!(name.to_uppercase().parse::<Sampler>().unwrap(), sampler);
        }
        assert_eq!(sampler.to_string().parse::<Sampler>().unwrap(), sampler);
    }
    let names = [
        ("plms", Sampler::Pndm),
        ("k_lms", Sampler::Lms),
        ("k-euler-a", Sampler::EulerAncestral),
        ("dpmsolver++", Sampler::DpmPp2m),
    ];
    assert!(
        names
            .into_iter()
            .all(|(name, sampler)| name.parse::<Sampler>().unwrap() == sampler)
    );
    let error = "dopri5".parse::<Sampler>().unwrap_err();
    assert!(
        error.to_string().contains("`dopri5`")
            && error
                .hint()
                .unwrap()
                .contains("euler-a, dpm++2m, dpm++2m-karras")
    );

    let of = |config| Sampler::default_for(Path::new("s.json"), &config);
    assert_eq!(of(sd14(json!({}))).unwrap(), Sampler::Pndm);
    assert_eq!(of(json!({})).unwrap(), Sampler::Ddim);
    let karras = json!({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": true});
    assert_eq!(of(karras).unwrap(), Sampler::DpmPp2mKarras);
    assert!(
        of(json!({"_class_name": "HeunDiscreteScheduler"}))
            .unwrap_err()
            .hint()
            .unwrap()
            .contains("ddim")
    );
}

/// Zero-terminal SNR, as diffusers 0.42.1 has it:
///
/// ```python
/// s = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
///                            rescale_betas_zero_snr=True)
/// [float(s.alphas_cumprod[i]) for i in (0, 1, 250, 500, 750, 998, 999)]
/// ```
///
/// DDIM's last value is 0 there, which is divided by nowhere in its own formulas; here it is Euler's.
#[test]
fn a_schedule_may_end_without_signal() {
    let expected = [
        (0, 0.999_149_978_160_858_2),
        (1, 0.998_233_497_142_792_7),
        (250, 0.652_456_700_801_849_4),
        (500, 0.241_018_548_607_826_23),
        (750, 0.032_799_094_915_390_015),
        (998, 1.967_962_930_396_369_6e-7),
        (999, 5.960_464_477_539_063e-8),
    ];
    for class in ["EulerDiscreteScheduler", "DDIMScheduler"] {
        let zero = schedule(&sd14(
            json!({"_class_name": class, "rescale_betas_zero_snr": true}),
        ))
        .unwrap();
        for (t, value) in expected {
            let found = zero.noise().unwrap().alphas_cumprod()[t];
            assert!((found / value - 1.0).abs() < 1e-3, "{t}: {found}");
        }
        zero.usable_by(Sampler::Euler).unwrap();
    }
    // PNDM's class has no such option.
    let plain = schedule(&sd14(json!({"rescale_betas_zero_snr": true}))).unwrap();
    assert!(plain.noise().unwrap().alphas_cumprod()[999] > 4e-3);
}

/// A v model without signal at its last timestep.
fn zero_terminal_snr() -> Schedule {
    schedule(&sd14(json!({
        "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing",
        "prediction_type": "v_prediction", "set_alpha_to_one": true
    })))
    .unwrap()
}

/// Every sampler of a schedule without signal at its end.
const TO_THE_END: [Sampler; 7] = [
    Sampler::Ddim,
    Sampler::Ddpm,
    Sampler::Lms,
    Sampler::Euler,
    Sampler::EulerAncestral,
    Sampler::DpmPp2m,
    Sampler::UniPc,
];

fn doubles(x: &Tensor<4>) -> Vec<f64> {
    values(x.clone()).into_iter().map(f64::from).collect()
}

fn singles(x: Vec<f64>) -> Vec<f32> {
    x.into_iter().map(|v| v as f32).collect()
}

/// Where `x` is noise, v is the picture: x_0 = alpha x - sigma v, and nothing cancels. Taken from
/// the noise, `(x - sigma epsilon) / alpha`, it would be off by 4096 roundings.
#[test]
fn the_picture_is_read_from_v_where_no_signal_is_left() {
    let schedule = zero_terminal_snr();
    let drawn = |sampler: Sampler, from_epsilon: bool| {
        let mut expected = Vec::new();
        let found = sampler
            .sample(
                &Run::new(&schedule, 1),
                initial(),
                &mut |x: Tensor<4>, step: Step| {
                    assert!(step.alpha_bar < 1e-7, "{sampler}: {}", step.alpha_bar);
                    let v = network(x.clone(), step.timestep);
                    let Scales { alpha, sigma } = step.scales;
                    let both = doubles(&x).into_iter().zip(doubles(&v));
                    expected = both.map(|(x, v)| alpha * x - sigma * v).collect();
                    let said = Prediction::new(v, x.clone(), vec![step.scales], Output::V)?;
                    if from_epsilon {
                        return Prediction::of_epsilon(said.epsilon()?, x, step.scales);
                    }
                    Ok(said)
                },
                &mut |_| fresh(0),
                &mut |_| ControlFlow::Continue(()),
            )
            .unwrap();
        distance(&values(found), &singles(expected))
    };
    for sampler in TO_THE_END {
        let distance = drawn(sampler, false);
        assert!(distance < 3e-7, "{sampler}: {distance:e}");
        // What was to be avoided; of no signal at all, as DDIM has it, noise tells nothing.
        if sampler != Sampler::Ddim {
            assert!(drawn(sampler, true) > 1e-5, "{sampler}");
        }
    }
}

/// Pictures of one place: x_0 is the same at every step, so every solver of the probability flow is
/// on its line, `alpha x_0 + sigma epsilon` with the first step's epsilon, after every step.
#[test]
fn the_line_to_one_picture_is_kept_from_pure_noise_on() {
    let schedule = zero_terminal_snr();
    let picture = doubles(&fresh(3));
    for sampler in TO_THE_END {
        if matches!(sampler, Sampler::Ddpm | Sampler::EulerAncestral) {
            continue; // They draw noise on the way.
        }
        let (mut noise, mut levels, mut latents) = (Vec::new(), Vec::new(), Vec::new());
        sampler
            .sample(
                &Run::new(&schedule, 5),
                initial(),
                &mut |x: Tensor<4>, step: Step| {
                    let Scales { alpha, sigma } = step.scales;
                    let both = doubles(&x).into_iter().zip(&picture);
                    let epsilon: Vec<f64> = both.map(|(x, x0)| (x - alpha * x0) / sigma).collect();
                    let both = epsilon.iter().zip(&picture);
                    let v = singles(both.map(|(e, x0)| alpha * e - sigma * x0).collect());
                    if noise.is_empty() {
                        noise = epsilon;
                    }
                    levels.push(step.scales);
                    let v = Tensor::from_data(TensorData::new(v, SHAPE), &Device::flex());
                    Prediction::new(v, x, vec![step.scales], Output::V)
                },
                &mut |_| tensor(|_| 0.0),
                &mut |progress| {
                    latents.push(values(progress.latents()));
                    ControlFlow::Continue(())
                },
            )
            .unwrap();
        levels.push(Scales::preserving(1.0));
        assert_eq!((levels.len(), latents.len()), (6, 5), "{sampler}");
        for (i, found) in latents.iter().enumerate() {
            let Scales { alpha, sigma } = levels[i + 1];
            let both = picture.iter().zip(&noise);
            let expected = singles(both.map(|(x0, e)| alpha * x0 + sigma * e).collect());
            let distance = distance(found, &expected);
            assert!(distance < 2e-6, "{sampler}, step {i}: {distance:e}");
        }
    }
}

/// Normal pictures of mean m and standard deviation 1/2, whose v is known:
/// `alpha sigma (1 - s^2) (x - alpha m) / (alpha^2 s^2 + sigma^2) - sigma m`. DDIM and ancestral
/// Euler against their formulas in `f64`.
#[test]
fn a_normal_distribution_is_drawn_from_pure_noise_as_in_f64() {
    let schedule = zero_terminal_snr();
    let mean = doubles(&fresh(3));
    // v, x_0 and epsilon of each number.
    let known = |x: &[f64], Scales { alpha, sigma }: Scales| -> Vec<[f64; 3]> {
        let one = |(x, m): (&f64, &f64)| {
            let part = (x - alpha * m) / (alpha * alpha * 0.25 + sigma * sigma);
            let v = alpha * sigma * 0.75 * part - sigma * m;
            [v, m + alpha * 0.25 * part, sigma * part]
        };
        x.iter().zip(&mean).map(one).collect()
    };
    for sampler in [Sampler::Ddim, Sampler::EulerAncestral] {
        let (mut levels, mut start, mut drawn) = (Vec::new(), Vec::new(), 0);
        let found = sampler
            .sample(
                &Run::new(&schedule, 8),
                initial(),
                &mut |x: Tensor<4>, step: Step| {
                    let seen = doubles(&x);
                    let v = known(&seen, step.scales).into_iter().map(|[v, ..]| v);
                    let v = TensorData::new(singles(v.collect()), SHAPE);
                    levels.push(step.scales);
                    if start.is_empty() {
                        start = seen;
                    }
                    let v = Tensor::from_data(v, &Device::flex());
                    Prediction::new(v, x, vec![step.scales], Output::V)
                },
                &mut |_| {
                    drawn += 1;
                    fresh(drawn - 1)
                },
                &mut |_| ControlFlow::Continue(()),
            )
            .unwrap();
        levels.push(Scales::preserving(1.0));
        let mut x = start;
        for (k, pair) in levels.windows(2).enumerate() {
            let noise = doubles(&fresh(k));
            let (now, next) = (pair[0].sigma / pair[0].alpha, pair[1].sigma / pair[1].alpha);
            let (up, down) = match sampler {
                Sampler::Ddim => (0.0, next),
                _ => (
                    next * (1.0 - (next / now).powi(2)).sqrt(),
                    next * next / now,
                ),
            };
            let new = known(&x, pair[0]).into_iter().zip(noise);
            x = new
                .map(|([_, x0, e], noise)| pair[1].alpha * (x0 + down * e + up * noise))
                .collect();
        }
        let distance = distance(&values(found), &singles(x));
        assert!(distance < 3e-6, "{sampler}: {distance:e}");
    }
}
