//! AdvUnlearn: "Defensive Unlearning with Adversarial Training for Robust Concept Erasure in
//! Diffusion Models", Zhang et al., NeurIPS 2024 (arXiv 2405.15234).
//!
//! ESD's target, but for prompts into which an attacker has put soft tokens `d`. With `f` the text
//! encoder, `e` the prompt:
//!
//! - lower level: `d = argmin mean (net(z_t, t, f(e + d)) - eps*(e))^2`: some steps of Adam
//!   ([`soft_token`](crate::adversary::soft_token))
//! - upper level: `loss = mean (net(z_t, t, f(e + d)) - (eps*(0) - eta (eps*(e) - eps*(0))))^2
//!   + w mean (net(z'_t, t, f(r)) - eps*(r))^2` over prompts `r` to keep; `d` is a constant in it
//!
//! The first iterations are plain ESD. Either the text encoder moves, which is what the paper
//! recommends, or the U-Net.
//!
//! The published procedure samples a partial trajectory for every example of the attack, of the
//! target and of the retain term. Here they all come from one [`bank`](crate::data::bank), which also
//! holds the frozen predictions that both levels need.

use std::cell::RefCell;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Conditioning, Pipeline, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, WEIGHT},
    presets,
};
use scumble_families::Part;
use scumble_nn::files::Tensors;
use serde::{Deserialize, Serialize};

use crate::{
    adversary::soft_token::{self, Attack, Gradient, Rule, Slots, Span},
    checks,
    concepts::prompt::ConceptPrompt,
    data::bank::{Bank, Examples, Path, Sampling},
    data::retain::Retain,
    data::trajectories::{self},
    data::turns,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{Stream, draw, stream},
    training::negative_guidance::{self, Away, Form},
    training::snapshot::Snapshot,
    training::train::{self, LrSchedule, Train, train},
    training::trainable::Trainable,
    training::width,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "advunlearn",
    paper: "Zhang et al., Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models, NeurIPS 2024, arXiv 2405.15234",
    moves: "text encoder: all layers (text-encoder), the first (text-first), text-mlp, text-mlp-only, text-attn; or the U-Net: esd-x, esd-x-strict, esd-u, esd-all, selfattn",
    needs: "nothing; prompts to keep can be given with --captions",
    several: true,
    preserves: true,
    pictures: false,
    // One thread beside other work; nothing faster has been measured with these defaults.
    seconds: Some(191.0),
    peak_mb: Some(325.0),
    published_evaluations: Some(1_615_000),
    fixed: "the miniature's recipe in at most 30,000 evaluations for one concept, each attack begun at random words, its step size divided by how much wider the encoder is; the published 1,000 steps of 30 attack steps are `paper`",
    erase,
};

options! {
    /// AdvUnlearn's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move.
        pub train_method: String,
        /// Training steps, those without an attack among them.
        pub iterations: usize where COUNT,
        /// Steps before the first attack.
        pub warmup: usize,
        /// Adam's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// How far past the neutral prediction to go.
        pub eta: f64 where FINITE,
        /// The same for prompts with an anchor.
        pub anchor_eta: f64 where FINITE,
        /// `paper` or `present`: the form of ESD's target.
        pub form: Form,
        /// Examples of the concept a step.
        pub batch: usize where COUNT,
        /// How many of these have no soft token after the warm-up.
        pub clean: usize,
        /// Trajectories of the concept in the bank.
        pub trajectories: usize where COUNT,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
        /// `pgd`, or `fast` for signs of gradients.
        pub attack: Rule,
        /// Steps of an attack.
        pub attack_steps: usize where COUNT,
        /// Its step size.
        pub attack_lr: f64 where ABOVE_ZERO,
        /// `random` words, the `latest` soft tokens, or those but for one attack in turn:
        /// `rolling`.
        pub attack_init: Init,
        /// Attacks that run beside each other in a step, each with one example a step.
        pub attack_batch: usize where COUNT,
        /// Soft tokens of each.
        pub attack_tokens: usize where COUNT,
        /// `tokens` or `words`: how the length of a prompt is counted.
        pub attack_span: Span,
        /// `fresh` or `summed`: whether the attack's gradient is zeroed.
        pub attack_gradient: Gradient,
        /// Weight of the retain term.
        pub retain: f64 where WEIGHT,
        /// Its examples a step.
        pub retain_batch: usize,
        /// Trajectories of prompts to keep, one for each.
        pub retain_trajectories: usize,
        /// `reg` or `iter`: part of the loss, or a step of its own without the weight.
        pub retain_mode: RetainMode,
    }
}

