//! The matrices that closed-form methods change, and the Edit they make.

use burn::tensor::{Tensor, TensorData};
use faer::Mat;
use scumble_diffusion::Pipeline;
use scumble_families::{self as families, Family, Place, Projection, Role};
use serde_json::Value;
use std::collections::BTreeMap;

use super::regression::Solution;
use crate::{
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
};

/// A change smaller than this, relative to the matrix, is none: f32 does not hold it.
const NOTHING: f64 = 1e-7;

/// Both projections of the prompt.
pub(crate) const KEYS_AND_VALUES: &[Role] = &[
    Role::Context(Projection::Keys),
    Role::Context(Projection::Values),
];
/// The values alone.
pub(crate) const VALUES: &[Role] = &[Role::Context(Projection::Values)];

/// One matrix of the cross-attention.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Its diffusers name.
    pub(crate) name: String,
    /// `[out, width]`.
    pub(crate) matrix: Mat<f64>,
}

/// The matrices of the frozen denoiser that have one of these roles, in the order of their names.
pub(crate) fn layers(job: &Job<'_>, roles: &[Role]) -> Vec<Layer> {
    one_by_one(job.pipeline, roles).collect()
}

/// Whether a tensor of the denoiser is a matrix with one of these roles.
fn is_one(family: &Family, roles: &[Role], name: &str, shape: &[usize]) -> bool {
    let role = family.role(family.denoiser(), name);
    shape.len() == 2 && role.is_some_and(|role| roles.contains(&role))
}

/// The same, each when it is asked for: of SDXL all of them are 2.7 GB in f64.
fn one_by_one<'a>(pipeline: &'a Pipeline, roles: &'a [Role]) -> impl Iterator<Item = Layer> + 'a {
    let family = families::of(pipeline);
    let weights = pipeline.unet.weights.iter();
    let wanted = weights.filter(move |(name, weight)| is_one(family, roles, name, &weight.shape));
    wanted.map(|(name, weight)| {
        let (out, width) = (weight.shape[0], weight.shape[1]);
        let numbers: Vec<f32> = weight.flat().into_data().iter::<f32>().collect();
        Layer {
            name: name.clone(),
            matrix: Mat::from_fn(out, width, |i, j| f64::from(numbers[i * width + j])),
        }
    })
}

/// As [`finish`] for every matrix with one of these roles, one after the other: `edited` makes the
/// new one, and neither is kept.
///
/// # Errors
/// As [`finish`], and where `edited` fails.
pub(crate) fn finish_each(
    job: &mut Job<'_>,
    method: &str,
    options: Value,
    roles: &[Role],
    edited: &mut dyn FnMut(&Layer) -> Result<Mat<f64>>,
) -> Result<Edit> {
    let pipeline = job.pipeline;
    let pairs = one_by_one(pipeline, roles).map(|layer| {
        let new = edited(&layer)?;
        Ok((layer, new))
    });
    finish_pairs(job, method, options, pairs)
}

/// Reports what moved how far, and makes the Edit.
///
/// # Errors
/// If nothing changed, or a number is not finite.
pub(crate) fn finish(
    job: &mut Job<'_>,
    method: &str,
    options: Value,
    old: &[Layer],
    new: Vec<Mat<f64>>,
) -> Result<Edit> {
    let pairs = old.iter().cloned().zip(new).map(Ok);
    finish_pairs(job, method, options, pairs)
}

fn finish_pairs(
    job: &mut Job<'_>,
    method: &str,
    options: Value,
    pairs: impl Iterator<Item = Result<(Layer, Mat<f64>)>>,
) -> Result<Edit> {
    let mut moved: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut values = BTreeMap::new();
    let mut most = 0.0f64;
    let family = families::of(job.pipeline);
    let denoiser = family.denoiser();
    for pair in pairs {
        let (layer, new) = pair?;
        let relative =
            (&new - &layer.matrix).norm_l2() / layer.matrix.norm_l2().max(f64::MIN_POSITIVE);
        if !relative.is_finite() {
            return Err(
                Error::input(format!("the edit of {} is not finite", layer.name))
                    .with_hint("give lambda or the preservation a larger value"),
            );
        }
        most = most.max(relative);
        let (module, kind) = match family.place(denoiser, &layer.name) {
            Some(Place {
                role: Role::Context(projection),
                module,
                ..
            }) => (module, projection.letter()),
            _ => (layer.name.as_str(), ""),
        };
        moved
            .entry(module.to_owned())
            .or_default()
            .push(format!("{kind} {:.2}%", 100.0 * relative));
        let width = new.ncols();
        let numbers: Vec<f32> = (0..new.nrows() * width)
            .map(|i| new[(i / width, i % width)] as f32)
            .collect();
        let count = numbers.len();
        let value: Tensor<1> =
            Tensor::from_data(TensorData::new(numbers, [count]), job.pipeline.device());
        values.insert(layer.name.clone(), value);
    }
    if most < NOTHING {
        return Err(Error::input("the edit changes nothing")
            .with_hint("the anchor may be what the model draws already"));
    }
    for (module, kinds) in moved {
        job.tell(Event::Detail(&format!(
            "relative change of {module}: {}",
            kinds.join(", ")
        )))?;
    }
    Ok(Edit::of_values(
        job.about(method, &options)?,
        denoiser,
        job.pipeline,
        values,
    ))
}

/// Every matrix times what a regression found.
pub(crate) fn multiplied(layers: &[Layer], solution: &Solution) -> Vec<Mat<f64>> {
    let layers = layers.iter();
    layers
        .map(|layer| solution.applied(&layer.matrix))
        .collect()
}
