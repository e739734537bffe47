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
//! and seen from nearer or farther ([`augment`](crate::data::augment)). Of the paper's three choices of
//! what moves, the third (`embedding`) is the vectors of the concept's words; the released code
//! stops there before the first step (`args.concept_list`), and would let the weight decay of AdamW
//! move all others. The paper's numbers come from the
//! code on CompVis' library (`paper`); `reference` is the one on diffusers.

use std::collections::BTreeSet;

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Pipeline, Sampler, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, SHARE, WEIGHT},
    presets,
};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    concepts::captions::telling,
    concepts::rewording::{Kind, Rewording},
    data::anchors::{self, Anchors, Batch, Pair, masked_error},
    data::augment::Augment,
    data::start,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    training::adam::Adam,
    training::gradients::Gradients,
    training::train::{LrSchedule, Train, train},
    training::trainable::{TOKENS, Trainable},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "ac",
    paper: "Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, ICCV 2023, arXiv 2303.13516",
    moves: "U-Net: keys and values of the cross-attention (kv), all attention (attention), all layers (full); or the text encoder's vectors of the concept's words (embedding)",
    needs: "pictures of the anchor, drawn by the model itself",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(50.0),
    peak_mb: Some(241.0),
    published_evaluations: Some(53_200),
    fixed: "the published numbers with the frozen model as teacher and 200 pictures",
    erase,
};

