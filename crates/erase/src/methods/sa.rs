//! SA: "Selective Amnesia: A Continual Learning Approach to Forgetting in Deep Generative Models",
//! Heng and Soh, NeurIPS 2023 (arXiv 2305.10120).
//!
//! The concept's prompt is taught pictures of something else, while replayed pictures and the
//! weights that mattered for them hold the rest. With `x_q` pictures of the surrogate, `c` a prompt
//! of the concept, `(x_r, r)` replayed pictures and captions, `n` noise and `theta*` the frozen
//! weights:
//!
//! `loss = mean (net(x_q,t, t, c) - n)^2 + gamma mean (net(x_r,t, t, r) - n)^2 + lambda sum_i F_i
//! (theta_i - theta*_i)^2`
//!
//! `F` is the diagonal of the Fisher information as the published code has it: for each picture the
//! gradient of its training loss is summed over all timesteps and then squared; the mean over
//! pictures. Here the sum may be over fewer timesteps, spread evenly and scaled up to all of them.

use scumble_diffusion::{
    Pipeline, options,
    options::{ABOVE_ZERO, COUNT, Presets, WEIGHT, unfit},
    presets,
};
use scumble_families::Part;
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    data::forget::{Pull, Set, Sets},
    edit::Edit,
    error::Result,
    job::{Event, Job},
    methods::{Method, Variant},
    training::adam::Adam,
    training::gradients::{Gradients, plus},
    training::passes,
    training::train::{LrSchedule, Train, train_several},
    training::trainable::Trainable,
    training::width,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "sa",
    paper: "Heng and Soh, Selective Amnesia: A Continual Learning Approach to Forgetting in Deep Generative Models, NeurIPS 2023, arXiv 2305.10120",
    moves: "U-Net: cross-attention (esd-x), its keys and values (esd-x-strict), the rest (esd-u), all (esd-all), self-attention (selfattn)",
    needs: "captions to keep, whose pictures it draws itself",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(86.0),
    peak_mb: Some(281.0),
    published_evaluations: Some(16_800_000),
    fixed: "the miniature's recipe in at most 30,000 evaluations for one concept, its step size divided by how much wider the U-Net is, with the published weight of the Fisher information; the published 31,250 steps and 5 million evaluations of it are `paper`",
    erase,
};

