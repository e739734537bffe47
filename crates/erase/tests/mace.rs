//! MACE on tiny models: its adapters, what they learn from, and what the closed forms around them
//! keep.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, ops::ControlFlow};

use burn::tensor::{Device, Tensor, TensorData};
use common::{Run, concept, host, pipeline, refuses_damage};
use scumble_diffusion::Pipeline;
use scumble_erase::{Change, Concept, Edit, Event, Variant};
use serde_json::{Value, json};

fn church() -> Vec<Concept> {
    vec![concept("a church", Some("a house"), None)]
}

/// Few and short, so that an adapter is trained in a second.
fn brief(more: Value) -> Value {
    let mut options =
        json!({"iterations": 3, "pictures": 2, "sampling_steps": 2, "templates": 3, "batch": 1});
    options
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    options
}

fn values(edit: &Edit) -> BTreeMap<String, Vec<f32>> {
    let one = |((part, name), change): (&(String, String), &Change)| match change {
        Change::Value(value) if part == "unet" => (name.clone(), value.to_f32().unwrap()),
        _ => panic!("{part} {name} is no plain value of the U-Net"),
    };
    edit.changes.iter().map(one).collect()
}

#[test]
fn the_adapter_takes_the_attention_from_the_words() {
    let model = pipeline("odd");
    // All timesteps alike at first: one picture, one sentence, so that the losses of steps can be
    // compared.
    let options = brief(
        json!({"iterations": 40, "lr": 1e-2, "pictures": 1, "templates": 1, "focal": false, "end": "none"}),
    );
    let (edit, losses) = Run::of("mace", &model, church(), options).losses().unwrap();
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    assert_eq!(losses.len(), 40);
    assert!(
        mean(&losses[30..]) < 0.8 * mean(&losses[..10]),
        "{losses:?}"
    );
    let names = values(&edit);
    assert!(
        names
            .keys()
            .all(|name| name.contains("attn2.to_k") || name.contains("attn2.to_v"))
    );
    let closed = values(
        &Run::of("mace", &model, church(), brief(json!({"iterations": 0})))
            .erase()
            .unwrap(),
    );
    assert_ne!(names, closed, "the adapters are in the edit");
}

