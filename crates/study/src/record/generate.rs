//! What `run.json` holds of drawn pictures.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What decides the pictures and does not name each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GeneratePlan {
    /// The form of this plan.
    pub format: u32,
    /// `generate`.
    pub command: String,
    /// Content hash of the model.
    pub model: String,
    /// Every edit.
    pub edits: Vec<EditStrength>,
    /// Every learned word.
    pub embeddings: Vec<ContentHash>,
    /// Pictures of each prompt.
    pub n: usize,
    /// What is steered away from.
    pub negative_prompt: String,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// Denoising steps.
    pub steps: usize,
    /// The sampler.
    pub sampler: String,
    /// DDIM's share of fresh noise.
    pub eta: f64,
    /// The size that SDXL is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_condition: Option<SizeOfPicture>,
    /// The guards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guards: Option<Vec<Value>>,
}

/// An edit by its content, and how strongly it is applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EditStrength {
    /// Content hash.
    pub hash: String,
    /// Strength.
    pub strength: f64,
}

/// Something by its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentHash {
    /// Content hash.
    pub hash: String,
}

/// The size a picture is said to have had, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeOfPicture {
    /// Height and width before it was cropped.
    pub original: [usize; 2],
    /// Top and left of the crop.
    pub crop: [usize; 2],
}

/// What came of drawing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateOutcome {
    /// Name of the checkpoint.
    pub model: String,
    /// Its content hash.
    pub model_hash: String,
    /// Where it ran.
    pub device: String,
    /// The profile of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// On how many threads.
    pub threads: usize,
    /// How long, interrupted parts included.
    pub seconds: f64,
    /// All that was noted.
    pub notes: Vec<String>,
    /// The prompt file.
    pub prompts: Option<PathBuf>,
    /// Every edit.
    pub edits: Vec<EditRecord>,
    /// Every embedding.
    pub embeddings: Vec<EmbeddingRecord>,
    /// Every picture.
    pub pictures: Vec<PictureRecord>,
}

/// An edit that pictures were drawn with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EditRecord {
    /// Its path, as it was given.
    pub edit: String,
    /// What it is, in words.
    pub kind: String,
    /// How strongly it was applied.
    pub strength: f64,
    /// Content hash of its changes.
    pub hash: String,
    /// The method that made it, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What it erases, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concepts: Option<Vec<String>>,
}

/// A learned word that pictures were drawn with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddingRecord {
    /// Its path, as it was given.
    pub embedding: String,
    /// The word.
    pub token: String,
    /// How many vectors stand for it.
    pub vectors: usize,
    /// Content hash.
    pub hash: String,
}

/// A picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PictureRecord {
    /// Its file, relative to the run's folder.
    pub file: String,
    /// Its prompt.
    pub prompt: String,
    /// The number of its row in a prompt file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_number: Option<u64>,
    /// Which of the prompt's pictures it is.
    pub k: usize,
    /// The seed of its noise.
    pub seed: u64,
    /// How many pictures share one block of noise, where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// Strength of classifier-free guidance.
    pub guidance_scale: f64,
    /// The words that the model does not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}
