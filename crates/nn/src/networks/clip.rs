//! CLIP: the text encoders of Stable Diffusion and SDXL, and the whole two-tower model (Radford et
//! al. 2021, arXiv 2103.00020).

use burn::tensor::{Device, Int, Tensor, TensorData};
use scumble_kernels as kernels;

use super::{
    layers::{LayerNorm, Linear},
    transformer::{EncoderLayer, LayerNames, LayerShape},
};
use crate::{
    config::{ClipConfig, ClipTextConfig, ClipTextWithProjectionConfig, ClipVisionConfig},
    evaluations::Evaluations,
    weights::{Manifest, Params, Weights},
};

const NAMES: LayerNames = LayerNames {
    norm1: "layer_norm1",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    out: "self_attn.out_proj",
    norm2: "layer_norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
    qkv_bias: true,
};

/// A CLIP text encoder (`CLIPTextModel`). Attention is causal; padding tokens are attended, as in
/// every published model.
#[derive(Debug)]
pub struct ClipText {
    token_embedding: Tensor<2>,
    position_embedding: Tensor<2>,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    eos_token_id: usize,
    evaluations: Evaluations,
}

impl ClipText {
    /// The name of its table of tokens. [`ClipTextWithProjection`]'s has the same.
    pub const TOKEN_EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";

    /// The encoder over its tensors.
    pub fn new(config: &ClipTextConfig, weights: &Weights) -> Self {
        Self::build(config, &Params::new(weights))
    }

    /// The names and shapes it asks for.
    pub fn manifest(config: &ClipTextConfig) -> Manifest {
        Params::manifest(|p| Self::build(config, &p))
    }

    fn build(c: &ClipTextConfig, p: &Params<'_>) -> Self {
        let p = p.at("text_model");
        let shape = LayerShape {
            width: c.hidden_size,
            inner: c.intermediate_size,
            heads: c.num_attention_heads,
            act: c.hidden_act,
            eps: c.layer_norm_eps,
        };
        Self {
            token_embedding: p.get(
                "embeddings.token_embedding.weight",
                [c.vocab_size, c.hidden_size],
            ),
            position_embedding: p.get(
                "embeddings.position_embedding.weight",
                [c.max_position_embeddings, c.hidden_size],
            ),
            layers: (0..c.num_hidden_layers)
                .map(|i| EncoderLayer::new(&p.at("encoder.layers").at(i), &NAMES, shape))
                .collect(),
            final_layer_norm: LayerNorm::new(
                &p.at("final_layer_norm"),
                c.hidden_size,
                c.layer_norm_eps,
            ),
            eos_token_id: c.eos_token_id,
            evaluations: p.evaluations(),
        }
    }

    /// How wide a token's vector is.
    pub fn width(&self) -> usize {
        self.token_embedding.dims()[1]
    }

    /// Looks tokens up: rows of ids, all of one length, to `[n, tokens, c]`. Positions are not
    /// added yet.
    pub fn embed(&self, ids: &[Vec<u32>]) -> Tensor<3> {
        let [n, tokens] = [ids.len(), ids.first().map_or(0, Vec::len)];
        let flat: Vec<i64> = ids.iter().flatten().map(|&id| i64::from(id)).collect();
        let device: Device = self.token_embedding.device().without_autodiff();
        let index = Tensor::<1, Int>::from_data(TensorData::new(flat, [n * tokens]), &device);
        let width = self.token_embedding.dims()[1];
        self.token_embedding
            .clone()
            .select(0, index)
            .reshape([n, tokens, width])
    }

    /// Encodes looked-up tokens.
    ///
    /// # Shapes
    /// - embedded: `[n, tokens, c]`
    /// - result: `[n, tokens, c]`, after the final layer norm
    pub fn encode(&self, embedded: Tensor<3>) -> Tensor<3> {
        self.final_layer_norm
            .forward(self.through(embedded, self.layers.len()))
    }

    /// What the attention of the last layer adds for rows of token ids, `[n, tokens, c]`.
    pub fn last_attention(&self, ids: &[Vec<u32>]) -> Tensor<3> {
        let embedded = self.embed(ids);
        match self.layers.split_last() {
            Some((last, before)) => last.attended(self.through(embedded, before.len()), true),
            None => embedded,
        }
    }

    /// Adds the positions and goes through the first `layers` layers.
    fn through(&self, embedded: Tensor<3>, layers: usize) -> Tensor<3> {
        let [n, tokens, width] = embedded.dims();
        self.evaluations.count(n, embedded.is_autodiff());
        let positions = self
            .position_embedding
            .clone()
            .narrow(0, 0, tokens)
            .reshape([1, tokens, width]);
        self.layers
            .iter()
            .take(layers)
            .fold(embedded + positions, |x, layer| layer.forward(x, true))
    }

