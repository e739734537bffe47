//! ESD's target and loss: what the frozen model predicts when guided away from a concept (negative
//! guidance), in what the network predicts. The formulas are on [`esd`](crate::methods::esd).

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Conditioning, Pipeline};
use serde::{Deserialize, Serialize};

use crate::{concepts::prompt::ConceptPrompt, data::bank::Examples, error::Result};

/// The form of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Equation 7.
    Paper,
    /// The code of 2025.
    Present,
}

/// How the target is made: how far past the neutral prediction, and in which form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Away {
    pub(crate) eta: f64,
    pub(crate) anchor_eta: f64,
    pub(crate) form: Form,
}

/// The target of every example, in what the network predicts: a combination of the frozen
/// predictions for the trained prompt, the empty one and the companion, with weights that add up to
/// 1.
pub(crate) fn target(
    examples: &Examples,
    rows: &[usize],
    prompts: &[ConceptPrompt],
    away: Away,
) -> Tensor<4> {
    let weights: Vec<[f64; 3]> = rows
        .iter()
        .map(|&row| weights(&prompts[row], away))
        .collect();
    let device = examples.x.device();
    let weighted = |part: &Tensor<4>, k: usize| {
        let column: Vec<f32> = weights.iter().map(|w| w[k] as f32).collect();
        part.clone()
            * Tensor::<4>::from_data(TensorData::new(column, [rows.len(), 1, 1, 1]), &device)
    };
    let target = weighted(&examples.raw_prompt, 0) + weighted(&examples.raw_empty, 1);
    match examples.raw_also.first() {
        Some(also) => target + weighted(also, 2),
        None => target,
    }
}

/// The weights of the predictions for the trained prompt, the empty prompt and the companion.
fn weights(prompt: &ConceptPrompt, away: Away) -> [f64; 3] {
    let (eta, anchored) = (away.eta, away.anchor_eta);
    match (&prompt.from, &prompt.anchor, away.form) {
        (Some(_), _, Form::Present) => [1.0, eta + 1.0, -(eta + 1.0)],
        (Some(_), _, Form::Paper) => [0.0, 1.0 + eta, -eta],
        (None, Some(_), _) => [-anchored, 0.0, 1.0 + anchored],
        (None, None, _) => [-eta, 1.0 + eta, 0.0],
    }
}

/// The mean squared distance to the target, in what the network predicts.
pub(crate) fn loss(
    edited: &Pipeline,
    examples: &Examples,
    contexts: &Conditioning,
    target: &Tensor<4>,
) -> Result<Tensor<1>> {
    let prediction = edited
        .predict(examples.x.clone(), &examples.t, &contexts.into(), None)?
        .raw();
    Ok((prediction - target.clone()).powi_scalar(2).mean())
}
