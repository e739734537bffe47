//! Relearning: how few pictures and steps teach the edited model the concept again.
//!
//! A low-rank adapter (Hu et al., arXiv 2106.09685) is trained beside the edited U-Net on a few
//! pictures that the unedited model drew of the concept. With `z_t` a noisy picture, `c` its
//! caption, `f` the edited text encoder:
//!
//! `min_{up, down}  E mean (n - eps_{edited + up down}(z_t, t, f(c)))^2`
//!
//! That benign fine-tuning brings erased concepts back is the finding of "Concept resurgence"
//! (Suriyakumar et al., arXiv 2410.08074) and "Memory self-regeneration" (arXiv 2510.03263). A
//! model that never knew the concept learns something from ten pictures too, so what counts is how
//! few steps it takes; `--budget` cuts them short.
//!
//! No published code is followed: all variants differ in their numbers alone.

use scumble_diffusion::{
    Pipeline, options,
    options::{ABOVE_ZERO, COUNT, Presets},
    presets,
};
use scumble_erase::{
    Captions, Change, Edit, Error, Result, Variant,
    data::noised::{Noised, squared_error},
    job::recorded,
    training::adam::Adam,
    training::gradients::Gradients,
    training::lora::{self, LORA, Layers},
    training::train::{LrSchedule, Train, train},
};
use scumble_nn::files::{HostTensor, lora::LowRank};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Attack;
use crate::{
    found::Found,
    job::Job,
    lessons::lessons,
    protocol::{Looks, Notes, Outcome, Start},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "relearn",
    paper: "Suriyakumar et al., Unstable Unlearning (concept resurgence), arXiv 2410.08074; LoRA, arXiv 2106.09685",
    access: "the weights, and a few pictures of the concept",
    threat: super::Threat::Weights,
    finds: "a LoRA beside the edit (an edit file)",
    step: "a training step of the LoRA",
    cases: 48,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

/// Which layers get an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// Every linear layer and 1x1 convolution of the transformers.
    Transformers,
    /// Keys and values of the cross-attention.
    KeysValues,
}

options! {
    /// The options of relearning.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// The adapter's rank.
        pub rank: usize where COUNT,
        /// `transformers` or `keys-values`.
        pub layers: Where,
        /// Pictures to learn from, drawn by the unedited model.
        pub pictures: usize where COUNT,
        /// What they show: a word in the concept's place; empty for the concept itself. Another one
        /// is the control: what comes back without a picture of the concept.
        pub lesson: String,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// Pictures a step.
        pub batch: usize where COUNT,
        /// Adam's step size.
        pub lr: f64 where ABOVE_ZERO,
    }
}

/// The presets: ours, and those for the miniature.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            rank: 4,
            layers: Where::Transformers,
            pictures: 10,
            lesson: String::new(),
            iterations: 100,
            batch: 4,
            lr: 1e-4,
        },
        reference: paper,
        fixed: paper,
        small: paper { batch: 8, lr: 5e-3 },
    })
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<Options> {
    let options: Options = job.options(presets, variant)?;
    Ok(options)
}

fn run(job: &mut Job<'_>, _: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    let iterations = job.budget.unwrap_or(usize::MAX).min(options.iterations);
    let (captions, pictures) = lessons(job, options.pictures, options.lesson.trim())?;
    let layers = match options.layers {
        Where::Transformers => Layers::Transformers,
        Where::KeysValues => Layers::KeysValues,
    };
    let victim = job.victim;
    let before = victim.adapter_rank();
    let adapted = lora::attached(victim, layers, options.rank, job.seed)?;
    let mask = (before > 0).then(|| fresh_alone(&adapted, before));
    let examples = Noised::new(victim, pictures);
    let described = serde_json::to_value(&options).unwrap_or_default();
    let (seed, batch) = (job.seed, options.batch);

    let nothing = Captions::default();
    let mut training = job.training(victim, seed, &nothing);
    let plan = Train {
        start: Some(&adapted),
        mask: mask.as_ref(),
        adam: Adam::default(),
        ..Train::new(
            LORA,
            iterations,
            options.lr,
            LrSchedule::Constant,
            "relearn",
        )
    };
    let trained = train(&mut training, plan, &mut |model, step| {
        let noisy = examples.draw(model, batch, seed, step)?;
        let texts: Vec<String> = noisy
            .rows
            .iter()
            .map(|&row| captions[row].clone())
            .collect();
        Ok(squared_error(
            noisy.predicted(model, &model.context(&texts))?,
            noisy.target(model)?,
        )
        .mean())
    })?;
    let about = training.about("relearn", &described)?;
    let changes = lora::changes(&adapted, trained);
    let changes = changes
        .into_iter()
        .map(|(key, change)| Ok((key, newest(change, before)?)))
        .collect::<Result<_>>()?;
    let mut notes = Notes::new();
    notes.insert(
        "pictures".into(),
        json!({ "drawn": options.pictures, "learned_from": examples.len() }),
    );
    notes.insert("control".into(), control(&options.lesson).into());
    let found = Found::Weights(Box::new(Edit { about, changes }));
    // One adapter for all cases.
    Ok(Outcome {
        found,
        budget: iterations,
        spent: iterations,
        looks: Looks::once(job.cases.len()),
        searches: 1,
        notes,
    })
}

/// What the rates are to be held against, and that it is not here.
fn control(lesson: &str) -> String {
    if lesson.is_empty() {
        "none: how much the same pictures teach a model that never knew the concept is not measured, so a rate is no proof that the edit kept it; compare budgets, edits, and --set lesson=WORD".into()
    } else {
        format!("the pictures show {lesson}: what comes back was not learned from them")
    }
}

/// A mask that leaves the adapters of an edit, the first `before` ranks, as they are.
fn fresh_alone(adapted: &Pipeline, before: usize) -> Gradients {
    let ours = adapted
        .denoiser
        .weights
        .iter()
        .filter(|(name, _)| name.contains(".lora_"));
    let one = |name: &str, shape: &[usize]| {
        let (rows, columns) = (shape[0], shape[1]);
        let down = name.contains(".lora_down");
        let new = |i: usize| {
            if down {
                i / columns >= before
            } else {
                i % columns >= before
            }
        };
        let values: Vec<f32> = (0..rows * columns)
            .map(|i| f32::from(u8::from(new(i))))
            .collect();
        burn::tensor::Tensor::from_floats(values.as_slice(), adapted.device())
    };
    ours.map(|(name, weight)| (name.to_owned(), one(name, &weight.shape)))
        .collect()
}

/// Of a trained adapter the ranks after the first `before`.
fn newest(change: Change, before: usize) -> Result<Change> {
    let Change::LowRank(low) = change else {
        return Ok(change);
    };
    if before == 0 {
        return Ok(Change::LowRank(low));
    }
    let broken = || Error::input(format!("the adapter of {} has lost its shape", low.module));
    let (down, up) = (
        low.down.to_f32().ok_or_else(broken)?,
        low.up.to_f32().ok_or_else(broken)?,
    );
    let (mut down_shape, mut up_shape) = (low.down.shape().to_vec(), low.up.shape().to_vec());
    let (rank, input) = (down_shape[0], down.len() / down_shape[0]);
    let kept: Vec<f32> = up
        .chunks_exact(rank)
        .flat_map(|row| row[before..].to_vec())
        .collect();
    (down_shape[0], up_shape[1]) = (rank - before, rank - before);
    Ok(Change::LowRank(LowRank {
        down: HostTensor::from_f32(down_shape, &down[before * input..]),
        up: HostTensor::from_f32(up_shape, &kept),
        alpha: (rank - before) as f32,
        ..low
    }))
}
