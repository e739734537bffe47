//! ScissorHands: "Scissorhands: Scrub Data Influence via Connection Sensitivity in Networks", Wu
//! and Harandi, ECCV 2024 (arXiv 2401.06187).
//!
//! The connections that matter most for the concept are drawn anew, and the model is repaired. With
//! `w_j` a number of the network and `g_b` the gradient of its error on draw b of one batch of the
//! concept's pictures:
//!
//! - sensitivity `s_j = |w_j sum_b |g_bj||`; what is above the quantile `sparsity` of all numbers
//!   together is drawn anew
//! - repair: `grad L_r + lambda grad L_u`. `L_r` is the training loss on what is to be kept; `L_u`
//!   pulls the concept's prompt to the prediction for another (`relabel`), or is the concept's own
//!   training loss with a minus (`ascent`)
//! - the paper projects the repair where it would undo the forgetting: a step `d` with `<d, grad
//!   L_u> < 0` loses its part along `grad L_u`, the solution of GEM's quadratic program for one
//!   memory
//!
//! The published code for Stable Diffusion defines that program and never calls it, and draws anew
//! only in the self-attention of two blocks (`within=published`).

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Pipeline, TorchRng, options,
    options::{ABOVE_ZERO, BELOW_ONE, COUNT, Presets, WEIGHT},
    presets,
};
use scumble_families::Part;
use scumble_families::{self as families, Role};
use serde::{Deserialize, Serialize};

use crate::{
    data::forget::{Pull, Set, Sets, train_both},
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::stream,
    training::gradients::{Gradients, Scope, most_salient, plus, without_conflict},
    training::passes,
    training::train::{LrSchedule, Train},
    training::trainable::Trainable,
    training::width,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "scissorhands",
    paper: "Wu and Harandi, Scissorhands: Scrub Data Influence via Connection Sensitivity in Networks, ECCV 2024, arXiv 2401.06187",
    moves: "U-Net: all (esd-all), cross-attention (esd-x), its keys and values (esd-x-strict), the rest (esd-u), self-attention (selfattn)",
    needs: "pictures of the concept, drawn by the model itself unless given with --pictures; captions to keep",
    several: true,
    preserves: true,
    pictures: true,
    seconds: Some(47.0),
    peak_mb: Some(259.0),
    published_evaluations: Some(12_800),
    fixed: "the miniature's recipe in at most 10,000 evaluations for one concept, its step size divided by how much wider the U-Net is; the published 800 pictures a side are `paper`",
    erase,
};

options! {
    /// ScissorHands' options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors are ranked and repaired.
        pub train_method: String,
        /// The share of numbers that are not drawn anew.
        pub sparsity: f64 where BELOW_ONE
            => "it is the share of numbers that stay; 0.995 draws one of 200 anew",
        /// `trained` or `published`: where numbers are drawn anew.
        pub within: Within,
        /// `kaiming` or `normal`: how they are drawn.
        pub redraw: Redraw,
        /// Draws of noise and timesteps for the sensitivity.
        pub draws: usize where COUNT,
        /// Examples of each draw.
        pub draw_batch: usize where COUNT,
        /// Guidance of the predictions whose gradient is the sensitivity; 0 for the training loss.
        pub sensitivity_guidance: f64 where WEIGHT,
        /// `relabel` or `ascent`: how the repair goes on forgetting.
        pub forget: Forget,
        /// Weight of that.
        pub lambda: f64 where WEIGHT,
        /// Whether the repair loses what would undo the forgetting.
        pub projection: bool,
        /// Training steps of the repair.
        pub iterations: usize where COUNT,
        /// Adam's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// Pictures, labels and batches.
        #[serde(flatten)]
        pub sets: Sets,
    }
}

/// Where numbers are drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Within {
    /// Wherever they are ranked.
    Trained,
    /// In the self-attention of two blocks of the upward path alone.
    Published,
}

/// How numbers of weights are drawn anew; those of biases become 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redraw {
    /// Evenly within the root of 6 over the number of inputs (He et al. 2015), as published for a
    /// category.
    Kaiming,
    /// Normal with deviation 0.02, cut off at two of them, as published for a class.
    Normal,
}

