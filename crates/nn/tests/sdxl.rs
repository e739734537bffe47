//! SDXL's networks against diffusers and transformers (`golden/sdxl.py`): transformers of several
//! depths, added conditioning, both text encoders.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Tensor};
use common::tensors::{Parts, assert_near, golden, host, numbers, read, small, values};
use scumble_nn::{
    Added, ClipText, ClipTextWithProjection, Context, Manifest, UNet, Watch, Weights,
    config::{ClipTextConfig, ClipTextWithProjectionConfig, UNetConfig},
    files::Tensors,
};
use serde_json::Value;

fn about() -> Value {
    let packed: &[u8] = include_bytes!("golden/sdxl.json.gz");
    serde_json::from_reader(flate2::read::GzDecoder::new(packed)).unwrap()
}

fn expected(file: &Tensors, key: &str) -> Vec<f32> {
    file[key].to_f32().unwrap()
}

/// The weights of golden/sdxl.py.
fn filled(manifest: &Manifest) -> Weights {
    let streams: BTreeMap<&str, i64> = manifest.keys().map(String::as_str).zip(0..).collect();
    Weights::generate(manifest, &Device::flex(), |name, shape| {
        let x = values(shape.iter().product(), streams[name]);
        let strong = [".to_q.", ".to_k.", ".q_proj.", ".k_proj."]
            .iter()
            .any(|part| name.contains(part));
        let root = (shape[1..].iter().product::<usize>() as f64).sqrt() as f32;
        let weight = |x: f32| match name {
            _ if name.contains("norm") && name.ends_with("weight") => 1.0 + 0.2 * x,
            _ if name.contains("norm") || name.ends_with("bias") => 0.1 * x,
            _ if name.contains("embeddings") => x,
            _ => x * if strong { 2.5 } else { 1.7 } / root,
        };
        x.into_iter().map(weight).collect()
    })
}

/// Sees that a network asks for the tensors that the reference has.
fn same_names(what: &str, manifest: &Manifest, names: &Value) {
    let wanted: Manifest = serde_json::from_value::<Vec<(String, Vec<usize>)>>(names.clone())
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(manifest, &wanted, "{what}");
}

/// One of the U-Nets with its inputs.
struct Case {
    config: UNetConfig,
    weights: Weights,
    z: Tensor<4>,
    hidden: Tensor<3>,
    added: Option<Added>,
    labels: Vec<f32>,
}

impl Case {
    fn new(name: &str) -> Self {
        let about = about();
        let case = &about["unets"][name];
        let config = UNetConfig::read(Path::new(name), &case["config"]).unwrap();
        let manifest = UNet::manifest(&config);
        same_names(name, &manifest, &case["names"]);
        let [h, w]: [usize; 2] = serde_json::from_value(case["size"].clone()).unwrap();
        let time_ids: Vec<Vec<f32>> = serde_json::from_value(case["time_ids"].clone()).unwrap();
        let added = config.text_time.map(|c| {
            let width = c.projection_class_embeddings_input_dim
                - time_ids[0].len() * c.addition_time_embed_dim;
            Added {
                pooled: numbers([2, width], 3),
                time_ids: Some(time_ids),
            }
        });
        Self {
            z: numbers([2, 4, h, w], 1),
            hidden: numbers([2, 7, config.cross_attention_dim], 2),
            added,
            labels: serde_json::from_value(about["labels"].clone()).unwrap(),
            weights: filled(&manifest),
            config,
        }
    }

    fn unet(&self) -> UNet {
        UNet::new(&self.config, &self.weights)
    }

    fn context(&self) -> Context {
        Context::from(&self.hidden).with_added(self.added.clone())
    }
}

