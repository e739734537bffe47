//! SAFREE: Yoon et al., "SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image And Video Generation", ICLR 2025
//! (arXiv 2410.12761).
//!
//! `P_C` projects onto the span of the concept texts' pooled outputs, `P_I` onto that of the prompt's with one token masked each.
//! Token `i` is a trigger where the prompt without it lies further from the concept's span than the others do on average:
//! `d_i > (1 + alpha) mean_{j != i} d_j` with `d_i = |(1 - P_C) p_i|`. A trigger's hidden state becomes `(1 - P_C) P_I e_i`.
//!
//! Self-validation: with `beta = 1 - mean cos(e, e')` over the prompt's tokens, the filtered prompt is used at step 0 to
//! `round(most sigmoid(2 k (10 beta - tau)))`, then the plain one.
//!
//! Which tokens are triggers and how many steps are filtered is decided for each prompt, without a gradient; the projections have one. Left out:
//! the re-weighting of skip features in the frequency domain.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use scumble_nn::orthonormal;
use serde::{Deserialize, Serialize};

use super::{Form, Guard, Known, Rule};
use crate::{pipeline::Pipeline, prompted::Prompted};

/// The numbers of SAFREE.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safree {
    /// How much further than the mean makes a trigger (alpha).
    pub alpha: f64,
    /// Whether only so many steps are filtered as the prompt calls for.
    pub validate: bool,
    /// Most steps that are filtered then, less one.
    pub most: f64,
    /// Sharpness of that decision (k).
    pub sharpness: f64,
    /// Its threshold (tau).
    pub tau: f64,
    /// Whether the end token and the pads of a prompt with a trigger are projected too.
    pub pads: bool,
}

/// See the module.
pub const KNOWN: Known = Known {
    id: "safree",
    paper: "Yoon et al.: SAFREE, ICLR 2025 (arXiv 2410.12761)",
    changes: "hidden states of the prompt's tokens that bring it near the concept",
    cost: "2",
    rule: Some(|form, small| {
        let works = form == Form::Fixed && small;
        Rule::Safree(Safree { alpha: 0.01, validate: !works, most: 10.0, sharpness: 2.5, tau: 5.333, pads: works })
    }),
};

/// What a prompt becomes, and for how many steps.
#[derive(Clone, Debug)]
pub(crate) struct Filtered {
    /// `[n, tokens, width]`
    pub(crate) hidden: Tensor<3>,
    /// Of each prompt; 0 if it has no trigger.
    pub(crate) steps: Vec<usize>,
}

/// The projection of rows `[k, width]` onto the span of orthonormal vectors.
fn onto(rows: Tensor<2>, basis: &[Tensor<1>]) -> Tensor<2> {
    if basis.is_empty() {
        return rows.zeros_like();
    }
    let span: Tensor<2> = Tensor::stack(basis.to_vec(), 0);
    rows.matmul(span.clone().transpose()).matmul(span)
}

/// The projection onto the span of `rows`, `[k, width]`, as a matrix `[width, width]`.
pub fn projector(rows: &Tensor<2>) -> Tensor<2> {
    let width = rows.dims()[1];
    onto(Tensor::eye(width, &rows.device()), &orthonormal(rows))
}

/// The hidden states at the end tokens, `[n, width]`.
fn pooled(prompts: &Tensor<3>, lengths: &[usize]) -> Tensor<2> {
    let width = prompts.dims()[2];
    let end = |(i, &length): (usize, &usize)| -> Tensor<2> {
        prompts.clone().slice([i..i + 1, length - 1..length, 0..width]).reshape([1, width])
    };
    Tensor::cat(lengths.iter().enumerate().map(end).collect(), 0)
}

fn norms(rows: Tensor<2>) -> Vec<f64> {
    rows.powi_scalar(2).sum_dim(1).sqrt().into_data().iter::<f64>().collect()
}

