//! The denoiser of Stable Diffusion 1.x and 2.x (`UNet2DConditionModel`; Rombach et al. 2022, arXiv
//! 2112.10752) and of SDXL (Podell et al. 2023, arXiv 2307.01952), whose transformers have several
//! blocks and whose time embedding takes added conditioning.

use burn::tensor::Tensor;
use scumble_kernels as kernels;

use super::{
    added::{AddedEmbedding, SizeCondition},
    context::{Context, KeysValues, NetworkId},
    layers::{Conv3x3, GroupNorm},
    part::Part,
    resnet::{Downsample, ResnetBlock, ResnetShape, Upsample},
    time_embedding::{TimestepEmbedding, Timesteps},
    transformer_2d::{Transformer2DModel, TransformerShape},
    watch::Watch,
};
use crate::{
    config::UNetConfig,
    error::{Error, Result},
    evaluations::Evaluations,
    weights::{Manifest, Params, Weights},
};

/// A `UNet2DConditionModel`.
#[derive(Debug)]
pub struct UNet {
    id: NetworkId,
    evaluations: Evaluations,
    /// Whether its tensors take part in a gradient.
    moves: bool,
    /// In an outline, which only counts what it is asked: one of the tensors that move.
    outline: Option<Option<Tensor<1>>>,
    conv_in: Conv3x3,
    time_proj: Timesteps,
    time_embedding: TimestepEmbedding,
    /// SDXL's added conditioning.
    added: Option<AddedEmbedding>,
    /// Where the added conditioning says nothing of sizes.
    size_condition: SizeCondition,
    down_blocks: Vec<Block<Downsample>>,
    mid_resnet0: Part<ResnetBlock>,
    mid_attention: Transformer2DModel,
    mid_resnet1: Part<ResnetBlock>,
    up_blocks: Vec<Block<Upsample>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv3x3,
}

/// One level: residual blocks, each followed by a transformer where the level attends to the
/// prompt, then a change of size.
#[derive(Debug)]
struct Block<R> {
    resnets: Vec<Part<ResnetBlock>>,
    attentions: Vec<Transformer2DModel>,
    resize: Option<R>,
}

impl<R> Block<R> {
    fn layer(
        &self,
        j: usize,
        x: Tensor<4>,
        time: &Tensor<2>,
        prompt: &mut Prompt<'_>,
    ) -> Tensor<4> {
        let x = self.resnets[j].forward(x, time);
        match self.attentions.get(j) {
            Some(attention) => prompt.attend(attention, x),
            None => x,
        }
    }
}

/// What the transformers are told, one after the other.
struct Prompt<'a> {
    /// One for each `BasicTransformerBlock` that is still to come.
    seen: std::vec::IntoIter<KeysValues>,
    gates: Option<&'a Tensor<2>>,
    watch: Option<&'a mut Watch>,
}

impl Prompt<'_> {
    fn attend(&mut self, attention: &Transformer2DModel, x: Tensor<4>) -> Tensor<4> {
        attention.forward(x, &mut self.seen, self.gates, self.watch.as_deref_mut())
    }
}

impl UNet {
    /// The network over its tensors.
    pub fn new(config: &UNetConfig, weights: &Weights) -> Self {
        let (evaluations, moves) = (weights.evaluations().clone(), weights.tracked());
        Self {
            evaluations,
            moves,
            outline: weights
                .outlines()
                .then(|| weights.moving().pop().map(|(_, tensor)| tensor)),
            ..Self::build(config, &Params::new(weights))
        }
    }

    /// With another size condition for pictures whose context brings no time ids of its own.
    #[must_use]
    pub fn with_size_condition(mut self, size_condition: SizeCondition) -> Self {
        self.size_condition = size_condition;
        self
    }

    /// The names and shapes it asks for.
    pub fn manifest(config: &UNetConfig) -> Manifest {
        Params::manifest(|p| Self::build(config, &p))
    }

