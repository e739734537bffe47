//! Prompting4Debugging: "Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding
//! Problematic Prompts", Chin et al., ICML 2024 (arXiv 2309.06135).
//!
//! Words for which the edited model predicts what the unedited one predicts for the prompt. With
//! `p` free vectors, `near` the nearest word to each ([`nearest`](crate::nearest)), `c` the prompt
//! and `z_t` a noisy picture of the concept:
//!
//! `min_p  mean (eps_edited(z_t, t, near(p) + c) - eps*(z_t, t, c))^2`,  `t` drawn anew for every
//! step.
//!
//! (`near(p)` alone in the published N form.) Where the words stand:
//!
//! - the published N form (`paper`, `reference`): they are the whole prompt, and `c` is in the loss
//!   alone;
//! - the published K form (`every=K`): before every group of K of the prompt's tokens, and after
//!   the last if it is a whole one;
//! - `prefix=true` (`fixed`): in front of the prompt, as in UnlearnDiffAtk. The prompt is in what
//!   is drawn, so its rates are not P4D-N's.
//!
//! The published code draws a picture every 50 steps and keeps the words whose picture CLIP (ViT-H)
//! finds most like the target; of these alone the judge sees three pictures, any of which counts
//! (`closest`, `pictures`; the default of `reference`, which needs `--clip`). Otherwise a case ends
//! with the first picture that shows the concept, as in UnlearnDiffAtk: up to `rounds` looks. Its
//! target is the picture of three that its judge is surest of, here the case's own or the next that
//! shows the concept; its selection draws with new noise every time, here with the case's own. It
//! begins at any token and may end at any, start and end included; ours are words. Behind its
//! end token it pads with token 0 while it searches (in the K form it overwrites the end token
//! too), with CLIP's own when it draws; here both are alike. Its search under SLD leaves the
//! unconditional prediction out of the guided one; here the guard's own rule is in the loss
//! (`guard_in_loss`).

use scumble_diffusion::{
    options,
    options::{ABOVE_ZERO, COUNT, Presets, WEIGHT},
    presets,
};
use scumble_erase::{Result, Variant, job::recorded, seeds::stream};
use serde::{Deserialize, Serialize};

use super::Attack;
use crate::{
    closest,
    job::Job,
    lockstep::{self, Lockstep, Order, Stop},
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
    access: "gradients; a CLIP that sees pictures (closest=true)",
    threat: super::Threat::Words,
    finds: "words in place of each prompt, in front of it, or between its words",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

options! {
    /// The options of P4D.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Words.
        pub tokens: usize where COUNT,
        /// A word before every group of so many of the prompt's tokens instead (the K form); 0 for
        /// the N form, or `prefix`.
        pub every: usize,
        /// Whether the words stand in front of the prompt; otherwise they are the whole prompt (the
        /// N form).
        pub prefix: bool,
        /// Whether each prompt has a timestep of its own in a step, as published; otherwise all
        /// have the same.
        pub own_timesteps: bool,
        /// Whether the words are kept whose picture a CLIP finds most like the target, as published;
        /// otherwise a case ends with the first picture that shows the concept.
        pub closest: bool,
        /// With `closest`, how many pictures of a case the judge sees at the end; any may show the
        /// concept.
        pub pictures: usize where COUNT,
        /// Rounds; after each a picture of every open case is drawn.
        pub rounds: usize where COUNT,
        /// Steps in a round.
        pub iterations: usize where COUNT,
        /// AdamW's step size.
        pub lr: f64 where ABOVE_ZERO,
        /// AdamW's weight decay.
        pub weight_decay: f64 where WEIGHT,
        /// Whether a guard's rule is inside the loss.
        pub guard_in_loss: bool,
        /// Whether only words are tried that are read back as themselves.
        pub whole_words: bool,
    }
}

/// The presets: the published numbers, and those that work.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            tokens: 16,
            every: 0,
            prefix: false,
            own_timesteps: true,
            closest: false,
            pictures: 3,
            rounds: 60,
            iterations: 50,
            lr: 0.1,
            weight_decay: 0.1,
            guard_in_loss: false,
            whole_words: false,
        },
        reference: paper { closest: true },
        fixed: paper {
            prefix: true,
            own_timesteps: false,
            guard_in_loss: true,
            whole_words: true,
        },
        small: fixed { tokens: 5, rounds: 10, iterations: 20 },
    })
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<(Options, Placed)> {
    let options: Options = job.options(presets, variant)?;
    if options.closest {
        closest::clip(job)?;
    }
    let prompts: Vec<String> = job.prompts();
    let placed = match (options.every, options.prefix) {
        (0, true) => Placed::before(job.victim, &prompts, options.tokens)?,
        (0, false) => Placed::whole(job.victim, prompts.len(), options.tokens)?,
        (every, _) => Placed::between(job.victim, &prompts, every)?,
    };
    Ok((options, placed))
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let (options, placed) = checked(job, variant)?;
    let vocabulary = Vocabulary::words(job.victim, options.whole_words)?;
    let rule = Rule {
        lr: options.lr,
        weight_decay: options.weight_decay,
    };
    let plan = Lockstep {
        tokens: placed.places(),
        rounds: options.rounds,
        iterations: options.iterations,
        order: if options.own_timesteps {
            Order::RandomEach
        } else {
            Order::Random
        },
        stop: if options.closest {
            Stop::Closest {
                pictures: options.pictures,
            }
        } else {
            Stop::FirstHit
        },
        goal: Goal::Base,
        guarded: options.guard_in_loss,
    };
    let seed = job.seed;
    lockstep::search_at(job, start, plan, &placed, &mut |case| {
        Nearest::new(
            vocabulary.clone(),
            plan.tokens,
            rule,
            stream(seed, "p4d").at(case),
        )
    })
}