options! {
    /// Ablating Concepts' options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move; `embedding` for the vectors of the concept's words.
        pub train_method: String,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// `model` or `noise`.
        pub loss: Loss,
        /// `current` or `frozen`: who predicts for the anchor.
        pub teacher: Teacher,
        /// How far past the anchor the teacher points, with the model-based loss.
        pub eta: f64 where FINITE,
        /// Whether the start token gets no gradient.
        pub detach_start: bool,
        /// Examples a step.
        pub batch: usize where COUNT,
        /// DDIM's share of fresh noise.
        pub sampling_eta: f64 where SHARE,
        /// Weight of the regulariser, beside a loss that is a mean.
        pub reg: f64 where WEIGHT,
        /// Captions whose pictures the regulariser learns from; 0 for the anchors' own.
        pub reg_captions: usize,
        /// The largest norm of a step's gradient; 0 for none.
        pub clip: f64 where WEIGHT,
        /// Prompts and pictures of anchors.
        #[serde(flatten)]
        pub anchors: Rewording,
    }
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

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let kind = Kind::of(job.concepts);
    Ok(presets! {
        paper: Options {
            train_method: "esd-x-strict".into(),
            iterations: 100,
            lr: 1.6e-5,
            lr_schedule: LrSchedule::Constant,
            loss: Loss::Model,
            teacher: Teacher::Current,
            eta: 0.0,
            detach_start: true,
            batch: 8,
            sampling_eta: 1.0,
            reg: 0.0,
            reg_captions: 0,
            // 1 where the loss is four times as large.
            clip: 0.25,
            anchors: Rewording {
                kind,
                prompts: Vec::new(),
                templates: 30,
                augment: if kind == Kind::Object { Augment::Resize } else { Augment::Flip },
                pictures: 200,
                sampler: Sampler::Ddim.to_string(),
                sampling_steps: 200,
                guidance: 6.0,
            },
        },
        // The code of diffusers.
        reference: paper {
            sampling_eta: 0.0,
            anchors.pictures: 1000,
            anchors.sampler: Sampler::DpmPp2m.to_string(),
            anchors.sampling_steps: 25,
        },
        fixed: reference { teacher: Teacher::Frozen, anchors.pictures: 200 },
        small: paper {
            iterations: 200 * job.concepts.len().clamp(1, 5),
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            teacher: Teacher::Frozen,
            eta: 0.5,
            reg: 0.5,
            reg_captions: 64,
            sampling_eta: 0.0,
            clip: 1.0,
            anchors.augment: Augment::None,
            anchors.pictures: 64,
            anchors.sampling_steps: 20,
            anchors.guidance: 4.0,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let words = options.train_method.trim() == TOKENS.name;
    let trainable = match words {
        true => TOKENS,
        false => Trainable::of_denoiser(&options.train_method, METHOD.id)?,
    };
    options.train_method = trainable.name.into();
    checks::sampling(&options.anchors.sampler, options.sampling_eta)?;
    checks::keeping(
        job,
        options.reg > 0.0 && options.reg_captions > 0,
        "--set reg=0.25 --set reg_captions=64",
    )?;
    let pairs = options.anchors.pairs(job)?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;
    let mask = words.then(|| vectors(job, &pairs)).transpose()?;

    let drawing = options.anchors.drawing(options.sampling_eta)?;
    let anchors = options.anchors.anchors(job, &pairs, drawing)?;
    let kept = match (options.reg > 0.0, options.reg_captions) {
        (false, _) => None,
        // The published regulariser's pictures are mirrored and no more.
        (true, 0) if options.anchors.augment == Augment::Resize => {
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
        // Words that are not the concept's are to stay, and they would decay.
        adam: if words {
            Adam::default()
        } else {
            Adam::decoupled()
        },
        mask: mask.as_ref(),
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
        let loss = loss(pipeline, edited, &batch, &options, words)?;
        match &kept {
            // Other pictures, noise and timesteps than the loss's where both learn from the same
            // set.
            Some(kept) => {
                let batch = kept.batch(pipeline, options.batch, step + options.iterations)?;
                let batch = if words { batch.said_by(edited) } else { batch };
                Ok(loss + batch.denoising(edited, options.detach_start)? * options.reg)
            }
            None => Ok(loss),
        }
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// Which numbers of the token table move: the vectors of tokens that the concepts' names have, that
/// some prompt which asks for them has, and that no anchor has.
fn vectors(job: &Job<'_>, pairs: &[Pair]) -> Result<Gradients> {
    let pipeline = job.pipeline;
    let tokens = |text: &str| pipeline.tokenizer.tokens(text);
    let all = |texts: Vec<&str>| -> BTreeSet<u32> { texts.into_iter().flat_map(tokens).collect() };
    let asked = all(pairs
        .iter()
        .flat_map(|p| &p.targets)
        .map(String::as_str)
        .collect());
    let kept = all(pairs.iter().map(|p| p.anchor.as_str()).collect());
    let named: Vec<String> = job.concepts.iter().map(|c| telling(&c.name)).collect();
    let mut own = all(named.iter().map(String::as_str).collect());
    own.retain(|token| asked.contains(token) && !kept.contains(token));
    if own.is_empty() {
        return Err(Error::input(format!(
            "train_method=embedding: no token of `{}` is the concept's alone",
            named.join(", ")
        ))
        .with_hint("what the anchor's prompts name too has to stay; the keys and values of the cross-attention can tell them apart (train_method=kv)"));
    }
    let table = token_table(pipeline)?;
    let [_, width] = table.1;
    let rows = (0..table.1[0] as u32).flat_map(|row| {
        let moves = f32::from(u8::from(own.contains(&row)));
        std::iter::repeat_n(moves, width)
    });
    let values: Vec<f32> = rows.collect();
    let n = values.len();
    let mask = Tensor::from_data(TensorData::new(values, [n]), pipeline.device());
    Ok(Gradients::from([(table.0, mask)]))
}

/// The name of the token table and its shape, `[tokens, width]`.
fn token_table(pipeline: &Pipeline) -> Result<(String, [usize; 2])> {
    let name = TOKENS.pick_in(pipeline)?.swap_remove(0);
    let weight = pipeline
        .weights(TOKENS.component(pipeline))
        .and_then(|weights| weights.get(&name));
    match weight.map(|weight| weight.shape.as_slice()) {
        Some(&[tokens, width]) => Ok((name, [tokens, width])),
        _ => Err(Error::input(format!("`{name}` is no table of vectors"))),
    }
}

/// The mean squared distance of what the concept's prompt predicts to what it should, in what the
/// network predicts.
fn loss(
    frozen: &Pipeline,
    edited: &Pipeline,
    batch: &Batch,
    options: &Options,
    words: bool,
) -> Result<Tensor<1>> {
    let still = edited.without_gradients();
    let wanted = match (options.loss, options.teacher) {
        (Loss::Noise, _) => batch.noisy.target(frozen)?,
        (Loss::Model, Teacher::Frozen) => batch.anchored(frozen, options.eta)?,
        (Loss::Model, Teacher::Current) => {
            let anchor = match words {
                true => still.encode(&batch.instead),
                false => batch.anchor.clone(),
            };
            batch.noisy.predicted(&still, &Context::from(&anchor))?
        }
    };
    let asked = match words {
        true => edited.encode(&batch.asks),
        false => batch.target.clone(),
    };
    let context = start::context(asked, options.detach_start);
    Ok(masked_error(
        batch.noisy.predicted(edited, &context)?,
        wanted,
        batch.valid.as_ref(),
    ))
}
