//! Bottlenecks after the cross-attentions that are trained: where they lie, how they begin, and how
//! they become an edit.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::Pipeline;
use scumble_families::{self as families, Projection, Role};
use scumble_nn::BOTTLENECK;

use crate::{
    edit::Change,
    error::{Error, Result},
    host::to_host,
    seeds::stream,
    training::gradients::Gradients,
    training::trainable::Trainable,
};

/// All numbers of the bottlenecks.
pub(crate) const BOTTLENECKS: Trainable = Trainable::of_adapters(
    "bottlenecks",
    "bottlenecks after the cross-attention",
    |place, _| place.role == Role::Bottleneck,
);

/// The model with a fresh bottleneck of `inner` channels after every cross-attention: the layer in
/// front as PyTorch begins a linear layer, the one behind zero, so that it is still the same model.
///
/// # Errors
/// If `inner` is 0 or the model has no cross-attention.
pub fn attached(pipeline: &Pipeline, inner: usize, seed: u64) -> Result<Pipeline> {
    let family = families::of(pipeline);
    let outputs: Vec<(String, usize)> = pipeline
        .denoiser
        .weights
        .iter()
        .filter(|(name, _)| name.ends_with(".weight"))
        .filter_map(|(name, weight)| {
            let place = family.place(family.denoiser(), name)?;
            (place.role == Role::Context(Projection::Output))
                .then(|| (place.module.to_owned(), weight.shape[0]))
        })
        .collect();
    if inner == 0 || outputs.is_empty() {
        return Err(Error::input(format!(
            "a bottleneck of {inner} channels for {} cross-attentions is none",
            outputs.len()
        )));
    }
    let mut adapted = pipeline.clone();
    let device = pipeline.device().clone();
    for (i, (attention, width)) in outputs.into_iter().enumerate() {
        let mut rng = stream(seed, "bottleneck").rng(i);
        let bound = 1.0 / (width as f32).sqrt();
        let mut uniform = |n: usize| -> Vec<f32> {
            rng.uniform(n)
                .into_iter()
                .map(|u| (2.0 * u - 1.0) * bound)
                .collect()
        };
        let parts = [
            ("down.weight", vec![inner, width], uniform(inner * width)),
            ("down.bias", vec![inner], uniform(inner)),
            ("up.weight", vec![width, inner], vec![0.0; width * inner]),
            ("up.bias", vec![width], vec![0.0; width]),
        ];
        for (end, shape, values) in parts {
            let count = values.len();
            let flat = Tensor::from_data(TensorData::new(values, [count]), &device);
            adapted
                .denoiser
                .weights
                .add(format!("{attention}.{BOTTLENECK}.{end}"), shape, flat);
        }
    }
    Ok(adapted)
}

/// Trained bottlenecks as changes of an edit; `adapted` is the model they were trained in.
pub fn changes(adapted: &Pipeline, values: Gradients) -> BTreeMap<(String, String), Change> {
    let denoiser = families::of(adapted).denoiser();
    let one = |(name, value): (String, Tensor<1>)| {
        let shape = adapted.denoiser.weights.get(&name)?.shape.clone();
        Some((
            (denoiser.to_owned(), name),
            Change::Added(to_host(value).reshaped(shape)?),
        ))
    };
    values.into_iter().filter_map(one).collect()
}
