//! Ablating Concepts: "Ablating Concepts in Text-to-Image Diffusion Models", Kumari et al., ICCV
//! 2023 (arXiv 2303.13516).
//!
//! On pictures of an anchor concept the prompt that asks for the concept learns to predict what the
//! anchor's prompt predicts. With `x` a picture drawn by the frozen model from the anchor's prompt
//! `a`, `n` noise, `c` the prompt that asks for the concept:
//!
//! - model-based: `loss = mean (net(z_t, c) - sg[teacher(z_t, a)])^2`, `z_t = sqrt(abar_t) x +
//!   sqrt(1 - abar_t) n`
//! - noise-based: `loss = mean (net(z_t, c) - n)^2`
//! - regulariser, where an anchor's word is part of the concept's: `+ reg mean (net(z'_t, a) -
//!   n')^2` on the same kind of pictures
//!
//! Ours is `eta`, 0 in the paper: the teacher points past the anchor, to `teacher(z_t, a) - eta
//! (teacher(z_t, c) - teacher(z_t, a))`. An anchor may show the concept now and then, as `a cat` is
//! drawn in any style.
//!
//! The teacher is the model being trained, without gradient, in the paper and its code. Keys and
//! values of the start token, which every prompt shares, get no gradient, in the regulariser
//! neither. The published loss sums over the four channels where ours is a mean; Adam does not see
//! the factor, and it goes into `reg` and `clip`.
//!
//! Anchors are drawn from prompts of their own, which are reworded for the concept ([`rewording`]),
//! and seen from nearer or farther ([`augment`](crate::augment)). The paper's numbers come from the
//! code on CompVis' library (`paper`); `reference` is the one on diffusers.

use burn::tensor::Tensor;
use scumble_diffusion::{Pipeline, Sampler};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    adam::Adam,
    anchors::{self, Anchors, Batch, Pair, masked_error},
    augment::Augment,
    checks,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    pictures::Drawing,
    rewording::{self, Kind},
    train::{LrSchedule, Train, train},
    trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "ac",
    paper: "Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, ICCV 2023, arXiv 2303.13516",
    moves: "U-Net: keys and values of the cross-attention (kv), all attention (attention), all layers (full)",
    needs: "pictures of the anchor, drawn by the model itself",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(50.0),
    peak_mb: Some(241.0),
    published_evaluations: Some(53_200),
    erase,
};

/// Ablating Concepts' options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Which tensors move.
    pub train_method: String,
    /// Training steps.
    pub iterations: usize,
    /// AdamW's step size at the first step.
    pub lr: f64,
    /// `constant` or `linear` (falling to 0).
    pub lr_schedule: LrSchedule,
    /// `model` or `noise`.
    pub loss: Loss,
    /// `current` or `frozen`: who predicts for the anchor.
    pub teacher: Teacher,
    /// How far past the anchor the teacher points, with the model-based loss.
    pub eta: f64,
    /// Whether the start token gets no gradient.
    pub detach_start: bool,
    /// Examples a step.
    pub batch: usize,
    /// `object`, `style`, `content` or `memorized`: how prompts of the anchor are reworded.
    pub kind: Kind,
    /// Prompts of the anchor; none for the concept's own, or for compiled-in sentences.
    pub prompts: Vec<String>,
    /// How many compiled-in sentences a bare name is put into.
    pub templates: usize,
    /// `none`, `flip` or `resize`: what is done to a picture before every use.
    pub augment: Augment,
    /// Pictures of anchors; at least one for every prompt.
    pub pictures: usize,
    /// The sampler of these pictures.
    pub sampler: String,
    /// Its steps.
    pub sampling_steps: usize,
    /// DDIM's share of fresh noise.
    pub sampling_eta: f64,
    /// Guidance of these pictures.
    pub guidance: f64,
    /// Weight of the regulariser, beside a loss that is a mean.
    pub reg: f64,
    /// Captions whose pictures the regulariser learns from; 0 for the anchors' own.
    pub reg_captions: usize,
    /// The largest norm of a step's gradient; 0 for none.
    pub clip: f64,
}

/// What the concept's prompt is to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// What the teacher predicts for the anchor.
    Model,
    /// The noise.
    Noise,
}

/// Who predicts for the anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Teacher {
    /// The model being trained, without gradient.
    Current,
    /// The model as it was.
    Frozen,
}

