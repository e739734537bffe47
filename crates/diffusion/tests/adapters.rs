//! Paths beside the denoiser's layers: what they add, when gates let them through, what a watch sees
//! and what a hook reaches.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{path::Path, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};
use scumble_diffusion::{Adapter, Gate, Pipeline, Timestep, TorchRng};
use scumble_families as families;
use scumble_nn::{
    Context, ContextHook, Watch,
    files::{Checkpoint, OpenOptions},
};

const N: usize = 3;

/// The small model `NAME` of crates/nn/tests/golden/networks.
fn pipeline(name: &str) -> Pipeline {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../nn/tests/golden/networks")
        .join(name)
        .join("model");
    families::load(
        &Checkpoint::open(path, &OpenOptions::default()).unwrap(),
        &Device::flex(),
    )
    .unwrap()
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data().iter::<f32>().collect()
}

/// The largest difference, relative to the largest number.
fn apart<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> f32 {
    let largest = |x: &[f32]| x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let (a, b) = (host(a), host(b));
    let difference: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    largest(&difference) / largest(&b)
}

/// Every matrix of the transformers: 1x1 convolutions too, where the model has them.
fn modules(model: &Pipeline) -> Vec<String> {
    let fits = |name: &str, shape: &[usize]| {
        name.contains("attentions.") && shape.len() >= 2 && shape[2..].iter().all(|&k| k == 1)
    };
    let all = model
        .denoiser
        .weights
        .iter()
        .filter(|(name, w)| fits(name, &w.shape));
    all.map(|(name, _)| name.strip_suffix(".weight").unwrap().to_owned())
        .collect()
}

fn random(shape: [usize; 2], seed: u64, size: f32) -> Tensor<2> {
    let values: Vec<f32> = TorchRng::new(seed)
        .normal((shape[0] * shape[1]).max(16))
        .iter()
        .map(|v| v * size)
        .collect();
    Tensor::from_data(
        TensorData::new(values[..shape[0] * shape[1]].to_vec(), shape),
        &Device::flex(),
    )
}

/// Adapters of this rank beside every second matrix, from `first` on.
fn adapters(model: &Pipeline, rank: usize, seed: u64, size: f32, first: usize) -> Vec<Adapter> {
    let one = |(i, module): (usize, String)| {
        let shape = model
            .denoiser
            .weights
            .get(&format!("{module}.weight"))
            .unwrap()
            .shape
            .clone();
        let seed = seed + 2 * i as u64;
        Adapter {
            module,
            down: random([rank, shape[1]], seed, 0.3),
            up: random([shape[0], rank], seed + 1, size),
        }
    };
    modules(model)
        .into_iter()
        .enumerate()
        .skip(first)
        .step_by(2)
        .map(one)
        .collect()
}

/// The model whose matrices have the adapters' products added, times `strength`.
fn merged(model: &Pipeline, all: &[Adapter], strength: f64) -> Pipeline {
    let mut merged = model.clone();
    for adapter in all {
        let name = format!("{}.weight", adapter.module);
        let old = merged.denoiser.weights.get(&name).unwrap().flat();
        let delta = adapter.up.clone().matmul(adapter.down.clone()) * strength;
        let n = old.dims()[0];
        merged
            .denoiser
            .weights
            .replace(&name, old + delta.reshape([n]))
            .unwrap();
    }
    merged
}

fn latents(model: &Pipeline) -> Tensor<4> {
    let shape = model.latent_shape(N, None, None).unwrap();
    let values = TorchRng::new(9).normal(shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), model.device())
}

fn prompts() -> Vec<String> {
    ["a church", "a dog on a table", ""]
        .map(String::from)
        .to_vec()
}

fn predicted(model: &Pipeline, context: &Context) -> Tensor<4> {
    watched(model, context, None)
}

