//! SalUn: "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both Image
//! Classification and Generation", Fan et al., ICLR 2024 (arXiv 2310.12508).
//!
//! Pictures of the concept get another prompt's prediction as their label, and only the numbers
//! that matter for the concept move. With `x`, `y` noisy pictures to forget and to keep, `n` the
//! noise, `c` a prompt of the concept, `p` the one that stands in for it, `r` a caption to keep:
//!
//! - salience: `G = sum_batches grad mean ((1 + g) net(x, t, c) - g net(x, t, 0) - n)^2`, signed;
//!   `M = 1` where `|G|` is in the top half of all numbers together
//! - `loss = mean (net(x, t, c) - sg net(x, t, p))^2 + alpha mean (net(y, t, r) - n)^2`, its
//!   gradient times `M`
//!
//! The published code takes the label from the network that is being trained; ours from the frozen
//! one, which does not move away. So it does with what is to be kept, where the noise is a noisier
//! target for the same thing.

use scumble_diffusion::{
    options,
    options::{ABOVE_ZERO, COUNT, Presets, SHARE_ABOVE_ZERO, WEIGHT},
    presets,
};
use scumble_families::Part;
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    data::forget::{Relabel, Set, Sets, train_both},
    edit::Edit,
    error::Result,
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::stream,
    training::gradients::{Gradients, most_salient, plus},
    training::passes,
    training::train::{LrSchedule, Train},
    training::trainable::Trainable,
    training::width,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "salun",
    paper: "Fan et al., SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both Image Classification and Generation, ICLR 2024, arXiv 2310.12508",
    moves: "U-Net: the half of esd-x (or esd-x-strict, esd-u, esd-all, selfattn) that matters most for the concept",
    needs: "pictures of the concept, drawn by the model itself unless given with --pictures; captions to keep",
    several: true,
    preserves: true,
    pictures: true,
    seconds: Some(58.0),
    peak_mb: Some(258.0),
    published_evaluations: Some(39_000),
    fixed: "the miniature's recipe in at most 10,000 evaluations for one concept, its step size divided by how much wider the U-Net is; the published 800 pictures a side are `paper`",
    erase,
};

options! {
    /// SalUn's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move.
        pub train_method: String,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// Adam's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// Weight of what is to be kept.
        pub alpha: f64 where WEIGHT,
        /// The share of numbers that move; 1 for all.
        pub top: f64 where SHARE_ABOVE_ZERO
            => "it is the share of numbers that move; 1 is SalUn without a mask",
        /// Guidance of the predictions whose gradient is the salience.
        pub mask_guidance: f64 where WEIGHT,
        /// How often the salience looks at each picture to forget.
        pub mask_passes: usize where COUNT,
        /// Pictures, labels and batches.
        #[serde(flatten)]
        pub sets: Sets,
    }
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            train_method: "esd-all".into(),
            iterations: 500,
            lr: 1e-5,
            lr_schedule: LrSchedule::Constant,
            alpha: 0.5,
            top: 0.5,
            mask_guidance: 7.5,
            mask_passes: 1,
            sets: Sets { relabel: Relabel::Random, batch: 8, retain_batch: 8, ..Sets::PUBLISHED },
        },
        // A fixed other class, not a random one.
        reference: paper { alpha: 0.1, sets.relabel: Relabel::Nearest },
        small: paper {
            train_method: "esd-x".into(),
            iterations: 120,
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            alpha: 1.0,
            mask_passes: 4,
            sets: Sets::small(job.concepts),
        },
        fixed: small {
            iterations: 150,
            lr: width::lr(job.pipeline, Part::Denoiser, 1e-3),
            mask_passes: 1,
            sets: Sets::full(job.concepts),
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, there is nothing to keep, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::of_denoiser(&options.train_method, "SalUn")?;
    options.train_method = trainable.name.into();
    options.sets.fit_together()?;
    checks::keeping(job, options.alpha > 0.0, "an alpha above 0")?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let sets = &options.sets;
    let forgotten = Set::of_concepts(job, sets)?;
    let kept = Set::to_keep(job, sets)?;
    let mask = if options.top < 1.0 {
        Some(mask(job, &options, &forgotten)?)
    } else {
        None
    };
    let steps = Train {
        mask: mask.as_ref(),
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            "salun",
        )
    };
    let values = train_both(job, steps, sets, &forgotten, &kept, &mut |forget, keep| {
        plus(forget, keep, options.alpha)
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// 1 for the numbers that move: the share `top` of the largest sums of gradients over the pictures
/// to forget.
///
/// # Errors
/// If the caller interrupts.
pub fn mask(job: &mut Job<'_>, options: &Options, forgotten: &Set) -> Result<Gradients> {
    most_salient(&salience(job, options, forgotten)?, options.top)
}

/// The signed sum of gradients.
fn salience(job: &mut Job<'_>, options: &Options, forgotten: &Set) -> Result<Gradients> {
    let (frozen, seed) = (job.pipeline, job.seed);
    let values = passes::values(
        frozen,
        Trainable::of_denoiser(&options.train_method, "SalUn")?,
    )?;
    let (guidance, batch) = (options.mask_guidance, options.sets.batch);
    let batches = (options.mask_passes * forgotten.len()).div_ceil(batch);
    let content = serde_json::json!({
        "pictures": forgotten.content(), "guidance": guidance, "batch": batch, "tensors": options.train_method, "seed": seed
    });
    passes::sum(job, "salience", &content, batches, &mut |k| {
        // Other noise than the training's.
        forgotten.denoising_gradient(
            frozen,
            &values,
            guidance,
            batch,
            stream(seed, "salun/salience").seed(),
            k,
        )
    })
}
