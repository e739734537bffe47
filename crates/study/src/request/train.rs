//! A training.

use std::path::PathBuf;

use scumble_train::{Moves, Part};

use super::parts::{ModelRequest, ReadingRequest};

/// What is to be trained, on what, and where it goes.
#[derive(Clone, Debug)]
pub struct TrainRequest {
    /// A recipe file; the emoji world's own if `None`.
    pub recipe: Option<PathBuf>,
    /// A folder of pictures with captions, in place of the recipe's.
    pub data: Option<PathBuf>,
    /// The model's folder.
    pub folder: PathBuf,
    /// Concepts whose pictures and captions are left out.
    pub without: Vec<String>,
    /// The parts to train; all of them if empty.
    pub parts: Vec<Part>,
    /// Minutes after which it ends, shared among the parts; as many steps as the recipe says if
    /// `None`.
    pub minutes: Option<f64>,
    /// The most bytes that it may hold; whatever it needs if `None`.
    pub memory: Option<u64>,
    /// Of all random numbers.
    pub seed: u64,
    /// Whether what is there is replaced.
    pub overwrite: bool,
    /// The model whose denoiser is trained, and what of it; a whole model is made if `None`.
    pub model: Option<(PathBuf, Moves)>,
    /// How that model is read, and where everything is computed.
    pub reading: ReadingRequest,
}

impl TrainRequest {
    /// The model that is trained, as it is opened.
    pub(crate) fn tuned(&self) -> Option<(ModelRequest, Moves)> {
        let (path, moves) = self.model.as_ref()?;
        let model = ModelRequest {
            model: Some(path.clone()),
            reading: self.reading.clone(),
        };
        Some((model, *moves))
    }
}
