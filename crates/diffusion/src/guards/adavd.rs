//! AdaVD: Wang et al., "Precise, Fast, and Low-cost Concept Erasure in Value Space: Orthogonal
//! Complement Matters", CVPR 2025 (arXiv 2412.06143).
//!
//! In every cross-attention the values of the prompt's tokens lose their part along the concept's:
//! with `v_t` the value of the last token of the concept's text, `v' = v - s (v_t . v / v_t . v_t)
//! v_t` for every position but the start token's. Several texts are made orthogonal first (Gram and
//! Schmidt).
//!
//! With `shift`, `s` of each token is `2 / (1 + exp(-a (cos(v, v_t) - b)))`, a = 100, b = 0.93:
//! near 2 where a token is the concept's, near 0 where it is another. The published code takes all
//! heads of the unconditional and the conditional batch for one vector: with `w` the empty prompt's
//! value at the same position, `[w; v]` and `[w; v_t]`, which have `w` in common, so that their
//! cosines are larger than those of `v` and `v_t`. Its `b` is meant for these. `joint` says where
//! they count; with the projection of the joint vectors and `unconditional` the empty prompt's
//! values change too, by `-s (dot / dot) w`: that is the published code.
//!
//! Several texts: with `c_j` the factors that make the projection of `v` onto the span of all
//! `v_tj`, `v' = v - sum_j s_j c_j v_tj`. The published code subtracts projections onto the targets
//! as they are instead of onto what Gram and Schmidt have made of them, which is the same for two
//! targets and no projection for three or more.
//!
//! A text encoder may keep a concept in the end token and the pads rather than in the word: the
//! miniature's does. With `span` the end token's and the pads' values of the concept's text are
//! targets too, and all are counted from the empty prompt's end token, so that only what the
//! concept adds is removed, not what all prompts share.

mod removal;

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use scumble_nn::ContextHook;
use serde::{Deserialize, Serialize};

use self::removal::{Beside, Removal};
use super::about::{About, FROM_MINUS_ONE};
use crate::{
    model::Model,
    options,
    options::{Presets, WEIGHT},
    presets,
};

options! {
    /// The numbers of AdaVD.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct AdaVd {
        /// How much of the part along the concept goes (s).
        pub scale: f64 where WEIGHT,
        /// Whether each token's own nearness to the concept decides.
        pub shift: bool,
        /// How sharply it decides (a).
        pub steepness: f64 where WEIGHT,
        /// At which cosine (b).
        pub centre: f64 where FROM_MINUS_ONE,
        /// What is counted of the joint vectors of the empty prompt's value and a token's own.
        #[serde(default)]
        pub joint: Joint,
        /// Whether what the text leaves in its end token and pads counts as the concept too.
        pub span: bool,
        /// Whether the values of the empty or negative prompt lose it too.
        pub unconditional: bool,
    }
}

/// What is counted of joint vectors `[w; v]`, with `w` the value of the empty or negative prompt at
/// the same position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Joint {
    /// Nothing: every prompt's value is a vector of its own.
    #[default]
    None,
    /// The shift's cosines, for which the published centre is meant; what goes is the prompt's own
    /// part along the concept.
    Cosine,
    /// The projection too.
    Whole,
}

/// See the module.
pub const KNOWN: About = About {
    id: "adavd",
    paper: "Wang et al.: Precise, Fast, and Low-cost Concept Erasure in Value Space, CVPR 2025 (arXiv 2412.06143)",
    changes: "the values of every cross-attention: they lose their part along the concept's",
    cost: "2",
};

/// Its numbers.
pub(super) fn presets() -> Presets<AdaVd> {
    presets! {
        paper: AdaVd {
            scale: 1.0,
            shift: true,
            steepness: 100.0,
            centre: 0.93,
            joint: Joint::Cosine,
            span: false,
            unconditional: false,
        },
        reference: paper { joint: Joint::Whole, unconditional: true },
        fixed: paper,
        small: paper { shift: false, joint: Joint::None, span: true },
    }
}

/// What a block of prompts stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// The empty or negative prompt.
    Empty,
    /// What is to be drawn.
    Prompt,
    /// The concept that another guard leads away from.
    Concept,
}

impl AdaVd {
    /// What takes the concept of `texts` out of values, for the blocks of n prompts that are
    /// stacked; `negative` are the hidden states that guidance leads away from, `[n, tokens, width]`.
    pub(crate) fn hook(
        &self,
        texts: &[String],
        strength: f64,
        model: &Model,
        negative: &Tensor<3>,
        blocks: &[Block],
    ) -> Arc<dyn ContextHook> {
        let n = negative.dims()[0];
        let targets = model.prompted(texts);
        let states = &targets.conditioning.tokens;
        let [_, tokens, width] = states.dims();
        let mean = |row: usize, of: std::ops::Range<usize>| -> Tensor<2> {
            states
                .clone()
                .slice([row..row + 1, of, 0..width])
                .mean_dim(1)
                .reshape([1, width])
        };
        let rows = targets
            .lengths
            .iter()
            .enumerate()
            .flat_map(|(row, &length)| {
                // The last token before the end: the subject of `a church`.
                let mut rows = vec![mean(row, length.max(3) - 2..length.max(3) - 1)];
                if self.span {
                    rows.push(mean(row, length - 1..length));
                    rows.extend((length < tokens).then(|| mean(row, length..tokens)));
                }
                rows
            });
        let rows: Vec<Tensor<2>> = rows.collect();
        let origin = self.span.then(|| {
            let empty = model.encode(&[String::new()]);
            empty
                .tokens
                .slice([0..1, 1..2, 0..width])
                .reshape([1, width])
                .detach()
        });
        let strength = self.scale * strength;
        let of = |block: &Block| match block {
            Block::Prompt => strength,
            Block::Empty if self.unconditional => strength,
            Block::Empty | Block::Concept => 0.0,
        };
        let values: Vec<f32> = blocks
            .iter()
            .flat_map(|block| std::iter::repeat_n(of(block) as f32, n))
            .collect();
        let count = values.len();
        // Without a shift nothing asks for cosines.
        let projected = self.joint == Joint::Whole;
        let beside = (projected || self.joint == Joint::Cosine && self.shift).then(|| {
            let halves = if projected && blocks.first() == Some(&Block::Empty) {
                n
            } else {
                0
            };
            Beside {
                hidden: negative.clone().detach().repeat_dim(0, blocks.len()),
                projected,
                halves,
            }
        });
        Arc::new(Removal {
            targets: Tensor::cat(rows, 0).detach(),
            origin,
            strength: Tensor::from_data(TensorData::new(values, [count]), model.device()),
            shift: self.shift.then_some((self.steepness, self.centre)),
            beside,
        })
    }
}