/// Two concepts, interrupted in the second: the finished adapter is not trained again, and the bits
/// are those of one run.
#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let model = pipeline("odd");
    let concepts = || {
        vec![
            concept("a church", None, None),
            concept("a bird", None, None),
        ]
    };
    let run = |batch: usize| {
        Run::of(
            "mace",
            &model,
            concepts(),
            brief(json!({"batch": batch, "lr": 1e-3})),
        )
    };
    for batch in [1, 2] {
        let whole = values(&run(batch).erase().unwrap());
        let broken = run(batch);
        let (mut steps, mut trained) = (0, 0);
        let stop = broken.listened(&mut |event| {
            steps += usize::from(matches!(event, Event::Step { loss: Some(_), .. }));
            if steps == 4 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(stop.is_err() && steps == 4, "in the second concept");
        let rest = broken.listened(&mut |event| {
            trained += usize::from(matches!(event, Event::Step { loss: Some(_), .. }));
            ControlFlow::Continue(())
        });
        assert_eq!(values(&rest.unwrap()), whole, "batch {batch}");
        assert_eq!(trained, 2, "the steps that were left");
    }
    // The finished adapter and the interrupted one, whole or not at all.
    refuses_damage(&run(1), 4, &|_| true);
    let other = Run { seed: 8, ..run(1) };
    assert_ne!(
        values(&other.erase().unwrap()),
        values(&run(1).erase().unwrap())
    );
}

#[test]
fn pictures_and_masks_of_the_user_are_obeyed_or_refused() {
    let model = pipeline("odd");
    let [_, _, h, w] = model.latent_shape(1, None, None).unwrap();
    let factor = model.autoencoder.config.factor();
    let (h, w) = (h * factor, w * factor);
    let device = Device::flex();
    let picture = Tensor::<4>::ones([1, 3, h, w], &device) * 0.3;
    let mask = |left: bool| {
        let numbers: Vec<f32> = (0..h * w)
            .map(|i| f32::from(u8::from((i % w < w / 2) == left)))
            .collect();
        Tensor::from_data(TensorData::new(numbers, [1, 1, h, w]), &device)
    };
    let run = |masks: Option<Tensor<4>>, more: Value| Run {
        pictures: Some(picture.clone()),
        masks,
        ..Run::of("mace", &model, church(), brief(more))
    };
    let lr = json!({"lr": 1e-2});
    let (left, right) = (
        run(Some(mask(true)), lr.clone()).erase().unwrap(),
        run(Some(mask(false)), lr.clone()).erase().unwrap(),
    );
    let (whole, own) = (
        run(None, json!({"lr": 1e-2, "mask": "none"}))
            .erase()
            .unwrap(),
        run(None, lr).erase().unwrap(),
    );
    let all = [left, right, whole, own].map(|edit| values(&edit));
    assert!(
        all[0] != all[1] && all[0] != all[2] && all[1] != all[2],
        "where it is matters"
    );
    for (run, says) in [
        (
            run(Some(mask(true)), json!({"mask": "none"})),
            "--masks has no effect: mask is none",
        ),
        (
            run(Some(mask(true)), json!({"iterations": 0})),
            "--pictures has no effect: iterations is 0",
        ),
        (
            run(None, json!({"iterations": 0})),
            "--pictures has no effect",
        ),
        (
            Run {
                concepts: vec![
                    concept("a church", None, None),
                    concept("a bird", None, None),
                ],
                ..run(None, json!({}))
            },
            "the pictures show one concept, 2 were given",
        ),
    ] {
        let error = run.erase().unwrap_err();
        assert!(
            error.to_string().contains(says) && error.hint().is_some(),
            "{error}"
        );
    }
}

/// `|W' k - W k| / |W k|` over the rows of a prompt's positions, all edited matrices.
fn moved(model: &Pipeline, edited: &Pipeline, prompt: &str, at: std::ops::Range<usize>) -> f64 {
    let hidden = model
        .encode(&[prompt.to_owned()])
        .tokens
        .narrow(1, at.start, at.len());
    let (n, width) = (at.len(), hidden.dims()[2]);
    let rows = host(&hidden);
    let (mut change, mut size) = (0.0, 0.0);
    for (name, base) in model
        .denoiser
        .weights
        .iter()
        .filter(|(name, _)| name.contains("attn2.to_k") || name.contains("attn2.to_v"))
    {
        let (old, new) = (
            host(&base.flat()),
            host(&edited.denoiser.weights.get(name).unwrap().flat()),
        );
        for i in 0..n {
            let product = |weight: &[f32], out: usize| -> f64 {
                (0..width)
                    .map(|j| f64::from(weight[out * width + j]) * f64::from(rows[i * width + j]))
                    .sum()
            };
            for out in 0..old.len() / width {
                let (a, b) = (product(&old, out), product(&new, out));
                change += (a - b).powi(2);
                size += a.powi(2);
            }
        }
    }
    (change / size).sqrt()
}

/// With the published settings for an object nothing but `lambda` and the links holds the start
/// token: 0.082 without them.
#[test]
fn the_published_settings_keep_what_stands_before_the_concept() {
    let model = pipeline("sd2");
    let asks = vec![concept("church", Some("house"), None)];
    let run = Run {
        variant: Variant::Reference,
        ..Run::of("mace", &model, asks, json!({"iterations": 0}))
    };
    let edited = run.erase().unwrap().apply_to(&model, 1.0).unwrap();
    let end = model.tokenizer.encode("church").length - 1;
    let before = moved(&model, &edited, "church", 0..1);
    let after = moved(&model, &edited, "church", end..model.tokenizer.context());
    assert!(
        before < 0.03 && after > 3.0 * before,
        "the start token {before}, what stands behind the concept {after}"
    );
}

#[test]
fn the_tasks_are_the_published_configurations() {
    let model = pipeline("odd");
    let of = |task: &str, names: &[&str]| {
        let concepts = names
            .iter()
            .map(|name| concept(name, Some("a house"), None))
            .collect();
        let options = json!({"task": task, "iterations": 0, "lambda": 1.0});
        let run = Run {
            variant: Variant::Reference,
            ..Run::of("mace", &model, concepts, options)
        };
        run.erase()
            .unwrap_or_else(|error| panic!("{task}: {error}"))
            .about
            .options
    };
    // Four captions weigh as much as COCO's 616 767 together; one of the domain as much as
    // published.
    let share = 616_767.0 / 4.0;
    let near = |value: &Value, expected: f64| {
        (value.as_f64().unwrap() - expected).abs() <= 1e-9 * expected.abs()
    };
    let object = of("object", &["a church"]);
    assert_eq!(
        (
            object["rho"].as_f64(),
            object["lr"].as_f64(),
            &object["mask"]
        ),
        (Some(0.0), Some(1e-5), &json!("attention"))
    );
    for (names, kappa) in [(vec!["a church"], 8e3), (vec!["a church", "a bird"], 5e4)] {
        let found = of("celebrity", &names);
        assert!(
            near(&found["rho"], 1e-4 * share) && near(&found["rho_refine"], 1e-8 * share),
            "{found}"
        );
        assert!(
            near(&found["kappa"], kappa / share) && found["lr"] == 1e-4,
            "{found}"
        );
    }
    let art = of("art", &["a church"]);
    assert_eq!(
        (&art["mask"], &art["focal"]),
        (&json!("none"), &json!(true))
    );
    let explicit = of("explicit", &["a church"]);
    assert!(
        near(&explicit["rho"], 7e-7 * share)
            && explicit["kappa"] == 0.0
            && explicit["focal"] == false
    );
    // The paper's prior weighs the same in both closed forms.
    let paper = Run {
        variant: Variant::Paper,
        ..Run::of(
            "mace",
            &model,
            church(),
            json!({"task": "art", "iterations": 0}),
        )
    };
    let paper = paper.erase().unwrap().about.options;
    assert_eq!(paper["rho"], paper["rho_refine"]);
}
