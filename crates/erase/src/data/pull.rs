//! The loss that most trained methods share: predictions pulled to targets, all of a step in one
//! call of the network.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Conditioning, Pipeline, Timestep};
use scumble_nn::Context;

use crate::{data::noised::squared_error, error::Result};

/// Examples with what the network is to predict for them.
pub(crate) struct Pull {
    /// Noisy latents, `[n, channels, h, w]`.
    pub(crate) x: Tensor<4>,
    /// The timestep of each.
    pub(crate) t: Vec<Timestep>,
    /// The prompts, n of them.
    pub(crate) conditioning: Conditioning,
    /// What to predict, like `x`, in what the network predicts.
    pub(crate) target: Tensor<4>,
    /// The weight of each; those of a mean are `1 / n`.
    pub(crate) weights: Vec<f32>,
}

impl Pull {
    /// With equal weights that add up to `weight`.
    pub(crate) fn mean(
        x: Tensor<4>,
        t: Vec<Timestep>,
        conditioning: Conditioning,
        target: Tensor<4>,
        weight: f64,
    ) -> Self {
        let weights = vec![(weight / t.len().max(1) as f64) as f32; t.len()];
        Self {
            x,
            t,
            conditioning,
            target,
            weights,
        }
    }
}

/// The weighted sum of mean squared errors, in what the network predicts (epsilon or v).
///
/// # Errors
/// If a prompt does not fit the network.
pub(crate) fn loss(edited: &Pipeline, pulls: Vec<Pull>) -> Result<Tensor<1>> {
    let t: Vec<Timestep> = pulls.iter().flat_map(|pull| pull.t.clone()).collect();
    let weights: Vec<f32> = pulls.iter().flat_map(|pull| pull.weights.clone()).collect();
    let (mut x, mut conditioning, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for pull in pulls {
        x.push(pull.x);
        conditioning.push(pull.conditioning);
        targets.push(pull.target);
    }
    let context = Context::from(Conditioning::cat(conditioning));
    let prediction = edited.predict(Tensor::cat(x, 0), &t, &context, None)?;
    let errors = squared_error(prediction.raw(), Tensor::cat(targets, 0));
    let n = weights.len();
    let weights = Tensor::<1>::from_data(TensorData::new(weights, [n]), edited.device());
    Ok((errors * weights).sum())
}
