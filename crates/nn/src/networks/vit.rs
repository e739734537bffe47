//! ViT as an image classifier (Dosovitskiy et al. 2021, arXiv 2010.11929),
//! `ViTForImageClassification`.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::{
    layers::{LayerNorm, Linear},
    transformer::{EncoderLayer, LayerNames, LayerShape},
};
use crate::{
    config::VitConfig,
    weights::{Manifest, Params, Weights},
};

/// A ViT classifier.
#[derive(Debug)]
pub struct Vit {
    cls_token: Tensor<3>,
    projection: Tensor<4>,
    projection_bias: Tensor<1>,
    position_embeddings: Tensor<3>,
    layers: Vec<EncoderLayer>,
    layernorm: LayerNorm,
    classifier: Linear,
}

impl Vit {
    /// The classifier over its tensors.
    pub fn new(config: &VitConfig, weights: &Weights) -> Self {
        Self::build(config, &Params::new(weights))
    }

    /// The names and shapes it asks for.
    pub fn manifest(config: &VitConfig) -> Manifest {
        Params::manifest(|p| Self::build(config, &p))
    }

    fn build(c: &VitConfig, root: &Params<'_>) -> Self {
        let names = LayerNames {
            norm1: "layernorm_before",
            q: "attention.attention.query",
            k: "attention.attention.key",
            v: "attention.attention.value",
            out: "attention.output.dense",
            norm2: "layernorm_after",
            up: "intermediate.dense",
            down: "output.dense",
            qkv_bias: c.qkv_bias,
        };
        let shape = LayerShape {
            width: c.hidden_size,
            inner: c.intermediate_size,
            heads: c.num_attention_heads,
            act: c.hidden_act,
            eps: c.layer_norm_eps,
        };
        let p = root.at("vit");
        let e = p.at("embeddings");
        let positions = (c.image_size / c.patch_size).pow(2) + 1;
        Self {
            cls_token: e.get("cls_token", [1, 1, c.hidden_size]),
            projection: e.get(
                "patch_embeddings.projection.weight",
                [c.hidden_size, 3, c.patch_size, c.patch_size],
            ),
            projection_bias: e.get("patch_embeddings.projection.bias", [c.hidden_size]),
            position_embeddings: e.get("position_embeddings", [1, positions, c.hidden_size]),
            layers: (0..c.num_hidden_layers)
                .map(|i| EncoderLayer::new(&p.at("encoder.layer").at(i), &names, shape))
                .collect(),
            layernorm: LayerNorm::new(&p.at("layernorm"), c.hidden_size, c.layer_norm_eps),
            classifier: Linear::new(&root.at("classifier"), c.hidden_size, c.labels.len()),
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, side, side]`, normalised
    /// - result: `[n, classes]`
    pub fn logits(&self, pictures: Tensor<4>) -> Tensor<2> {
        self.classifier.forward_rows(self.features(pictures))
    }

    /// The class token after the last layer and its norm: what the classes are told by.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, side, side]`, normalised
    /// - result: `[n, width]`
    pub fn features(&self, pictures: Tensor<4>) -> Tensor<2> {
        let x = self.through(pictures, self.layers.len());
        self.layernorm.forward(x.narrow(1, 0, 1)).squeeze_dim(1)
    }

    /// The keys of the last layer's attention, all heads side by side; without layers, its embedded
    /// tokens.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, side, side]`, normalised
    /// - result: `[n, 1 + patches, width]`, the class token first
    pub fn last_keys(&self, pictures: Tensor<4>) -> Tensor<3> {
        match self.layers.split_last() {
            Some((last, before)) => last.keys(self.through(pictures, before.len())),
            None => self.through(pictures, 0),
        }
    }

    /// Embeds the pictures and goes through the first `layers` layers, `[n, 1 + patches, width]`.
    fn through(&self, pictures: Tensor<4>, layers: usize) -> Tensor<3> {
        let n = pictures.dims()[0];
        let x = kernels::patches(
            pictures,
            self.projection.clone(),
            Some(self.projection_bias.clone()),
        );
        let width = x.dims()[2];
        let x = Tensor::cat(vec![self.cls_token.clone().expand([n, 1, width]), x], 1)
            + self.position_embeddings.clone();
        self.layers
            .iter()
            .take(layers)
            .fold(x, |x, layer| layer.forward(x, false))
    }
}
