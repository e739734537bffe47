//! EraseDiff: "Erasing Undesirable Influence in Diffusion Models", Wu et al., CVPR 2025 (arXiv
//! 2401.05779).
//!
//! Forgetting is a constraint on keeping: `min L_r(theta)` subject to `g(theta) = L_f(theta) -
//! min_phi L_f(phi) <= 0`, of which one step goes along
//!
//! `delta = grad L_r + lambda grad L_f`, `lambda = max(0, (a - <grad L_f, grad L_r>) / |grad
//! L_f|^2)`, `a = eta |grad L_f|^2`
//!
//! so that forgetting goes on at a set rate and keeping never undoes it. `L_f` pulls the concept's
//! prompt to the prediction for another, `L_r` is the training loss on what is to be kept.
//!
//! The published code has no such lambda, but a constant: SalUn's loss without its mask. Its inner
//! steps towards `phi` are thrown away, and enter nothing but Adam's moments. In the paper's
//! formula `phi` drops out too, because it counts as constant. Here K inner steps may set the rate
//! instead: `a = eta (L_f(theta) - L_f(phi_K))`, the gap that is left.

use std::cell::Cell;

use scumble_diffusion::{
    Pipeline, options,
    options::{ABOVE_ZERO, COUNT, Presets, WEIGHT, whole},
    presets,
};
use scumble_families::Part;
use serde::{Deserialize, Serialize};

use crate::{
    data::forget::{Set, Sets},
    edit::Edit,
    error::Result,
    job::{Event, Job},
    methods::{Method, Variant},
    training::gradients::{self, Gradients, dot, plus},
    training::passes,
    training::train::{LrSchedule, Train, train_several},
    training::trainable::Trainable,
    training::width,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "erasediff",
    paper: "Wu et al., Erasing Undesirable Influence in Diffusion Models, CVPR 2025, arXiv 2401.05779",
    moves: "U-Net: cross-attention (esd-x), its keys and values (esd-x-strict), the rest (esd-u), all (esd-all), self-attention (selfattn)",
    needs: "pictures of the concept, drawn by the model itself unless given with --pictures; captions to keep",
    several: true,
    preserves: true,
    pictures: true,
    seconds: Some(51.0),
    peak_mb: Some(255.0),
    published_evaluations: Some(56_000),
    fixed: "the miniature's recipe in at most 10,000 evaluations for one concept, its step size divided by how much wider the U-Net is; the published 800 pictures a side are `paper`",
    erase,
};

options! {
    /// EraseDiff's options.
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
        /// Whether lambda follows from the gradients, as in the paper.
        pub dynamic: bool,
        /// The constant lambda where it does not.
        pub lambda: f64 where WEIGHT,
        /// The rate of forgetting where it does: its share of `|grad L_f|^2`, or of the gap.
        pub eta: f64 where WEIGHT,
        /// Inner steps that find how much is left to forget; 0 for `a = eta |grad L_f|^2`.
        pub inner: usize where whole(0, 1000),
        /// The step size of the inner descent.
        pub inner_lr: f64 where ABOVE_ZERO,
        /// Pictures, labels and batches.
        #[serde(flatten)]
        pub sets: Sets,
    }
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            train_method: "esd-u".into(),
            iterations: 160,
            lr: 1e-5,
            lr_schedule: LrSchedule::Constant,
            dynamic: true,
            lambda: 0.1,
            eta: 0.1,
            inner: 0,
            inner_lr: 1e-5,
            sets: Sets::PUBLISHED,
        },
        // Its loaders give the same first batch at every step.
        reference: paper { dynamic: false, sets.pictures: 16, sets.retain_pictures: 16 },
        small: paper {
            train_method: "esd-x".into(),
            iterations: 120,
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            eta: 1.0,
            inner_lr: 1e-3,
            sets: Sets::small(job.concepts),
        },
        fixed: small {
            iterations: 150,
            lr: width::lr(job.pipeline, Part::Denoiser, 1e-3),
            inner_lr: width::lr(job.pipeline, Part::Denoiser, 1e-3),
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
    let trainable = Trainable::of_denoiser(&options.train_method, "EraseDiff")?;
    options.train_method = trainable.name.into();
    options.sets.fit_together()?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let sets = &options.sets;
    let forgotten = Set::of_concepts(job, sets)?;
    let kept = Set::to_keep(job, sets)?;
    let (frozen, seed) = (job.pipeline, job.seed);
    let gap = Cell::new(0.0);
    let steps = Train::new(
        trainable,
        options.iterations,
        options.lr,
        options.lr_schedule,
        "erasediff",
    );
    let mut loss = |edited: &Pipeline, step: usize, which: usize| {
        if which > 0 {
            return kept.loss(frozen, edited, sets.retain_batch, seed, step);
        }
        if options.dynamic && options.inner > 0 {
            let mut of = |model: &Pipeline| forgotten.loss(frozen, model, sets.batch, seed, step);
            gap.set(remaining(
                &edited.without_gradients(),
                trainable,
                options.inner,
                options.inner_lr,
                &mut of,
            )?);
        }
        forgotten.loss(frozen, edited, sets.batch, seed, step)
    };
    let values = train_several(job, steps, 2, &mut loss, &mut |mut both| {
        let keep = both.pop().unwrap_or_default();
        let forget = both.pop().unwrap_or_default();
        let lambda = match (options.dynamic, options.inner) {
            (false, _) => options.lambda,
            (true, 0) => lambda(&forget, &keep, options.eta * dot(&forget, &forget)),
            (true, _) => lambda(&forget, &keep, options.eta * gap.get()),
        };
        plus(keep, forget, lambda)
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// The weight of forgetting: the least with which the step lowers `L_f` at the rate `a`, and never
/// less than 0.
pub fn lambda(forget: &Gradients, keep: &Gradients, a: f64) -> f64 {
    let length = dot(forget, forget);
    if length > 0.0 {
        ((a - dot(forget, keep)) / length).max(0.0)
    } else {
        0.0
    }
}

/// `L_f(theta) - L_f(phi)`, with `phi` found by steps of plain descent from `theta`; at least 0.
fn remaining(
    model: &Pipeline,
    trainable: Trainable,
    steps: usize,
    lr: f64,
    loss: &mut dyn FnMut(&Pipeline) -> Result<burn::tensor::Tensor<1>>,
) -> Result<f64> {
    let mut phi = passes::values(model, trainable)?;
    let mut first = None;
    for _ in 0..steps {
        let (value, gradient) = gradients::of(model, trainable.component(model), &phi, loss)?;
        first.get_or_insert(value);
        phi = plus(phi, gradient, -lr);
    }
    let mut moved = model.clone();
    for (name, value) in phi {
        moved.denoiser.weights.replace(&name, value)?;
    }
    let last: f32 = loss(&moved)?.into_scalar();
    Ok(f64::from(first.unwrap_or(last) - last).max(0.0))
}