/// Where an attack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// At random words.
    Random,
    /// Where the attack of the step before ended.
    Latest,
    /// There too, but for one of the attacks beside each other, which begins at a random word: each
    /// in its turn. So attacks of every age are met, the oldest with `attack_batch` times as many
    /// steps as one training step pays for. Ours.
    Rolling,
}

/// How the retain term takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetainMode {
    /// Added to the loss with its weight.
    Reg,
    /// A step of its own after each step; the weight does not count.
    Iter,
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
///
/// # Errors
/// If the option `train_method` names no tensors.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let trainable = trained(job)?;
    Ok(presets! {
        paper: Options {
            train_method: trainable.name.into(),
            iterations: 1000,
            warmup: 200,
            lr: 1e-5,
            lr_schedule: LrSchedule::Constant,
            eta: 1.0,
            anchor_eta: 1.0,
            form: Form::Paper,
            batch: 1,
            clean: 0,
            trajectories: 32,
            sampling_steps: 50,
            start_guidance: 3.0,
            attack: Rule::Pgd,
            attack_steps: 30,
            attack_lr: 1e-3,
            attack_init: Init::Random,
            attack_batch: 1,
            attack_tokens: 1,
            attack_span: Span::Tokens,
            attack_gradient: Gradient::Fresh,
            retain: 0.5,
            retain_batch: 5,
            retain_trajectories: 100,
            retain_mode: RetainMode::Reg,
        },
        reference: paper {
            attack_span: Span::Words,
            attack_gradient: Gradient::Summed,
            retain: 0.3,
        },
        small: paper {
            iterations: 160,
            warmup: 30,
            lr: if trainable.part == Part::Denoiser { 1e-3 } else { 3e-4 },
            lr_schedule: LrSchedule::Linear,
            form: Form::Present,
            batch: 12,
            clean: 4,
            trajectories: job.prompt_count().max(16),
            sampling_steps: 20,
            // Against single tokens of 12 steps it learns to resist single tokens: four brought
            // church back in half of the pictures.
            attack_steps: 20,
            attack_tokens: 4,
            attack_lr: 1e-2,
            attack_init: Init::Rolling,
            attack_batch: 8,
            retain: 1.0,
            retain_batch: 16,
            retain_trajectories: 64,
        },
        fixed: small {
            iterations: 300,
            warmup: 40,
            lr: width::lr(
                job.pipeline,
                trainable.part,
                if trainable.part == Part::Denoiser { 1e-3 } else { 3e-4 },
            ),
            batch: 1,
            clean: 0,
            trajectories: job.prompt_count().max(16),
            attack_batch: 1,
            // Going on where the last attack ended, alone, took other objects with it: on the miniature
            // 62% of them were right, where 88% are this way.
            attack_init: Init::Random,
            retain_batch: 4,
        },
    })
}

