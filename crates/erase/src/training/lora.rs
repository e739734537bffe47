//! Low-rank adapters that are trained: where they lie, how they begin, and how they become an edit.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use faer::Mat;
use scumble_diffusion::{Adapter, Pipeline};
use scumble_families::{self as families, Family, Projection, Role};
use scumble_nn::files::{HostTensor, lora::LowRank};

use crate::{
    closed_form::Layer,
    edit::Change,
    error::{Error, Result},
    host::to_host,
    seeds::stream,
    training::gradients::Gradients,
    training::trainable::Trainable,
};

/// The factors of the denoiser's adapters.
pub const LORA: Trainable = Trainable::of_adapters("lora", "low-rank adapters", |place, _| {
    place.role == Role::LowRank
});

/// Which layers get an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Every linear layer and 1x1 convolution of the transformers: 192 in SD 1.x.
    Transformers,
    /// Keys and values of the cross-attention: 32 in SD 1.x.
    KeysValues,
    /// Queries, keys, values and outputs of the cross-attention: 64 in SD 1.x.
    CrossAttention,
    /// The same of the self-attention.
    SelfAttention,
    /// What the transformers have beside their cross-attention: 128 in SD 1.x.
    NoCrossAttention,
}

impl Layers {
    /// Their names in a model, in order.
    pub fn of(self, pipeline: &Pipeline) -> Vec<String> {
        let weights = pipeline.denoiser.weights.iter();
        let tensors = weights.map(|(name, weight)| (name.as_str(), weight.shape.as_slice()));
        self.among(families::of(pipeline), tensors)
    }

    /// Their names among the denoiser's tensors (name and shape) of a family, in their order.
    /// Adapters and bottlenecks that an edit has laid beside the layers are none of them.
    pub fn among<'a>(
        self,
        family: &Family,
        tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Vec<String> {
        let has = |role: Role| match self {
            Self::KeysValues => {
                matches!(role, Role::Context(Projection::Keys | Projection::Values))
            }
            Self::Transformers => role.is_of_transformer(),
            Self::CrossAttention => role.is_context(),
            Self::SelfAttention => role.is_self_attention(),
            Self::NoCrossAttention => role.is_of_transformer() && !role.is_context(),
        };
        let linear =
            |shape: &[usize]| shape.len() >= 2 && shape[2..].iter().all(|&kernel| kernel == 1);
        let denoiser = family.denoiser();
        tensors
            .filter(|(name, shape)| family.role(denoiser, name).is_some_and(has) && linear(shape))
            .filter_map(|(name, _)| Some(name.strip_suffix(".weight")?.to_owned()))
            .collect()
    }
}

/// The model with fresh adapters of rank `rank`: `down` uniform within `1 / sqrt(in)` (Kaiming with
/// a = sqrt 5, as PyTorch begins a linear layer), `up` zero, so that it is still the same model.
///
/// # Errors
/// If no layer is found or the rank is 0.
pub fn attached(pipeline: &Pipeline, layers: Layers, rank: usize, seed: u64) -> Result<Pipeline> {
    attached_from(pipeline, layers, rank, |i, input| {
        let bound = 1.0 / (input as f32).sqrt();
        let numbers = stream(seed, "lora/down").rng(i).uniform(rank * input);
        let within = |u: f32| (2.0 * u - 1.0) * bound;
        numbers.into_iter().map(within).collect()
    })
}

