//! What a method that trains the text encoder is not to change: the hidden states of prompts that
//! do not ask for the concept.

use burn::tensor::Tensor;
use scumble_diffusion::Pipeline;

use crate::{
    data::turns,
    job::Job,
    seeds::{Stream, draw, stream},
};

/// Where a step has a single prompt every so many-th is the empty one.
const EMPTY_EVERY: usize = 4;

/// The prompts to keep: the job's captions, and what the user named.
#[derive(Clone, Debug, Default)]
pub struct Retain {
    captions: Vec<String>,
    named: Vec<String>,
    seed: u64,
}

impl Retain {
    /// Those of a job.
    pub fn of(job: &Job<'_>) -> Self {
        let named = job
            .preserve
            .iter()
            .flat_map(|c| c.prompts.iter().map(|p| p.asks().to_owned()))
            .collect();
        Self {
            captions: job.captions.lines.clone(),
            named,
            seed: job.seed,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty() && self.named.is_empty()
    }

    /// `n` prompts for a step: the empty one, which guidance asks at every step of sampling (every
    /// fourth time where a step has a single prompt), and others: in turn what the user named and
    /// captions, each in shuffled epochs.
    pub fn batch(&self, n: usize, step: usize) -> Vec<String> {
        if n == 0 || self.is_empty() {
            return Vec::new();
        }
        if n == 1 {
            let empty = turns::taken(step, 1, 0, EMPTY_EVERY) == EMPTY_EVERY - 1;
            return vec![if empty {
                String::new()
            } else {
                self.other(step - step / EMPTY_EVERY)
            }];
        }
        let others = step * (n - 1)..(step + 1) * (n - 1);
        std::iter::once(String::new())
            .chain(others.map(|i| self.other(i)))
            .collect()
    }

    /// Prompt `i` of a run, not counting the empty ones.
    fn other(&self, i: usize) -> String {
        let of = |lines: &[String], of: Stream, i: usize| {
            lines[draw(lines.len(), 1, of.seed(), i)[0]].clone()
        };
        let named = |i: usize| of(&self.named, stream(self.seed, "retain/named"), i);
        let captions = |i: usize| of(&self.captions, stream(self.seed, "retain/captions"), i);
        match (self.named.is_empty(), self.captions.is_empty()) {
            (true, _) => captions(i),
            (false, true) => named(i),
            (false, false) => {
                if i.is_multiple_of(2) {
                    named(i / 2)
                } else {
                    captions(i / 2)
                }
            }
        }
    }

    /// What the user named, all of it, then captions up to `n` prompts, and at least as many of
    /// them as were named.
    pub fn some(&self, n: usize) -> Vec<String> {
        let n = n.max(self.named.len().saturating_mul(2));
        let captions = if self.captions.is_empty() {
            Vec::new()
        } else {
            draw(
                self.captions.len(),
                self.captions.len(),
                stream(self.seed, "retain/some").seed(),
                0,
            )
        };
        let captions = captions.into_iter().map(|i| self.captions[i].clone());
        self.named.iter().cloned().chain(captions).take(n).collect()
    }
}

/// How far the hidden states of prompts moved: the mean of `(h(r) - h*(r))^2` over prompts,
/// positions and channels.
pub fn hidden_drift(frozen: &Pipeline, edited: &Pipeline, prompts: &[String]) -> Tensor<1> {
    (edited.encode(prompts).tokens - frozen.encode(prompts).tokens)
        .powi_scalar(2)
        .mean()
}