/// The defaults for a job.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let kind = Kind::of(job.concepts);
    let published = Options {
        kind,
        prompts: Vec::new(),
        templates: 30,
        augment: if kind == Kind::Object {
            Augment::Resize
        } else {
            Augment::Flip
        },
        train_method: "esd-x-strict".into(),
        iterations: 100,
        lr: 1.6e-5,
        lr_schedule: LrSchedule::Constant,
        loss: Loss::Model,
        teacher: Teacher::Current,
        eta: 0.0,
        detach_start: true,
        batch: 8,
        pictures: 200,
        sampler: Sampler::Ddim.to_string(),
        sampling_steps: 200,
        sampling_eta: 1.0,
        guidance: 6.0,
        reg: 0.0,
        reg_captions: 0,
        // 1 where the loss is four times as large.
        clip: 0.25,
    };
    let diffusers = Options {
        pictures: 1000,
        sampler: Sampler::DpmPp2m.to_string(),
        sampling_steps: 25,
        sampling_eta: 0.0,
        ..published.clone()
    };
    match variant {
        Variant::Paper => published,
        Variant::Reference => diffusers,
        Variant::Fixed if !job.miniature => Options {
            teacher: Teacher::Frozen,
            pictures: 200,
            ..diffusers
        },
        Variant::Fixed => Options {
            iterations: 200 * job.concepts.len().clamp(1, 5),
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            teacher: Teacher::Frozen,
            eta: 0.5,
            reg: 0.5,
            reg_captions: 64,
            augment: Augment::None,
            pictures: 64,
            sampler: Sampler::Ddim.to_string(),
            sampling_steps: 20,
            sampling_eta: 0.0,
            guidance: 4.0,
            clip: 1.0,
            ..published
        },
    }
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(&defaults(job, variant))?;
    let trainable = Trainable::of_denoiser(&options.train_method, METHOD.id)?;
    options.train_method = trainable.name.into();
    options.check()?;
    checks::keeping(
        job,
        options.reg > 0.0 && options.reg_captions > 0,
        "--set reg=0.25 --set reg_captions=64",
    )?;
    let pairs = rewording::pairs(
        job.concepts,
        options.kind,
        &options.prompts,
        options.templates,
    )?;
    if pairs.is_empty() {
        return Err(Error::input("there is no concept to erase"));
    }
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let drawing = Drawing {
        sampler: options.sampler.parse()?,
        noise: options.sampling_eta,
        ..Drawing::new(options.sampling_steps, options.guidance)
    };
    let anchors = Anchors::drawn(
        job,
        &pairs,
        options.pictures,
        drawing,
        anchors::shown(job.seed),
    )?
    .augmented(options.augment);
    let kept = match (options.reg > 0.0, options.reg_captions) {
        (false, _) => None,
        // The published regulariser's pictures are mirrored and no more.
        (true, 0) if options.augment == Augment::Resize => {
            Some(anchors.clone().augmented(Augment::Flip))
        }
        (true, 0) => Some(anchors.clone()),
        (true, n) => {
            let kept = Pair::kept(job, n);
            if kept.is_empty() {
                return Err(
                    Error::input("reg_captions asks for captions, there are none")
                        .with_hint("give some with --captions"),
                );
            }
            Some(Anchors::drawn(
                job,
                &kept,
                n,
                drawing,
                anchors::kept(job.seed),
            )?)
        }
    };

    let pipeline = job.pipeline;
    let steps = Train {
        adam: Adam::decoupled(),
        clip: (options.clip > 0.0).then_some(options.clip),
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            METHOD.id,
        )
    };
    let values = train(job, steps, &mut |edited, step| {
        let batch = anchors.batch(pipeline, options.batch, step)?;
        let loss = loss(pipeline, edited, &batch, &options)?;
        match &kept {
            // Other pictures, noise and timesteps than the loss's where both learn from the same
            // set.
            Some(kept) => {
                let batch = kept.batch(pipeline, options.batch, step + options.iterations)?;
                Ok(loss + batch.denoising(edited, options.detach_start)? * options.reg)
            }
            None => Ok(loss),
        }
    })?;
    let recorded = serde_json::to_value(&options)
        .map_err(|e| Error::input(format!("cannot record the options: {e}")))?;
    Ok(Edit::of_values(
        job.about(METHOD.id, recorded),
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

impl Options {
    fn check(&self) -> Result<()> {
        checks::counts(&[
            ("iterations", self.iterations),
            ("batch", self.batch),
            ("pictures", self.pictures),
            ("sampling_steps", self.sampling_steps),
        ])?;
        checks::above_zero(&[("lr", self.lr)])?;
        checks::finite(&[("guidance", self.guidance), ("eta", self.eta)])?;
        checks::sampling(&self.sampler, self.sampling_eta)?;
        checks::weights(&[("reg", self.reg), ("clip", self.clip)])
    }
}

/// The mean squared distance of what the concept's prompt predicts to what it should, in what the
/// network predicts.
fn loss(
    frozen: &Pipeline,
    edited: &Pipeline,
    batch: &Batch,
    options: &Options,
) -> Result<Tensor<1>> {
    let wanted = match (options.loss, options.teacher) {
        (Loss::Noise, _) => batch.noisy.target(frozen)?,
        (Loss::Model, Teacher::Frozen) => batch.anchored(frozen, options.eta)?,
        (Loss::Model, Teacher::Current) => batch
            .noisy
            .predicted(&edited.without_gradients(), &Context::from(&batch.anchor))?,
    };
    let context = Context::from(&batch.target);
    let context = if options.detach_start {
        context.with_start_detached()
    } else {
        context
    };
    Ok(masked_error(
        batch.noisy.predicted(edited, &context)?,
        wanted,
        batch.valid.as_ref(),
    ))
}
