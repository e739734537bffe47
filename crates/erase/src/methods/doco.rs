//! DoCo: "Unlearning Concepts in Diffusion Model via Concept Domain Correction and Concept
//! Preserving Gradient", Wu et al., AAAI 2025 (arXiv 2405.15304).
//!
//! What the concept's prompt makes of noisy pictures of an anchor is to be told by nobody from what
//! the anchor's prompt makes of them. With `z_t` as in Ablating Concepts, `c` and `a` the prompts,
//! `x0(.)` the clean latents that a prediction implies, `D` a discriminator, `BCE(logits, label)`
//! the cross-entropy:
//!
//! - `u_c = x0(net(z_t, c))`, `u_a = x0(net*(z_t, a))`
//! - `D` learns `BCE(D(u_a), 0) + BCE(D(sg u_c), 1)`, alone for its warm-up, then in every step
//! - the network learns `L_G = BCE(D(u_c), 0)`, and a prior `L_p = mean (net(y_t, r) - n)^2` on
//!   pictures `y` of captions `r` to keep
//! - surgery: where the gradients of a tensor point against each other, `g_G <- g_G - (g_G . g_p) /
//!   |g_p|^2 g_p`
//!
//! Ours is `eta`, as in Ablating Concepts: `u_a = x0(net*(z_t, a) - eta (net*(z_t, c) - net*(z_t,
//! a)))`.
//!
//! The published code differs in three places, all in `--variant reference`. Its surgery takes out
//! `cos(g_G, g_p) g_p / |g_p|`, which lacks the factor `|g_G|`: as the gradient was shortened to
//! norm 1 before, the step overshoots. With surgery on, the prior's own gradient is never applied.
//! And what `L_G` leaves in `D`'s gradients is not cleared, so that `D` learns `BCE(D(u_c), 0) +
//! BCE(D(u_c), 1)`, which is `2 BCE(D(u_c), 1/2)`.

use std::cell::RefCell;

use burn::tensor::Tensor;
use scumble_diffusion::{
    Interpolant, Pipeline, Prediction, Sampler, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, WEIGHT},
    presets,
};
use scumble_families::Part;
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    adversary::discriminator::{Discriminator, Lesson, cross_entropy},
    checks,
    concepts::rewording::{Kind, Rewording},
    data::anchors::{self, Anchors, Batch, Pair},
    data::augment::Augment,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::stream,
    training::adam::Adam,
    training::gradients::{self, Gradients, Scope},
    training::snapshot::Stored,
    training::train::{self, LrSchedule, Train, train_several},
    training::trainable::Trainable,
    training::width,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "doco",
    paper: "Wu et al., Unlearning Concepts in Diffusion Model via Concept Domain Correction and Concept Preserving Gradient, AAAI 2025, arXiv 2405.15304",
    moves: "U-Net: keys and values of the cross-attention (kv), or another choice",
    needs: "pictures of the anchor and of captions to keep, drawn by the model itself",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(54.0),
    peak_mb: Some(230.0),
    published_evaluations: Some(272_000),
    fixed: "the published losses in at most 10,000 evaluations for one concept, with the miniature's weights and step size, divided by how much wider the U-Net is; the published 1,000 pictures and 2,000 steps are `paper`",
    erase,
};

options! {
    /// DoCo's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move.
        pub train_method: String,
        /// Training steps of the network.
        pub iterations: usize where COUNT,
        /// Steps of the discriminator before.
        pub warm_up: usize,
        /// AdamW's step size for the network at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// Adam's step size for the discriminator.
        pub d_lr: f64 where ABOVE_ZERO,
        /// Width of the discriminator's first layer.
        pub d_width: usize where COUNT,
        /// Whether the discriminator keeps what the network's loss left in its gradients, as the
        /// published code does.
        pub d_uncleared: bool,
        /// How far past the anchor the prediction goes that the concept's is to look like.
        pub eta: f64 where FINITE,
        /// Examples a step.
        pub batch: usize where COUNT,
        /// `projection`, `published` or `none`.
        pub surgery: Surgery,
        /// Weight of the prior's own gradient.
        pub prior: f64 where WEIGHT,
        /// Captions whose pictures are the prior; 0 for the anchors' own pictures and prompts.
        pub prior_captions: usize,
        /// The largest norm of the network's gradient before surgery; 0 for none.
        pub clip: f64 where WEIGHT,
        /// Prompts and pictures of anchors.
        #[serde(flatten)]
        pub anchors: Rewording,
    }
}

