//! The transformer between the U-Net's residual blocks (`Transformer2DModel`), and the
//! `BasicTransformerBlock`s it is made of: self-attention over places, cross-attention to the
//! prompt, feed-forward. Stable Diffusion 1.x and 2.x have one block in each, SDXL up to ten.

use burn::tensor::{Tensor, activation::softmax};
use scumble_kernels as kernels;

use super::{
    bottleneck::Bottleneck,
    context::KeysValues,
    hook::ContextHook,
    layers::{GroupNorm, LayerNorm, Linear},
    part::{Part, flat, rows},
    watch::Watch,
};
use crate::weights::Params;

/// Epsilon of the group norm before a transformer; the residual blocks have their own.
const GROUP_NORM_EPS: f64 = 1e-6;
const LAYER_NORM_EPS: f64 = 1e-5;

/// What the transformers of one U-Net have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransformerShape {
    pub(crate) groups: usize,
    pub(crate) context: usize,
    pub(crate) linear_projection: bool,
}

/// Queries from one sequence, keys and values from the same or another; only the output has a bias.
#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    bottleneck: Option<Bottleneck>,
    heads: usize,
}

impl Attention {
    fn new(p: &Params<'_>, width: usize, context: usize, heads: usize) -> Self {
        Self {
            to_q: Linear::without_bias(&p.at("to_q"), width, width),
            to_k: Linear::without_bias(&p.at("to_k"), context, width),
            to_v: Linear::without_bias(&p.at("to_v"), context, width),
            to_out: Linear::new(&p.at("to_out.0"), width, width),
            bottleneck: Bottleneck::of(p, width),
            heads,
        }
    }

    fn keys_values(&self, from: &Tensor<3>, gates: Gates<'_>) -> KeysValues {
        let product = |layer: &Linear| layer.forward_gated(from.clone(), gates);
        KeysValues {
            keys: product(&self.to_k),
            values: product(&self.to_v),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        seen: KeysValues,
        gates: Gates<'_>,
        watch: Option<&mut Watch>,
    ) -> Tensor<3> {
        let queries = self.to_q.forward_gated(x, gates);
        let mut watch = watch;
        let mixed = match &mut watch {
            Some(watch) if watch.wants_maps => {
                let (mixed, map) = attention_with_map(queries, seen, self.heads);
                watch.maps.push(map);
                mixed
            }
            _ => kernels::attention(queries, seen.keys, seen.values, self.heads, false),
        };
        let out = self.to_out.forward_gated(mixed, gates);
        let Some(bottleneck) = &self.bottleneck else {
            return out;
        };
        let added = bottleneck.forward(out.clone());
        if let Some(watch) = watch {
            watch.added.push(added.clone());
        }
        out + added
    }
}

/// Factors of low-rank paths, `[n, rank]`; none where all are 1.
type Gates<'a> = Option<&'a Tensor<2>>;

/// What `kernels::attention` computes, and the weights it computed it with, `[n, heads, tokens,
/// keys]`.
fn attention_with_map(
    queries: Tensor<3>,
    seen: KeysValues,
    heads: usize,
) -> (Tensor<3>, Tensor<4>) {
    let [n, tokens, c] = queries.dims();
    let split = |x: Tensor<3>| {
        let [n, l, c] = x.dims();
        x.reshape([n, l, heads, c / heads]).swap_dims(1, 2)
    };
    let scores =
        split(queries).matmul(split(seen.keys).transpose()) / (c as f64 / heads as f64).sqrt();
    let map = softmax(scores, 3);
    let mixed = map
        .clone()
        .matmul(split(seen.values))
        .swap_dims(1, 2)
        .reshape([n, tokens, c]);
    (mixed, map)
}

/// A `BasicTransformerBlock`: each part after a layer norm and added to its input.
#[derive(Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl BasicTransformerBlock {
    fn new(p: &Params<'_>, s: TransformerShape, width: usize, heads: usize) -> Self {
        Self {
            norm1: LayerNorm::new(&p.at("norm1"), width, LAYER_NORM_EPS),
            attn1: Attention::new(&p.at("attn1"), width, width, heads),
            norm2: LayerNorm::new(&p.at("norm2"), width, LAYER_NORM_EPS),
            attn2: Attention::new(&p.at("attn2"), width, s.context, heads),
            norm3: LayerNorm::new(&p.at("norm3"), width, LAYER_NORM_EPS),
            ff_in: Linear::new(&p.at("ff.net.0.proj"), width, 8 * width),
            ff_out: Linear::new(&p.at("ff.net.2"), 4 * width, width),
        }
    }

    /// What its cross-attention makes of a prompt, `[n, tokens, width of the prompt]`.
    fn prompt(
        &self,
        hidden: &Tensor<3>,
        gates: Gates<'_>,
        hook: Option<&dyn ContextHook>,
    ) -> KeysValues {
        let seen = self.attn2.keys_values(hidden, gates);
        match hook {
            None => seen,
            Some(hook) => KeysValues {
                keys: hook.keys(seen.keys),
                values: hook.values(seen.values, &|hidden| self.attn2.to_v.forward_rows(hidden)),
            },
        }
    }

