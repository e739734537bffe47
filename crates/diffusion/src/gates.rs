//! Adapters that look at the prompt: how far each is let through is decided for every prompt anew.
//!
//! Facilitated transport of SPM (Lyu et al., CVPR 2024, arXiv 2312.16145): an adapter for the
//! concept `c` acts on a prompt `p` by the factor `max(cos(e(p), e(c)), |tok(p) & tok(c)| /
//! |tok(c)|)`, with `e` the hidden states as one long vector and `tok` the sets of tokens.

use std::{collections::BTreeSet, ops::Range};

use burn::tensor::{Tensor, TensorData};
use scumble_nn::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::guards::about::About;

/// When an adapter acts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The prompts it was made for; the nearest one counts.
    pub prompts: Vec<String>,
    /// The power to which closeness is raised. The paper has 1; published code scales both factors
    /// of the adapter, which is 2.
    pub power: f64,
    /// What the result is multiplied by.
    pub factor: f64,
    /// Similarity at which the gate begins to open; it is 0 up to there, 1 at 1, and a straight
    /// line between. The paper has 0.
    #[serde(default)]
    pub floor: f64,
}

/// The gate as a guard: low-rank adapters act as far as a prompt is close to what they erase.
pub const KNOWN: About = About {
    id: "spm",
    paper: "Lyu et al.: One-dimensional Adapter to Rule Them All, CVPR 2024 (arXiv 2312.16145)",
    changes: "how far low-rank adapters act: they are trained by `erase --method spm` or given with --edit or --lora",
    cost: "2",
};

/// A gate with what it compares prompts to.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    gate: Gate,
    /// Unit vectors, `[tokens * width]` each.
    directions: Vec<Tensor<1>>,
    tokens: Vec<BTreeSet<u32>>,
    /// The columns of the adapters that it governs.
    columns: Range<usize>,
}

impl Opened {
    /// `hidden` are the hidden states of the gate's prompts, `[prompts, tokens, width]`.
    pub(crate) fn new(
        gate: Gate,
        hidden: Tensor<3>,
        tokenizer: &Tokenizer,
        columns: Range<usize>,
    ) -> Self {
        let [n, tokens, width] = hidden.dims();
        let flat = hidden.reshape([n, tokens * width]);
        let directions = (0..n)
            .map(|i| unit(flat.clone().narrow(0, i, 1).reshape([tokens * width])))
            .collect();
        let tokens = gate
            .prompts
            .iter()
            .map(|prompt| words(tokenizer, prompt))
            .collect();
        Self {
            gate,
            directions,
            tokens,
            columns,
        }
    }

    /// The factor for each prompt, whose hidden states are `[n, tokens, width]`.
    pub(crate) fn factors(
        &self,
        prompts: &[String],
        hidden: &Tensor<3>,
        tokenizer: &Tokenizer,
    ) -> Vec<f32> {
        let [n, tokens, width] = hidden.dims();
        let flat = hidden.clone().reshape([n, tokens * width]);
        let one = |(i, prompt): (usize, &String)| {
            let own = unit(flat.clone().narrow(0, i, 1).reshape([tokens * width]));
            let known = words(tokenizer, prompt);
            let closeness = self
                .directions
                .iter()
                .zip(&self.tokens)
                .map(|(direction, wanted)| {
                    let cosine: f32 = (own.clone() * direction.clone()).sum().into_scalar();
                    let shared =
                        wanted.intersection(&known).count() as f64 / wanted.len().max(1) as f64;
                    f64::from(cosine).max(shared)
                });
            let closest = closeness.fold(0.0f64, f64::max).clamp(0.0, 1.0);
            let above = ((closest - self.gate.floor)
                / (1.0 - self.gate.floor).max(f64::MIN_POSITIVE))
            .clamp(0.0, 1.0);
            (above.powf(self.gate.power) * self.gate.factor) as f32
        };
        prompts.iter().enumerate().map(one).collect()
    }
}

/// The factors of all columns for some prompts, `[prompts, columns]`; columns that no gate governs
/// are 1. `None` without gates.
pub(crate) fn factors(
    gates: &[Opened],
    prompts: &[String],
    hidden: &Tensor<3>,
    tokenizer: &Tokenizer,
) -> Option<Tensor<2>> {
    let columns = gates.iter().map(|gate| gate.columns.end).max()?;
    if hidden.is_autodiff() {
        return Some(tracked(gates, columns, prompts, hidden, tokenizer));
    }
    let mut values = vec![1f32; prompts.len() * columns];
    for gate in gates {
        for (row, factor) in gate
            .factors(prompts, hidden, tokenizer)
            .into_iter()
            .enumerate()
        {
            values[row * columns..][gate.columns.clone()].fill(factor);
        }
    }
    Some(Tensor::from_data(
        TensorData::new(values, [prompts.len(), columns]),
        &hidden.device(),
    ))
}

/// The same as a function of the hidden states that has a gradient.
fn tracked(
    gates: &[Opened],
    columns: usize,
    prompts: &[String],
    hidden: &Tensor<3>,
    tokenizer: &Tokenizer,
) -> Tensor<2> {
    let [n, tokens, width] = hidden.dims();
    let flat = hidden.clone().reshape([n, tokens * width]);
    let length = flat
        .clone()
        .powi_scalar(2)
        .sum_dim(1)
        .sqrt()
        .clamp_min(f32::MIN_POSITIVE);
    let device = hidden.device().without_autodiff();
    let mut pieces: Vec<Tensor<2>> = vec![Tensor::ones([n, 1], &device); columns];
    for opened in gates {
        let gate = &opened.gate;
        let closeness = opened
            .directions
            .iter()
            .zip(&opened.tokens)
            .map(|(direction, wanted)| {
                let cosine = flat
                    .clone()
                    .matmul(direction.clone().reshape([tokens * width, 1]))
                    / length.clone();
                let shared = |prompt: &String| {
                    wanted.intersection(&words(tokenizer, prompt)).count() as f32
                        / wanted.len().max(1) as f32
                };
                let shared: Vec<f32> = prompts.iter().map(shared).collect();
                cosine.max_pair(Tensor::from_data(TensorData::new(shared, [n, 1]), &device))
            });
        let factor = match closeness.reduce(Tensor::max_pair) {
            // A gate without prompts is always open.
            _ if gate.power == 0.0 => Tensor::ones([n, 1], &device) * gate.factor,
            None => Tensor::zeros([n, 1], &device),
            Some(closest) => {
                let above = (closest.clamp(0.0, 1.0) - gate.floor)
                    / (1.0 - gate.floor).max(f64::MIN_POSITIVE);
                // The power's slope is infinite at a closed gate for powers below 1.
                above.clamp(1e-6, 1.0).powf_scalar(gate.power) * gate.factor
            }
        };
        pieces[opened.columns.clone()].fill(factor);
    }
    Tensor::cat(pieces, 1)
}

fn unit(x: Tensor<1>) -> Tensor<1> {
    let norm: f32 = x.clone().powi_scalar(2).sum().sqrt().into_scalar();
    x / norm.max(f32::MIN_POSITIVE)
}

/// The tokens of a prompt without start, end and padding.
fn words(tokenizer: &Tokenizer, prompt: &str) -> BTreeSet<u32> {
    let encoded = tokenizer.encode(prompt);
    encoded
        .ids
        .iter()
        .take(encoded.length.saturating_sub(1))
        .skip(1)
        .copied()
        .collect()
}
