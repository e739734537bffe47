//! What several requests have: the model, how pictures are drawn, where the result lies.

use std::path::PathBuf;

/// Which model, and where it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelRequest {
    /// A folder, a file or a name; the built-in miniature if `None`.
    pub model: Option<PathBuf>,
    /// How it is read.
    pub reading: ReadingRequest,
}

/// How a model is read, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadingRequest {
    /// A folder whose configurations and tokenizer describe a single file.
    pub config: Option<PathBuf>,
    /// What the U-Net predicts, where a single file cannot say it.
    pub prediction_type: Option<String>,
    /// Where a sampler's timesteps lie, where a single file cannot say it.
    pub timestep_spacing: Option<String>,
    /// Variant of a folder's weight files.
    pub variant_files: Option<String>,
    /// The device's name.
    pub device: String,
    /// Number of CPU threads; all cores if `None`.
    pub threads: Option<u16>,
}

impl Default for ReadingRequest {
    fn default() -> Self {
        Self {
            config: None,
            prediction_type: None,
            timestep_spacing: None,
            variant_files: None,
            device: "cpu".into(),
            threads: None,
        }
    }
}

impl From<&Self> for ModelRequest {
    fn from(request: &Self) -> Self {
        request.clone()
    }
}

/// How pictures are drawn that are then judged; what the model is used to where nothing is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrawingRequest {
    /// Denoising steps.
    pub steps: Option<usize>,
    /// Strength of classifier-free guidance.
    pub guidance_scale: Option<f64>,
    /// The sampler's name.
    pub sampler: Option<String>,
}

/// Who looks at pictures, beside or in the place of the miniature's judges, and what counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectorsRequest {
    /// Manifests, or networks that need none.
    pub paths: Vec<PathBuf>,
    /// The labels of them that count; what the manifests say if there is none.
    pub labels: Vec<String>,
    /// How probable a detector must find what counts; what the manifests say if `None`.
    pub threshold: Option<f32>,
}

/// Where runs lie that nobody has given a folder.
pub const RUNS: &str = "scumble-out";

/// Where a run's result lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRequest {
    /// The folder; one named after the plan, in `below`, if `None`.
    pub folder: Option<PathBuf>,
    /// Where folders that are named after their plan lie.
    pub below: PathBuf,
    /// Whether another plan's result there is replaced.
    pub overwrite: bool,
}

impl Default for OutputRequest {
    fn default() -> Self {
        Self {
            folder: None,
            below: RUNS.into(),
            overwrite: false,
        }
    }
}

impl OutputRequest {
    /// Into this folder.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(folder.into()),
            ..Self::default()
        }
    }

    /// Into a folder named after its plan, below this one.
    pub fn below(folder: impl Into<PathBuf>) -> Self {
        Self {
            below: folder.into(),
            ..Self::default()
        }
    }

    /// The folder of a run whose plan gives it this name.
    pub fn place(&self, name: &str) -> PathBuf {
        let own = || self.below.join(name);
        self.folder.clone().unwrap_or_else(own)
    }
}

/// The parts of a `;` list, without empty ones.
pub fn listed(text: &str) -> Vec<String> {
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(String::from)
        .collect()
}
