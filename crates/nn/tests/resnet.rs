//! ResNet against transformers, as a judge and in training: golden/resnet.py.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use common::tensors::{assert_near, golden, host, numbers};
use scumble_nn::{
    Moments, ResNet, ResNetShape, Weights,
    config::ResNetConfig,
    files::{TensorFile, Tensors},
};

const KINDS: [&str; 2] = ["basic", "bottleneck"];

struct Net {
    shape: ResNetShape,
    weights: Weights,
    golden: Tensors,
}

impl Net {
    fn of(kind: &str) -> Self {
        let file = TensorFile::open(golden("resnet.safetensors")).unwrap();
        let config = serde_json::from_str(&file.metadata[kind]).unwrap();
        let config = ResNetConfig::read(Path::new("config.json"), &config).unwrap();
        let shape = ResNetShape::from(&config);
        let of_kind = |prefix: &str| -> Tensors {
            let named = file.tensors.iter();
            named
                .filter_map(|(name, tensor)| {
                    Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
                })
                .collect()
        };
        let golden = of_kind(&format!("{kind}."));
        let mut own = golden.clone();
        own.retain(|name, _| !name.starts_with("eval.") && !name.starts_with("train."));
        let manifest = ResNet::manifest(&shape);
        let weights = Weights::load(kind, &own, &manifest, &Device::flex()).unwrap();
        Self {
            shape,
            weights,
            golden,
        }
    }

    fn near<const D: usize>(&self, found: &Tensor<D>, name: &str) {
        self.within(1e-5, found, name);
    }

    fn within<const D: usize>(&self, tolerance: f64, found: &Tensor<D>, name: &str) {
        let expected = self.golden[name].to_f32().unwrap();
        assert_near(name, &host(found), &expected, tolerance);
    }
}

fn pictures() -> Tensor<4> {
    numbers([3, 3, 40, 32], 5)
}

fn loss(logits: Tensor<2>) -> Tensor<1> {
    let answers = TensorData::new(vec![2i64, 0, 1], [3, 1]);
    let answers = Tensor::<2, Int>::from_data(answers, &Device::flex());
    -log_softmax(logits, 1).gather(1, answers).mean()
}

#[test]
fn scores_and_their_gradients_are_those_of_transformers() {
    for kind in KINDS {
        let net = Net::of(kind);
        let x = pictures().autodiff().require_grad();
        let logits = ResNet::new(&net.shape, &net.weights).logits(x.clone());
        net.near(&logits, "eval.logits");
        let gradients = loss(logits).backward();
        net.near(&x.grad(&gradients).unwrap(), "eval.x");
    }
}

#[test]
fn in_training_batch_norms_go_by_the_batch() {
    for kind in KINDS {
        let mut net = Net::of(kind);
        let names: Vec<String> = net.weights.iter().map(|(name, _)| name.clone()).collect();
        let moves = names.iter().filter(|name| !name.contains(".running_"));
        let leaves: BTreeMap<&String, Tensor<1>> = moves
            .map(|name| {
                let flat = net.weights.get(name).unwrap().flat();
                (name, flat.autodiff().require_grad())
            })
            .collect();
        for (name, leaf) in &leaves {
            net.weights.replace(name, leaf.clone()).unwrap();
        }
        let x = pictures().autodiff().require_grad();
        let logits = ResNet::training(&net.shape, &net.weights).logits(x.clone());
        net.near(&logits, "train.logits");
        let loss = loss(logits);
        net.near(&loss, "train.loss");
        let gradients = loss.backward();
        net.within(3e-5, &x.grad(&gradients).unwrap(), "train.x");
        for (name, leaf) in leaves {
            let found = leaf.grad(&gradients).unwrap();
            // Through many means over a batch, in f32.
            net.within(3e-5, &found, &format!("train.gradient.{name}"));
        }
    }
}

#[test]
fn what_is_stored_of_one_batch_is_what_pytorch_keeps_of_it() {
    for kind in KINDS {
        let mut net = Net::of(kind);
        let mut moments = Moments::default();
        ResNet::training(&net.shape, &net.weights).observed(pictures(), &mut moments);
        moments.store(&mut net.weights).unwrap();
        for (name, weight) in net.weights.iter() {
            if name.contains(".running_") {
                net.near(&weight.flat(), &format!("train.kept.{name}"));
            }
        }
    }
}

#[test]
fn statistics_of_two_batches_are_those_of_both_together() {
    let net = Net::of("basic");
    let (a, b) = (numbers([2, 3, 40, 32], 8), numbers([2, 3, 40, 32], 9) * 0.3);
    // The first layer alone sees the same numbers whatever shares the batch.
    let place = "resnet.embedder.embedder.normalization";
    let stored = |batches: &[Tensor<4>]| -> Vec<f32> {
        let mut weights = net.weights.clone();
        let network = ResNet::training(&net.shape, &weights);
        let mut moments = Moments::default();
        for batch in batches {
            network.observed(batch.clone(), &mut moments);
        }
        moments.store(&mut weights).unwrap();
        ["running_mean", "running_var"]
            .into_iter()
            .flat_map(|name| weights.get(&format!("{place}.{name}")).unwrap().numbers())
            .collect()
    };
    let together = stored(&[Tensor::cat(vec![a.clone(), b.clone()], 0)]);
    assert_near(place, &stored(&[a, b]), &together, 1e-5);
}