options! {
    /// Selective Amnesia's options.
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
        /// Weight of the Fisher information; 0 for none.
        pub lambda: f64 where WEIGHT,
        /// Weight of replay; 0 for none.
        pub gamma: f64 where WEIGHT,
        /// Replayed pictures whose Fisher information is taken.
        pub fisher_pictures: usize where COUNT,
        /// Timesteps of each.
        pub fisher_timesteps: usize where COUNT,
        /// Pictures, labels and batches; what is to be kept is what is replayed.
        #[serde(flatten)]
        pub sets: Sets,
    }
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            train_method: "esd-u".into(),
            iterations: 31_250,
            lr: 1.6e-4,
            lr_schedule: LrSchedule::Constant,
            lambda: 50.0,
            gamma: 1.0,
            fisher_pictures: 5000,
            fisher_timesteps: job.pipeline.schedule.num_train_timesteps(),
            sets: Sets {
                pictures: 1000,
                retain_pictures: 5000,
                target: Pull::Noise,
                ..Sets::PUBLISHED
            },
        },
        // Only as many replayed pairs are ever used as there are surrogates.
        reference: paper { fisher_pictures: 1000, sets.retain_pictures: 1000 },
        small: paper {
            train_method: "esd-x".into(),
            iterations: 180,
            lr: 1e-3,
            lr_schedule: LrSchedule::Linear,
            lambda: 0.25,
            fisher_pictures: 32,
            fisher_timesteps: 50,
            sets: Sets { pictures: 64, ..Sets::small(job.concepts) },
        },
        fixed: small {
            iterations: 200,
            lr: width::lr(job.pipeline, Part::Denoiser, 1e-3),
            lambda: 50.0,
            fisher_pictures: 64,
            sets: Sets { pictures: 64, batch: 8, retain_batch: 8, ..Sets::full(job.concepts) },
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, there is nothing to replay, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::of_denoiser(&options.train_method, "Selective Amnesia")?;
    options.train_method = trainable.name.into();
    options.fit_together(job)?;
    checks::keeping(
        job,
        options.gamma > 0.0 || options.lambda > 0.0,
        "a gamma or a lambda above 0",
    )?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;

    let sets = &options.sets;
    let surrogates = Set::of_surrogates(job, sets)?;
    let replayed = Set::to_keep(job, sets)?;
    let (frozen, seed) = (job.pipeline, job.seed);
    let before = passes::values(frozen, trainable)?;
    let fisher = if options.lambda > 0.0 {
        fisher(job, &options, &replayed)?
    } else {
        Gradients::new()
    };

    let mut terms = vec![Term::Surrogate];
    terms.extend((options.gamma > 0.0).then_some(Term::Replay));
    terms.extend((options.lambda > 0.0).then_some(Term::Fisher));
    let mut loss = |edited: &Pipeline, step: usize, which: usize| match terms[which] {
        Term::Surrogate => surrogates.loss(frozen, edited, sets.batch, seed, step),
        Term::Replay => {
            Ok(replayed.loss(frozen, edited, sets.retain_batch, seed, step)? * options.gamma)
        }
        Term::Fisher => Ok(moved(edited, &before, &fisher) * options.lambda),
    };
    let steps = Train {
        adam: Adam::decoupled(),
        ..Train::new(
            trainable,
            options.iterations,
            options.lr,
            options.lr_schedule,
            "sa",
        )
    };
    let mut total = |all: Vec<Gradients>| {
        all.into_iter()
            .fold(Gradients::new(), |sum, g| plus(sum, g, 1.0))
    };
    let values = train_several(job, steps, terms.len(), &mut loss, &mut total)?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// The parts of the loss.
#[derive(Clone, Copy)]
enum Term {
    Surrogate,
    Replay,
    Fisher,
}

impl Options {
    fn fit_together(&self, job: &Job<'_>) -> Result<()> {
        self.sets.fit_together()?;
        let all = job.pipeline.schedule.num_train_timesteps();
        if self.fisher_timesteps > all {
            let expected = format!("1 to {all}");
            return Err(unfit("fisher_timesteps", self.fisher_timesteps, expected).into());
        }
        Ok(())
    }
}

/// The diagonal of the Fisher information over replayed pictures, by tensor name.
///
/// # Errors
/// If the caller interrupts.
pub fn fisher(job: &mut Job<'_>, options: &Options, replayed: &Set) -> Result<Gradients> {
    let (frozen, seed) = (job.pipeline, job.seed);
    let values = passes::values(
        frozen,
        Trainable::of_denoiser(&options.train_method, "Selective Amnesia")?,
    )?;
    let timesteps = options.fisher_timesteps;
    let pictures = options.fisher_pictures.min(replayed.len());
    let scale = frozen.schedule.num_train_timesteps() as f64 / timesteps as f64;
    let content = serde_json::json!({
        "pictures": replayed.content(), "timesteps": timesteps, "tensors": options.train_method, "seed": seed
    });
    passes::sum(job, "fisher", &content, pictures, &mut |picture| {
        let gradient = replayed.gradient_over_time(frozen, &values, timesteps, seed, picture)?;
        let squared = |(name, g): (String, burn::tensor::Tensor<1>)| {
            (name, (g * scale).powi_scalar(2) / pictures as f64)
        };
        Ok(gradient.into_iter().map(squared).collect())
    })
}

/// `sum_i F_i (theta_i - theta*_i)^2`, over what moves.
fn moved(edited: &Pipeline, before: &Gradients, fisher: &Gradients) -> burn::tensor::Tensor<1> {
    let mut sum = burn::tensor::Tensor::zeros([1], edited.device());
    for (name, before) in before {
        if let (Some(now), Some(fisher)) = (edited.denoiser.weights.get(name), fisher.get(name)) {
            sum = sum + (fisher.clone() * (now.flat() - before.clone()).powi_scalar(2)).sum();
        }
    }
    sum
}
