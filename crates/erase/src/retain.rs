//! What a method that trains the text encoder is not to change: the hidden states of prompts that do not ask for the concept.

use burn::tensor::Tensor;
use scumble_diffusion::Pipeline;

use crate::{
    job::Job,
    seeds::{Stream, draw, stream},
};

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
        let named = job.preserve.iter().flat_map(|c| c.prompts.iter().map(|p| p.asks().to_owned())).collect();
        Self { captions: job.captions.lines.clone(), named, seed: job.seed }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty() && self.named.is_empty()
    }

    /// `n` prompts for a step: the empty one, which guidance asks at every step of sampling; of the rest half what the user
    /// named, if anything; each part in shuffled epochs.
    pub fn batch(&self, n: usize, step: usize) -> Vec<String> {
        if n == 0 || self.is_empty() {
            return Vec::new();
        }
        let n = n - 1;
        let of_named = match (self.named.is_empty(), self.captions.is_empty()) {
            (true, _) => 0,
            (false, true) => n,
            (false, false) => n.div_ceil(2),
        };
        let part = |lines: &[String], n: usize, of: Stream| -> Vec<String> {
            if lines.is_empty() || n == 0 {
                return Vec::new();
            }
            draw(lines.len(), n, of.seed(), step).into_iter().map(|i| lines[i].clone()).collect()
        };
        let named = part(&self.named, of_named, stream(self.seed, "retain/named"));
        let captions = part(&self.captions, n - of_named, stream(self.seed, "retain/captions"));
        [vec![String::new()], named, captions].concat()
    }

    /// At most `n` of the prompts, those the user named first.
    pub fn some(&self, n: usize) -> Vec<String> {
        let captions = if self.captions.is_empty() {
            Vec::new()
        } else {
            draw(self.captions.len(), self.captions.len(), stream(self.seed, "retain/some").seed(), 0)
        };
        let captions = captions.into_iter().map(|i| self.captions[i].clone());
        self.named.iter().cloned().chain(captions).take(n).collect()
    }
}

/// How far the hidden states of prompts moved: the mean of `(h(r) - h*(r))^2` over prompts, positions and channels.
pub fn hidden_drift(frozen: &Pipeline, edited: &Pipeline, prompts: &[String]) -> Tensor<1> {
    (edited.encode(prompts) - frozen.encode(prompts)).powi_scalar(2).mean()
}
