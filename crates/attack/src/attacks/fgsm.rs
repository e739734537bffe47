//! The fast gradient sign method in embedding space: one step of the gradient's sign at each
//! timestep, within a box around a random word's vectors.
//!
//! Goodfellow, Shlens and Szegedy, ICLR 2015 (arXiv 1412.6572). AdvUnlearn's `fast_at` (arXiv
//! 2405.15234) takes the gradient's sign too, and then a step of Adam with it, on another loss.
//! This is [`pgd`](super::pgd) with other numbers; the box of 0.1 is no restriction on CLIP's
//! table, whose numbers have a standard deviation of about 0.014.

use scumble_diffusion::Presets;
use scumble_erase::{Result, Variant, job::recorded};

pub use super::pgd::Options;
use super::{Attack, pgd};
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
    threat: super::Threat::Embeddings,
    finds: "vectors in front of each prompt",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

/// PGD's presets with one step of the gradient's sign.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let one_step = |options| Options {
        iterations: 1,
        rule: Rule::Sign,
        lr: 0.01,
        radius: 0.1,
        ..options
    };
    Ok(pgd::presets(job)?.map(one_step))
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<Options> {
    pgd::possible(job, job.options(presets, variant)?)
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    pgd::search(job, start, &options)
}
