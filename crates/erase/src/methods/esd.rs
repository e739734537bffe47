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

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{
    Conditioning, Noise, Pipeline, Prediction,
    guidance::guided,
    options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets},
    presets,
    samplers::{self, Run, Sampler},
};
use scumble_families::{self as families, Part};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    concepts::concept::ConceptPrompt,
    data::bank::{self, Bank, Examples, Path, Sampling},
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{draw, stream},
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

/// The form of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Equation 7.
    Paper,
    /// The code of 2025.
    Present,
}

/// Where the latents come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Latents {
    /// The frozen model's trajectories, recorded once.
    Frozen,
    /// The edited model's, sampled anew for every step.
    Edited,
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

/// How the target is made: how far past the neutral prediction, and in which form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Away {
    pub(crate) eta: f64,
    pub(crate) anchor_eta: f64,
    pub(crate) form: Form,
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

/// Trajectory i follows prompt i, over and over, each from its own seed. If some prompts have a
/// companion, all get one.
pub(crate) fn paths(prompts: &[ConceptPrompt], trajectories: usize, seed: u64) -> Vec<Path> {
    let companions = prompts.iter().any(|p| p.also().is_some());
    let seeds = bank::trajectories(seed);
    let one = |i: usize| {
        let p = &prompts[i % prompts.len()];
        let along = p.from.as_ref().unwrap_or(&p.erase);
        let also = companions
            .then(|| p.also().cloned().unwrap_or_default())
            .into_iter()
            .collect();
        Path {
            prompt: along.clone(),
            also,
            seed: seeds.at(i),
        }
    };
    (0..trajectories.max(prompts.len())).map(one).collect()
}

impl ConceptPrompt {
    /// What the target needs beside the path's own prompt and the empty one.
    fn also(&self) -> Option<&String> {
        match &self.from {
            Some(_) => Some(&self.erase),
            None => self.anchor.as_ref(),
        }
    }
}

/// The target of every example, in what the network predicts: a combination of the frozen
/// predictions for the trained prompt, the empty one and the companion, with weights that add up to
/// 1.
pub(crate) fn target(
    examples: &Examples,
    rows: &[usize],
    prompts: &[ConceptPrompt],
    away: Away,
) -> Tensor<4> {
    let weights: Vec<[f64; 3]> = rows
        .iter()
        .map(|&row| weights(&prompts[row], away))
        .collect();
    let device = examples.x.device();
    let weighted = |part: &Tensor<4>, k: usize| {
        let column: Vec<f32> = weights.iter().map(|w| w[k] as f32).collect();
        part.clone()
            * Tensor::<4>::from_data(TensorData::new(column, [rows.len(), 1, 1, 1]), &device)
    };
    let target = weighted(&examples.raw_prompt, 0) + weighted(&examples.raw_empty, 1);
    match examples.raw_also.first() {
        Some(also) => target + weighted(also, 2),
        None => target,
    }
}

/// The weights of the predictions for the trained prompt, the empty prompt and the companion.
fn weights(prompt: &ConceptPrompt, away: Away) -> [f64; 3] {
    let (eta, anchored) = (away.eta, away.anchor_eta);
    match (&prompt.from, &prompt.anchor, away.form) {
        (Some(_), _, Form::Present) => [1.0, eta + 1.0, -(eta + 1.0)],
        (Some(_), _, Form::Paper) => [0.0, 1.0 + eta, -eta],
        (None, Some(_), _) => [-anchored, 0.0, 1.0 + anchored],
        (None, None, _) => [-eta, 1.0 + eta, 0.0],
    }
}

/// The mean squared distance to the target, in what the network predicts.
pub(crate) fn loss(
    edited: &Pipeline,
    examples: &Examples,
    contexts: &Conditioning,
    target: &Tensor<4>,
) -> Result<Tensor<1>> {
    let prediction = edited
        .predict(examples.x.clone(), &examples.t, &contexts.into(), None)?
        .raw();
    Ok((prediction - target.clone()).powi_scalar(2).mean())
}

/// How examples are sampled anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    /// Examples at once.
    pub(crate) batch: usize,
    /// DDIM steps of a whole trajectory.
    pub(crate) steps: usize,
    /// Guidance on the way.
    pub(crate) guidance: f64,
}

/// Partial trajectories of the edited model, stopped at one random step, with the frozen model's
/// predictions there.
pub(crate) fn fresh(
    frozen: &Pipeline,
    edited: &Pipeline,
    prompts: &[ConceptPrompt],
    options: Fresh,
    seed: u64,
    step: usize,
) -> Result<Examples> {
    let edited = edited.without_gradients();
    let mut rng = stream(seed, "esd/fresh").rng(step);
    let path: Vec<usize> = rng
        .integers(options.batch, 0, prompts.len() as i64)
        .iter()
        .map(|&i| i as usize)
        .collect();
    let stop = rng.integers(1, 0, options.steps as i64)[0] as usize;
    let text = |pick: &dyn Fn(&ConceptPrompt) -> String| -> Vec<String> {
        path.iter().map(|&i| pick(&prompts[i])).collect()
    };
    let along = text(&|p| p.from.clone().unwrap_or_else(|| p.erase.clone()));
    let n = path.len();
    let pair = Context::from(frozen.encode(&[along, vec![String::new(); n]].concat()));
    let companions = prompts.iter().any(|p| p.also().is_some());
    let also = companions.then(|| frozen.encode(&text(&|p| p.also().cloned().unwrap_or_default())));

    let (moving, still) = (edited.denoiser(), frozen.denoiser());
    let seeds: Vec<u64> = rng
        .integers(n, 0, i64::from(i32::MAX))
        .iter()
        .map(|&s| s as u64)
        .collect();
    let start = Noise::seeds(&seeds).draw(frozen.latent_shape(n, None, None)?, frozen.device());

    // The step at `stop` is not taken: its latents and its timestep are the example.
    let mut found = None;
    let mut model = |x: Tensor<4>, at: samplers::Step| -> Result<Prediction> {
        if at.index.0 == stop {
            found = Some((x.clone(), at));
            return Ok(Prediction::of_epsilon(x.clone(), x, at.scales)?);
        }
        let both = moving
            .predict_at(x.repeat_dim(0, 2), at, &pair, None)?
            .split(2)?;
        let raw = guided(options.guidance, both[1].raw(), both[0].raw());
        Ok(both[0].clone().with_raw(raw)?)
    };
    let run = Run::new(&frozen.schedule, options.steps);
    let mut none = |shape: [usize; 4]| Tensor::zeros(shape, frozen.device());
    let mut until = |p: samplers::Progress<'_>| {
        if p.index.0 >= stop {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    };
    Sampler::Ddim.sample::<Error>(&run, start, &mut model, &mut none, &mut until)?;
    let (x, at) =
        found.ok_or_else(|| Error::input("the sampler took fewer steps than it was asked for"))?;

    let both = still
        .predict_at(x.clone().repeat_dim(0, 2), at, &pair, None)?
        .split(2)?;
    let also = also
        .map(|context| still.predict_at(x.clone(), at, &context.into(), None))
        .transpose()?;
    Ok(Examples {
        x,
        t: vec![at.timestep; n],
        path,
        raw_prompt: both[0].raw(),
        raw_empty: both[1].raw(),
        raw_also: also.iter().map(Prediction::raw).collect(),
    })
}

pub(crate) fn select(rows_of: &Tensor<3>, rows: &[usize]) -> Tensor<3> {
    let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
    rows_of.clone().select(
        0,
        Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &rows_of.device()),
    )
}