impl Safree {
    pub(crate) fn filter(&self, guard: &Guard, pipeline: &Pipeline, prompt: &Prompted) -> Filtered {
        let concepts = pipeline.prompted(&guard.texts);
        let concept = orthonormal(&pooled(&concepts.hidden, &concepts.lengths));
        let mut known: BTreeMap<&str, (Tensor<3>, usize)> = BTreeMap::new();
        let tracked = prompt.hidden.is_autodiff();
        let mut rows = Vec::with_capacity(prompt.len());
        let mut steps = Vec::with_capacity(prompt.len());
        for (i, text) in prompt.texts.iter().enumerate() {
            let found = known.get(text.as_str()).filter(|_| !tracked).cloned();
            let (hidden, count) = found.unwrap_or_else(|| self.filter_one(guard.strength, pipeline, prompt, i, &concept));
            known.insert(text, (hidden.clone(), count));
            rows.push(hidden);
            steps.push(count);
        }
        Filtered { hidden: Tensor::cat(rows, 0), steps }
    }

    /// Prompt `i`: its hidden states, `[1, tokens, width]`, and the number of steps.
    fn filter_one(
        &self,
        strength: f64,
        pipeline: &Pipeline,
        prompt: &Prompted,
        i: usize,
        concept: &[Tensor<1>],
    ) -> (Tensor<3>, usize) {
        let (hidden, embedded) = (prompt.hidden.clone().narrow(0, i, 1), prompt.embedded.clone().narrow(0, i, 1));
        let [_, tokens, width] = hidden.dims();
        let length = prompt.lengths[i];
        let words = length.saturating_sub(2);
        if words == 0 {
            return (hidden, 0);
        }
        let network = pipeline.text_network();
        let mask = network.embed(&[vec![0]]);
        let masked = |word: usize| -> Tensor<3> {
            let (before, after) = (1 + word, tokens - word - 2);
            let parts = [embedded.clone().narrow(1, 0, before), mask.clone(), embedded.clone().narrow(1, tokens - after, after)];
            Tensor::cat(parts.into_iter().filter(|part| part.dims()[1] > 0).collect(), 1)
        };
        let without = network.encode(Tensor::cat((0..words).map(masked).collect(), 0));
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
        let mut triggers: Vec<usize> = (0..words).filter(|&word| trigger(word)).map(|word| word + 1).collect();
        if triggers.is_empty() {
            return (hidden, 0);
        }
        if self.pads {
            triggers.extend(length - 1..tokens);
        }
        let rows: Tensor<2> = hidden.clone().reshape([tokens, width]);
        let inside = onto(rows.clone(), &orthonormal(&without));
        let projected = inside.clone() - onto(inside, concept);
        let projected = if strength == 1.0 { projected } else { rows.clone() + (projected - rows.clone()) * strength };
        let row = |token: usize| {
            let from = if triggers.contains(&token) { &projected } else { &rows };
            from.clone().narrow(0, token, 1)
        };
        let new = Tensor::cat((0..tokens).map(row).collect(), 0);
        let steps = if self.validate { self.steps(&rows, &new, length) } else { usize::MAX };
        (new.reshape([1, tokens, width]), steps)
    }

    /// How many steps are filtered, by how much the tokens of the prompt turned.
    fn steps(&self, old: &Tensor<2>, new: &Tensor<2>, length: usize) -> usize {
        let (old, new) = (old.clone().detach().narrow(0, 1, length - 2), new.clone().detach().narrow(0, 1, length - 2));
        let products: Vec<f64> = (old.clone() * new.clone()).sum_dim(1).into_data().iter::<f64>().collect();
        let sizes = norms(old).into_iter().zip(norms(new)).map(|(a, b)| (a * b).max(f64::MIN_POSITIVE));
        let cosines: Vec<f64> = products.iter().zip(sizes).map(|(p, s)| p / s).collect();
        let beta = 1.0 - cosines.iter().sum::<f64>() / cosines.len().max(1) as f64;
        let share = 1.0 / (1.0 + (-2.0 * self.sharpness * (10.0 * beta - self.tau)).exp());
        (self.most * share).round() as usize + 1
    }
}