/// What is done about conflicting gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Surgery {
    /// The part against the prior's gradient is taken out.
    Projection,
    /// The published formula.
    Published,
    /// Nothing.
    None,
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let kind = Kind::of(job.concepts);
    let style = kind == Kind::Style;
    Ok(presets! {
        paper: Options {
            train_method: "esd-x-strict".into(),
            iterations: 1000,
            warm_up: 1000,
            lr: 4.8e-5,
            lr_schedule: LrSchedule::Constant,
            d_lr: if style { 5e-4 } else { 1e-4 },
            d_width: 64,
            d_uncleared: false,
            eta: 0.0,
            batch: 8,
            surgery: Surgery::Projection,
            prior: 1.0,
            prior_captions: 0,
            clip: 1.0,
            anchors: Rewording {
                kind,
                prompts: Vec::new(),
                templates: 30,
                augment: if style { Augment::Flip } else { Augment::Resize },
                pictures: 1000,
                sampler: Sampler::DpmPp2m.to_string(),
                sampling_steps: 25,
                guidance: 6.0,
            },
        },
        reference: paper { d_uncleared: true, surgery: Surgery::Published, prior: 0.0 },
        small: paper {
            iterations: 200 * job.concepts.len().clamp(1, 5),
            warm_up: 100,
            lr: 5e-4,
            lr_schedule: LrSchedule::Linear,
            d_lr: 5e-4,
            eta: 0.5,
            prior_captions: 64,
            anchors.augment: Augment::None,
            anchors.pictures: 64,
            anchors.sampler: Sampler::Ddim.to_string(),
            anchors.sampling_steps: 20,
            anchors.guidance: 4.0,
        },
        fixed: paper {
            iterations: 135,
            warm_up: 60,
            lr: width::lr(job.pipeline, Part::Denoiser, 5e-4),
            lr_schedule: LrSchedule::Linear,
            d_lr: 5e-4,
            eta: 0.5,
            batch: 4,
            prior_captions: 32,
            anchors.augment: Augment::None,
            anchors.pictures: 90,
            anchors.sampling_steps: 20,
        },
    })
}

