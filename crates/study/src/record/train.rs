//! What `train/run.json` of a trained model holds.

use scumble_train::{Recipe, Trained};
use serde::{Deserialize, Serialize};

/// What decides the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainPlan {
    /// The form of this plan.
    pub format: u32,
    /// `train`.
    pub command: String,
    /// The recipe, with all that it leaves to its defaults.
    pub recipe: Option<Recipe>,
    /// Concepts whose pictures and captions were left out.
    pub without: Vec<String>,
    /// Of all random numbers.
    pub seed: u64,
    /// The model whose denoiser is trained, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuned: Option<TunedPlan>,
}

/// A model whose denoiser is trained further, or again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunedPlan {
    /// Its content hash.
    pub hash: String,
    /// What is trained of it: `all`, a choice of tensors, `lora` with its rank, or `again`.
    pub moves: String,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainOutcome {
    /// The parts that are done.
    pub parts: Vec<Trained>,
    /// The model whose denoiser is trained, if there was one, as it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuned: Option<String>,
    /// The last of every number that was measured on the way, by part and name.
    pub measured: Vec<Measurement>,
}

/// A number that was measured on held-out examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measurement {
    /// Of which part.
    pub part: String,
    /// After how many steps.
    pub step: usize,
    /// What it is.
    pub name: String,
    /// The number; of a share, a fraction.
    pub value: f64,
}
