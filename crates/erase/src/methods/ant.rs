//! ANT: "Set You Straight: Auto-Steering Denoising Trajectories to Sidestep Unwanted Concepts", Li et al., ACM MM 2025
//! (arXiv 2504.12782).
//!
//! Early steps decide where things are, late ones what they are. So the edited network keeps the concept's own prediction while a
//! picture is noisy and goes away from it later; the prediction for the empty prompt stays in both regions. With `c` the
//! prompt and `t'` the `split`:
//!
//! ```text
//! t > t':   keep     = eps*(c)
//! t <= t':  reverse  = eps*(0) - eta (eps*(c) - eps*(0))
//! L = L_reverse + alpha_2 L_reverse,0 + alpha_1 (L_keep + alpha_2 L_keep,0)
//! ```
//!
//! Each is a mean squared error to targets of the frozen model. For one concept those weights move that are most salient on every
//! trajectory; for several each trains a low-rank adapter of the keys and values, and MACE's closed form makes one edit of them.
//!
//! The published code for one concept takes its sampler's first index for the noisiest, so that it keeps late and reverses early;
//! computes the unconditional terms without a gradient; and moves the *least* salient half. That is `reference`.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::Pipeline;
use serde::{Deserialize, Serialize};

use crate::{
    bank::{Bank, Sampling},
    closed_form::{self, Fusion, KEYS_AND_VALUES, Positions},
    concept::{Concept, ConceptPrompt},
    edit::Edit,
    error::{Error, Result},
    gradients::{self, Gradients},
    job::{Event, Job},
    lora::{self, LORA, Layers},
    methods::{
        Method, Variant,
        esd::{self, Away, Form, select},
    },
    pull::{self, Pull},
    seeds::{draw, stream},
    train::{LrSchedule, Train, train},
    trainable::Trainable,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "ant",
    paper: "Li et al., Set You Straight: Auto-Steering Denoising Trajectories to Sidestep Unwanted Concepts, ACM MM 2025, arXiv 2504.12782",
    moves: "U-Net: the most salient numbers of --train-method; several concepts: keys and values of the cross-attention",
    needs: "nothing; several concepts keep --captions and --preserve",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(33.0),
    peak_mb: Some(264.0),
    published_evaluations: Some(25_650),
    erase,
};

/// ANT's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Which tensors move, for one concept.
    pub train_method: String,
    /// `weights`, or `adapters`: one for each concept, made one edit.
    pub form: Moves,
    /// Training steps, for each concept with adapters.
    pub iterations: usize,
    /// Adam's step size at the first step.
    pub lr: f64,
    /// `constant` or `linear` (falling to 0).
    pub lr_schedule: LrSchedule,
    /// `early`, `late` or `nowhere`: on which side of the split the concept's prediction is kept.
    pub keep: Keep,
    /// The timestep between early and late.
    pub split: f64,
    /// How far past the empty prompt's prediction to go where it is reversed.
    pub eta: f64,
    /// Weight of keeping.
    pub alpha_1: f64,
    /// Weight of the empty prompt's prediction.
    pub alpha_2: f64,
    /// `most`, `least` or `all`: which numbers move.
    pub salience: Salience,
    /// The share that one trajectory picks; what all pick moves.
    pub salient: f64,
    /// Examples of a trajectory that its salience is measured on.
    pub salience_examples: usize,
    /// Rank of the adapters.
    pub rank: usize,
    /// What the adapters are multiplied by before they are made one.
    pub scale: f64,
    /// Weight of the captions to keep when they are, per caption.
    pub rho: f64,
    /// Weight of staying as it is when they are.
    pub lambda: f64,
    /// Examples a step.
    pub batch: usize,
    /// Trajectories, for each concept with adapters.
    pub trajectories: usize,
    /// DDIM steps of a trajectory.
    pub sampling_steps: usize,
    /// Guidance on the trajectories.
    pub start_guidance: f64,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moves {
    /// The network's own numbers.
    Weights,
    /// A low-rank adapter for each concept.
    Adapters,
}

/// Where the concept's own prediction is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Above the split, where pictures are noisy.
    Early,
    /// Below it.
    Late,
    /// On neither side: it is reversed everywhere.
    Nowhere,
}

