//! HiRM: high-level representation misdirection, ICLR 2026 (arXiv 2602.19631).
//!
//! Only the first layer of the text encoder moves; what is pulled is the hidden state of the last.
//! With `h_t(p)` that state at position `t` of a prompt `p` that names the concept, after the final
//! norm:
//!
//! - towards a random direction: `loss = mean_t |h_t(p) - c r|^2`, `|r| = 1`
//! - towards an anchor `a` (a hypernym, or the prompt without the concept): `loss = mean_t |h_t(p)
//!   - h*_t(a)|^2`
//!
//! Ours is a second term, `w mean |h_t(k) - h*_t(k)|^2` over captions `k` that do not name the
//! concept. The published code looks at the output of the last layer's attention instead, and its
//! `c r` is one array of uniform numbers over all positions and channels, scaled to the norm `c` as
//! a whole. Its AdamW gets weight decay and eps in each other's place (1e-6 and 1e-8). That code
//! was read in a third party's port (fmp453/erase-eval).
//!
//! No picture is looked at and the U-Net is never asked.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Pipeline, options,
    options::{ABOVE_ZERO, BELOW_ONE, COUNT, Presets, WEIGHT},
    presets,
};
use scumble_families::Part;
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    concepts::prompt::ConceptPrompt,
    data::retain::{Retain, hidden_drift},
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{draw, stream},
    training::adam::Adam,
    training::train::{LrSchedule, Train, train},
    training::trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "hirm",
    paper: "HiRM: High-level Representation Misdirection, ICLR 2026, arXiv 2602.19631",
    moves: "text encoder: its first layer (text-first); text-encoder, text-mlp, text-mlp-only, text-attn",
    needs: "nothing",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(7.0),
    peak_mb: Some(162.0),
    published_evaluations: Some(0),
    fixed: "the published layer and numbers, with an aim, positions and captions to keep as the miniature showed to matter",
    erase,
};

options! {
    /// HiRM's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move.
        pub train_method: String,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// AdamW's second beta.
        pub beta2: f64 where BELOW_ONE,
        /// AdamW's weight decay; with 0 it is Adam.
        pub weight_decay: f64 where WEIGHT,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// `random` or `anchor`.
        pub towards: Towards,
        /// The length of the random target.
        pub coefficient: f64 where ABOVE_ZERO,
        /// `each` or `whole`: one random direction for every position, or one array over all of
        /// them.
        pub direction: Direction,
        /// `hidden` or `attention`: what is pulled.
        pub at: At,
        /// `all` or `concept`: which positions count.
        pub positions: Positions,
        /// Prompts a step.
        pub batch: usize where COUNT,
        /// Weight of the hidden states of captions to keep.
        pub retain: f64 where WEIGHT,
        /// Captions a step.
        pub retain_batch: usize,
    }
}

/// Where the hidden states go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Towards {
    /// A random direction.
    Random,
    /// The hidden states of the anchor, or of what is left of the prompt without the concept.
    Anchor,
}

/// What is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// One normal vector of unit length, the same at every position.
    Each,
    /// Uniform numbers over all positions and channels, of unit length together.
    Whole,
}

/// What is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// The hidden state that the U-Net is given.
    Hidden,
    /// What the last layer's attention adds.
    Attention,
}

/// Which positions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// All, the start token among them, whose state is the same in every prompt.
    All,
    /// From the first token that the prompt and its anchor do not share.
    Concept,
}