/// The same with `down` of layer `i`, `[rank, in]`, as `down(i, in)` gives it.
///
/// # Errors
/// As [`attached`].
pub(crate) fn attached_from(
    pipeline: &Pipeline,
    layers: Layers,
    rank: usize,
    down: impl Fn(usize, usize) -> Vec<f32>,
) -> Result<Pipeline> {
    let modules = layers.of(pipeline);
    if rank == 0 || modules.is_empty() {
        return Err(Error::input(format!(
            "an adapter of rank {rank} for {} layers is none",
            modules.len()
        )));
    }
    let device = pipeline.device();
    let one = |(i, module): (usize, String)| {
        let shape = pipeline
            .denoiser
            .weights
            .get(&format!("{module}.weight"))
            .map(|w| w.shape.clone())
            .unwrap_or_default();
        let (output, input) = (shape[0], shape[1]);
        Adapter {
            module,
            down: Tensor::from_data(TensorData::new(down(i, input), [rank, input]), device),
            up: Tensor::zeros([output, rank], device),
        }
    };
    let adapters: Vec<Adapter> = modules.into_iter().enumerate().map(one).collect();
    let mut adapted = pipeline.clone();
    adapted.attach(&adapters, None)?;
    Ok(adapted)
}

/// Trained factors as changes of an edit; `adapted` is the model they were trained in.
pub fn changes(adapted: &Pipeline, mut values: Gradients) -> BTreeMap<(String, String), Change> {
    let denoiser = families::of(adapted).denoiser();
    let modules: Vec<String> = values
        .keys()
        .filter_map(|name| Some(name.strip_suffix(".lora_down.weight")?.to_owned()))
        .collect();
    let mut read = |module: &str, end: &str| -> Option<HostTensor> {
        let name = format!("{module}.{end}");
        let shape = adapted.denoiser.weights.get(&name)?.shape.clone();
        to_host(values.remove(&name)?).reshaped(shape)
    };
    let one = |module: String| {
        let (down, up) = (
            read(&module, "lora_down.weight")?,
            read(&module, "lora_up.weight")?,
        );
        let weight = adapted.denoiser.weights.get(&format!("{module}.weight"))?;
        // Beside a 1x1 convolution the factors are 1x1 convolutions too, as in kohya's files.
        let ones = vec![1; weight.shape.len() - 2];
        let shaped = |factor: HostTensor| {
            let shape = [factor.shape(), &ones[..]].concat();
            factor.reshaped(shape)
        };
        let alpha = down.shape()[0] as f32;
        let low = LowRank {
            component: denoiser.into(),
            module: module.clone(),
            down: shaped(down)?,
            up: shaped(up)?,
            alpha,
        };
        Some((
            (denoiser.to_owned(), format!("{module}.weight")),
            Change::LowRank(low),
        ))
    };
    modules.into_iter().filter_map(one).collect()
}

/// The model with its adapters' products multiplied by `share`, differentiable as before: `alpha /
/// rank` of kohya's files.
///
/// # Errors
/// If a factor has no place.
pub(crate) fn scaled(adapted: &Pipeline, share: f64) -> Result<Pipeline> {
    let mut scaled = adapted.clone();
    if share == 1.0 {
        return Ok(scaled);
    }
    let ups: Vec<String> = adapted
        .denoiser
        .weights
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|n| n.ends_with(UP))
        .collect();
    for name in ups {
        if let Some(up) = adapted.denoiser.weights.get(&name) {
            scaled.denoiser.weights.replace(&name, up.flat() * share)?;
        }
    }
    Ok(scaled)
}

/// How the name of a factor's second matrix ends.
const UP: &str = ".lora_up.weight";

/// What adapters add to the matrices, in their order and shapes.
pub(crate) fn products(
    changes: &BTreeMap<(String, String), Change>,
    layers: &[Layer],
    scale: f64,
) -> Result<Vec<Mat<f64>>> {
    let one = |layer: &Layer| {
        let beside = changes.iter().find(|((_, name), _)| *name == layer.name);
        let delta = match beside {
            Some((_, Change::LowRank(low))) => low.delta(),
            _ => None,
        };
        let delta = delta
            .ok_or_else(|| Error::input(format!("there is no adapter beside {}", layer.name)))?;
        let (out, width) = (layer.matrix.nrows(), layer.matrix.ncols());
        Ok(Mat::from_fn(out, width, |i, j| {
            scale * f64::from(delta[i * width + j])
        }))
    };
    layers.iter().map(one).collect()
}
