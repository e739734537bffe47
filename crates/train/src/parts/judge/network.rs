//! The two builds of a judge: a ViT (Dosovitskiy et al. 2021, arXiv 2010.11929), and a ResNet (He et
//! al. 2016, arXiv 1512.03385), which errs elsewhere.

use burn::tensor::Tensor;
use scumble_erase::Result;
use scumble_nn::{
    Manifest, Moments, ResNet, ResNetShape, Vit, Weights,
    config::{ResNetConfig, VitConfig},
};
use serde_json::Value;

use crate::{examples::Question, init::Init, job::Job};

/// A build with its sizes.
pub(super) enum Network {
    Vit(VitConfig),
    ResNet(ResNetShape),
}

impl Network {
    /// The judge of a question, at its place in the model's folder, and its configuration.
    pub(super) fn vit(
        job: &Job<'_>,
        question: &Question,
        place: &str,
        refuses: bool,
    ) -> Result<(Self, Value)> {
        let config = job.recipe.judge_config(question, refuses);
        let path = job.layout().at(&format!("{place}/config.json"));
        let read = VitConfig::read(&path, &config)?;
        Ok((Self::Vit(read), config))
    }

    /// The second network of a judge that may say none of these; `None` where the recipe has none.
    pub(super) fn resnet(
        job: &Job<'_>,
        question: &Question,
        place: &str,
    ) -> Result<Option<(Self, Value)>> {
        let Some(config) = job.recipe.second_judge_config(question) else {
            return Ok(None);
        };
        let path = job.layout().at(&format!("{place}/config.json"));
        let shape = ResNetShape::from(&ResNetConfig::read(&path, &config)?);
        Ok(Some((Self::ResNet(shape), config)))
    }

    pub(super) fn manifest(&self) -> Manifest {
        match self {
            Self::Vit(config) => Vit::manifest(config),
            Self::ResNet(shape) => ResNet::manifest(shape),
        }
    }

    pub(super) fn init(&self) -> Init {
        match self {
            Self::Vit(config) => Init::Transformer {
                layers: config.num_hidden_layers,
            },
            Self::ResNet(_) => Init::Rectified,
        }
    }

    /// Whether training moves a tensor: all but the statistics of batch norms.
    pub(super) fn moves(name: &str) -> bool {
        !name.contains(".running_")
    }

    /// Scores in training, `[n, classes]`.
    pub(super) fn trained(&self, weights: &Weights, pictures: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Vit(config) => Vit::new(config, weights).logits(pictures),
            Self::ResNet(shape) => ResNet::training(shape, weights).logits(pictures),
        }
    }

    /// Scores afterwards, `[n, classes]`.
    pub(super) fn scores(&self, weights: &Weights, pictures: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Vit(config) => Vit::new(config, weights).logits(pictures),
            Self::ResNet(shape) => ResNet::new(shape, weights).logits(pictures),
        }
    }

    /// Stores the statistics of batch norms, over some batches of what was learned from.
    pub(super) fn settle(
        &self,
        weights: &mut Weights,
        batches: impl Iterator<Item = Result<Tensor<4>>>,
    ) -> Result<()> {
        let Self::ResNet(shape) = self else {
            return Ok(());
        };
        let mut moments = Moments::default();
        let network = ResNet::training(shape, weights);
        for pictures in batches {
            network.observed(pictures?, &mut moments);
        }
        moments.store(weights)?;
        Ok(())
    }
}
