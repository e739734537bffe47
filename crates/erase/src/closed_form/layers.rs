//! The matrices that closed-form methods change, and the Edit they make.

use burn::tensor::{Tensor, TensorData};
use faer::Mat;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::{
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
};

/// A change smaller than this, relative to the matrix, is none: f32 does not hold it.
const NOTHING: f64 = 1e-7;

/// Both projections of the prompt.
pub(crate) const KEYS_AND_VALUES: &[&str] = &["attn2.to_k.weight", "attn2.to_v.weight"];
/// The values alone.
pub(crate) const VALUES: &[&str] = &["attn2.to_v.weight"];

/// One matrix of the cross-attention.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Its diffusers name.
    pub(crate) name: String,
    /// `[out, width]`.
    pub(crate) matrix: Mat<f64>,
}

/// The matrices of the frozen U-Net whose names end so, in the order of their names.
pub(crate) fn layers(job: &Job<'_>, endings: &[&str]) -> Vec<Layer> {
    let wanted = job
        .pipeline
        .unet
        .weights
        .iter()
        .filter(|(name, _)| endings.iter().any(|end| name.ends_with(end)));
    wanted
        .map(|(name, weight)| {
            let (out, width) = (weight.shape[0], weight.shape[1]);
            let numbers: Vec<f32> = weight.flat().into_data().iter::<f32>().collect();
            Layer {
                name: name.clone(),
                matrix: Mat::from_fn(out, width, |i, j| f64::from(numbers[i * width + j])),
            }
        })
        .collect()
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
    let mut moved: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut values = BTreeMap::new();
    let mut most = 0.0f64;
    for (layer, new) in old.iter().zip(new) {
        let relative =
            (&new - &layer.matrix).norm_l2() / layer.matrix.norm_l2().max(f64::MIN_POSITIVE);
        if !relative.is_finite() {
            return Err(
                Error::input(format!("the edit of {} is not finite", layer.name))
                    .with_hint("give lambda or the preservation a larger value"),
            );
        }
        most = most.max(relative);
        let (module, kind) = layer
            .name
            .split_once(".attn2.to_")
            .unwrap_or((&layer.name, ""));
        let kind = kind.trim_end_matches(".weight");
        moved
            .entry(module)
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
        job.about(method, options),
        "unet",
        job.pipeline,
        values,
    ))
}

/// Every matrix times one map from the right, `[width, width]`.
pub(crate) fn multiplied(layers: &[Layer], map: &Mat<f64>) -> Vec<Mat<f64>> {
    layers.iter().map(|layer| &layer.matrix * map).collect()
}