    fn build(c: &UNetConfig, p: &Params<'_>) -> Self {
        let widths = &c.block_out_channels;
        let last = widths.len() - 1;
        let time_width = 4 * widths[0];
        let resnet = ResnetShape {
            groups: c.norm_num_groups,
            eps: c.norm_eps,
            time: Some(time_width),
        };
        let residual = |p: &Params<'_>, input: usize, width: usize| {
            Part::new(p, move |p| ResnetBlock::new(p, resnet, input, width))
        };
        let shape = TransformerShape {
            groups: c.norm_num_groups,
            context: c.cross_attention_dim,
            linear_projection: c.use_linear_projection,
        };
        // A level without a transformer has no depths.
        let attentions = |p: &Params<'_>, depths: &[usize], width: usize, heads: usize| -> Vec<_> {
            let one = |(j, &layers)| {
                Transformer2DModel::new(&p.at("attentions").at(j), shape, width, heads, layers)
            };
            depths.iter().enumerate().map(one).collect()
        };

        let down_blocks = (0..=last).map(|i| {
            let p = p.at("down_blocks").at(i);
            let (input, width) = (widths[i.saturating_sub(1)], widths[i]);
            Block {
                resnets: (0..c.layers_per_block)
                    .map(|j| {
                        residual(
                            &p.at("resnets").at(j),
                            if j == 0 { input } else { width },
                            width,
                        )
                    })
                    .collect(),
                attentions: attentions(&p, &c.down_transformer_layers[i], width, c.heads[i]),
                resize: (i != last).then(|| Downsample::new(&p, width, kernels::Padding::Around)),
            }
        });
        // Going up, block i mirrors level last - i; its residual blocks also take the outputs kept
        // on the way down.
        let up_blocks = (0..=last).map(|i| {
            let p = p.at("up_blocks").at(i);
            let level = last - i;
            let (width, before, skip_last) = (
                widths[level],
                widths[(level + 1).min(last)],
                widths[level.saturating_sub(1)],
            );
            let layers = c.layers_per_block + 1;
            Block {
                resnets: (0..layers)
                    .map(|j| {
                        let input = if j == 0 { before } else { width };
                        let skip = if j + 1 == layers { skip_last } else { width };
                        residual(&p.at("resnets").at(j), input + skip, width)
                    })
                    .collect(),
                attentions: attentions(&p, &c.up_transformer_layers[i], width, c.heads[level]),
                resize: (i != last).then(|| Upsample::new(&p, width)),
            }
        });
        let mid = p.at("mid_block");
        Self {
            id: NetworkId::new(),
            evaluations: Evaluations::default(),
            moves: false,
            outline: None,
            conv_in: Conv3x3::new(&p.at("conv_in"), c.in_channels, widths[0]),
            time_proj: Timesteps::new(widths[0], c.flip_sin_to_cos, c.freq_shift),
            time_embedding: TimestepEmbedding::new(&p.at("time_embedding"), widths[0], time_width),
            size_condition: SizeCondition::uncropped(8),
            added: c
                .text_time
                .map(|added| AddedEmbedding::new(p, c, added, time_width)),
            down_blocks: down_blocks.collect(),
            mid_resnet0: residual(&mid.at("resnets.0"), widths[last], widths[last]),
            mid_attention: Transformer2DModel::new(
                &mid.at("attentions.0"),
                shape,
                widths[last],
                c.heads[last],
                c.mid_transformer_layers,
            ),
            mid_resnet1: residual(&mid.at("resnets.1"), widths[last], widths[last]),
            up_blocks: up_blocks.collect(),
            conv_norm_out: GroupNorm::new(
                &p.at("conv_norm_out"),
                c.norm_num_groups,
                widths[0],
                c.norm_eps,
            ),
            conv_out: Conv3x3::new(&p.at("conv_out"), widths[0], c.out_channels),
        }
    }

    /// The prediction for noisy latents: epsilon or v, as the model was trained.
    ///
    /// # Shapes
    /// - sample and result: `[n, 4, h, w]`
    /// - timesteps: n labels, 0 to 999
    /// - context: the text encoder's hidden states, `[n, tokens, width]`
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) is an error.
    pub fn forward(&self, sample: Tensor<4>, timesteps: &[f32], context: &Context) -> Tensor<4> {
        self.try_forward(sample, timesteps, context, None)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, with what happens on the way.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_watched(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        context: &Context,
        watch: &mut Watch,
    ) -> Tensor<4> {
        self.try_forward(sample, timesteps, context, Some(watch))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`forward`](Self::forward), for a network that may be SDXL's.
    ///
    /// # Errors
    /// If the context's added conditioning is missing, does not fit, or has no place in this network.
    pub fn try_forward(
        &self,
        sample: Tensor<4>,
        timesteps: &[f32],
        context: &Context,
        watch: Option<&mut Watch>,
    ) -> Result<Tensor<4>> {
        let time = self.time_embedding(timesteps, &sample, context)?;
        let told = context.hidden().is_autodiff()
            || context
                .added()
                .is_some_and(|added| added.pooled.is_autodiff());
        let gradient = self.moves || sample.is_autodiff() || told;
        self.evaluations.count(sample.dims()[0], gradient);
        if let (Some(moving), None) = (&self.outline, &watch) {
            return Ok(outlined(sample, context.hidden(), moving.clone()));
        }
        let gates = context.gates();
        let hook = context.hook().map(|hook| &**hook);
        let seen = context.keys_values(self.id, |hidden| {
            self.attentions()
                .flat_map(|attention| attention.prompt(hidden, gates, hook))
                .collect()
        });
        let mut prompt = Prompt {
            seen: seen.into_iter(),
            gates,
            watch,
        };
        let mut x = self.conv_in.forward(sample.permute([0, 2, 3, 1]));

        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            for j in 0..block.resnets.len() {
                x = block.layer(j, x, &time, &mut prompt);
                skips.push(x.clone());
            }
            if let Some(down) = &block.resize {
                x = down.forward(x);
                skips.push(x.clone());
            }
        }

        x = self.mid_resnet0.forward(x, &time);
        x = prompt.attend(&self.mid_attention, x);
        x = self.mid_resnet1.forward(x, &time);

        for block in &self.up_blocks {
            for j in 0..block.resnets.len() {
                let skip = skips.pop().into_iter();
                x = block.layer(
                    j,
                    Tensor::cat(std::iter::once(x).chain(skip).collect(), 3),
                    &time,
                    &mut prompt,
                );
            }
            if let (Some(up), Some(next)) = (&block.resize, skips.last()) {
                // The size that the way down had there: twice this one, unless that was odd.
                let [_, h, w, _] = next.dims();
                x = up.forward(x, [h, w]);
            }
        }
        Ok(self
            .conv_out
            .forward(self.conv_norm_out.forward_silu(x))
            .permute([0, 3, 1, 2]))
    }

    /// All transformers, in the order in which a picture meets them.
    fn attentions(&self) -> impl Iterator<Item = &Transformer2DModel> {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        down.chain([&self.mid_attention])
            .chain(self.up_blocks.iter().flat_map(|block| &block.attentions))
    }

    /// The SiLU of the time embedding, `[n, 4 c]`: every residual block wants it so. One row if all
    /// timesteps are the same, as in sampling, and nothing is added.
    fn time_embedding(
        &self,
        timesteps: &[f32],
        sample: &Tensor<4>,
        context: &Context,
    ) -> Result<Tensor<2>> {
        let same = timesteps.windows(2).all(|pair| pair[0] == pair[1]);
        let timesteps = if same {
            &timesteps[..timesteps.len().min(1)]
        } else {
            timesteps
        };
        let device = sample.device().without_autodiff();
        let time = self
            .time_embedding
            .forward(self.time_proj.forward(timesteps, &device));
        let time = match (&self.added, context.added()) {
            (None, None) => time,
            (Some(embedding), Some(added)) => {
                let [n, _, h, w] = sample.dims();
                time + embedding.forward(n, added, &self.size_condition.time_ids([h, w]))?
            }
            (Some(_), None) => {
                return Err(Error::input(
                    "this U-Net needs added conditioning (pooled prompt embeddings and time ids), and there is none",
                ));
            }
            (None, Some(_)) => {
                return Err(Error::input(
                    "this U-Net has no place for added conditioning",
                ));
            }
        };
        Ok(kernels::silu(time))
    }
}

/// What an outline answers: not nothing, so that what divides by it goes on, and something of all that
/// a gradient may be wanted for.
fn outlined(sample: Tensor<4>, hidden: &Tensor<3>, moving: Option<Tensor<1>>) -> Tensor<4> {
    let [n, tokens, width] = hidden.dims();
    let prompt = hidden
        .clone()
        .reshape([n, 1, 1, tokens * width])
        .mean_dim(3);
    let answer = sample * 0.5 + prompt;
    match moving {
        Some(moving) => answer + moving.narrow(0, 0, 1).reshape([1, 1, 1, 1]) * 1e-3,
        None => answer,
    }
}
