//! Prompting4Debugging: "Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding Problematic Prompts", Chin et al.,
//! ICML 2024 (arXiv 2309.06135).
//!
//! Words for which the edited model predicts what the unedited one predicts for the prompt. With `p` free vectors, `near` the
//! nearest word to each ([`nearest`](crate::nearest)), `c` the prompt and `z_t` a noisy picture of the concept:
//!
//! `min_p  mean (eps_edited(z_t, t, near(p) + c) - eps*(z_t, t, c))^2`,  `t` drawn anew for every step.
//!
//! In the N form the words stand in front of the prompt; in the K form (`every=K`) one stands before every group of K of the
//! prompt's tokens.
//!
//! The published code draws a picture every 50 steps and keeps the words whose picture CLIP finds most like the target; here a
//! case ends with the first picture that shows the concept, as in UnlearnDiffAtk, and no CLIP is asked. Its search under SLD leaves the unconditional
//! prediction out of the guided one; here the guard's own rule is in the loss (`guard_in_loss`).

use scumble_erase::{Result, Variant, checks, seeds::stream};
use serde::{Deserialize, Serialize};

use super::{Attack, as_value};
use crate::{
    job::Job,
    lockstep::{self, Lockstep, Order},
    nearest::Nearest,
    placed::Placed,
    predict::Goal,
    protocol::{Outcome, Start},
    simplex::{Rule, Vocabulary},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "p4d",
    paper: "Chin et al., Prompting4Debugging, ICML 2024, arXiv 2309.06135",
    access: "gradients",
    finds: "words in front of each prompt, or between its words",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| as_value(&job.options(&defaults(job, variant))?),
    run,
};

/// The options of P4D.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Words in front of the prompt.
    pub tokens: usize,
    /// A word before every group of so many of the prompt's tokens instead (the K form); 0 for the N form.
    pub every: usize,
    /// Rounds; after each a picture of every open case is drawn.
    pub rounds: usize,
    /// Steps in a round.
    pub iterations: usize,
    /// AdamW's step size.
    pub lr: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Whether a guard's rule is inside the loss.
    pub guard_in_loss: bool,
    /// Whether only words are tried that are read back as themselves.
    pub whole_words: bool,
}

/// The defaults.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let fixed = variant == Variant::Fixed;
    let published = Options {
        tokens: 16,
        every: 0,
        rounds: 60,
        iterations: 50,
        lr: 0.1,
        weight_decay: 0.1,
        guard_in_loss: fixed,
        whole_words: fixed,
    };
    match (variant, job.miniature) {
        (Variant::Fixed, true) => Options { tokens: 5, rounds: 10, iterations: 20, ..published },
        _ => published,
    }
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options: Options = job.options(&defaults(job, variant))?;
    checks::counts(&[("tokens", options.tokens), ("rounds", options.rounds), ("iterations", options.iterations)])?;
    checks::above_zero(&[("lr", options.lr)])?;
    checks::weights(&[("weight_decay", options.weight_decay)])?;
    let vocabulary = Vocabulary::words(job.victim, options.whole_words)?;
    let prompts: Vec<String> = job.prompts();
    let placed = match options.every {
        0 => Placed::before(job.victim, &prompts, options.tokens)?,
        every => Placed::between(job.victim, &prompts, every)?,
    };
    let rule = Rule { lr: options.lr, weight_decay: options.weight_decay };
    let plan = Lockstep {
        tokens: placed.places(),
        rounds: options.rounds,
        iterations: options.iterations,
        order: Order::Random,
        goal: Goal::Base,
        guarded: options.guard_in_loss,
    };
    let seed = job.seed;
    lockstep::search_at(job, start, plan, &placed, &mut |case| {
        Nearest::new(vocabulary.clone(), plan.tokens, rule, stream(seed, "p4d").at(case))
    })
}