/// The tensors that the option `train_method` names.
fn trained(job: &Job<'_>) -> Result<Trainable> {
    let wanted = job.preset("train_method", "text-encoder".to_owned())?;
    Trainable::named(&wanted)
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, a prompt leaves no room for soft tokens, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let trainable = trained(job)?;
    let mut options: Options = job.options(presets, variant)?;
    options.train_method = trainable.name.into();
    if job.set_alone("eta", "anchor_eta") {
        options.anchor_eta = options.eta;
    }
    options.fit_together()?;
    checks::keeping(
        job,
        options.retains(),
        "--set retain=0.5, and retain_batch and retain_trajectories above 0",
    )?;
    let prompts = job.prompts()?;
    let asks: Vec<String> = prompts.iter().map(|p| p.asks().to_owned()).collect();
    let slots = Slots::new(
        job.pipeline,
        &asks,
        options.attack_tokens,
        options.attack_span,
    )?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let sampling = Sampling {
        steps: options.sampling_steps,
        guidance: options.start_guidance,
    };
    let paths = trajectories::paths(&prompts, options.trajectories, job.seed);
    let kept = if options.retains() {
        Retain::of(job).some(options.retain_trajectories)
    } else {
        Vec::new()
    };
    job.tell(Event::Note(&options.cost(&paths, kept.len()).to_string()))?;
    let bank = Bank::record(job, &paths, sampling)?;
    let seed = job.seed;
    let kept_paths: Vec<Path> = kept
        .iter()
        .enumerate()
        .map(|(i, prompt)| Path {
            prompt: prompt.clone(),
            also: vec![],
            seed: stream(seed, "advunlearn/kept trajectories").at(i),
        })
        .collect();
    let kept_bank = if kept.is_empty() {
        None
    } else {
        Some(Bank::record(job, &kept_paths, sampling)?)
    };

    let latest = RefCell::new(Tensors::new());
    let level = Levels {
        options: &options,
        prompts: &prompts,
        asks: &asks,
        slots: &slots,
        bank: &bank,
        seed,
        latest: &latest,
    };
    let alone = options.retain_mode == RetainMode::Iter && kept_bank.is_some();
    let steps = if alone {
        2 * options.iterations
    } else {
        options.iterations
    };
    let steps = Train::new(trainable, steps, options.lr, options.lr_schedule, STATE);
    let values = train(
        job,
        Train {
            carried: Some(&latest),
            ..steps
        },
        &mut |edited, step| {
            let retained = |step: usize| match &kept_bank {
                Some(bank) => retained(
                    edited,
                    bank,
                    &kept,
                    options.retain_batch,
                    stream(seed, "advunlearn/retain").seed(),
                    step,
                )
                .map(Some),
                None => Ok(None),
            };
            if alone {
                return match (step % 2, retained(step / 2)?) {
                    (1, Some(loss)) => Ok(loss),
                    _ => level.forget(edited, step / 2),
                };
            }
            let loss = level.forget(edited, step)?;
            Ok(match retained(step)? {
                Some(kept) => loss + kept * options.retain,
                None => loss,
            })
        },
    )?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// The name under which training is stored.
const STATE: &str = "advunlearn";

/// Both levels of the forget term.
struct Levels<'a> {
    options: &'a Options,
    prompts: &'a [ConceptPrompt],
    asks: &'a [String],
    slots: &'a Slots,
    bank: &'a Bank,
    seed: u64,
    /// The soft tokens of the step before, under `soft`.
    latest: &'a RefCell<Tensors>,
}

impl Levels<'_> {
    /// Examples drawn from the bank for one use in one step, and the prompt of each.
    fn examples(&self, n: usize, of: Stream, step: usize) -> (Examples, Vec<usize>) {
        let examples = self
            .bank
            .examples(&draw(self.bank.len(), n, of.seed(), step));
        let rows = examples
            .path
            .iter()
            .map(|path| path % self.prompts.len())
            .collect();
        (examples, rows)
    }

    /// The lower level: soft tokens that bring the concept back in the model as it is now.
    fn attack(&self, edited: &Pipeline, step: usize) -> Result<Tensor<3>> {
        let o = self.options;
        let width = edited.token_width();
        let shape = [o.attack_batch, o.attack_tokens, width];
        // Every step after the warm-up's end leaves some, and what was stored with the network's
        // state was put back before the first step.
        let before = match o.attack_init {
            Init::Random => None,
            _ if step <= o.warmup => None,
            _ => {
                let mut stored = train::carried(STATE, self.latest);
                let soft = stored.tensor("soft", shape.iter().product(), edited.device())?;
                stored.end()?;
                Some(soft.reshape(shape))
            }
        };
        let fresh = self.slots.random(
            &edited.without_gradients(),
            o.attack_batch,
            stream(self.seed, "advunlearn/fresh soft tokens").at(step),
        );
        let start = match (o.attack_init, before) {
            (Init::Latest, Some(before)) => before,
            (Init::Rolling, Some(before)) => {
                let turn = step % o.attack_batch;
                let of = |k: usize| {
                    if k == turn { &fresh } else { &before }
                        .clone()
                        .narrow(0, k, 1)
                };
                Tensor::cat((0..o.attack_batch).map(of).collect(), 0)
            }
            _ => fresh,
        };
        let attack = Attack {
            steps: o.attack_steps,
            lr: o.attack_lr,
            rule: o.attack,
            gradient: o.attack_gradient,
        };
        let attacked = stream(self.seed, "advunlearn/attack");
        let mut next =
            |k: usize| Ok(self.examples(o.attack_batch, attacked, step * o.attack_steps + k));
        let (soft, _) = soft_token::attack(edited, self.slots, start, attack, &mut next)?;
        if o.attack_init != Init::Random {
            let mut snapshot = Snapshot::new();
            snapshot.tensor("soft", &soft.clone().flatten(0, 2));
            self.latest.replace(snapshot.into_tensors());
        }
        Ok(soft)
    }

    /// The upper level: ESD's distance for attacked prompts.
    fn forget(&self, edited: &Pipeline, step: usize) -> Result<Tensor<1>> {
        let o = self.options;
        let (examples, rows) = self.examples(o.batch, stream(self.seed, "advunlearn/forget"), step);
        let away = Away {
            eta: o.eta,
            anchor_eta: o.anchor_eta,
            form: o.form,
        };
        let target = negative_guidance::target(&examples, &rows, self.prompts, away);
        let clean = if step < o.warmup { o.batch } else { o.clean };
        let mut contexts = Vec::new();
        if clean > 0 {
            let asks: Vec<String> = rows[..clean]
                .iter()
                .map(|&row| self.asks[row].clone())
                .collect();
            contexts.push(edited.encode(&asks));
        }
        if clean < o.batch {
            let soft = self.attack(edited, step)?;
            let soft_of = |i: usize| turns::taken(step, o.batch - clean, i, o.attack_batch);
            let pairs: Vec<(usize, usize)> = rows[clean..]
                .iter()
                .enumerate()
                .map(|(i, &row)| (row, soft_of(i)))
                .collect();
            contexts.push(self.slots.encode(&edited.text_network(), &soft, &pairs));
        }
        negative_guidance::loss(edited, &examples, &Conditioning::cat(contexts), &target)
    }
}

