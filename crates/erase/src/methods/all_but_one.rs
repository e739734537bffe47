//! All but One: "All but One: Surgical Concept Erasing with Model Preservation in Text-to-Image
//! Diffusion Models", Hong, Lee and Woo, AAAI 2024 (arXiv 2312.12807).
//!
//! What guidance adds for the concept becomes what it adds for a replacement, and the unconditional
//! prediction, which every picture shares, is pinned. With `c` the prompt that asks for the
//! concept, `a` its replacement (the empty prompt for none, so that guidance adds nothing), `0` the
//! empty prompt, `sg` no gradient:
//!
//! `loss = mean (net(z_t, c) - sg[net(z_t, 0)] - (net*(z_t, a) - net*(z_t, 0)))^2 + lambda mean
//! (net(z_t, 0) - net*(z_t, 0))^2`
//!
//! Ours is `eta`, 0 in the paper: what is to be added is `d(a) - eta (d(c) - d(a))` with `d(p) =
//! net*(z_t, p) - net*(z_t, 0)`, past the replacement, as [ESD](super::esd) goes past the neutral
//! prediction.
//!
//! No code was published; this is rebuilt from what the paper says of its losses. `z_t` comes from
//! trajectories of the frozen model guided towards `c`, which hold the frozen predictions too
//! ([`bank`](crate::data::bank)).

use burn::tensor::Tensor;
use scumble_diffusion::{
    Conditioning, Pipeline, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, WEIGHT},
    presets,
};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    concepts::prompt::ConceptPrompt,
    data::bank::{Bank, Examples, Sampling},
    data::trajectories::paths,
    edit::Edit,
    error::Result,
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::draw,
    training::adam::Adam,
    training::train::{LrSchedule, Train, train},
    training::trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "all-but-one",
    paper: "Hong, Lee and Woo, All but One: Surgical Concept Erasing with Model Preservation, AAAI 2024, arXiv 2312.12807",
    moves: "U-Net: cross-attention (esd-x), its keys and values (esd-x-strict), or another choice",
    needs: "nothing; --anchor names a replacement",
    several: true,
    preserves: false,
    pictures: false,
    seconds: Some(43.0),
    peak_mb: Some(263.0),
    published_evaluations: None,
    fixed: "the published numbers; not tried on a trained full model",
    erase,
};

options! {
    /// The options of All but One.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move.
        pub train_method: String,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// How far past the replacement to go.
        pub eta: f64 where FINITE,
        /// Weight of the unconditional prediction's distance.
        pub lambda: f64 where WEIGHT,
        /// Examples a step.
        pub batch: usize where COUNT,
        /// Trajectories in the bank; at least one for every prompt.
        pub trajectories: usize where COUNT,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
    }
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    // A prompt's own bare object shows a style now and then; another replacement does not show the
    // concept.
    let past = job
        .concepts
        .iter()
        .any(|c| c.prompts.iter().any(ConceptPrompt::holds_its_anchor));
    Ok(presets! {
        paper: Options {
            train_method: "esd-x".into(),
            iterations: 1000,
            lr: 1e-5,
            lr_schedule: LrSchedule::Constant,
            eta: 0.0,
            lambda: 1.0,
            batch: 1,
            trajectories: 8,
            sampling_steps: 50,
            start_guidance: 3.0,
        },
        reference: paper,
        fixed: paper,
        small: paper {
            iterations: 300 * job.concepts.len().clamp(1, 5),
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            eta: if past { 1.0 } else { 0.5 },
            lambda: 50.0,
            batch: 8,
            trajectories: job.prompt_count().max(16),
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::of_denoiser(&options.train_method, METHOD.id)?;
    options.train_method = trainable.name.into();
    let prompts = job.prompts()?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let asked: Vec<String> = prompts.iter().map(|p| p.asks().to_owned()).collect();
    let (contexts, empty) = (
        job.pipeline.encode(&asked),
        job.pipeline.encode(&[String::new()]),
    );
    // ESD's trajectories: a run of one finds those of the other.
    let sampling = Sampling {
        steps: options.sampling_steps,
        guidance: options.start_guidance,
    };
    let bank = Bank::record(
        job,
        &paths(&prompts, options.trajectories, job.seed),
        sampling,
    )?;

    let seed = job.seed;
    let steps = Train {
        adam: Adam::decoupled(),
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            METHOD.id,
        )
    };
    let values = train(job, steps, &mut |edited, step| {
        let examples = bank.examples(&draw(bank.len(), options.batch, seed, step));
        let rows: Vec<usize> = examples
            .path
            .iter()
            .map(|path| path % prompts.len())
            .collect();
        let replaced: Vec<bool> = rows
            .iter()
            .map(|&row| prompts[row].anchor.is_some())
            .collect();
        loss(
            edited,
            &examples,
            &contexts.select(&rows),
            &empty,
            &replaced,
            &options,
        )
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// Both losses, in what the network predicts. `contexts` are n prompts; `replaced` says of which examples the companion on the path is a replacement.
fn loss(
    edited: &Pipeline,
    examples: &Examples,
    contexts: &Conditioning,
    empty: &Conditioning,
    replaced: &[bool],
    options: &Options,
) -> Result<Tensor<1>> {
    let n = examples.t.len();
    let pinned = examples.raw_empty.clone();
    let own = examples.raw_prompt.clone() - pinned.clone();
    let replacement = match examples.raw_also.first() {
        Some(also) => (also.clone() - pinned.clone()) * column(replaced, also),
        None => pinned.zeros_like(),
    };
    let added = replacement.clone() - (own - replacement) * options.eta;

    let both = Context::from(Conditioning::cat(vec![contexts.clone(), empty.repeat(n)]));
    let found = edited
        .predict(
            examples.x.clone().repeat_dim(0, 2),
            &examples.t.repeat(2),
            &both,
            None,
        )?
        .raw();
    let (asked, nothing) = (found.clone().narrow(0, 0, n), found.narrow(0, n, n));
    let guidance = (asked - nothing.clone().detach() - added)
        .powi_scalar(2)
        .mean();
    Ok(guidance + (nothing - pinned).powi_scalar(2).mean() * options.lambda)
}

/// 1 for yes and 0 for no, `[n, 1, 1, 1]`.
fn column(yes: &[bool], beside: &Tensor<4>) -> Tensor<4> {
    let values: Vec<f32> = yes.iter().map(|&yes| f32::from(u8::from(yes))).collect();
    Tensor::<1>::from_floats(values.as_slice(), &beside.device()).reshape([yes.len(), 1, 1, 1])
}
