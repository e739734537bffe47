//! The fast gradient sign method in embedding space: one step of the gradient's sign at each
//! timestep, within a box around a random word's vectors.
//!
//! Goodfellow, Shlens and Szegedy, ICLR 2015 (arXiv 1412.6572). AdvUnlearn's `fast_at` (arXiv
//! 2405.15234) takes the gradient's sign too, and then a step of Adam with it, on another loss.
//! This is [`pgd`](super::pgd) with other numbers; the box of 0.1 is no restriction on CLIP's
//! table, whose numbers have a standard deviation of about 0.014.

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
    paper: "Goodfellow et al., ICLR 2015, arXiv 1412.6572, on token embeddings, with the loss of Zhang et al., ECCV 2024, arXiv 2310.11868",
    access: "gradients, and the text encoder's input",
    finds: "vectors in front of each prompt",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| as_value(&job.options(&defaults(job, variant))?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

/// The defaults: PGD's with one step of the sign at each timestep.
pub fn defaults(job: &Job<'_>, variant: Variant) -> pgd::Options {
    pgd::Options {
        iterations: 1,
        rule: Rule::Sign,
        lr: 0.01,
        radius: 0.1,
        ..pgd::defaults(job, variant)
    }
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<pgd::Options> {
    pgd::possible(job, job.options(&defaults(job, variant))?)
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    pgd::search(job, start, &options)
}
