//! UnlearnDiffAtk: "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To
//! Generate Unsafe Images ... For Now", Zhang et al., ECCV 2024 (arXiv 2310.11868).
//!
//! Words in front of a prompt that make the edited model a good denoiser of a picture of the
//! concept: with `x0` such a picture, `n` noise, `d` the words and `p` the prompt,
//!
//! `min_d  E_n mean (n - eps(sqrt(abar_t) x0 + sqrt(1 - abar_t) n, t, f(d + p)))^2`
//!
//! Each word is a point of the simplex over the vocabulary ([`simplex`](crate::simplex)); timesteps
//! come in turn, from clean to noisy, some Adam steps at each, then a picture. The search of a case
//! ends with the first picture that shows the concept.
//!
//! The published loss never sees a guard, only the pictures do; here the guard's rule is inside the
//! loss unless `guard_in_loss=false` (the `reference` and `paper` variants). The published
//! vocabulary holds the start and end token too; ours does not. The published target is the
//! autoencoder's mean of a picture of its data set; styles are not closed at their first hit there.
//! Its `per_k_words` draws `k` words and puts one before every three tokens, whatever `k` is; so
//! does `position=per` here.
//!
//! A guard with a memory (SLD's momentum) begins anew at each step's single timestep, so that the
//! loss sees less of it than a picture does, least at the noisy end.

use scumble_diffusion::{
    options,
    options::{ABOVE_ZERO, COUNT, Presets, WEIGHT},
    presets,
};
use scumble_erase::{Result, Variant, job::recorded};
use serde::{Deserialize, Serialize};

use super::Attack;
use crate::{
    job::Job,
    lockstep::{self, Lockstep, Order, Stop},
    placed::Placed,
    predict::Goal,
    protocol::{Outcome, Start},
    simplex::{Rule, Simplex, Vocabulary},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "unlearndiff",
    paper: "Zhang et al., To Generate or Not? (UnlearnDiffAtk), ECCV 2024, arXiv 2310.11868",
    access: "gradients",
    threat: super::Threat::Words,
    finds: "words in front of each prompt, or elsewhere in it",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

/// Where the words stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// In front of the prompt (`prefix_k`).
    Prefix,
    /// Behind it (`suffix_k`).
    Suffix,
    /// In its middle (`mid_k`).
    Middle,
    /// At equal intervals in it (`insert_k`).
    Insert,
    /// One before every three of its tokens (`per_k_words`).
    Per,
}

impl Position {
    /// How many of a prompt's tokens stand before each of `k` words.
    pub fn offsets(self, length: usize, k: usize) -> Vec<usize> {
        let of = |j: usize| match self {
            Self::Prefix => 0,
            Self::Suffix => length,
            Self::Middle => length / 2,
            Self::Insert => length / (k + 1) * (j + 1),
            Self::Per => (3 * j).min(length),
        };
        (0..k).map(of).collect()
    }
}

options! {
    /// The options of UnlearnDiffAtk.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Words (published: 3 for styles and objects, 5 for nudity).
        pub tokens: usize where COUNT,
        /// `prefix`, `suffix`, `middle`, `insert` or `per`: where in the prompt they stand.
        pub position: Position,
        /// Timesteps, from clean to noisy; a picture is drawn after each.
        pub timesteps: usize where COUNT,
        /// Steps at each timestep.
        pub iterations: usize where COUNT,
        /// Adam's step size.
        pub lr: f64 where ABOVE_ZERO,
        /// Adam's weight decay, added to the gradient.
        pub weight_decay: f64 where WEIGHT,
        /// Whether a guard's rule is inside the loss.
        pub guard_in_loss: bool,
    }
}

/// The presets: the published numbers, and those that work.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            tokens: 3,
            position: Position::Prefix,
            timesteps: 50,
            iterations: 40,
            lr: 0.01,
            weight_decay: 0.1,
            guard_in_loss: false,
        },
        reference: paper,
        fixed: paper { guard_in_loss: true },
        small: fixed { timesteps: 10, iterations: 20, lr: 0.2 },
    })
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<(Options, Placed)> {
    let options: Options = job.options(presets, variant)?;
    let (prompts, k) = (job.prompts(), options.tokens);
    let placed = match options.position {
        Position::Prefix => Placed::before(job.victim, &prompts, k)?,
        elsewhere => Placed::at(job.victim, &prompts, &|length| elsewhere.offsets(length, k))?,
    };
    Ok((options, placed))
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let (options, placed) = checked(job, variant)?;
    let vocabulary = Vocabulary::of(job.victim);
    let rule = Rule {
        lr: options.lr,
        weight_decay: options.weight_decay,
    };
    let plan = Lockstep {
        tokens: options.tokens,
        rounds: options.timesteps,
        stop: Stop::FirstHit,
        iterations: options.iterations,
        order: Order::InTurn,
        goal: Goal::Noise,
        guarded: options.guard_in_loss,
    };
    lockstep::search_at(job, start, plan, &placed, &mut |_| {
        Simplex::new(vocabulary.clone(), options.tokens, rule)
    })
}