    /// Hidden states of rows of token ids, `[n, tokens, c]`, after the final layer norm.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Tensor<3> {
        self.encode(self.embed(ids))
    }

    /// Hidden states of looked-up tokens before the last layer, `[n, tokens, c]`, without the final
    /// layer norm: what SDXL's U-Net attends to (`hidden_states[-2]` of transformers).
    pub fn penultimate(&self, embedded: Tensor<3>) -> Tensor<3> {
        self.through(embedded, self.layers.len().saturating_sub(1))
    }

    /// The hidden state at each row's end token, `[n, c]`: what CLIP projects.
    pub fn pooled(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        self.pooled_of(self.embed(ids), &self.ends(ids))
    }

    /// The position of the first end token of each row of ids; 0 where there is none, as
    /// transformers has it.
    pub fn ends(&self, ids: &[Vec<u32>]) -> Vec<usize> {
        ids.iter().map(|ids| self.end_of(ids)).collect()
    }

    /// The hidden state at position `ends[i]` of each row of looked-up tokens `[n, tokens, c]`:
    /// `[n, c]`.
    fn pooled_of(&self, embedded: Tensor<3>, ends: &[usize]) -> Tensor<2> {
        Self::rows_at(self.encode(embedded), ends)
    }

    /// Row `ends[i]` of each of `[n, tokens, c]`: `[n, c]`.
    fn rows_at(hidden: Tensor<3>, ends: &[usize]) -> Tensor<2> {
        let [n, tokens, width] = hidden.dims();
        let ends = ends
            .iter()
            .enumerate()
            .map(|(row, end)| (row * tokens + end) as i64)
            .collect::<Vec<_>>();
        let index = Tensor::<1, Int>::from_data(TensorData::new(ends, [n]), &hidden.device());
        hidden.reshape([n * tokens, width]).select(0, index)
    }

    /// Old configs say `eos_token_id` 2 where the end token is really the one with the highest id;
    /// transformers keeps both rules.
    fn end_of(&self, ids: &[u32]) -> usize {
        let end = match self.eos_token_id {
            2 => ids.iter().copied().max().unwrap_or(0),
            id => id as u32,
        };
        ids.iter().position(|&id| id == end).unwrap_or(0)
    }
}

/// A CLIP text encoder with its projection (`CLIPTextModelWithProjection`): the second of SDXL.
#[derive(Debug)]
pub struct ClipTextWithProjection {
    text: ClipText,
    text_projection: Linear,
}

impl ClipTextWithProjection {
    /// The encoder over its tensors.
    pub fn new(config: &ClipTextWithProjectionConfig, weights: &Weights) -> Self {
        Self::build(&config.text, config.projection_dim, &Params::new(weights))
    }

    /// The names and shapes it asks for.
    pub fn manifest(config: &ClipTextWithProjectionConfig) -> Manifest {
        Params::manifest(|p| Self::build(&config.text, config.projection_dim, &p))
    }

    fn build(c: &ClipTextConfig, projection_dim: usize, p: &Params<'_>) -> Self {
        let text_projection =
            Linear::without_bias(&p.at("text_projection"), c.hidden_size, projection_dim);
        Self {
            text: ClipText::build(c, p),
            text_projection,
        }
    }

    /// The encoder without its projection.
    pub fn text(&self) -> &ClipText {
        &self.text
    }

    /// The projected hidden state at each row's end token, `[n, projection]` (`text_embeds` of
    /// transformers).
    pub fn text_embeds(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        self.text_embeds_of(self.text.embed(ids), &self.text.ends(ids))
    }

    /// The same of looked-up tokens `[n, tokens, c]`, whose end tokens are at the positions `ends`.
    fn text_embeds_of(&self, embedded: Tensor<3>, ends: &[usize]) -> Tensor<2> {
        self.text_projection
            .forward_rows(self.text.pooled_of(embedded, ends))
    }

    /// Both things that SDXL takes from its second encoder, in one pass: the hidden states of
    /// [`ClipText::penultimate`], `[n, tokens, c]`, and the projection of
    /// [`text_embeds`](Self::text_embeds), `[n, projection]`.
    ///
    /// # Shapes
    /// - embedded: looked-up tokens, `[n, tokens, c]`
    /// - ends: the position of the end token in each of the n rows ([`ClipText::ends`])
    pub fn penultimate_and_text_embeds(
        &self,
        embedded: Tensor<3>,
        ends: &[usize],
    ) -> (Tensor<3>, Tensor<2>) {
        let penultimate = self.text.penultimate(embedded);
        let last = match self.text.layers.last() {
            Some(layer) => layer.forward(penultimate.clone(), true),
            None => penultimate.clone(),
        };
        let pooled = ClipText::rows_at(self.text.final_layer_norm.forward(last), ends);
        (penultimate, self.text_projection.forward_rows(pooled))
    }
}