/// The presets: the published numbers, and those that work on a checkpoint and on the miniature.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            train_method: "text-first".into(),
            iterations: 50,
            lr: 1e-4,
            beta2: 0.98,
            weight_decay: 1e-6,
            lr_schedule: LrSchedule::Constant,
            towards: Towards::Random,
            coefficient: 500.0,
            direction: Direction::Each,
            at: At::Hidden,
            positions: Positions::All,
            batch: 1,
            retain: 0.0,
            retain_batch: 0,
        },
        reference: paper {
            train_method: "text-first-linear".into(),
            coefficient: 5000.0,
            direction: Direction::Whole,
            at: At::Attention,
        },
        fixed: paper {
            towards: Towards::Anchor,
            positions: Positions::Concept,
            retain: 1.0,
            retain_batch: 4,
        },
        small: fixed {
            iterations: 60,
            lr: 1e-3,
            beta2: 0.999,
            weight_decay: 0.0,
            lr_schedule: LrSchedule::Linear,
            batch: 8,
            retain: 3.0,
            retain_batch: 32,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::named(&options.train_method)?;
    options.train_method = trainable.name.into();
    if trainable.part != Part::TextEncoder {
        return Err(Error::input(format!("`{}` moves the {}, HiRM moves the text encoder", trainable.name, trainable.part))
            .with_hint("choose text-first, text-first-linear, text-encoder, text-mlp, text-mlp-only or text-attn"));
    }
    options.fit_together()?;
    checks::keeping(
        job,
        options.retain > 0.0,
        "--set retain=1 --set retain_batch=4",
    )?;
    let prompts = job.prompts()?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let aims: Vec<Aim> = prompts
        .iter()
        .map(|p| Aim::of(job.pipeline, p, &options, job.seed))
        .collect::<Result<_>>()?;
    let retain = if options.retain > 0.0 {
        Retain::of(job)
    } else {
        Retain::default()
    };
    let (pipeline, seed) = (job.pipeline, job.seed);
    let adam = Adam {
        beta2: options.beta2,
        weight_decay: options.weight_decay,
        decoupled: true,
        ..Adam::default()
    };
    let steps = Train {
        adam,
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            "hirm",
        )
    };
    let values = train(job, steps, &mut |edited, step| {
        let rows = draw(aims.len(), options.batch, seed, step);
        let chosen: Vec<&Aim> = rows.iter().map(|&row| &aims[row]).collect();
        let loss = misdirection(edited, &chosen, &options);
        let kept = retain.batch(options.retain_batch, step);
        Ok(if kept.is_empty() {
            loss
        } else {
            loss + hidden_drift(pipeline, edited, &kept) * options.retain
        })
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

impl Options {
    fn fit_together(&self) -> Result<()> {
        checks::retained(self.retain, self.retain_batch)?;
        if self.at == At::Attention && self.towards == Towards::Anchor {
            return Err(Error::input(
                "at is attention, which goes towards a random direction only",
            )
            .with_hint("the anchor's form is about hidden states: --set at=hidden"));
        }
        Ok(())
    }
}

/// A prompt and where its hidden states go.
struct Aim {
    ids: Vec<u32>,
    /// `[1, tokens, c]`
    target: Tensor<3>,
    /// 1 at the positions that count, 0 elsewhere, `[1, tokens, 1]`, scaled so that the mean over
    /// all is the mean over these.
    weight: Tensor<3>,
}

impl Aim {
    fn of(frozen: &Pipeline, prompt: &ConceptPrompt, options: &Options, seed: u64) -> Result<Self> {
        let ids = frozen.tokenizer.encode(prompt.asks()).ids;
        let instead = frozen.tokenizer.encode(&prompt.without()).ids;
        let (tokens, width) = (ids.len(), frozen.encoders.first.config.hidden_size);
        let first = match options.positions {
            Positions::All => 0,
            Positions::Concept => ids
                .iter()
                .zip(&instead)
                .position(|(a, b)| a != b)
                .unwrap_or(tokens),
        };
        if first == tokens {
            return Err(Error::input(format!(
                "`{}` and what is to be drawn instead are the same",
                prompt.asks()
            )));
        }
        let target = match options.towards {
            Towards::Anchor => frozen
                .text_network()
                .first()
                .forward(std::slice::from_ref(&instead)),
            Towards::Random => random(tokens, width, options, seed, frozen),
        };
        let share = tokens as f32 / (tokens - first) as f32;
        let weight: Vec<f32> = (0..tokens)
            .map(|t| if t < first { 0.0 } else { share })
            .collect();
        let weight = Tensor::from_data(TensorData::new(weight, [1, tokens, 1]), frozen.device());
        Ok(Self {
            ids,
            target,
            weight,
        })
    }
}

/// The random target, `[1, tokens, width]`.
fn random(
    tokens: usize,
    width: usize,
    options: &Options,
    seed: u64,
    frozen: &Pipeline,
) -> Tensor<3> {
    let mut rng = stream(seed, "hirm/direction").rng(0);
    let values = match options.direction {
        Direction::Each => rng.normal(width),
        Direction::Whole => rng.uniform(tokens * width),
    };
    let norm = values
        .iter()
        .map(|v| f64::from(*v).powi(2))
        .sum::<f64>()
        .sqrt();
    let values: Vec<f32> = values
        .iter()
        .map(|v| (f64::from(*v) * options.coefficient / norm) as f32)
        .collect();
    let rows = values.len() / width;
    let target = Tensor::<3>::from_data(TensorData::new(values, [1, rows, width]), frozen.device());
    if rows == tokens {
        target
    } else {
        target.repeat_dim(1, tokens)
    }
}

/// The mean squared distance to the targets over prompts, the positions that count, and channels.
fn misdirection(edited: &Pipeline, aims: &[&Aim], options: &Options) -> Tensor<1> {
    let ids: Vec<Vec<u32>> = aims.iter().map(|aim| aim.ids.clone()).collect();
    let network = edited.text_network();
    let found = match options.at {
        At::Hidden => network.first().forward(&ids),
        At::Attention => network.first().last_attention(&ids),
    };
    let stacked = |pick: &dyn Fn(&Aim) -> Tensor<3>| {
        Tensor::cat(aims.iter().map(|aim| pick(aim)).collect(), 0)
    };
    let apart = (found - stacked(&|aim| aim.target.clone())).powi_scalar(2);
    (apart * stacked(&|aim| aim.weight.clone())).mean()
}
