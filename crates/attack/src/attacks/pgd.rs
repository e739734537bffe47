//! The attack in embedding space: vectors in front of a prompt that need not be words, found by
//! projected gradient descent.
//!
//! The loss and the schedule are [UnlearnDiffAtk](super::unlearndiff)'s, whose code has no such
//! search. AdvUnlearn's code has one inside its training (`soft_prompt_attack`: `attack_method`
//! `pgd` is Adam there, as `rule=adam` here) with another loss: the distance to the frozen model's
//! prediction for the prompt at latents that the edited model draws, any timestep, 30 steps,
//! gradients never cleared. So this is no port of either. No user can type such a prompt. A wider
//! space has the lower least loss, but a search of so many steps finds neither, and the loss is not
//! the rate: words may do better.
//!
//! Without a `radius`, the default, nothing is projected. CLIP's table of words has a standard
//! deviation of about 0.014, so a radius of 0.1 is in effect none there.

use scumble_diffusion::{
    options,
    options::{ABOVE_ZERO, COUNT, Presets, WEIGHT},
    presets,
};
use scumble_erase::{Result, Variant, job::recorded, seeds::stream};
use serde::{Deserialize, Serialize};

use super::Attack;
use crate::{
    job::Job,
    lockstep::{self, Lockstep, Order, Stop},
    predict::Goal,
    protocol::{Outcome, Start},
    simplex::Vocabulary,
    soft::{Rule, Soft},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "pgd",
    paper: "Madry et al., ICLR 2018, arXiv 1706.06083, on token embeddings, with the loss of Zhang et al., ECCV 2024, arXiv 2310.11868",
    access: "gradients, and the text encoder's input",
    threat: super::Threat::Embeddings,
    finds: "vectors in front of each prompt",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

options! {
    /// The options of attacks in embedding space.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Vectors in front of the prompt.
        pub tokens: usize where COUNT,
        /// Timesteps, from clean to noisy; a picture is drawn after each.
        pub timesteps: usize where COUNT,
        /// Steps at each timestep.
        pub iterations: usize where COUNT,
        /// `adam`, or `sign`: steps of the gradient's sign.
        pub rule: Rule,
        /// Step size.
        pub lr: f64 where ABOVE_ZERO,
        /// How far each number may move from a random word's; 0 for any distance.
        pub radius: f64 where WEIGHT,
        /// Whether a guard's rule is inside the loss.
        pub guard_in_loss: bool,
    }
}

/// The presets: the published numbers, and those that work.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            tokens: 3,
            timesteps: 50,
            iterations: 40,
            rule: Rule::Adam,
            lr: 0.01,
            radius: 0.0,
            guard_in_loss: false,
        },
        reference: paper,
        fixed: paper { guard_in_loss: true },
        small: fixed { timesteps: 10, iterations: 20, lr: 0.02 },
    })
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<Options> {
    possible(job, job.options(presets, variant)?)
}

/// Options that can be carried out.
///
/// # Errors
/// If a prompt leaves no room.
pub fn possible(job: &Job<'_>, options: Options) -> Result<Options> {
    lockstep::fits(job, options.tokens)?;
    Ok(options)
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    search(job, start, &options)
}

/// The search of both attacks in embedding space.
///
/// # Errors
/// If a prompt leaves no room, the loss is not finite, or the caller interrupts.
pub fn search(job: &mut Job<'_>, start: &Start, options: &Options) -> Result<Outcome> {
    let plan = Lockstep {
        tokens: options.tokens,
        rounds: options.timesteps,
        stop: Stop::FirstHit,
        iterations: options.iterations,
        order: Order::InTurn,
        goal: Goal::Noise,
        guarded: options.guard_in_loss,
    };
    let vocabulary = Vocabulary::of(job.victim);
    let (seed, radius) = (job.seed, (options.radius > 0.0).then_some(options.radius));
    lockstep::search(job, start, plan, &mut |case| {
        let words = stream(seed, "pgd/start").rng(case).integers(
            options.tokens,
            0,
            vocabulary.len() as i64,
        );
        let device = vocabulary.vectors.device();
        let start = vocabulary.vectors.clone().select(
            0,
            burn::tensor::Tensor::from_data(words.as_slice(), &device),
        );
        Soft::new(start, options.rule, options.lr, radius)
    })
}