#[test]
fn unets_of_several_depths_compute_what_diffusers_computes() {
    let (about, golden) = (about(), read(golden("sdxl.safetensors")));
    let unets = about["unets"].as_object().unwrap();
    assert_eq!(unets.len(), 10);
    let (mut added, mut deep) = (0, 0);
    for (name, reference) in unets {
        let case = Case::new(name);
        added += usize::from(case.added.is_some());
        deep += usize::from(
            case.config
                .up_transformer_layers
                .iter()
                .flatten()
                .any(|&layers| layers > 1),
        );
        let found = case
            .unet()
            .try_forward(case.z.clone(), &case.labels, &case.context(), None)
            .unwrap();
        // What f32 itself leaves open in these small networks, on both sides.
        let tolerance = 1e-5f64.max(4.0 * reference["floor"].as_f64().unwrap());
        assert!(tolerance <= 5e-5, "{name}: {tolerance}");
        assert_near(
            name,
            &host(&found),
            &expected(&golden, &format!("{name}.out")),
            tolerance,
        );
        // The keys and values of all blocks are made once for a context.
        let (unet, context) = (case.unet(), case.context());
        for _ in 0..2 {
            let again = unet.forward(case.z.clone(), &case.labels, &context);
            assert_eq!(host(&again), host(&found), "{name}");
        }
    }
    assert!(
        added >= 5 && deep >= 5,
        "{added} with added conditioning, {deep} with several blocks"
    );
}