/// CLIP's image tower (`CLIPVisionModel`).
#[derive(Debug)]
struct ClipVision {
    class_embedding: Tensor<1>,
    patch_embedding: Tensor<4>,
    position_embedding: Tensor<2>,
    pre_layrnorm: LayerNorm,
    layers: Vec<EncoderLayer>,
    post_layernorm: LayerNorm,
}

impl ClipVision {
    fn build(c: &ClipVisionConfig, p: &Params<'_>) -> Self {
        let p = p.at("vision_model");
        let shape = LayerShape {
            width: c.hidden_size,
            inner: c.intermediate_size,
            heads: c.num_attention_heads,
            act: c.hidden_act,
            eps: c.layer_norm_eps,
        };
        let positions = (c.image_size / c.patch_size).pow(2) + 1;
        Self {
            class_embedding: p.get("embeddings.class_embedding", [c.hidden_size]),
            patch_embedding: p.get(
                "embeddings.patch_embedding.weight",
                [c.hidden_size, 3, c.patch_size, c.patch_size],
            ),
            position_embedding: p.get(
                "embeddings.position_embedding.weight",
                [positions, c.hidden_size],
            ),
            // transformers' own spelling.
            pre_layrnorm: LayerNorm::new(&p.at("pre_layrnorm"), c.hidden_size, c.layer_norm_eps),
            layers: (0..c.num_hidden_layers)
                .map(|i| EncoderLayer::new(&p.at("encoder.layers").at(i), &NAMES, shape))
                .collect(),
            post_layernorm: LayerNorm::new(
                &p.at("post_layernorm"),
                c.hidden_size,
                c.layer_norm_eps,
            ),
        }
    }

    fn pooled(&self, pictures: Tensor<4>) -> Tensor<2> {
        let n = pictures.dims()[0];
        let x = kernels::patches(pictures, self.patch_embedding.clone(), None);
        let [_, patches, width] = x.dims();
        let class = self
            .class_embedding
            .clone()
            .reshape([1, 1, width])
            .expand([n, 1, width]);
        let positions = self
            .position_embedding
            .clone()
            .reshape([1, patches + 1, width]);
        let x = self
            .pre_layrnorm
            .forward(Tensor::cat(vec![class, x], 1) + positions);
        let x = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.forward(x, false));
        self.post_layernorm
            .forward(x.narrow(1, 0, 1))
            .squeeze_dim(1)
    }
}

/// A whole CLIP (`CLIPModel`): both towers and their projections into one space.
#[derive(Debug)]
pub struct Clip {
    text: ClipTextWithProjection,
    vision: ClipVision,
    visual_projection: Linear,
}

impl Clip {
    /// The model over its tensors.
    pub fn new(config: &ClipConfig, weights: &Weights) -> Self {
        Self::build(config, &Params::new(weights))
    }

    /// The names and shapes it asks for, and `logit_scale`, which every file holds though no
    /// feature needs it.
    pub fn manifest(config: &ClipConfig) -> Manifest {
        let mut manifest = Params::manifest(|p| Self::build(config, &p));
        manifest.insert("logit_scale".into(), vec![]);
        manifest
    }

    fn build(c: &ClipConfig, p: &Params<'_>) -> Self {
        Self {
            text: ClipTextWithProjection::build(&c.text, c.projection_dim, p),
            vision: ClipVision::build(&c.vision, p),
            visual_projection: Linear::without_bias(
                &p.at("visual_projection"),
                c.vision.hidden_size,
                c.projection_dim,
            ),
        }
    }

    /// Rows of token ids to unit vectors, `[n, projection]`.
    pub fn text_features(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        unit(self.text.text_embeds(ids))
    }

    /// Looks tokens up for [`text_features_of`](Self::text_features_of): rows of ids, all of one
    /// length, to `[n, tokens, c]`.
    pub fn embed(&self, ids: &[Vec<u32>]) -> Tensor<3> {
        self.text.text.embed(ids)
    }

    /// As [`text_features`](Self::text_features) of tokens that are vectors, `[n, tokens, c]`;
    /// `ends` are the positions of the end tokens, one for each row. Gradients reach the vectors.
    pub fn text_features_of(&self, embedded: Tensor<3>, ends: &[usize]) -> Tensor<2> {
        unit(self.text.text_embeds_of(embedded, ends))
    }

    /// Pictures `[n, 3, side, side]`, normalised with CLIP's mean and deviation, to unit vectors
    /// `[n, projection]`.
    pub fn image_features(&self, pictures: Tensor<4>) -> Tensor<2> {
        unit(
            self.visual_projection
                .forward_rows(self.vision.pooled(pictures)),
        )
    }
}

fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().powi_scalar(2).sum_dim(1).sqrt();
    x / norm
}
