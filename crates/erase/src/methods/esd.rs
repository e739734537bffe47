//! ESD: "Erasing Concepts from Diffusion Models", Gandikota et al., ICCV 2023 (arXiv 2303.07345).
//!
//! The edited network learns to predict, for the concept's prompt, what the frozen one predicts
//! when guided away from it. With `e` the prompt to erase, `p` the prompt that is trained (`e`, or
//! `from` where one is given) and `0` the empty prompt:
//!
//! - paper, equation 7: `target = eps*(0) - eta (eps*(e) - eps*(0))`
//! - code of 2025: `target = eps*(p) - (eta + 1) (eps*(e) - eps*(0))`, the same where `p` is `e`
//! - with an anchor `a`, ours: `target = eps*(a) - eta (eps*(e) - eps*(a))`, which leaves in place
//!   what `e` and `a` share
//!
//! `loss = mean (net(z_t, p, t) - target)^2`, in what the network predicts (epsilon or v). `z_t`
//! comes from trajectories guided towards `p`: of the frozen model (code of 2025;
//! [`bank`](crate::data::bank)) or of the edited one (paper).

use scumble_diffusion::{
    options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets},
    presets,
    samplers::Sampler,
};
use scumble_families::{self as families, Part};
use serde::{Deserialize, Serialize};

use crate::{
    concepts::prompt::ConceptPrompt,
    data::{
        bank::{Bank, Sampling},
        trajectories::{Fresh, Latents, fresh, paths},
    },
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::draw,
    training::negative_guidance::{Away, Form, loss, target},
    training::train::{LrSchedule, Train, train},
    training::trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "esd",
    paper: "Gandikota et al., Erasing Concepts from Diffusion Models, ICCV 2023, arXiv 2303.07345",
    moves: "U-Net: cross-attention (esd-x), its keys and values (esd-x-strict), the rest (esd-u), all (esd-all), self-attention (selfattn)",
    needs: "nothing",
    several: true,
    preserves: false,
    pictures: false,
    seconds: Some(10.0),
    peak_mb: Some(233.0),
    published_evaluations: Some(10_800),
    fixed: "the published trainer's numbers for this family",
    erase,
};

options! {
    /// ESD's options.
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
        /// How far past the neutral prediction to go, in the paper's counting.
        pub eta: f64 where FINITE,
        /// The same for prompts with an anchor; what `eta` was set to, if it was set and this was
        /// not.
        pub anchor_eta: f64 where FINITE,
        /// `paper` or `present`: the form of the target.
        pub form: Form,
        /// `frozen` or `edited`: whose trajectories the latents come from.
        pub latents: Latents,
        /// Examples a step.
        pub batch: usize where COUNT,
        /// Trajectories in the bank.
        pub trajectories: usize where COUNT,
        /// The sampler of frozen trajectories, or `own` for the checkpoint's.
        pub sampler: String,
        /// Steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
    }
}

/// The presets for a job: the published numbers of a choice of tensors, and those that work at the
/// miniature's size.
///
/// # Errors
/// If the option `train_method` names no tensors of the U-Net.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let trainable = trained(job)?;
    let cross = matches!(trainable.name, "esd-x" | "esd-x-strict");
    // The published trainers, of which each family has one.
    let trainer = families::of(job.pipeline).esd;
    let lr = if cross {
        trainer.lr_context
    } else {
        trainer.lr_others
    };
    let concepts = job.concepts.len().clamp(1, 5);
    Ok(presets! {
        reference: Options {
            train_method: trainable.name.into(),
            iterations: 200,
            lr,
            lr_schedule: LrSchedule::Constant,
            eta: trainer.eta,
            anchor_eta: trainer.eta,
            form: Form::Present,
            latents: Latents::Frozen,
            batch: 1,
            trajectories: 8,
            sampler: Sampler::Ddim.to_string(),
            sampling_steps: 50,
            start_guidance: trainer.start_guidance,
        },
        paper: reference {
            iterations: 1000,
            lr: 1e-5,
            form: Form::Paper,
            latents: Latents::Edited,
        },
        fixed: reference,
        // The published step size does nothing to a network of this size in 200 steps.
        small: reference {
            iterations: concepts * if cross { 200 } else { 300 },
            lr: if cross { 1e-3 } else { 2.5e-4 },
            lr_schedule: LrSchedule::Linear,
            batch: 8,
            // Trajectories of all three seeds of esd-u: 16 made them differ in what they did to
            // other objects, 42 less so.
            trajectories: job.prompt_count().max(if cross { 16 } else { 42 }),
        },
    })
}

