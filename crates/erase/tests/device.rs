//! Whole models on a GPU against the CPU: pictures from every sampler, and an erasure step by step.
//!
//! Needs a device, so the tests run only when asked for: `cargo test --workspace --features vulkan
//! --test device -- --ignored`.

#![cfg(any(
    feature = "cuda",
    feature = "vulkan",
    feature = "metal",
    feature = "rocm"
))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use burn::tensor::{Device, Tensor};
use common::{Run, checkpoint, concept, host, pipeline};
use scumble_diffusion::{Noise, Pipeline, Request, Sampler};
use scumble_erase::{Change, Edit, drift};
use scumble_families as families;
use serde_json::json;

/// The first device of every kind that was built in.
fn devices() -> Vec<Device> {
    let devices: Vec<Device> = scumble_kernels::DEVICE_KINDS
        .iter()
        .filter_map(|kind| scumble_kernels::devices(kind).into_iter().next())
        .collect();
    assert!(
        !devices.is_empty(),
        "this machine has none of the devices that were built in"
    );
    devices
}

/// max |a - b| / max |b|
fn off(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(
        a.iter().chain(b).all(|v| v.is_finite()),
        "not a number, or infinite"
    );
    let most = b.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / most
}

fn prompts() -> Vec<String> {
    ["a church", "a cat and a dog"].map(String::from).to_vec()
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn the_same_pictures() {
    for name in ["odd", "sd1", "sd2"] {
        let cpu = pipeline(name);
        for device in devices() {
            let gpu = families::load(&checkpoint(name), &device).unwrap();
            let text = off(
                &host(&gpu.encode(&prompts()).tokens),
                &host(&cpu.encode(&prompts()).tokens),
            );
            assert!(text < 1e-4, "{name}: text off by {text}");
            let there_and_back = |model: &Pipeline| {
                let picture = model.decode(
                    Noise::each(3, 2)
                        .draw(model.latent_shape(2, None, None).unwrap(), model.device()),
                );
                (host(&picture), host(&model.encode_pictures(picture)))
            };
            let ((decoded, encoded), (decoded_cpu, encoded_cpu)) =
                (there_and_back(&gpu), there_and_back(&cpu));
            assert!(
                off(&decoded, &decoded_cpu) < 1e-4,
                "{name}: decoder off by {}",
                off(&decoded, &decoded_cpu)
            );
            assert!(
                off(&encoded, &encoded_cpu) < 1e-3,
                "{name}: encoder off by {}",
                off(&encoded, &encoded_cpu)
            );
            for sampler in Sampler::ALL {
                let draw = |model: &Pipeline| {
                    let mut request = Request::new(prompts(), 7, 5, 4.0);
                    request.sampler = Some(sampler);
                    host(
                        &model
                            .sample(&request, &mut |_| std::ops::ControlFlow::Continue(()))
                            .unwrap(),
                    )
                };
                let distance = off(&draw(&gpu), &draw(&cpu));
                // Random weights amplify rounding from step to step, more than trained ones.
                assert!(
                    distance < 5e-3,
                    "{name}, {sampler}: latents off by {distance}"
                );
            }
        }
    }
}

/// What an edit changed, as one row of numbers.
fn change(edit: &Edit, model: &Pipeline) -> Vec<f32> {
    let one = |((component, name), change): (&(String, String), &Change)| {
        let Change::Value(value) = change else {
            panic!("{name} is no plain value")
        };
        let old = host(&model.weights(component).unwrap().get(name).unwrap().flat());
        value
            .to_f32()
            .unwrap()
            .into_iter()
            .zip(old)
            .map(|(new, old)| new - old)
            .collect::<Vec<f32>>()
    };
    edit.changes.iter().flat_map(one).collect()
}

fn length(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn the_same_erasure() {
    for (name, more) in [
        ("odd", json!({"train_method": "esd-x"})),
        ("sd1", json!({"train_method": "esd-u"})),
        ("sd2", json!({"train_method": "esd-all"})),
        (
            "odd",
            json!({"train_method": "selfattn", "latents": "edited", "form": "paper"}),
        ),
    ] {
        let mut options = json!({"iterations": 6, "trajectories": 3, "sampling_steps": 4, "batch": 2, "lr": 1e-3, "eta": 1.0, "start_guidance": 3.0});
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let run = |model: &Pipeline| {
            let (edit, losses) = Run::new(
                model,
                vec![concept("a church", None, None)],
                options.clone(),
            )
            .losses()
            .unwrap();
            let edited = edit.apply_to(model, 1.0).unwrap();
            let moved = drift::unconditional(model, &edited).unwrap();
            (change(&edit, model), losses, moved, edit)
        };
        let cpu = pipeline(name);
        let (expected, expected_losses, expected_moved, expected_edit) = run(&cpu);
        for device in devices() {
            let gpu = families::load(&checkpoint(name), &device).unwrap();
            let (found, losses, moved, edit) = run(&gpu);
            for (step, (a, b)) in losses.iter().zip(&expected_losses).enumerate() {
                // Adam divides by the gradient's own size: where a gradient is all but zero,
                // rounding decides the direction.
                let tolerance = if step == 0 { 1e-4 } else { 1e-2 };
                assert!(
                    (a - b).abs() < tolerance * b.abs(),
                    "{name} {more}: loss {a} at step {step}, {b} on the CPU"
                );
            }
            let apart = length(found.iter().zip(&expected).map(|(a, b)| a - b))
                / length(expected.iter().copied());
            assert!(apart < 0.02, "{name} {more}: the change differs by {apart}");
            assert!(
                (moved - expected_moved).abs() < 0.01 * expected_moved,
                "{name} {more}: drift {moved}, {expected_moved} on the CPU"
            );
            let rank = |edit: &Edit| edit.low_rank(&checkpoint(name), 2, 1.0).unwrap().error;
            assert!(
                (rank(&edit) - rank(&expected_edit)).abs() < 0.01,
                "{name} {more}: low rank"
            );
        }
    }
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn noise_does_not_depend_on_the_device() {
    for device in devices() {
        let draw = |device: &Device| -> Tensor<4> { Noise::each(11, 2).draw([2, 4, 8, 8], device) };
        assert_eq!(host(&draw(&device)), host(&draw(&Device::flex())));
    }
}