/// How the repair goes on forgetting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forget {
    /// The concept's prompts are pulled to what another predicts, as published for a category.
    Relabel,
    /// The error of denoising the concept's pictures is driven up, without a bound, as published
    /// for a class.
    Ascent,
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            train_method: "esd-all".into(),
            sparsity: 0.995,
            within: Within::Trained,
            redraw: Redraw::Kaiming,
            draws: 10,
            draw_batch: 16,
            sensitivity_guidance: 0.0,
            forget: Forget::Relabel,
            lambda: 0.1,
            projection: true,
            iterations: 100,
            lr: 1e-5,
            lr_schedule: LrSchedule::Constant,
            sets: Sets::PUBLISHED,
        },
        // Its loaders give the same first batch at every step.
        reference: paper {
            within: Within::Published,
            projection: false,
            sets.pictures: 16,
            sets.retain_pictures: 16,
        },
        // One of 200 anew, everywhere and as large as before training, leaves a network of this
        // size in ruins.
        small: paper {
            train_method: "esd-x".into(),
            sparsity: 0.99,
            redraw: Redraw::Normal,
            iterations: 120,
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            lambda: 1.0,
            sets: Sets::small(job.concepts),
        },
        fixed: small {
            draw_batch: 4,
            iterations: 150,
            lr: width::lr(job.pipeline, Part::Denoiser, 1e-3),
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
    let trainable = Trainable::of_denoiser(&options.train_method, "ScissorHands")?;
    options.train_method = trainable.name.into();
    options.sets.fit_together()?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let sets = &options.sets;
    let forgotten = Set::of_concepts(job, sets)?;
    let kept = Set::to_keep(job, sets)?;
    let (trimmed, count) = trimmed(job, &options, trainable, &forgotten)?;
    job.tell(Event::Note(&format!("{count} numbers drawn anew")))?;

    let (forgotten, sign) = match options.forget {
        Forget::Relabel => (forgotten, 1.0),
        Forget::Ascent => (forgotten.pulled_to(Pull::Noise), -1.0),
    };
    let steps = Train {
        start: Some(&trimmed),
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            "scissorhands",
        )
    };
    let values = train_both(job, steps, sets, &forgotten, &kept, &mut |forget, keep| {
        let forget = plus(Gradients::new(), forget, sign);
        let repair = plus(keep, forget.clone(), options.lambda);
        if options.projection {
            without_conflict(repair, &forget, Scope::Whole)
        } else {
            repair
        }
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// The model with its most sensitive numbers drawn anew, and how many those are.
///
/// # Errors
/// If the model has none of the blocks in which numbers are drawn anew, or the caller interrupts.
pub fn trimmed(
    job: &mut Job<'_>,
    options: &Options,
    trainable: Trainable,
    forgotten: &Set,
) -> Result<(Pipeline, usize)> {
    let (frozen, seed) = (job.pipeline, job.seed);
    let values = passes::values(frozen, trainable)?;
    let (guidance, batch) = (options.sensitivity_guidance, options.draw_batch);
    let content = serde_json::json!({
        "pictures": forgotten.content(), "guidance": guidance, "batch": batch, "tensors": options.train_method, "seed": seed
    });
    let summed = passes::sum(job, "sensitivity", &content, options.draws, &mut |k| {
        let gradient = forgotten.denoising_gradient(
            frozen,
            &values,
            guidance,
            batch,
            stream(seed, "scissorhands/sensitivity").seed(),
            k,
        )?;
        Ok(gradient
            .into_iter()
            .map(|(name, g)| (name, g.abs()))
            .collect())
    })?;
    let sensitivity = summed
        .into_iter()
        .filter_map(|(name, s)| Some((name.clone(), (s * values.get(&name)?.clone()).abs())));
    let mask = most_salient(&sensitivity.collect(), 1.0 - options.sparsity)?;

    let family = families::of(frozen);
    let mut trimmed = frozen.clone();
    let mut count = 0;
    let mut places = 0;
    for (i, (name, mask)) in mask.into_iter().enumerate() {
        let here = match options.within {
            Within::Trained => true,
            Within::Published => {
                let within = |block: &&str| {
                    name.strip_prefix(block)
                        .is_some_and(|rest| rest.starts_with('.'))
                };
                let role = family.role(family.denoiser(), &name);
                role.is_some_and(Role::is_self_attention) && family.scissorhands.iter().any(within)
            }
        };
        let (true, Some(old), Some(weight)) =
            (here, values.get(&name), frozen.denoiser.weights.get(&name))
        else {
            continue;
        };
        places += 1;
        let drawn = drawn(
            options.redraw,
            &weight.shape,
            stream(seed, "scissorhands/redrawn").at(i),
        );
        let new = Tensor::<1>::from_data(TensorData::new(drawn, old.dims()), frozen.device());
        count += mask.clone().sum().into_scalar::<f32>() as usize;
        let value = old.clone() * (mask.clone() * -1.0 + 1.0) + new * mask;
        trimmed.denoiser.weights.replace(&name, value)?;
    }
    if places == 0 {
        return Err(Error::input(
            "the model has none of the layers that the published code draws anew",
        )
        .with_hint("--set within=trained draws anew wherever numbers are ranked"));
    }
    Ok((trimmed, count))
}

/// New numbers for a tensor of a layer.
fn drawn(how: Redraw, shape: &[usize], seed: u64) -> Vec<f32> {
    let n: usize = shape.iter().product();
    if shape.len() < 2 {
        return vec![0.0; n];
    }
    let mut rng = TorchRng::new(seed);
    match how {
        Redraw::Kaiming => {
            let bound = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            rng.uniform(n)
                .into_iter()
                .map(|u| ((f64::from(u) * 2.0 - 1.0) * bound) as f32)
                .collect()
        }
        Redraw::Normal => {
            // Beyond two deviations lie 5%: those are drawn again.
            let mut values = rng.normal(n);
            while let Some(far) =
                Some(values.iter().filter(|v| v.abs() > 2.0).count()).filter(|&far| far > 0)
            {
                let mut again = rng.normal(far).into_iter();
                for value in values.iter_mut().filter(|v| v.abs() > 2.0) {
                    *value = again.next().unwrap_or(0.0);
                }
            }
            values.into_iter().map(|v| v * 0.02).collect()
        }
    }
}