fn watched(model: &Pipeline, context: &Context, watch: Option<&mut Watch>) -> Tensor<4> {
    let t = [10u16, 500, 900].map(Timestep::from);
    let prediction = model.predict(latents(model), &t, context, watch);
    prediction.unwrap().raw()
}

#[test]
fn an_adapter_that_adds_nothing_changes_nothing() {
    for name in ["odd", "sd1", "sd2"] {
        let model = pipeline(name);
        let before = predicted(&model, &model.context(&prompts()));
        let mut adapted = model.clone();
        adapted
            .attach(&adapters(&model, 2, 5, 0.0, 0), None)
            .unwrap();
        assert_eq!(adapted.adapter_rank(), 2);
        assert_eq!(
            host(&predicted(&adapted, &adapted.context(&prompts()))),
            host(&before),
            "{name}"
        );
    }
}

#[test]
fn an_ungated_adapter_is_the_merged_matrix() {
    for name in ["odd", "sd1", "sd2"] {
        let model = pipeline(name);
        let before = predicted(&model, &model.context(&prompts()));
        let all = adapters(&model, 3, 5, 0.2, 0);
        let mut adapted = model.clone();
        adapted.attach(&all, None).unwrap();
        let (beside, within) = (
            predicted(&adapted, &adapted.context(&prompts())),
            predicted(&merged(&model, &all, 1.0), &model.context(&prompts())),
        );
        assert!(
            apart(&beside, &within) < 1e-4,
            "{name}: {}",
            apart(&beside, &within)
        );
        assert!(
            apart(&beside, &before) > 0.01,
            "{name}: the adapters do something"
        );
    }
}

#[test]
fn a_gate_of_a_sample_is_its_strength() {
    let model = pipeline("odd");
    let all = adapters(&model, 2, 5, 0.2, 0);
    let mut adapted = model.clone();
    adapted.attach(&all, None).unwrap();
    let strengths = [0.0f32, 0.4, 2.0];
    let gates: Vec<f32> = strengths.iter().flat_map(|&s| [s, s]).collect();
    let gates = Tensor::<2>::from_data(TensorData::new(gates, [N, 2]), model.device());
    let hidden = model.encode(&prompts()).tokens;
    let together = predicted(&adapted, &Context::from(&hidden).gated(Some(gates)));
    for (i, strength) in strengths.into_iter().enumerate() {
        let alone = predicted(
            &merged(&model, &all, strength.into()),
            &Context::from(&hidden),
        );
        let apart = apart(&together.clone().narrow(0, i, 1), &alone.narrow(0, i, 1));
        assert!(apart < 1e-4, "sample {i}: {apart}");
    }
    // Closed, it is the plain model to the bit.
    let plain = predicted(&model, &Context::from(&hidden));
    assert_eq!(
        host(&together.narrow(0, 0, 1)),
        host(&plain.narrow(0, 0, 1))
    );
}

#[test]
fn two_adapters_add_their_products_without_cross_terms() {
    let model = pipeline("odd");
    // Beside other layers, and of another rank: what only one has counts as 0 in the other.
    let (a, b) = (
        adapters(&model, 2, 5, 0.2, 0),
        adapters(&model, 1, 77, 0.2, 1),
    );
    let c = adapters(&model, 1, 99, 0.2, 0);
    let mut adapted = model.clone();
    for all in [&a, &b, &c] {
        adapted.attach(all, None).unwrap();
    }
    assert_eq!(adapted.adapter_rank(), 4);
    let both = predicted(&adapted, &adapted.context(&prompts()));
    let sum = [&a, &b, &c]
        .into_iter()
        .fold(model.clone(), |model, all| merged(&model, all, 1.0));
    let apart = apart(&both, &predicted(&sum, &model.context(&prompts())));
    assert!(apart < 1e-4, "{apart}");
}

fn gate(prompt: &str) -> Gate {
    Gate {
        prompts: vec![prompt.into()],
        power: 1.0,
        factor: 1.0,
        floor: 0.0,
    }
}