/// Which numbers move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Salience {
    /// Those with the largest gradients.
    Most,
    /// Those with the smallest.
    Least,
    /// All.
    All,
}

/// The defaults for a job.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let several = job.concepts.len() > 1;
    let published = Options {
        train_method: "esd-all".into(),
        form: if several { Moves::Adapters } else { Moves::Weights },
        iterations: if several { 10 } else { 250 },
        lr: 5e-4,
        lr_schedule: LrSchedule::Constant,
        keep: Keep::Early,
        // Seven of 50 steps; four where there are several concepts.
        split: if several { 919.0 } else { 859.0 },
        eta: 1.0,
        alpha_1: 1.0,
        alpha_2: 0.5,
        salience: Salience::Most,
        salient: 0.5,
        salience_examples: 10,
        rank: 64,
        scale: if several { 4.3 } else { 1.0 },
        rho: 0.1,
        lambda: 0.1,
        batch: if several { 2 } else { 1 },
        trajectories: 20,
        sampling_steps: 50,
        start_guidance: if several { 7.5 } else { 3.0 },
    };
    match variant {
        Variant::Paper => published,
        Variant::Reference if several => published,
        Variant::Reference => Options { keep: Keep::Late, split: 140.0, alpha_2: 0.0, salience: Salience::Least, ..published },
        // The adapters here are of the keys and values alone, so nothing of them is lost that a factor would have to make up for.
        Variant::Fixed if !job.miniature => Options { scale: 1.0, iterations: if several { 100 } else { 250 }, ..published },
        Variant::Fixed => Options {
            train_method: "esd-x".into(),
            iterations: 200,
            lr: if several { 5e-3 } else { 1e-3 },
            lr_schedule: LrSchedule::Linear,
            rank: 8,
            scale: 1.0,
            split: 919.0,
            // Half of the numbers on every one of 16 trajectories is too few to erase with.
            salient: 0.8,
            batch: 8,
            trajectories: 16,
            salience_examples: 8,
            start_guidance: 3.0,
            ..published
        },
    }
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, no number is salient everywhere, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(&defaults(job, variant))?;
    let trainable = Trainable::named(&options.train_method)?;
    options.train_method = trainable.name.into();
    options.check(trainable)?;
    if job.concepts.iter().all(|concept| concept.prompts.is_empty()) {
        return Err(Error::input("there is no concept to erase"));
    }
    match options.form {
        Moves::Weights => in_weights(job, &options, trainable),
        Moves::Adapters => in_adapters(job, &options),
    }
}

/// All concepts in the network's own numbers.
fn in_weights(job: &mut Job<'_>, options: &Options, trainable: Trainable) -> Result<Edit> {
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;
    let prompts: Vec<ConceptPrompt> = job.concepts.iter().flat_map(|c| c.prompts.clone()).collect();
    let material = Material::record(job, &prompts, options)?;
    let mask = salient(job, options, trainable, &material)?;
    let (batch, seed) = (options.batch, job.seed);
    let mut steps = Train::new(trainable, options.iterations, options.lr, options.lr_schedule, "ant");
    steps.mask = mask.as_ref();
    let values =
        train(job, steps, &mut |edited, step| material.loss(edited, options, &draw(material.bank.len(), batch, seed, step)))?;
    let recorded = serde_json::to_value(options).map_err(|e| Error::input(format!("cannot record the options: {e}")))?;
    Ok(Edit::of_values(job.about(METHOD.id, recorded), trainable.component, job.pipeline, values))
}