/// The names of stored states.
const STATE: &str = "doco";
const WARM_UP: &str = "doco-warm-up";

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::of_denoiser(&options.train_method, METHOD.id)?;
    options.train_method = trainable.name.into();
    checks::sampling(&options.anchors.sampler, 0.0)?;
    let with_prior = options.surgery != Surgery::None || options.prior > 0.0;
    checks::keeping(
        job,
        with_prior && options.prior_captions > 0,
        "--set prior_captions=64, and --set surgery=projection or a prior above 0",
    )?;
    let pairs = options.anchors.pairs(job)?;
    let of_captions = with_prior && options.prior_captions > 0;
    let kept = if of_captions {
        Pair::kept(job, options.prior_captions)
    } else {
        Vec::new()
    };
    if of_captions && kept.is_empty() {
        return Err(Error::input("the prior needs captions, there are none")
            .with_hint("give some with --captions, or --set surgery=none --set prior=0"));
    }
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    // Anchors are those of Ablating Concepts, so that both learn from the same.
    let drawing = options.anchors.drawing(0.0)?;
    let anchors = options.anchors.anchors(job, &pairs, drawing)?;
    let mirrored = if options.anchors.augment == Augment::None {
        Augment::None
    } else {
        Augment::Flip
    };
    let kept = match kept.len() {
        0 if with_prior => Some(anchors.clone().augmented(mirrored)),
        0 => None,
        n => Some(Anchors::drawn(
            job,
            &kept,
            n,
            drawing,
            anchors::kept(job.seed),
        )?),
    };
    let [_, channels, h, w] = job.pipeline.latent_shape(1, None, None)?;
    let fresh = Discriminator::fresh(
        channels,
        h.min(w),
        options.d_width,
        stream(job.seed, "doco/discriminator").seed(),
        job.pipeline.device(),
    );
    let warm = warm_up(job, &anchors, fresh, &options)?;

    let pipeline = job.pipeline;
    let carried = RefCell::new(warm.stored().into_tensors());
    let mut opponent: Option<Discriminator> = None;
    let steps = Train {
        adam: Adam::decoupled(),
        carried: Some(&carried),
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            STATE,
        )
    };
    let losses = if kept.is_some() { 2 } else { 1 };
    let mut loss = |edited: &Pipeline, step: usize, which: usize| -> Result<Tensor<1>> {
        if let (1, Some(kept)) = (which, &kept) {
            // Other pictures, noise and timesteps than the loss's where both learn from the same
            // set.
            return kept
                .batch(
                    pipeline,
                    options.batch,
                    options.warm_up + options.iterations + step,
                )?
                .denoising(edited, false);
        }
        let batch = anchors.batch(pipeline, options.batch, options.warm_up + step)?;
        // What was stored with the network's state was put back before the first step.
        let mut d = match opponent.take() {
            Some(d) => d,
            None => warm.restored(train::carried(STATE, &carried))?,
        };
        let asked = asked(edited, &batch)?;
        let fooled = cross_entropy(d.judge(asked.clone()), ANCHOR);
        teach(
            &mut d,
            pipeline,
            &batch,
            asked.detach().inner(),
            options.d_uncleared,
            &options,
        )?;
        carried.replace(d.stored().into_tensors());
        opponent = Some(d);
        Ok(fooled)
    };
    let values = train_several(job, steps, losses, &mut loss, &mut |found| {
        combined(found, &options)
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// The discriminator's labels.
const ANCHOR: f64 = 0.0;
const CONCEPT: f64 = 1.0;

/// The clean latents that a prediction implies, `[n, channels, h, w]`.
fn implied(model: &Pipeline, batch: &Batch, raw: Tensor<4>) -> Result<Tensor<4>> {
    let noisy = &batch.noisy;
    let scales = model.schedule.all_scales(&noisy.t);
    Ok(Prediction::new(raw, noisy.x.clone(), scales, model.schedule.output())?.x0()?)
}

/// Those of a model's prediction for the prompts that ask for the concept.
fn asked(model: &Pipeline, batch: &Batch) -> Result<Tensor<4>> {
    implied(
        model,
        batch,
        batch
            .noisy
            .predicted(model, &Context::from(&batch.target))?,
    )
}

/// One step of the discriminator against what the concept's prompts made of a batch.
fn teach(
    d: &mut Discriminator,
    frozen: &Pipeline,
    batch: &Batch,
    asked: Tensor<4>,
    uncleared: bool,
    options: &Options,
) -> Result<f32> {
    let anchor = Lesson {
        latents: implied(frozen, batch, batch.anchored(frozen, options.eta)?)?,
        label: ANCHOR,
        weight: 1.0,
    };
    let (label, weight) = if uncleared {
        (0.5, 2.0)
    } else {
        (CONCEPT, 1.0)
    };
    let adam = Adam {
        beta1: 0.5,
        ..Adam::default()
    };
    d.learn(
        vec![
            anchor,
            Lesson {
                latents: asked,
                label,
                weight,
            },
        ],
        adam,
        options.d_lr,
    )
}

/// The discriminator's steps before the network's. An interruption stores it.
fn warm_up(
    job: &mut Job<'_>,
    anchors: &Anchors,
    fresh: Discriminator,
    options: &Options,
) -> Result<Discriminator> {
    let mut d = match Stored::get(job.store, WARM_UP)? {
        Some(stored) => fresh.restored(stored)?,
        None => fresh,
    };
    if options.warm_up == 0 {
        return Ok(d);
    }
    job.tell(Event::Stage {
        name: "warming up",
        total: options.warm_up,
        done: d.steps(),
    })?;
    while d.steps() < options.warm_up {
        let batch = anchors.batch(job.pipeline, options.batch, d.steps())?;
        let asked = asked(job.pipeline, &batch)?;
        let loss = teach(&mut d, job.pipeline, &batch, asked, false, options)?;
        let going = job.tell(Event::Step {
            done: d.steps(),
            loss: Some(loss),
        });
        if going.is_err() || d.steps() == options.warm_up {
            d.stored().keep(job.store, WARM_UP)?;
        }
        going?;
    }
    Ok(d)
}

/// The gradient of a step from those of the network's loss and of the prior.
fn combined(mut found: Vec<Gradients>, options: &Options) -> Gradients {
    let prior = if found.len() > 1 { found.pop() } else { None };
    let own = found.pop().unwrap_or_default();
    let own = if options.clip > 0.0 {
        gradients::clipped(own, options.clip)
    } else {
        own
    };
    let Some(prior) = prior else { return own };
    let cut = match options.surgery {
        Surgery::Projection => gradients::without_conflict(own, &prior, Scope::Tensor),
        Surgery::Published => published(own, &prior),
        Surgery::None => own,
    };
    if options.prior > 0.0 {
        gradients::plus(cut, prior, options.prior)
    } else {
        cut
    }
}

/// The published code's surgery: tensor by tensor `g - cos(g, p) p / |p|` where the cosine is below
/// 0.
fn published(own: Gradients, prior: &Gradients) -> Gradients {
    let one = |(name, g): (String, Tensor<1>)| {
        let Some(p) = prior.get(&name) else {
            return (name, g);
        };
        let (along, own, length) = (
            gradients::inner(&g, p),
            gradients::inner(&g, &g).sqrt(),
            gradients::inner(p, p).sqrt(),
        );
        if along >= 0.0 {
            return (name, g);
        }
        let cosine = along / (own * length);
        (name, g - p.clone() * (cosine / length))
    };
    own.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn one(values: &[f32]) -> Gradients {
        Gradients::from([("w".to_owned(), Tensor::from_floats(values, &Device::flex()))])
    }

    fn along(a: &Gradients, b: &Gradients) -> f64 {
        gradients::dot(a, b)
    }

    #[test]
    fn the_published_surgery_is_a_projection_of_unit_gradients_only() {
        let prior = one(&[2.0, 0.0]);
        // Of norm 1: nothing is left along the prior, as after a true projection.
        assert!(along(&published(one(&[-0.6, 0.8]), &prior), &prior).abs() < 1e-6);
        // Shorter: the part along the prior is turned round.
        assert!(along(&published(one(&[-0.06, 0.08]), &prior), &prior) > 0.1);
        // Longer: some conflict stays.
        assert!(along(&published(one(&[-6.0, 8.0]), &prior), &prior) < -1.0);
        // Without conflict nothing changes.
        let agreed = published(one(&[6.0, 8.0]), &prior);
        assert!((along(&agreed, &agreed) - 100.0).abs() < 1e-4);
    }
}