/// Two gated adapters, then one that always acts: each acts as far as its own gate says.
#[test]
fn stacked_gates_are_each_their_own() {
    let model = pipeline("odd");
    let (a, b, c) = (
        adapters(&model, 1, 5, 0.2, 0),
        adapters(&model, 1, 77, 0.2, 0),
        adapters(&model, 1, 99, 0.2, 0),
    );
    let mut adapted = model.clone();
    adapted.attach(&a, Some(gate("church"))).unwrap();
    adapted.attach(&b, Some(gate("dog"))).unwrap();
    adapted.attach(&c, None).unwrap();
    let together = predicted(&adapted, &adapted.context(&prompts()));
    let (church, dog) = (
        model.closeness(&gate("church"), &prompts()),
        model.closeness(&gate("dog"), &prompts()),
    );
    assert_eq!(
        (church[0], dog[1]),
        (1.0, 1.0),
        "a prompt with all of a gate's words opens it"
    );
    assert!(church[1] < 1.0 && dog[0] < 1.0, "{church:?} {dog:?}");
    for i in 0..N {
        let alone = [(&a, church[i]), (&b, dog[i]), (&c, 1.0)];
        let alone = alone
            .into_iter()
            .fold(model.clone(), |model, (all, strength)| {
                merged(&model, all, strength)
            });
        let alone = predicted(&alone, &model.context(&prompts()));
        let apart = apart(&together.clone().narrow(0, i, 1), &alone.narrow(0, i, 1));
        assert!(apart < 1e-4, "sample {i}: {apart}");
    }
}

/// `(max(0, closeness - floor) / (1 - floor))^power * factor`, with closeness from hidden states or
/// from shared words.
#[test]
fn a_gate_is_its_formula() {
    let model = pipeline("odd");
    let texts: Vec<String> = ["a big church", "a dog", "church", ""]
        .map(String::from)
        .to_vec();
    let flat = |texts: &[String]| -> Vec<Vec<f64>> {
        let hidden = host(&model.encode(texts).tokens);
        hidden
            .chunks(hidden.len() / texts.len())
            .map(|row| row.iter().map(|&v| f64::from(v)).collect())
            .collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let concept = &flat(&["a church".to_owned()])[0];
    let shared = [1.0, 0.5, 0.5, 0.0];
    for (power, factor, floor) in [
        (1.0, 1.0, 0.0),
        (2.0, 1.0, 0.0),
        (1.0, 4.0, 0.3),
        (2.0, 0.5, 0.6),
    ] {
        let mut adapted = model.clone();
        let one = Gate {
            prompts: vec!["a church".into()],
            power,
            factor,
            floor,
        };
        adapted
            .attach(&adapters(&model, 1, 5, 0.1, 0), Some(one))
            .unwrap();
        let found = host(&adapted.gates(&texts, &model.encode(&texts).tokens).unwrap());
        for (i, row) in flat(&texts).iter().enumerate() {
            let cosine = dot(row, concept) / (dot(row, row) * dot(concept, concept)).sqrt();
            let above = ((cosine.max(shared[i]) - floor) / (1.0 - floor)).clamp(0.0, 1.0);
            let expected = above.powf(power) * factor;
            assert!(
                (f64::from(found[i]) - expected).abs() < 1e-4,
                "{} at {floor}: {} {expected}",
                texts[i],
                found[i]
            );
        }
    }
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let model = pipeline("odd");
    let good = adapters(&model, 1, 5, 0.2, 0).remove(0);
    let (inner, outer) = (good.down.dims()[1], good.up.dims()[0]);
    for broken in [
        Adapter {
            module: "no.such.layer".into(),
            ..good.clone()
        },
        Adapter {
            down: random([1, inner + 1], 1, 1.0),
            ..good.clone()
        },
        Adapter {
            up: random([outer + 1, 1], 1, 1.0),
            ..good.clone()
        },
        Adapter {
            up: random([outer, 2], 1, 1.0),
            ..good.clone()
        },
        Adapter {
            module: "conv_in".into(),
            ..good.clone()
        },
    ] {
        let mut adapted = model.clone();
        let error = adapted
            .attach(std::slice::from_ref(&broken), None)
            .unwrap_err();
        assert!(error.to_string().contains("does not fit"), "{error}");
        assert_eq!(adapted.adapter_rank(), 0, "nothing is attached");
    }
}

#[test]
fn watching_changes_nothing_and_maps_add_up_to_one() {
    for name in ["odd", "sd1"] {
        let model = pipeline(name);
        let context = model.context(&prompts());
        let plain = predicted(&model, &context);
        let mut watch = Watch::maps();
        let seen = watched(&model, &context, Some(&mut watch));
        let apart = apart(&seen, &plain);
        assert!(apart < 1e-5, "{name}: {apart}");
        let attentions = modules(&model)
            .iter()
            .filter(|module| module.ends_with("attn2.to_q"))
            .count();
        assert_eq!(
            (watch.maps.len(), watch.added.len()),
            (attentions, 0),
            "{name}"
        );
        for map in &watch.maps {
            let [n, _, _, tokens] = map.dims();
            assert_eq!((n, tokens), (N, context.hidden().dims()[1]));
            let sums = host(&map.clone().sum_dim(3));
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "{name}");
            assert!(host(map).iter().all(|share| *share >= 0.0));
        }
        // Without maps the fused kernel runs, so that it is the same to the bit.
        let mut idle = Watch::default();
        let same = watched(&model, &context, Some(&mut idle));
        assert_eq!(host(&same), host(&plain));
        assert!(idle.maps.is_empty());
    }
}

