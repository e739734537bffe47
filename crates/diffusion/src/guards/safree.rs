//! SAFREE: Yoon et al., "SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image And Video
//! Generation", ICLR 2025 (arXiv 2410.12761).
//!
//! `P_C` projects onto the span of the concept texts' pooled outputs, `P_I` onto that of the
//! prompt's with one token masked each. Token `i` is a trigger where the prompt without it lies
//! further from the concept's span than the others do on average: `d_i > (1 + alpha) mean_{j != i}
//! d_j` with `d_i = |(1 - P_C) p_i|`. A trigger's hidden state becomes `(1 - P_C) P_I e_i`.
//!
//! Self-validation: with `beta = 1 - mean cos(e_i, (1 - P_C) P_I e_i)` over every token of the
//! prompt, triggers or not, start and end included, the filtered prompt is used at step 0 to
//! `round(most sigmoid(2 k (10 beta - tau)))`, then the plain one.
//!
//! The pooled output is the hidden state at the end token after the last layer norm, as in the
//! published code. The text encoder of SD 2.x has 23 layers in its files, so there too it is that
//! of the states which the denoiser reads.
//!
//! Which tokens are triggers and how many steps are filtered is decided for each prompt, without a
//! gradient; the projections have one. Left out: the re-weighting of skip features in the frequency
//! domain.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    about::About,
    span::{onto, orthonormal},
};
use crate::{
    model::Model,
    options,
    options::{Presets, WEIGHT},
    presets,
    prompted::Prompted,
};

options! {
    /// The numbers of SAFREE.
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Safree {
        /// How much further than the mean makes a trigger (alpha).
        pub alpha: f64 where WEIGHT,
        /// Whether only so many steps are filtered as the prompt calls for.
        pub validate: bool,
        /// Most steps that are filtered then, less one.
        pub most: f64 where WEIGHT,
        /// Sharpness of that decision (k).
        pub sharpness: f64 where WEIGHT,
        /// Its threshold (tau).
        pub tau: f64 where WEIGHT,
        /// Whether the end token and the pads of a prompt with a trigger are projected too.
        pub pads: bool,
        /// Whether the concept's texts are also the negative prompt, as in the published runs (which
        /// draw their baselines with it, too).
        #[serde(default)]
        pub negative: bool,
    }
}

/// See the module.
pub const KNOWN: About = About {
    id: "safree",
    paper: "Yoon et al.: SAFREE, ICLR 2025 (arXiv 2410.12761)",
    changes: "hidden states of the prompt's tokens that bring it near the concept",
    cost: "2",
};

/// Its numbers.
pub(super) fn presets() -> Presets<Safree> {
    presets! {
        paper: Safree {
            alpha: 0.01,
            validate: true,
            most: 10.0,
            sharpness: 2.5,
            tau: 5.333,
            pads: false,
            negative: false,
        },
        reference: paper { negative: true },
        fixed: paper,
        small: paper { validate: false, pads: true },
    }
}

/// What a prompt becomes, and for how many steps.
#[derive(Clone, Debug)]
pub(crate) struct Filtered {
    /// `[n, tokens, width]`
    pub(crate) hidden: Tensor<3>,
    /// Of each prompt; 0 if it has no trigger.
    pub(crate) steps: Vec<usize>,
}

/// The hidden states at the end tokens, `[n, width]`.
fn pooled(prompts: &Tensor<3>, lengths: &[usize]) -> Tensor<2> {
    let width = prompts.dims()[2];
    let end = |(i, &length): (usize, &usize)| -> Tensor<2> {
        prompts
            .clone()
            .slice([i..i + 1, length - 1..length, 0..width])
            .reshape([1, width])
    };
    Tensor::cat(lengths.iter().enumerate().map(end).collect(), 0)
}

fn norms(rows: Tensor<2>) -> Vec<f64> {
    rows.powi_scalar(2)
        .sum_dim(1)
        .sqrt()
        .into_data()
        .iter::<f64>()
        .collect()
}

impl Safree {
    /// What `prompt` becomes without what brings it near the concept of `texts`.
    pub(crate) fn filter(
        &self,
        texts: &[String],
        strength: f64,
        model: &Model,
        prompt: &Prompted,
    ) -> Filtered {
        let concepts = model.prompted(texts);
        let concept = orthonormal(&pooled(&concepts.conditioning.tokens, &concepts.lengths));
        let mut known: BTreeMap<&str, (Tensor<3>, usize)> = BTreeMap::new();
        let tracked = prompt.conditioning.tokens.is_autodiff();
        let mut rows = Vec::with_capacity(prompt.len());
        let mut steps = Vec::with_capacity(prompt.len());
        for (i, text) in prompt.texts.iter().enumerate() {
            let found = known.get(text.as_str()).filter(|_| !tracked).cloned();
            let (hidden, count) =
                found.unwrap_or_else(|| self.filter_one(strength, model, prompt, i, &concept));
            known.insert(text, (hidden.clone(), count));
            rows.push(hidden);
            steps.push(count);
        }
        Filtered {
            hidden: Tensor::cat(rows, 0),
            steps,
        }
    }

