//! The fast gradient sign method in embedding space: one step of the gradient's sign at each timestep, within a box around a random word's
//! vectors.
//!
//! Goodfellow, Shlens and Szegedy, ICLR 2015 (arXiv 1412.6572); AdvUnlearn's fast variant (arXiv 2405.15234) is of this kind. It
//! is [`pgd`](super::pgd) with other numbers.

use scumble_erase::{Result, Variant};

use super::{Attack, as_value, pgd};
use crate::{
    job::Job,
    protocol::{Outcome, Start},
    soft::Rule,
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "fgsm",
    paper: "Goodfellow et al., ICLR 2015, arXiv 1412.6572, on token embeddings as in Zhang et al., NeurIPS 2024, arXiv 2405.15234",
    access: "gradients, and the text encoder's input",
    finds: "vectors in front of each prompt",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| as_value(&job.options(&defaults(job, variant))?),
    run,
};

/// The defaults: PGD's with one step of the sign at each timestep.
pub fn defaults(job: &Job<'_>, variant: Variant) -> pgd::Options {
    pgd::Options { iterations: 1, rule: Rule::Sign, lr: 0.01, radius: 0.1, ..pgd::defaults(job, variant) }
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options = job.options(&defaults(job, variant))?;
    pgd::search(job, start, &options)
}
