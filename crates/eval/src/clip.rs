//! A CLIP with its preprocessing, for whoever compares pictures and words.

use burn::tensor::{Device, Tensor};
use scumble_diffusion::Picture;
use scumble_nn::{
    Clip,
    config::ClipConfig,
    files::{Source, read_network},
};

use crate::{error::Result, preprocessor::Preprocessor, weights::loaded};

/// A `CLIPModel` and how pictures are prepared for it.
#[derive(Debug)]
pub struct ClipModel {
    /// Both towers.
    pub network: Clip,
    /// How many tokens its text tower knows.
    pub vocabulary: usize,
    /// How many tokens its text tower takes at once.
    pub context: usize,
    input: Preprocessor,
    device: Device,
}

impl ClipModel {
    /// Reads `config.json`, `preprocessor_config.json` and `model.safetensors` of a folder.
    ///
    /// # Errors
    /// If a file is missing, a configuration is not supported, or the tensors are not exactly those it asks for.
    pub fn load(source: &Source, device: &Device) -> Result<Self> {
        let component = read_network(source, "", "model")?;
        let path = source.path("config.json");
        let config = ClipConfig::read(&path, &component.config)?;
        let preprocessing = source.need_json("preprocessor_config.json")?;
        let input = Preprocessor::read_clip(
            &source.path("preprocessor_config.json"),
            &preprocessing,
            config.vision.image_size,
        )?;
        let file = source.path("model.safetensors").display().to_string();
        let weights = loaded(&file, &component.tensors, &Clip::manifest(&config), device)?;
        let network = Clip::new(&config, &weights);
        let (vocabulary, context) = (config.text.vocab_size, config.text.max_position_embeddings);
        Ok(Self {
            network,
            vocabulary,
            context,
            input,
            device: device.clone(),
        })
    }

    /// The image tower's input for these pictures, `[n, 3, side, side]`.
    pub fn prepared(&self, pictures: &[Picture]) -> Tensor<4> {
        self.input.batch(pictures, &self.device)
    }

    /// The image tower's vectors `[n, projection]` of pictures `[n, 3, h, w]` in [-1, 1], with
    /// gradients to them.
    pub(crate) fn vectors(&self, pictures: Tensor<4>) -> Tensor<2> {
        self.network.image_features(self.input.of_tensor(pictures))
    }
}