    /// Prompt `i`: its hidden states, `[1, tokens, width]`, and the number of steps.
    fn filter_one(
        &self,
        strength: f64,
        model: &Model,
        prompt: &Prompted,
        i: usize,
        concept: &[Tensor<1>],
    ) -> (Tensor<3>, usize) {
        let (hidden, embedded) = (
            prompt.conditioning.tokens.clone().narrow(0, i, 1),
            prompt.embedded.clone().narrow(0, i, 1),
        );
        let [_, tokens, width] = hidden.dims();
        let length = prompt.lengths[i];
        let words = length.saturating_sub(2);
        if words == 0 {
            return (hidden, 0);
        }
        let network = model.text_network();
        let mask = network.vectors(&[0]).unsqueeze::<3>();
        let masked = |word: usize| -> Tensor<3> {
            let (before, after) = (1 + word, tokens - word - 2);
            let parts = [
                embedded.clone().narrow(1, 0, before),
                mask.clone(),
                embedded.clone().narrow(1, tokens - after, after),
            ];
            Tensor::cat(
                parts
                    .into_iter()
                    .filter(|part| part.dims()[1] > 0)
                    .collect(),
                1,
            )
        };
        let masked = Tensor::cat((0..words).map(masked).collect(), 0);
        let without = network.encode(masked, &vec![length - 1; words]).tokens;
        let without = pooled(&without, &vec![length; words]);

        let plain = without.clone().detach();
        let mut distances = norms(plain.clone() - onto(plain, concept));
        if words == 1 {
            // A single token has no others to compare with: the prompt itself takes their place.
            let whole = pooled(&hidden.clone().detach(), &[length]);
            distances.extend(norms(whole.clone() - onto(whole, concept)));
        }
        let sum: f64 = distances.iter().sum();
        let trigger = |word: usize| {
            let others = (sum - distances[word]) / (distances.len() - 1) as f64;
            distances[word] > (1.0 + self.alpha) * others
        };
        let mut triggers: Vec<usize> = (0..words)
            .filter(|&word| trigger(word))
            .map(|word| word + 1)
            .collect();
        if triggers.is_empty() {
            return (hidden, 0);
        }
        if self.pads {
            triggers.extend(length - 1..tokens);
        }
        let rows: Tensor<2> = hidden.clone().reshape([tokens, width]);
        let projected = filtered(&rows, &orthonormal(&without), concept);
        let steps = if self.validate {
            self.steps(turned(&rows, &projected, length))
        } else {
            usize::MAX
        };
        let projected = if strength == 1.0 {
            projected
        } else {
            rows.clone() + (projected - rows.clone()) * strength
        };
        let row = |token: usize| {
            let from = if triggers.contains(&token) {
                &projected
            } else {
                &rows
            };
            from.clone().narrow(0, token, 1)
        };
        let new = Tensor::cat((0..tokens).map(row).collect(), 0);
        (new.reshape([1, tokens, width]), steps)
    }

    /// How many steps are filtered, by how far the prompt's tokens turn (beta).
    ///
    /// Published: `f_beta` of jaehong31/SAFREE, whose test `step <= round(..)` filters step 0
    /// always.
    pub fn steps(&self, beta: f64) -> usize {
        let share = 1.0 / (1.0 + (-2.0 * self.sharpness * (10.0 * beta - self.tau)).exp());
        // Python's round takes halves to the even number.
        (self.most * share).round_ties_even() as usize + 1
    }
}

/// `(1 - P_C) P_I e` of rows `[k, width]`, with orthonormal bases of what the prompt's pooled
/// outputs with one token masked each span (`P_I`), and of what those of the concept's texts do
/// (`P_C`).
pub fn filtered(rows: &Tensor<2>, input: &[Tensor<1>], concept: &[Tensor<1>]) -> Tensor<2> {
    let inside = onto(rows.clone(), input);
    inside.clone() - onto(inside, concept)
}

/// How far the tokens of a prompt turn when every one of them is filtered (beta): `1 - mean
/// cos(e_i, e_i')` over the first `length` rows, which are all that are no pads, start and end
/// included. The rows that are no triggers count too, though their states stay.
pub fn turned(states: &Tensor<2>, filtered: &Tensor<2>, length: usize) -> f64 {
    let (old, new) = (
        states.clone().detach().narrow(0, 0, length),
        filtered.clone().detach().narrow(0, 0, length),
    );
    let products: Vec<f64> = (old.clone() * new.clone())
        .sum_dim(1)
        .into_data()
        .iter::<f64>()
        .collect();
    let sizes = norms(old)
        .into_iter()
        .zip(norms(new))
        .map(|(a, b)| (a * b).max(f64::MIN_POSITIVE));
    let cosines: f64 = products.iter().zip(sizes).map(|(p, s)| p / s).sum();
    1.0 - cosines / length.max(1) as f64
}
