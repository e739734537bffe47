//! The denoiser of Stable Diffusion 1.x and 2.x (`UNet2DConditionModel`; Rombach et al. 2022, arXiv 2112.10752).

use burn::tensor::{Tensor, TensorData};
use scumble_kernels as kernels;

use super::{
    context::{Context, KeysValues, NetworkId},
    layers::{Conv3x3, GroupNorm, Linear},
    resnet::{Downsample, ResnetBlock, ResnetShape, Upsample},
    spatial::{SpatialShape, SpatialTransformer},
    watch::Watch,
};
use crate::{
    config::UNetConfig,
    evaluations::Evaluations,
    weights::{Manifest, Params, Weights},
};

/// Longest period of the time embedding, in timesteps.
const MAX_PERIOD: f32 = 10_000.0;

/// A `UNet2DConditionModel`.
#[derive(Debug)]
pub struct UNet {
    id: NetworkId,
    evaluations: Evaluations,
    /// Whether its tensors take part in a gradient.
    moves: bool,
    conv_in: Conv3x3,
    time_linear_1: Linear,
    time_linear_2: Linear,
    frequencies: Vec<f32>,
    cosine_first: bool,
    down_blocks: Vec<Block<Downsample>>,
    mid_resnet0: ResnetBlock,
    mid_attention: SpatialTransformer,
    mid_resnet1: ResnetBlock,
    up_blocks: Vec<Block<Upsample>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv3x3,
}

/// One level: residual blocks, each followed by a transformer where the level attends to the prompt, then a change of size.
#[derive(Debug)]
struct Block<R> {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<SpatialTransformer>,
    resize: Option<R>,
}

impl<R> Block<R> {
    fn layer(&self, j: usize, x: Tensor<4>, time: &Tensor<2>, prompt: &mut Prompt<'_>) -> Tensor<4> {
        let x = self.resnets[j].forward(x, Some(time));
        match self.attentions.get(j) {
            Some(attention) => prompt.attend(attention, x),
            None => x,
        }
    }
}

/// What the transformers are told, one after the other.
struct Prompt<'a> {
    /// One for each transformer that is still to come.
    seen: std::vec::IntoIter<KeysValues>,
    gates: Option<&'a Tensor<2>>,
    watch: Option<&'a mut Watch>,
}

impl Prompt<'_> {
    fn attend(&mut self, attention: &SpatialTransformer, x: Tensor<4>) -> Tensor<4> {
        match self.seen.next() {
            Some(seen) => attention.forward(x, seen, self.gates, self.watch.as_deref_mut()),
            None => x,
        }
    }
}

impl UNet {
    /// The network over its tensors.
    pub fn new(config: &UNetConfig, weights: &Weights) -> Self {
        let (evaluations, moves) = (weights.evaluations().clone(), weights.tracked());
        Self { evaluations, moves, ..Self::build(config, &Params::new(weights)) }
    }

    /// The names and shapes it asks for.
    pub fn manifest(config: &UNetConfig) -> Manifest {
        Params::manifest(|p| Self::build(config, &p))
    }

    fn build(c: &UNetConfig, p: &Params<'_>) -> Self {
        let widths = &c.block_out_channels;
        let last = widths.len() - 1;
        let time_width = 4 * widths[0];
        let resnet = ResnetShape { groups: c.norm_num_groups, eps: c.norm_eps, time: Some(time_width) };
        let spatial = SpatialShape {
            groups: c.norm_num_groups,
            context: c.cross_attention_dim,
            linear_projection: c.use_linear_projection,
        };
        let attentions = |p: &Params<'_>, on: bool, count: usize, width: usize, heads: usize| -> Vec<_> {
            let count = if on { count } else { 0 };
            (0..count).map(|j| SpatialTransformer::new(&p.at("attentions").at(j), spatial, width, heads)).collect()
        };