#[test]
fn gradients_are_those_of_pytorch() {
    let golden = read(golden("sdxl.safetensors"));
    let name = "like-sdxl";
    let mut case = Case::new(name);
    let names: Vec<String> = case.weights.iter().map(|(name, _)| name.clone()).collect();
    let mut leaves = BTreeMap::new();
    for tensor in names {
        let leaf = case
            .weights
            .get(&tensor)
            .unwrap()
            .flat()
            .autodiff()
            .require_grad();
        case.weights.replace(&tensor, leaf.clone()).unwrap();
        leaves.insert(tensor, leaf);
    }
    case.z = case.z.clone().autodiff().require_grad();
    case.hidden = case.hidden.clone().autodiff().require_grad();
    let added = case.added.as_mut().unwrap();
    added.pooled = added.pooled.clone().autodiff().require_grad();
    let pooled = added.pooled.clone();

    let out = case
        .unet()
        .forward(case.z.clone(), &case.labels, &case.context());
    let loss = (out.clone() - numbers(out.dims(), 4)).powi_scalar(2).mean();
    assert_near(
        "loss",
        &host(&loss),
        &expected(&golden, "like-sdxl.loss"),
        1e-5,
    );
    let gradients = loss.backward();
    assert_near(
        "z",
        &host(&case.z.grad(&gradients).unwrap()),
        &expected(&golden, "like-sdxl.z"),
        1e-4,
    );
    assert_near(
        "c",
        &host(&case.hidden.grad(&gradients).unwrap()),
        &expected(&golden, "like-sdxl.c"),
        1e-4,
    );
    assert_near(
        "pooled",
        &host(&pooled.grad(&gradients).unwrap()),
        &expected(&golden, "like-sdxl.pooled"),
        1e-4,
    );
    let mut compared = 0;
    for (key, tensor) in &golden {
        if let Some(weight) = key.strip_prefix("like-sdxl.unet.") {
            let found = leaves[weight]
                .grad(&gradients)
                .unwrap_or_else(|| panic!("{weight} has no gradient"));
            assert_near(weight, &host(&found), &tensor.to_f32().unwrap(), 1e-4);
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared}");
    // A gradient through the pooled embedding alone counts as one, and reaches it.
    let mut case = Case::new(name);
    let added = case.added.as_mut().unwrap();
    added.pooled = added.pooled.clone().autodiff().require_grad();
    let pooled = added.pooled.clone();
    let out = case
        .unet()
        .forward(case.z.clone(), &case.labels, &case.context());
    assert_eq!(case.weights.evaluations().so_far(), 2 * 3);
    let loss = (out.clone() - numbers(out.dims(), 4)).powi_scalar(2).mean();
    assert_near(
        "pooled",
        &host(&pooled.grad(&loss.backward()).unwrap()),
        &expected(&golden, "like-sdxl.pooled"),
        1e-4,
    );
}

#[test]
fn every_block_has_its_map() {
    for name in ["like-sdxl", "asymmetric"] {
        let case = Case::new(name);
        let c = &case.config;
        let blocks = c
            .down_transformer_layers
            .iter()
            .chain(&c.up_transformer_layers)
            .flatten()
            .sum::<usize>()
            + c.mid_transformer_layers;
        let mut watch = Watch::maps();
        let found =
            case.unet()
                .forward_watched(case.z.clone(), &case.labels, &case.context(), &mut watch);
        assert_eq!(watch.maps.len(), blocks, "{name}");
        let plain = case
            .unet()
            .forward(case.z.clone(), &case.labels, &case.context());
        assert_near(name, &host(&found), &host(&plain), 1e-5);
    }
}

#[test]
fn added_conditioning_that_does_not_fit_is_an_error() {
    let case = Case::new("like-sdxl");
    let (unet, added) = (case.unet(), case.added.clone().unwrap());
    let message = |added: Option<Added>| {
        let context = Context::from(&case.hidden).with_added(added);
        unet.try_forward(case.z.clone(), &case.labels, &context, None)
            .unwrap_err()
            .to_string()
    };
    assert!(
        message(None).contains("needs added conditioning"),
        "{}",
        message(None)
    );
    let with = |pooled: [usize; 2], time_ids: Vec<Vec<f32>>| {
        message(Some(Added {
            pooled: numbers(pooled, 3),
            time_ids: Some(time_ids),
        }))
    };
    let ids = added.time_ids.clone().unwrap();
    for (pooled, time_ids, expected) in [
        (
            [1, 11],
            ids.clone(),
            "1 pooled embeddings and 2 rows of time ids, expected 2 of each",
        ),
        (
            [2, 11],
            ids[..1].to_vec(),
            "2 pooled embeddings and 1 rows of time ids",
        ),
        (
            [2, 10],
            ids.clone(),
            "width 10 and 6 time ids of width 6, expected 47 in all",
        ),
        ([2, 99], ids.clone(), "width 99 and 6 time ids"),
        ([2, 11], vec![vec![1.0; 5]; 2], "width 11 and 5 time ids"),
        ([2, 11], vec![vec![1.0; 6], vec![1.0; 5]], "width 11"),
    ] {
        let found = with(pooled, time_ids);
        assert!(found.contains(expected), "{found}, not {expected}");
    }
    // What failed is not counted as a network evaluation.
    assert_eq!(case.weights.evaluations().so_far(), 0);

    let plain = Parts::of(&small("odd"));
    let hidden: Tensor<3> = numbers([2, 7, plain.unet.0.cross_attention_dim], 2);
    let context = Context::from(hidden).with_added(Some(added));
    let error = plain
        .unet()
        .try_forward(numbers([2, 4, 6, 5], 1), &case.labels, &context, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no place for added conditioning"), "{error}");
}

#[test]
fn text_encoders_compute_what_transformers_computes() {
    let (about, golden) = (about(), read(golden("sdxl.safetensors")));
    let ids: Vec<Vec<u32>> = serde_json::from_value(about["ids"].clone()).unwrap();
    let near =
        |what: &str, found: Vec<f32>| assert_near(what, &found, &expected(&golden, what), 1e-5);

    let config =
        ClipTextConfig::read(Path::new("first"), &about["texts"]["first"]["config"]).unwrap();
    let manifest = ClipText::manifest(&config);
    same_names("first", &manifest, &about["texts"]["first"]["names"]);
    let first = ClipText::new(&config, &filled(&manifest));
    near(
        "first.penultimate",
        host(&first.penultimate(first.embed(&ids))),
    );
    near("first.hidden", host(&first.forward(&ids)));
    // The added word has the highest id, and old configurations (`eos_token_id` 2) go by that.
    assert_eq!(first.ends(&ids), [5, 2]);
    near("first.pooled", host(&first.pooled(&ids)));

    for (name, ends) in [("second", [5, 2]), ("second-by-id", [5, 4])] {
        let config =
            ClipTextWithProjectionConfig::read(Path::new(name), &about["texts"][name]["config"])
                .unwrap();
        let manifest = ClipTextWithProjection::manifest(&config);
        same_names(name, &manifest, &about["texts"][name]["names"]);
        let second = ClipTextWithProjection::new(&config, &filled(&manifest));
        assert_eq!(second.text().ends(&ids), ends, "{name}");
        let (penultimate, embeds) =
            second.penultimate_and_text_embeds(second.text().embed(&ids), &ends);
        near(&format!("{name}.penultimate"), host(&penultimate));
        near(&format!("{name}.text_embeds"), host(&embeds));
        assert_near(name, &host(&second.text_embeds(&ids)), &host(&embeds), 1e-6);
    }
}