    /// - y and result: `[n, places, c]`
    /// - prompt: what [`prompt`](Self::prompt) gave
    fn forward(
        &self,
        y: Tensor<3>,
        prompt: KeysValues,
        gates: Gates<'_>,
        watch: Option<&mut Watch>,
    ) -> Tensor<3> {
        let own = self.norm1.forward(y.clone());
        let seen = self.attn1.keys_values(&own, gates);
        let y = y + self.attn1.forward(own, seen, gates, None);
        let y = y.clone()
            + self
                .attn2
                .forward(self.norm2.forward(y), prompt, gates, watch);
        let wide = kernels::geglu(
            self.ff_in
                .forward_gated(self.norm3.forward(y.clone()), gates),
        );
        y + self.ff_out.forward_gated(wide, gates)
    }
}

impl Part<BasicTransformerBlock> {
    /// The block itself, as [`BasicTransformerBlock::forward`]; kept whole where it is watched.
    fn forward(
        &self,
        y: Tensor<3>,
        prompt: KeysValues,
        gates: Gates<'_>,
        watch: Option<&mut Watch>,
    ) -> Tensor<3> {
        if watch.is_some() || !self.recomputes() {
            return self.built().forward(y, prompt, gates, watch);
        }
        let [n, places, c] = y.dims();
        self.in_pieces(n, places * c, |range| {
            let y = rows(&y, &range);
            let (keys, values) = (rows(&prompt.keys, &range), rows(&prompt.values, &range));
            let gates = gates.map(|gates| rows(gates, &range));
            let (map, seen) = (y.dims(), keys.dims());
            let factors = gates.as_ref().map(Tensor::dims);
            let mut inputs = vec![flat(y), flat(keys), flat(values)];
            inputs.extend(gates.map(flat));
            self.apply(inputs, move |block, inputs| {
                let prompt = KeysValues {
                    keys: inputs[1].clone().reshape(seen),
                    values: inputs[2].clone().reshape(seen),
                };
                let gates = factors.map(|factors: [usize; 2]| inputs[3].clone().reshape(factors));
                block.forward(inputs[0].clone().reshape(map), prompt, gates.as_ref(), None)
            })
        })
    }
}

/// A `Transformer2DModel`: a projection, `BasicTransformerBlock`s one after the other, and a
/// projection, added to the input.
#[derive(Debug)]
pub(crate) struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<Part<BasicTransformerBlock>>,
    proj_out: Linear,
}

impl Transformer2DModel {
    /// A transformer with `layers` blocks.
    pub(crate) fn new(
        p: &Params<'_>,
        s: TransformerShape,
        width: usize,
        heads: usize,
        layers: usize,
    ) -> Self {
        let projection = |name| {
            let p = p.at(name);
            if s.linear_projection {
                Linear::new(&p, width, width)
            } else {
                Linear::from_conv(&p, width, width)
            }
        };
        let blocks = p.at("transformer_blocks");
        Self {
            norm: GroupNorm::new(&p.at("norm"), s.groups, width, GROUP_NORM_EPS),
            proj_in: projection("proj_in"),
            transformer_blocks: (0..layers)
                .map(|i| {
                    Part::new(&blocks.at(i), move |p| {
                        BasicTransformerBlock::new(p, s, width, heads)
                    })
                })
                .collect(),
            proj_out: projection("proj_out"),
        }
    }

    /// What the cross-attention of each of its blocks makes of a prompt, `[n, tokens, width of the
    /// prompt]`.
    pub(crate) fn prompt<'a>(
        &'a self,
        hidden: &'a Tensor<3>,
        gates: Gates<'a>,
        hook: Option<&'a dyn ContextHook>,
    ) -> impl Iterator<Item = KeysValues> + 'a {
        self.transformer_blocks
            .iter()
            .map(move |block| block.built().prompt(hidden, gates, hook))
    }

    /// - x and result: `[n, h, w, c]`
    /// - seen: what [`prompt`](Self::prompt) gave; as much as it has blocks is taken
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        seen: &mut impl Iterator<Item = KeysValues>,
        gates: Gates<'_>,
        mut watch: Option<&mut Watch>,
    ) -> Tensor<4> {
        let [n, h, w, c] = x.dims();
        let mut y = self
            .proj_in
            .forward_gated(self.norm.forward(x.clone()).reshape([n, h * w, c]), gates);
        for (block, prompt) in self.transformer_blocks.iter().zip(seen) {
            y = block.forward(y, prompt, gates, watch.as_deref_mut());
        }
        x + self.proj_out.forward_gated(y, gates).reshape([n, h, w, c])
    }
}