/// The retain term: the distance to what the frozen model predicts for prompts to keep.
fn retained(
    edited: &Pipeline,
    bank: &Bank,
    kept: &[String],
    n: usize,
    seed: u64,
    step: usize,
) -> Result<Tensor<1>> {
    let examples = bank.examples(&draw(bank.len(), n, seed, step));
    let prompts: Vec<String> = examples
        .path
        .iter()
        .map(|&path| kept[path].clone())
        .collect();
    negative_guidance::loss(
        edited,
        &examples,
        &edited.encode(&prompts),
        &examples.raw_prompt,
    )
}

/// Evaluations of the U-Net for one latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Forward passes that record the bank.
    pub recording: usize,
    /// Forward passes of attacks; as many go backward.
    pub attacks: usize,
    /// Forward passes of training; as many go backward.
    pub training: usize,
}

/// The published procedure at its own settings, forward and backward: 1000 iterations of batch 1
/// with 5 prompts to keep, the last 800 with 30 attack steps; every example comes from a guided
/// partial trajectory of 24.5 steps on average, and the frozen model is asked for two predictions
/// (one for a prompt to keep). 52 forward passes for an example of the concept, 51 for one to keep.
pub const PUBLISHED: [usize; 2] = [1000 * (52 + 5 * 51) + 800 * 30 * 52, 1000 * 6 + 800 * 30];

impl Cost {
    /// Forward and backward passes together.
    pub fn total(&self) -> usize {
        self.recording + 2 * (self.attacks + self.training)
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let published: usize = PUBLISHED.iter().sum();
        write!(
            f,
            "U-Net evaluations for one latent: {} to record, {} forward and backward in attacks, {} in training; \
             {} in all, where the published procedure takes {published}: {:.1} times as many",
            self.recording,
            self.attacks,
            self.training,
            self.total(),
            published as f64 / self.total() as f64
        )
    }
}

impl Options {
    fn retains(&self) -> bool {
        self.retain_batch > 0
            && self.retain_trajectories > 0
            && (self.retain > 0.0 || self.retain_mode == RetainMode::Iter)
    }

    /// What a whole run costs, with nothing found in the cache.
    fn cost(&self, paths: &[Path], kept: usize) -> Cost {
        let each = 2 + paths.first().map_or(0, |path| path.also.len());
        let attacked = if self.clean < self.batch {
            self.iterations.saturating_sub(self.warmup)
        } else {
            0
        };
        let retained = if kept > 0 { self.retain_batch } else { 0 };
        Cost {
            recording: self.sampling_steps * (paths.len() * each + kept * 2),
            attacks: attacked * self.attack_steps * self.attack_batch,
            training: self.iterations * (self.batch + retained),
        }
    }

    fn fit_together(&self) -> Result<()> {
        if self.clean > self.batch {
            return Err(Error::input(format!(
                "clean is {}, more than the batch of {}",
                self.clean, self.batch
            )));
        }
        if self.attack_init == Init::Rolling && self.attack_batch == 1 {
            return Err(Error::input(
                "attack_init is `rolling` and attack_batch is 1, so that every attack would begin anew",
            )
            .with_hint("`latest` goes on where the attack before ended"));
        }
        Ok(())
    }
}