/// An adapter for each concept, and one edit of the keys and values that does to each concept's rows what its own adapter does.
fn in_adapters(job: &mut Job<'_>, options: &Options) -> Result<Edit> {
    let layers = closed_form::layers(job, KEYS_AND_VALUES);
    let width = job.pipeline.text_encoder.config.hidden_size;
    let mut fusion = Fusion::new(&layers, width, options.lambda);
    let concepts = job.concepts;
    for (i, concept) in concepts.iter().enumerate() {
        let material = Material::record(job, &concept.prompts, options)?;
        let adapted = lora::attached(job.pipeline, Layers::KeysValues, options.rank, stream(job.seed, "ant/adapters").at(i))?;
        let (batch, seed, state) = (options.batch, job.seed, format!("ant-{i}"));
        let mut steps = Train::new(LORA, options.iterations, options.lr, options.lr_schedule, &state);
        steps.start = Some(&adapted);
        let values =
            train(job, steps, &mut |edited, step| material.loss(edited, options, &draw(material.bank.len(), batch, seed, step)))?;
        let changes = lora::products(&lora::changes(&adapted, values), &layers, options.scale)?;
        let asked: Vec<String> = Concept::asked(concept).collect();
        for prompt in closed_form::encode(job, &asked)? {
            fusion.add(prompt.rows.as_ref(), &changes);
        }
    }
    if options.rho > 0.0 {
        let prior = closed_form::statistics(job, Positions::All)?;
        fusion.keep_sum(prior.sum.as_ref(), options.rho);
        let kept: Vec<String> = job.preserve.iter().flat_map(Concept::asked).collect();
        for prompt in closed_form::encode(job, &kept)? {
            fusion.keep_sum((prompt.rows.transpose() * &prompt.rows).as_ref(), options.rho);
        }
    }
    let (new, condition) = fusion.solve(&layers)?;
    job.tell(Event::Note(&format!("fused: condition number {condition:.3e}")))?;
    let recorded = closed_form::recorded(job, options)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

impl Options {
    fn check(&self, trainable: Trainable) -> Result<()> {
        if trainable.component != "unet" {
            return Err(Error::input(format!("`{}` moves the {}, ANT moves the U-Net", trainable.name, trainable.component))
                .with_hint("choose one of esd-x, esd-x-strict, esd-u, esd-all, selfattn"));
        }
        for (name, value) in [
            ("iterations", self.iterations),
            ("batch", self.batch),
            ("trajectories", self.trajectories),
            ("sampling_steps", self.sampling_steps),
            ("salience_examples", self.salience_examples),
            ("rank", self.rank),
        ] {
            if value == 0 || value > 1_000_000 {
                return Err(Error::input(format!("{name} is {value}, expected 1 to 1000000")));
            }
        }
        for (name, value) in [("eta", self.eta), ("scale", self.scale), ("start_guidance", self.start_guidance)] {
            if !value.is_finite() {
                return Err(Error::input(format!("{name} is {value}, expected a finite number")));
            }
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(Error::input(format!("lr is {}, expected a finite number above 0", self.lr)));
        }
        if !(self.salient > 0.0 && self.salient <= 1.0) {
            return Err(Error::input(format!("salient is {}, expected a share above 0 and up to 1", self.salient)));
        }
        closed_form::check(&[
            ("split", self.split),
            ("alpha_1", self.alpha_1),
            ("alpha_2", self.alpha_2),
            ("rho", self.rho),
            ("lambda", self.lambda),
        ])
    }

    fn keeps(&self, t: f64) -> bool {
        match self.keep {
            Keep::Early => t > self.split,
            Keep::Late => t <= self.split,
            Keep::Nowhere => false,
        }
    }
}

/// Trajectories of some prompts, with the hidden states that are trained on them.
struct Material {
    prompts: Vec<ConceptPrompt>,
    bank: Bank,
    /// How many trajectories it has.
    paths: usize,
    /// Of the prompts, then of the empty one.
    contexts: Tensor<3>,
}

impl Material {
    fn record(job: &mut Job<'_>, prompts: &[ConceptPrompt], options: &Options) -> Result<Self> {
        let sampling = Sampling { steps: options.sampling_steps, guidance: options.start_guidance };
        let paths = esd::paths(prompts, options.trajectories, job.seed);
        let texts: Vec<String> = prompts.iter().map(|p| p.asks().to_owned()).chain([String::new()]).collect();
        Ok(Self {
            prompts: prompts.to_vec(),
            bank: Bank::record(job, &paths, sampling)?,
            paths: paths.len(),
            contexts: job.pipeline.encode(&texts),
        })
    }

    /// The loss over the examples at these positions.
    fn loss(&self, edited: &Pipeline, options: &Options, at: &[usize]) -> Result<Tensor<1>> {
        let examples = self.bank.examples(at);
        let rows: Vec<usize> = examples.path.iter().map(|path| path % self.prompts.len()).collect();
        let away = Away { eta: options.eta, anchor_eta: options.eta, form: Form::Present };
        let reverse = esd::target(&examples, &rows, &self.prompts, away);
        let keeps: Vec<bool> = examples.t.iter().map(|t| options.keeps(f64::from(t.get()))).collect();
        let kept: Vec<f32> = keeps.iter().map(|&k| if k { 1.0 } else { 0.0 }).collect();
        let n = at.len();
        let data = TensorData::new(kept, [n, 1, 1, 1]);
        let kept = Tensor::<4>::from_data(data, &examples.x.device());
        let target = reverse.clone() + (examples.eps_prompt.clone() - reverse) * kept;
        let weights: Vec<f32> = keeps.iter().map(|&k| (if k { options.alpha_1 } else { 1.0 } / n as f64) as f32).collect();
        let mut pulls = Vec::new();
        if options.alpha_2 > 0.0 {
            let weights = weights.iter().map(|w| w * options.alpha_2 as f32).collect();
            let hidden = select(&self.contexts, &vec![self.prompts.len(); n]);
            let (x, t) = (examples.x.clone(), examples.t.clone());
            pulls.push(Pull { x, t, hidden, target: examples.eps_empty, weights });
        }
        pulls.push(Pull { x: examples.x, t: examples.t, hidden: select(&self.contexts, &rows), target, weights });
        pull::loss(edited, pulls)
    }
}

/// The numbers that every trajectory finds salient, as factors of 0 and 1; `None` if all are to move.
fn salient(job: &mut Job<'_>, options: &Options, trainable: Trainable, material: &Material) -> Result<Option<Gradients>> {
    if options.salience == Salience::All {
        return Ok(None);
    }
    let weights = job.pipeline.weights(trainable.component);
    let values: Gradients = trainable
        .pick_in(job.pipeline)?
        .into_iter()
        .filter_map(|name| Some((name.clone(), weights?.get(&name)?.flat())))
        .collect();
    job.tell(Event::Stage { name: "finding salient weights", total: material.paths, done: 0 })?;
    let mut common: Option<Gradients> = None;
    for path in 0..material.paths {
        // What is kept has no gradient yet.
        let all: Vec<usize> = material.bank.of_path(path);
        let reversed: Vec<usize> = all
            .into_iter()
            .filter(|&i| material.bank.examples(&[i]).t.iter().all(|t| !options.keeps(f64::from(t.get()))))
            .collect();
        if reversed.is_empty() {
            return Err(Error::input(format!("with the split at {} nothing is reversed", options.split))
                .with_hint("timesteps go from 999, where pictures are noise, to 0"));
        }
        let k = options.salience_examples.min(reversed.len());
        let some: Vec<usize> = (0..k).map(|i| reversed[i * reversed.len() / k]).collect();
        let (_, gradient) =
            gradients::of(job.pipeline, trainable.component, &values, &mut |edited| material.loss(edited, options, &some))?;
        let found = match options.salience {
            Salience::Least => opposite(gradients::most_salient(&gradient, 1.0 - options.salient * (1.0 - f64::EPSILON))?),
            _ => gradients::most_salient(&gradient, options.salient)?,
        };
        common = Some(match common {
            Some(common) => gradients::masked(common, &found),
            None => found,
        });
        job.tell(Event::Step { done: path + 1, loss: None })?;
    }
    let common = common.unwrap_or_default();
    let moving = gradients::dot(&common, &common);
    let total: usize = values.values().map(|v| v.dims()[0]).sum();
    if moving == 0.0 {
        return Err(
            Error::input("no number is salient on every trajectory").with_hint("raise --set salient, or take fewer trajectories")
        );
    }
    let share = 100.0 * moving / total as f64;
    job.tell(Event::Note(&format!(
        "{share:.1}% of {total} numbers are salient on all {} trajectories and move",
        material.paths
    )))?;
    Ok(Some(common))
}

fn opposite(mask: Gradients) -> Gradients {
    mask.into_iter().map(|(name, m)| (name, m.neg() + 1.0)).collect()
}
