//! A judge: an image classifier that names what a picture shows.

use burn::tensor::{Device, Tensor};
use scumble_diffusion::Picture;
use scumble_nn::{Vit, config::VitConfig, files::Source};

use crate::{
    classes::{classes, log_share},
    error::{Error, Result},
    preprocessor::Preprocessor,
    second::Second,
    weights::loaded,
};

/// Pictures that go through the network at once.
const CHUNK: usize = 64;

/// What a judge says about one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The most probable label.
    pub label: String,
    /// Its probability, the softmax of the scores.
    pub probability: f32,
}

/// A `ViTForImageClassification` with its preprocessing, and where one lies beside it a ResNet that
/// has to agree.
#[derive(Debug)]
pub struct Judge {
    labels: Vec<String>,
    input: Preprocessor,
    network: Vit,
    second: Option<Second>,
    device: Device,
}

impl Judge {
    /// Reads `config.json`, `preprocessor_config.json` and `model.safetensors` of a folder; and of its
    /// folder `second`, where there is one, those of a `ResNetForImageClassification`.
    ///
    /// # Errors
    /// If a file is missing, a configuration is not supported, or the tensors are not exactly those it asks for.
    pub fn load(source: &Source, device: &Device) -> Result<Self> {
        let path = source.path("config.json");
        let config = VitConfig::read(&path, &source.need_json("config.json")?)?;
        if config.labels.is_empty() {
            return Err(Error::config(
                path,
                "id2label",
                "expected at least one label, found none",
            ));
        }
        let preprocessing = source.need_json("preprocessor_config.json")?;
        let input = Preprocessor::read(
            &source.path("preprocessor_config.json"),
            &preprocessing,
            config.image_size,
        )?;
        let file = source.tensors("model.safetensors")?;
        let file =
            file.ok_or_else(|| Error::file(source.path("model.safetensors"), "is missing"))?;
        let component = file.path.display().to_string();
        let weights = loaded(&component, &file.tensors, &Vit::manifest(&config), device)?;
        Ok(Self {
            network: Vit::new(&config, &weights),
            second: Second::load(source, &config.labels, config.image_size, device)?,
            labels: config.labels,
            input,
            device: device.clone(),
        })
    }

    /// The labels it knows, by class.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The class scores before the softmax, one row for each picture, one number for each label; of
    /// two networks the logarithms of what both say.
    ///
    /// Pictures may differ in size; how many are asked about at once makes no difference.
    pub fn logits(&self, pictures: &[Picture]) -> Vec<Vec<f32>> {
        let mut rows = Vec::with_capacity(pictures.len());
        for chunk in pictures.chunks(CHUNK) {
            let mut scores = self.network.logits(self.input.batch(chunk, &self.device));
            if let Some(second) = &self.second {
                scores = second.agreed(scores, second.prepared(chunk, &self.device));
            }
            let values: Vec<f32> = scores.into_data().iter::<f32>().collect();
            rows.extend(values.chunks_exact(self.labels.len()).map(<[f32]>::to_vec));
        }
        rows
    }

    /// The class token that each picture's scores are made of, `[n, width]`, for pictures of one
    /// chunk.
    pub(crate) fn features(&self, pictures: &[Picture]) -> Tensor<2> {
        self.network
            .features(self.input.batch(pictures, &self.device))
    }

    /// The keys of its last layer, `[n, 1 + patches, width]`, for pictures of one chunk.
    pub(crate) fn keys(&self, pictures: &[Picture]) -> Tensor<3> {
        self.network
            .last_keys(self.input.batch(pictures, &self.device))
    }

    /// The class scores before the softmax, `[n, labels]`, of pictures `[n, 3, h, w]` in [-1, 1],
    /// with gradients to them.
    pub(crate) fn scores(&self, pictures: Tensor<4>) -> Tensor<2> {
        let scores = self.network.logits(self.input.of_tensor(pictures.clone()));
        match &self.second {
            None => scores,
            Some(second) => second.agreed(scores, second.of_tensor(pictures)),
        }
    }

    /// The logarithm of the probability that a picture shows one of some labels, with gradients to
    /// the pictures, `[n]`.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]` in [-1, 1]
    ///
    /// # Errors
    /// If a label is none of its own.
    pub fn log_probability(&self, pictures: Tensor<4>, labels: &[String]) -> Result<Tensor<1>> {
        let classes = classes(&self.labels, labels).ok_or_else(|| {
            Error::input(format!(
                "the judge does not know all of {}",
                labels.join(", ")
            ))
        })?;
        Ok(log_share(self.scores(pictures), classes))
    }

    /// The most probable label of each picture.
    pub fn classify(&self, pictures: &[Picture]) -> Vec<Verdict> {
        self.logits(pictures)
            .iter()
            .map(|scores| self.verdict(scores))
            .collect()
    }

    fn verdict(&self, scores: &[f32]) -> Verdict {
        let best = (0..scores.len())
            .max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
            .unwrap_or_default();
        Verdict {
            label: self.labels[best].clone(),
            probability: softmax(scores)[best] as f32,
        }
    }
}

/// Probabilities of a row of scores; the largest goes out first, so that nothing overflows. In f64,
/// since some callers add them up.
pub(crate) fn softmax(scores: &[f32]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> = scores.iter().map(|s| f64::from(s - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_adds_up_and_survives_large_scores() {
        let shares = softmax(&[1000.0, 999.0, -1000.0]);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        assert!((shares[0] - 0.731_058_6).abs() < 1e-6 && shares[2] == 0.0);
    }
}