        let down_blocks = (0..=last).map(|i| {
            let p = p.at("down_blocks").at(i);
            let (input, width) = (widths[i.saturating_sub(1)], widths[i]);
            Block {
                resnets: (0..c.layers_per_block)
                    .map(|j| ResnetBlock::new(&p.at("resnets").at(j), resnet, if j == 0 { input } else { width }, width))
                    .collect(),
                attentions: attentions(&p, c.down_cross_attention[i], c.layers_per_block, width, c.heads[i]),
                resize: (i != last).then(|| Downsample::new(&p, width, kernels::Padding::Around)),
            }
        });
        // Going up, block i mirrors level last - i; its residual blocks also take the outputs kept on the way down.
        let up_blocks = (0..=last).map(|i| {
            let p = p.at("up_blocks").at(i);
            let level = last - i;
            let (width, before, skip_last) = (widths[level], widths[(level + 1).min(last)], widths[level.saturating_sub(1)]);
            let layers = c.layers_per_block + 1;
            Block {
                resnets: (0..layers)
                    .map(|j| {
                        let input = if j == 0 { before } else { width };
                        let skip = if j + 1 == layers { skip_last } else { width };
                        ResnetBlock::new(&p.at("resnets").at(j), resnet, input + skip, width)
                    })
                    .collect(),
                attentions: attentions(&p, c.up_cross_attention[i], layers, width, c.heads[level]),
                resize: (i != last).then(|| Upsample::new(&p, width)),
            }
        });
        let mid = p.at("mid_block");
        let half = widths[0] / 2;
        Self {
            id: NetworkId::new(),
            evaluations: Evaluations::default(),
            moves: false,
            conv_in: Conv3x3::new(&p.at("conv_in"), c.in_channels, widths[0]),
            time_linear_1: Linear::new(&p.at("time_embedding.linear_1"), widths[0], time_width),
            time_linear_2: Linear::new(&p.at("time_embedding.linear_2"), time_width, time_width),
            frequencies: (0..half).map(|i| (-MAX_PERIOD.ln() * i as f32 / (half as f32 - c.freq_shift as f32)).exp()).collect(),
            cosine_first: c.flip_sin_to_cos,
            down_blocks: down_blocks.collect(),
            mid_resnet0: ResnetBlock::new(&mid.at("resnets.0"), resnet, widths[last], widths[last]),
            mid_attention: SpatialTransformer::new(&mid.at("attentions.0"), spatial, widths[last], c.heads[last]),
            mid_resnet1: ResnetBlock::new(&mid.at("resnets.1"), resnet, widths[last], widths[last]),
            up_blocks: up_blocks.collect(),
            conv_norm_out: GroupNorm::new(&p.at("conv_norm_out"), c.norm_num_groups, widths[0], c.norm_eps),
            conv_out: Conv3x3::new(&p.at("conv_out"), widths[0], c.out_channels),
        }
    }

    /// The prediction for noisy latents: epsilon or v, as the model was trained.
    ///
    /// # Shapes
    /// - sample and result: `[n, 4, h, w]`
    /// - timesteps: n labels, 0 to 999
    /// - context: the text encoder's hidden states, `[n, tokens, width]`
    pub fn forward(&self, sample: Tensor<4>, timesteps: &[f32], context: &Context) -> Tensor<4> {
        self.compute(sample, timesteps, context, None)
    }

    /// The same, with what happens on the way.
    pub fn forward_watched(&self, sample: Tensor<4>, timesteps: &[f32], context: &Context, watch: &mut Watch) -> Tensor<4> {
        self.compute(sample, timesteps, context, Some(watch))
    }

    fn compute(&self, sample: Tensor<4>, timesteps: &[f32], context: &Context, watch: Option<&mut Watch>) -> Tensor<4> {
        let gradient = self.moves || sample.is_autodiff() || context.hidden().is_autodiff();
        self.evaluations.count(sample.dims()[0], gradient);
        let gates = context.gates();
        let seen = context.keys_values(self.id, |hidden| {
            let prompt = |attention: &SpatialTransformer| attention.prompt(hidden, gates, context.removal());
            self.attentions().map(prompt).collect()
        });
        let mut prompt = Prompt { seen: seen.into_iter(), gates, watch };
        let time = self.time_embedding(timesteps, &sample);
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

        x = self.mid_resnet0.forward(x, Some(&time));
        x = prompt.attend(&self.mid_attention, x);
        x = self.mid_resnet1.forward(x, Some(&time));

        for block in &self.up_blocks {
            for j in 0..block.resnets.len() {
                let skip = skips.pop().into_iter();
                x = block.layer(j, Tensor::cat(std::iter::once(x).chain(skip).collect(), 3), &time, &mut prompt);
            }
            if let (Some(up), Some(next)) = (&block.resize, skips.last()) {
                // The size that the way down had there: twice this one, unless that was odd.
                let [_, h, w, _] = next.dims();
                x = up.forward(x, [h, w]);
            }
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x)).permute([0, 3, 1, 2])
    }

    /// All transformers, in the order in which a picture meets them.
    fn attentions(&self) -> impl Iterator<Item = &SpatialTransformer> {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        down.chain([&self.mid_attention]).chain(self.up_blocks.iter().flat_map(|block| &block.attentions))
    }

    /// The SiLU of the time embedding, `[n, 4 c]`: every residual block wants it so. One row if all timesteps are the same,
    /// as in sampling.
    fn time_embedding(&self, timesteps: &[f32], sample: &Tensor<4>) -> Tensor<2> {
        let same = timesteps.windows(2).all(|pair| pair[0] == pair[1]);
        let timesteps = if same { &timesteps[..timesteps.len().min(1)] } else { timesteps };
        let (n, half) = (timesteps.len(), self.frequencies.len());
        let mut values = Vec::with_capacity(n * 2 * half);
        for &t in timesteps {
            let angles = self.frequencies.iter().map(|f| t * f);
            if self.cosine_first {
                values.extend(angles.clone().map(f32::cos));
                values.extend(angles.map(f32::sin));
            } else {
                values.extend(angles.clone().map(f32::sin));
                values.extend(angles.map(f32::cos));
            }
        }
        let device = sample.device().without_autodiff();
        let embedding = Tensor::<2>::from_data(TensorData::new(values, [n, 2 * half]), &device);
        let hidden = kernels::silu(self.time_linear_1.forward_rows(embedding));
        kernels::silu(self.time_linear_2.forward_rows(hidden))
    }
}
