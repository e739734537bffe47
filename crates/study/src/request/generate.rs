//! Pictures from prompts.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::parts::{ModelRequest, OutputRequest};

/// What is to be drawn, by what, and how.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The model.
    pub model: ModelRequest,
    /// Edits of it, each a path with an optional `:STRENGTH`.
    pub edits: Vec<String>,
    /// LoRAs over it, likewise.
    pub loras: Vec<String>,
    /// Guards, each `ID` or `ID=TEXT`.
    pub guards: Vec<String>,
    /// Numbers of the guards that are not their defaults.
    pub guard_options: Map<String, Value>,
    /// Files of textual-inversion embeddings.
    pub embeddings: Vec<PathBuf>,
    /// What to draw, where there is no file.
    pub prompts: Vec<String>,
    /// A file of prompts.
    pub file: Option<PathBuf>,
    /// What to steer away from.
    pub negative_prompt: String,
    /// Pictures of each prompt.
    pub n: usize,
    /// Seed of the first picture; picture i of a prompt uses seed + i.
    pub seed: u64,
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance; the model's own if `None`.
    pub guidance_scale: Option<f64>,
    /// The sampler's name; the checkpoint's own if `None`.
    pub sampler: Option<String>,
    /// DDIM's share of fresh noise, 0 to 1.
    pub eta: f64,
    /// Height in pixels; the model's own if `None`.
    pub height: Option<usize>,
    /// Width in pixels; the model's own if `None`.
    pub width: Option<usize>,
    /// What SDXL is told of the picture's size.
    pub size_condition: Option<SizeCondition>,
    /// Pictures drawn at once; chosen by their size if `None`.
    pub batch: Option<usize>,
    /// Where the pictures lie.
    pub output: OutputRequest,
}

/// The size a picture is said to have had before it was cropped, and where the crop began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeCondition {
    /// Height and width in pixels.
    pub original: [usize; 2],
    /// Top and left in pixels.
    pub crop: [usize; 2],
}
