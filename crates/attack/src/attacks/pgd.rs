//! The attack in embedding space: vectors in front of a prompt that need not be words, found by projected gradient descent.
//!
//! The loss and the schedule are [UnlearnDiffAtk](super::unlearndiff)'s. Its code and AdvUnlearn's call the same search over
//! embeddings PGD (with Adam in the place of the sign's step: `rule=adam`). No user can type such a prompt, so it bounds from
//! above what words can do.

use scumble_diffusion::TorchRng;
use scumble_erase::{Result, Variant, checks, seeds::stream};
use serde::{Deserialize, Serialize};

use super::{Attack, as_value};
use crate::{
    job::Job,
    lockstep::{self, Lockstep, Order},
    predict::Goal,
    protocol::{Outcome, Start},
    simplex::Vocabulary,
    soft::{Rule, Soft},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "pgd",
    paper: "Madry et al., ICLR 2018, arXiv 1706.06083, on token embeddings as in Zhang et al., ECCV 2024, arXiv 2310.11868",
    access: "gradients, and the text encoder's input",
    finds: "vectors in front of each prompt",
    step: "a gradient step for every open prompt",
    cases: 20,
    options: |job, variant| as_value(&job.options(&defaults(job, variant))?),
    run,
};

/// The options of attacks in embedding space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Vectors in front of the prompt.
    pub tokens: usize,
    /// Timesteps, from clean to noisy; a picture is drawn after each.
    pub timesteps: usize,
    /// Steps at each timestep.
    pub iterations: usize,
    /// `adam`, or `sign`: steps of the gradient's sign.
    pub rule: Rule,
    /// Step size.
    pub lr: f64,
    /// How far each number may move from a random word's; 0 for any distance.
    pub radius: f64,
    /// Whether a guard's rule is inside the loss.
    pub guard_in_loss: bool,
}

/// The defaults.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let published = Options {
        tokens: 3,
        timesteps: 50,
        iterations: 40,
        rule: Rule::Adam,
        lr: 0.01,
        radius: 0.0,
        guard_in_loss: variant == Variant::Fixed,
    };
    match (variant, job.miniature) {
        (Variant::Fixed, true) => Options { timesteps: 10, iterations: 20, lr: 0.02, ..published },
        _ => published,
    }
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options: Options = job.options(&defaults(job, variant))?;
    search(job, start, &options)
}

/// The search of both attacks in embedding space.
///
/// # Errors
/// If an option is impossible, or the caller interrupts.
pub fn search(job: &mut Job<'_>, start: &Start, options: &Options) -> Result<Outcome> {
    checks::counts(&[("tokens", options.tokens), ("timesteps", options.timesteps), ("iterations", options.iterations)])?;
    checks::above_zero(&[("lr", options.lr)])?;
    checks::weights(&[("radius", options.radius)])?;
    let plan = Lockstep {
        tokens: options.tokens,
        rounds: options.timesteps,
        iterations: options.iterations,
        order: Order::InTurn,
        goal: Goal::Noise,
        guarded: options.guard_in_loss,
    };
    let vocabulary = Vocabulary::of(job.victim);
    let (seed, radius) = (job.seed, (options.radius > 0.0).then_some(options.radius));
    lockstep::search(job, start, plan, &mut |case| {
        let words = stream(seed, "pgd/start").rng(case).integers(options.tokens, 0, vocabulary.len() as i64);
        let device = vocabulary.vectors.device();
        let start = vocabulary.vectors.clone().select(0, burn::tensor::Tensor::from_data(words.as_slice(), &device));
        Soft::new(start, options.rule, options.lr, radius)
    })
}