/// Keys and values of position 0 without gradient, or only one of the two.
#[derive(Debug)]
struct Detached {
    keys: bool,
    values: bool,
}

fn first_detached(x: Tensor<3>) -> Tensor<3> {
    let rest = x.dims()[1] - 1;
    let first = x.clone().narrow(1, 0, 1).detach();
    Tensor::cat(vec![first, x.narrow(1, 1, rest)], 1)
}

impl ContextHook for Detached {
    fn keys(&self, keys: Tensor<3>) -> Tensor<3> {
        if self.keys {
            first_detached(keys)
        } else {
            keys
        }
    }

    fn values(&self, values: Tensor<3>, _project: &dyn Fn(Tensor<2>) -> Tensor<2>) -> Tensor<3> {
        if self.values {
            first_detached(values)
        } else {
            values
        }
    }
}

/// The hidden states' gradient goes through keys and values alone, so position 0 has none exactly
/// if a hook detaches both in every layer.
#[test]
fn a_hook_reaches_the_keys_and_values_of_every_layer() {
    let model = pipeline("odd");
    let before = host(&predicted(&model, &model.context(&prompts())));
    for (keys, values) in [(false, false), (true, false), (false, true), (true, true)] {
        let detached = keys && values;
        let hidden = model.encode(&prompts()).tokens.autodiff().require_grad();
        let context = Context::from(&hidden).with_hook(Some(Arc::new(Detached { keys, values })));
        let out = predicted(&model, &context);
        assert_eq!(
            host(&out.clone().inner()),
            before,
            "detaching changes no number"
        );
        let gradients = out.powi_scalar(2).sum().backward();
        let gradient = hidden.grad(&gradients).unwrap();
        let tokens = gradient.dims()[1];
        let largest = |from: usize, n: usize| {
            host(&gradient.clone().narrow(1, from, n))
                .iter()
                .fold(0f32, |m, v| m.max(v.abs()))
        };
        assert_eq!(largest(0, 1) == 0.0, detached, "start: {}", largest(0, 1));
        assert!(largest(1, tokens - 1) > 0.0);
    }
}