/// The tensors that the option `train_method` names.
fn trained(job: &Job<'_>) -> Result<Trainable> {
    let wanted = job.preset("train_method", "esd-x".to_owned())?;
    let trainable = Trainable::named(&wanted)?;
    if trainable.part != Part::Denoiser {
        return Err(Error::input(format!(
            "`{}` moves the {}, ESD moves the U-Net",
            trainable.name, trainable.part
        ))
        .with_hint("--method advunlearn trains the text encoder with ESD's target"));
    }
    Ok(trainable)
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, a prompt does not fit the context, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let trainable = trained(job)?;
    let mut options: Options = job.options(presets, variant)?;
    options.train_method = trainable.name.into();
    if job.set_alone("eta", "anchor_eta") {
        options.anchor_eta = options.eta;
    }
    let sampler = if options.sampler == "own" {
        job.pipeline.own_sampler()?
    } else {
        options.sampler.parse()?
    };
    if sampler != Sampler::Ddim && options.latents == Latents::Edited {
        return Err(Error::input(format!(
            "the edited model's trajectories are sampled with ddim, not {sampler}"
        ))
        .with_hint("--set latents=frozen, or leave the sampler out"));
    }
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;
    job.tell(Event::Detail(&format!(
        "eta {} (negative guidance {} in the present code's counting)",
        options.eta,
        options.eta + 1.0
    )))?;

    let prompts: Vec<ConceptPrompt> = job
        .concepts
        .iter()
        .flat_map(|c| c.prompts.clone())
        .collect();
    if prompts.is_empty() {
        return Err(Error::input("there is no concept to erase"));
    }
    let trained: Vec<String> = prompts
        .iter()
        .map(|p| p.from.clone().unwrap_or_else(|| p.erase.clone()))
        .collect();
    let contexts = job.pipeline.encode(&trained);
    let bank = match options.latents {
        Latents::Frozen => {
            let paths = paths(&prompts, options.trajectories, job.seed);
            Some(Bank::record_by(job, &paths, options.sampling(), sampler)?)
        }
        Latents::Edited => None,
    };

    let (pipeline, seed) = (job.pipeline, job.seed);
    let steps = Train::new(
        trainable,
        options.iterations,
        options.lr,
        options.lr_schedule,
        "esd",
    );
    let values = train(job, steps, &mut |edited, step| {
        let examples = match &bank {
            Some(bank) => bank.examples(&draw(bank.len(), options.batch, seed, step)),
            None => fresh(pipeline, edited, &prompts, options.fresh(), seed, step)?,
        };
        let rows: Vec<usize> = examples
            .path
            .iter()
            .map(|path| path % prompts.len())
            .collect();
        let target = target(&examples, &rows, &prompts, options.away());
        loss(edited, &examples, &contexts.select(&rows), &target)
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, &options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

impl Options {
    fn away(&self) -> Away {
        Away {
            eta: self.eta,
            anchor_eta: self.anchor_eta,
            form: self.form,
        }
    }

    fn fresh(&self) -> Fresh {
        Fresh {
            batch: self.batch,
            steps: self.sampling_steps,
            guidance: self.start_guidance,
        }
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            steps: self.sampling_steps,
            guidance: self.start_guidance,
        }
    }
}
