//! ANT: "Set You Straight: Auto-Steering Denoising Trajectories to Sidestep Unwanted Concepts", Li
//! et al., ACM MM 2025 (arXiv 2504.12782).
//!
//! Early steps decide where things are, late ones what they are. So the edited network keeps the
//! concept's own prediction while a picture is noisy and goes away from it later; the prediction
//! for the empty prompt stays in both regions. With `c` the prompt and `t'` the `split`:
//!
//! ```text
//! t > t':   keep     = eps*(c)
//! t <= t':  reverse  = eps*(0) - eta (eps*(c) - eps*(0))
//! L = L_reverse + alpha_2 L_reverse,0 + alpha_1 (L_keep + alpha_2 L_keep,0)
//! ```
//!
//! Each is a mean squared error to targets of the frozen model, and a mean over examples of its own
//! side of the split: every step draws `batch` examples to reverse and `keep_batch` to keep. For
//! one concept those weights move that are most salient on every trajectory, of the concept's
//! prompts and of the same with each of its `synonyms`; for several each trains a low-rank adapter,
//! and MACE's closed form makes one edit of what these do to keys and values.
//!
//! The published code for one concept (`reference`) keeps late and reverses early, computes the
//! unconditional terms without a gradient, and moves the *least* salient half of each tensor. The
//! one for several compares guided predictions on both sides and swaps `alpha_1` and `alpha_2`.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Conditioning, Pipeline, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, SHARE_ABOVE_ZERO, WEIGHT},
    presets,
};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    closed_form::{self, Fusion, KEYS_AND_VALUES, Positions},
    concepts::concept::Concept,
    concepts::prompt::ConceptPrompt,
    data::bank::{Bank, Sampling},
    data::noised::squared_error,
    data::trajectories::{self},
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{draw, stream},
    training::adam::Adam,
    training::gradients::{self, Gradients},
    training::lora::{self, LORA, Layers},
    training::negative_guidance::{self, Away, Form},
    training::train::{LrSchedule, Train, train},
    training::trainable::Trainable,
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
    fixed: "the published numbers for one concept, for several its adapters on keys and values; moves the cross-attention as on the miniature; not tried on a trained full model",
    erase,
};

options! {
    /// ANT's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which tensors move, for one concept.
        pub train_method: String,
        /// `weights`, or `adapters`: one for each concept, made one edit.
        pub form: Moves,
        /// Training steps, for each concept with adapters.
        pub iterations: usize where COUNT,
        /// Adam's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant` or `linear` (falling to 0).
        pub lr_schedule: LrSchedule,
        /// `early`, `late` or `nowhere`: on which side of the split the concept's prediction is
        /// kept.
        pub keep: Keep,
        /// The timestep between early and late.
        pub split: f64 where WEIGHT,
        /// How far past the empty prompt's prediction to go where it is reversed.
        pub eta: f64 where FINITE,
        /// Weight of keeping.
        pub alpha_1: f64 where WEIGHT,
        /// Weight of the empty prompt's prediction.
        pub alpha_2: f64 where WEIGHT,
        /// Guidance of the predictions that are compared; 1 for the prompt's own.
        pub guidance: f64 where FINITE,
        /// `most`, `least` or `all`: which numbers move.
        pub salience: Salience,
        /// The share that one trajectory picks; what all pick moves.
        pub salient: f64 where SHARE_ABOVE_ZERO,
        /// `network` or `tensor`: among which numbers they are ranked.
        pub salience_over: Over,
        /// Examples of a trajectory that its salience is measured on.
        pub salience_examples: usize where COUNT,
        /// Trajectories of each word that have to pick a number; 0 for all that are recorded.
        pub salience_trajectories: usize,
        /// Other words for the concept, put into its prompts in the place of its name: trajectories
        /// of theirs have to pick a number too. Nothing is trained on them.
        pub synonyms: Vec<String>,
        /// `keys-values` or `transformers`: the layers that adapters lie beside.
        pub layers: Beside,
        /// Rank of the adapters.
        pub rank: usize where COUNT,
        /// Their alpha: they are multiplied by `alpha / rank`.
        pub alpha: f64 where ABOVE_ZERO,
        /// What they are multiplied by once more before they are made one.
        pub scale: f64 where FINITE,
        /// How many compiled-in sentences a bare name is put into where they are made one.
        pub templates: usize,
        /// Weight of the captions to keep when they are, per caption.
        pub rho: f64 where WEIGHT,
        /// Weight of what the user wants preserved when they are, per prompt.
        pub rho_preserve: f64 where WEIGHT,
        /// Weight of staying as it is when they are.
        pub lambda: f64 where WEIGHT,
        /// Examples to reverse in a step.
        pub batch: usize where COUNT,
        /// Examples to keep in a step.
        pub keep_batch: usize where COUNT,
        /// Trajectories, for each concept with adapters.
        pub trajectories: usize where COUNT,
        /// DDIM steps of a trajectory.
        pub sampling_steps: usize where COUNT,
        /// Guidance on the trajectories.
        pub start_guidance: f64 where FINITE,
    }
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

/// The layers that adapters lie beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beside {
    /// Keys and values of the cross-attention, which is all that is left of them in the end.
    KeysValues,
    /// Every linear layer and 1x1 convolution of the transformers.
    Transformers,
}

impl From<Beside> for Layers {
    fn from(beside: Beside) -> Self {
        if beside == Beside::KeysValues {
            Self::KeysValues
        } else {
            Self::Transformers
        }
    }
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

/// Among which numbers a number is ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// All that may move, of all tensors together.
    Network,
    /// Those of its own tensor.
    Tensor,
}

/// The published words for a concept beside its name, which the published code has for one alone.
fn published_synonyms(concepts: &[Concept]) -> Vec<String> {
    match concepts {
        [one] if one.name.eq_ignore_ascii_case("nudity") => {
            ["naked", "erotic", "sexual"].map(str::to_owned).to_vec()
        }
        _ => Vec::new(),
    }
}

/// The presets for a job. One concept and several have tables of their own in the paper.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let several = job.concepts.len() > 1;
    let one = Options {
        train_method: "esd-all".into(),
        form: Moves::Weights,
        iterations: 250,
        lr: 5e-4,
        lr_schedule: LrSchedule::Constant,
        keep: Keep::Early,
        // Seven of 50 steps.
        split: 859.0,
        eta: 1.0,
        alpha_1: 1.0,
        alpha_2: 0.5,
        guidance: 1.0,
        salience: Salience::Most,
        salient: 0.5,
        salience_over: Over::Network,
        salience_examples: 10,
        // Five seeds for each word.
        salience_trajectories: 5,
        synonyms: published_synonyms(job.concepts),
        layers: Beside::Transformers,
        rank: 64,
        alpha: 1.0,
        scale: 4.3,
        templates: 30,
        // A domain's cache weighs 1e13 times as much as COCO's; where nothing is preserved captions
        // are the only domain there is.
        rho: if job.preserve.is_empty() { 20.0 } else { 2e-12 },
        rho_preserve: 20.0,
        lambda: 0.0,
        batch: 1,
        keep_batch: 1,
        trajectories: 20,
        sampling_steps: 50,
        start_guidance: 3.0,
    };
    let published = if several {
        Options {
            form: Moves::Adapters,
            iterations: 10,
            // Four of 50 steps.
            split: 919.0,
            alpha_1: 0.5,
            alpha_2: 2.5,
            guidance: 7.5,
            batch: 2,
            keep_batch: 2,
            start_guidance: 7.5,
            ..one
        }
    } else {
        one
    };
    let mut presets = presets! {
        paper: published,
        reference: paper {
            keep: Keep::Late,
            split: 140.0,
            alpha_2: 0.0,
            salience: Salience::Least,
            salience_over: Over::Tensor,
        },
        // Adapters of the keys and values alone, of which nothing is lost that a factor would have
        // to make up for.
        fixed: paper {
            train_method: "esd-x".into(),
            iterations: if several { 100 } else { 250 },
            alpha_1: 1.0,
            alpha_2: 0.5,
            guidance: 1.0,
            layers: Beside::KeysValues,
            alpha: 64.0,
            scale: 1.0,
            rho: 0.1,
            rho_preserve: 0.1,
            lambda: 0.1,
        },
        small: fixed {
            iterations: 200,
            lr: if several { 5e-3 } else { 1e-3 },
            lr_schedule: LrSchedule::Linear,
            rank: 8,
            alpha: 8.0,
            split: 919.0,
            // Half of the numbers on every one of 16 trajectories is too few to erase with.
            salient: 0.8,
            batch: 8,
            keep_batch: 2,
            trajectories: 16,
            salience_examples: 8,
            salience_trajectories: 0,
            start_guidance: 3.0,
        },
    };
    // The published code of several concepts does what the paper says.
    if several {
        presets.reference = presets.paper.clone();
    }
    Ok(presets)
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, no number is salient everywhere, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let trainable = Trainable::of_denoiser(&options.train_method, "ANT")?;
    options.train_method = trainable.name.into();
    if job
        .concepts
        .iter()
        .all(|concept| concept.prompts.is_empty())
    {
        return Err(Error::input("there is no concept to erase"));
    }
    let masks = options.form == Moves::Weights
        && options.salience != Salience::All
        && job.concepts.len() == 1;
    if job.options.contains_key("synonyms") && !options.synonyms.is_empty() && !masks {
        return Err(
            Error::input("synonyms have no effect with these options").with_hint(
                "they choose the numbers that move: it takes one concept, form=weights and a salience of most or least",
            ),
        );
    }
    match options.form {
        Moves::Weights => in_weights(job, &options, trainable),
        Moves::Adapters => in_adapters(job, &options),
    }
}

/// All concepts in the network's own numbers.
fn in_weights(job: &mut Job<'_>, options: &Options, trainable: Trainable) -> Result<Edit> {
    checks::keeping(job, false, "several concepts, or --set form=adapters")?;
    job.tell(Event::Note(&trainable.describe(job.pipeline)?))?;
    let prompts: Vec<ConceptPrompt> = job
        .concepts
        .iter()
        .flat_map(|c| c.prompts.clone())
        .collect();
    let material = Material::record(job, &prompts, options.trajectories, options)?;
    let mask = salient(job, options, trainable, &material)?;
    let seed = job.seed;
    let mut steps = Train::new(
        trainable,
        options.iterations,
        options.lr,
        options.lr_schedule,
        "ant",
    );
    steps.mask = mask.as_ref();
    let values = train(job, steps, &mut |edited, step| {
        material.loss(edited, options, &material.drawn(options, seed, step))
    })?;
    Ok(Edit::of_values(
        job.about(METHOD.id, options)?,
        trainable.component(job.pipeline),
        job.pipeline,
        values,
    ))
}

/// An adapter for each concept, and one edit of the keys and values that does to each concept's
/// rows what its own adapter does.
fn in_adapters(job: &mut Job<'_>, options: &Options) -> Result<Edit> {
    checks::preserving(job, options.rho_preserve > 0.0, "--set rho_preserve=0.1")?;
    checks::captioned(job, options.rho > 0.0, "--set rho=0.1")?;
    // PyTorch's way of writing it: factors of any rank, their product times alpha / rank.
    let share = options.alpha / options.rank as f64;
    let layers = closed_form::layers(job, KEYS_AND_VALUES);
    let width = job.pipeline.context_width();
    let mut fusion = Fusion::new(&layers, width, options.lambda);
    let concepts = job.concepts;
    for (i, concept) in concepts.iter().enumerate() {
        let material = Material::record(job, &concept.prompts, options.trajectories, options)?;
        let from = stream(job.seed, "ant/adapters").at(i);
        let adapted = lora::attached(job.pipeline, options.layers.into(), options.rank, from)?;
        let (seed, state) = (job.seed, format!("ant-{i}"));
        let mut steps = Train::new(
            LORA,
            options.iterations,
            options.lr,
            options.lr_schedule,
            &state,
        );
        steps.adam = Adam::decoupled();
        steps.start = Some(&adapted);
        let values = train(job, steps, &mut |edited, step| {
            material.loss(
                &lora::scaled(edited, share)?,
                options,
                &material.drawn(options, seed, step),
            )
        })?;
        let changes = lora::products(
            &lora::changes(&adapted, values),
            &layers,
            options.scale * share,
        )?;
        let sentences =
            closed_form::sentences(std::slice::from_ref(concept), &[], options.templates);
        let asked: Vec<String> = sentences.into_iter().map(|pair| pair.asks).collect();
        for prompt in closed_form::encode(job, &asked) {
            fusion.add(prompt.rows.as_ref(), &changes);
        }
    }
    if options.rho > 0.0 {
        let prior = closed_form::statistics(job, Positions::All)?;
        fusion.keep_sum(prior.sum.as_ref(), options.rho);
    }
    let kept: Vec<String> = job.preserve.iter().flat_map(Concept::asked).collect();
    for prompt in closed_form::encode(job, &kept) {
        fusion.keep_sum(
            (prompt.rows.transpose() * &prompt.rows).as_ref(),
            options.rho_preserve,
        );
    }
    let (new, condition) = fusion.solve(&layers)?;
    job.tell(Event::Detail(&format!(
        "fused: condition number {condition:.3e}"
    )))?;
    let recorded = closed_form::recorded(job, options)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

impl Options {
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
    /// Positions of the examples that are reversed, and of those that are kept.
    reversed: Vec<usize>,
    kept: Vec<usize>,
    /// Of the prompts, then of the empty one.
    contexts: Conditioning,
}

impl Material {
    fn record(
        job: &mut Job<'_>,
        prompts: &[ConceptPrompt],
        trajectories: usize,
        options: &Options,
    ) -> Result<Self> {
        let sampling = Sampling {
            steps: options.sampling_steps,
            guidance: options.start_guidance,
        };
        let paths = trajectories::paths(prompts, trajectories, job.seed);
        let texts: Vec<String> = prompts
            .iter()
            .map(|p| p.asks().to_owned())
            .chain([String::new()])
            .collect();
        let bank = Bank::record(job, &paths, sampling)?;
        let (kept, reversed): (Vec<usize>, Vec<usize>) =
            (0..bank.len()).partition(|&i| options.keeps(f64::from(bank.timestep(i).get())));
        if reversed.is_empty() {
            return Err(Error::input(format!(
                "with the split at {} nothing is reversed",
                options.split
            ))
            .with_hint("timesteps go from 999, where pictures are noise, to 0"));
        }
        Ok(Self {
            prompts: prompts.to_vec(),
            bank,
            paths: paths.len(),
            reversed,
            kept,
            contexts: job.pipeline.encode(&texts),
        })
    }

    /// How many of its trajectories have to find a number salient.
    fn voting(&self, options: &Options) -> usize {
        match options.salience_trajectories {
            0 => self.paths,
            some => some.min(self.paths),
        }
    }

    /// The positions of a step's examples, those to be reversed first.
    fn drawn(&self, options: &Options, seed: u64, step: usize) -> Vec<usize> {
        let from = |list: &[usize], n: usize, seed: u64| -> Vec<usize> {
            if list.is_empty() {
                Vec::new()
            } else {
                draw(list.len(), n, seed, step)
                    .into_iter()
                    .map(|i| list[i])
                    .collect()
            }
        };
        let mut all = from(&self.reversed, options.batch, seed);
        all.extend(from(
            &self.kept,
            options.keep_batch,
            stream(seed, "ant/kept").seed(),
        ));
        all
    }

    /// The loss over the examples at these positions: a mean over those that are reversed, and one
    /// over those that are kept.
    fn loss(&self, edited: &Pipeline, options: &Options, at: &[usize]) -> Result<Tensor<1>> {
        let examples = self.bank.examples(at);
        let rows: Vec<usize> = examples
            .path
            .iter()
            .map(|path| path % self.prompts.len())
            .collect();
        let away = Away {
            eta: options.eta,
            anchor_eta: options.eta,
            form: Form::Present,
        };
        let reverse = negative_guidance::target(&examples, &rows, &self.prompts, away);
        let keeps: Vec<bool> = examples
            .t
            .iter()
            .map(|t| options.keeps(f64::from(t.get())))
            .collect();
        let device = examples.x.device();
        let n = at.len();
        let kept: Vec<f32> = keeps.iter().map(|&k| f32::from(u8::from(k))).collect();
        let kept = Tensor::<4>::from_data(TensorData::new(kept, [n, 1, 1, 1]), &device);
        let target = reverse.clone() + (examples.raw_prompt.clone() - reverse) * kept;
        let weights = Tensor::<1>::from_data(
            TensorData::new(weights(&keeps, options.alpha_1), [n]),
            &device,
        );

        let guided = |empty: &Tensor<4>, asked: Tensor<4>| match options.guidance {
            1.0 => asked,
            g => empty.clone() + (asked - empty.clone()) * g,
        };
        let empty = examples.raw_empty.clone();
        let target = guided(&empty, target);
        if options.alpha_2 == 0.0 && options.guidance == 1.0 {
            let context = Context::from(self.contexts.select(&rows));
            let asked = edited
                .predict(examples.x.clone(), &examples.t, &context, None)?
                .raw();
            return Ok((squared_error(asked, target) * weights).sum());
        }
        let both = [rows, vec![self.prompts.len(); n]].concat();
        let context = Context::from(self.contexts.select(&both));
        let found = edited
            .predict(
                examples.x.clone().repeat_dim(0, 2),
                &examples.t.repeat(2),
                &context,
                None,
            )?
            .raw();
        let (asked, nothing) = (found.clone().narrow(0, 0, n), found.narrow(0, n, n));
        let errors = squared_error(guided(&nothing, asked), target)
            + squared_error(nothing, empty) * options.alpha_2;
        Ok((errors * weights).sum())
    }
}

/// The weights of examples of which these are kept: those of each side add up to `alpha_1` and to
/// 1, however many there are.
fn weights(keeps: &[bool], alpha_1: f64) -> Vec<f32> {
    let kept = keeps.iter().filter(|&&k| k).count();
    let one = |&k: &bool| {
        if k {
            alpha_1 / kept as f64
        } else {
            1.0 / (keeps.len() - kept) as f64
        }
    };
    keeps.iter().map(|k| one(k) as f32).collect()
}

/// Latent pixels whose gradient is taken in one graph; more only costs memory.
const PIXELS_AT_ONCE: usize = 1024;

/// The numbers that every trajectory finds salient, as factors of 0 and 1; `None` if all are to
/// move.
fn salient(
    job: &mut Job<'_>,
    options: &Options,
    trainable: Trainable,
    own: &Material,
) -> Result<Option<Gradients>> {
    if options.salience == Salience::All {
        return Ok(None);
    }
    let component = trainable.component(job.pipeline);
    let weights = job.pipeline.weights(component);
    let values: Gradients = trainable
        .pick_in(job.pipeline)?
        .into_iter()
        .filter_map(|name| Some((name.clone(), weights?.get(&name)?.flat())))
        .collect();
    let mut all = own.voting(options);
    let mut common = voted(job, options, component, &values, own, None)?;
    for word in &options.synonyms {
        // The words have the seeds of the concept's own trajectories, as published.
        let prompts = job.concepts[0].renamed(word)?;
        let some = match options.salience_trajectories {
            0 => options.trajectories,
            some => some,
        };
        let other = Material::record(job, &prompts, some, options)?;
        all += other.voting(options);
        common = voted(job, options, component, &values, &other, common)?;
    }
    let common = common.unwrap_or_default();
    let moving = gradients::dot(&common, &common);
    let total: usize = values.values().map(|v| v.dims()[0]).sum();
    if moving == 0.0 {
        return Err(
            Error::input("no number is salient on every trajectory").with_hint(
                "raise --set salient, or take fewer trajectories: --set salience_trajectories",
            ),
        );
    }
    let share = 100.0 * moving / total as f64;
    let of = match options.synonyms.len() {
        0 => String::new(),
        n => format!(" of {} words", n + 1),
    };
    job.tell(Event::Note(&format!(
        "{share:.1}% of {total} numbers are salient on all {all} trajectories{of} and move"
    )))?;
    Ok(Some(common))
}

/// What is left of a mask when these trajectories have picked too.
fn voted(
    job: &mut Job<'_>,
    options: &Options,
    component: &str,
    values: &Gradients,
    material: &Material,
    mut common: Option<Gradients>,
) -> Result<Option<Gradients>> {
    let total = material.voting(options);
    job.tell(Event::Stage {
        name: "finding salient weights",
        total,
        done: 0,
    })?;
    let [_, _, h, w] = job.pipeline.latent_shape(1, None, None)?;
    let at_once = (PIXELS_AT_ONCE / (h * w)).max(1);
    for path in 0..total {
        // What is kept has no gradient yet.
        let reversed = material
            .bank
            .positions(|t, of| of == path && !options.keeps(f64::from(t.get())));
        let k = options.salience_examples.min(reversed.len());
        let some: Vec<usize> = (0..k).map(|i| reversed[i * reversed.len() / k]).collect();
        let mut gradient = Gradients::new();
        for part in some.chunks(at_once) {
            let (_, own) = gradients::of(job.pipeline, component, values, &mut |edited| {
                material.loss(edited, options, part)
            })?;
            gradient = gradients::plus(gradient, own, part.len() as f64 / k as f64);
        }
        let found = picked(gradient, options)?;
        common = Some(match common {
            Some(common) => gradients::masked(common, &found),
            None => found,
        });
        job.tell(Event::Step {
            done: path + 1,
            loss: None,
        })?;
    }
    Ok(common)
}

/// The numbers that one trajectory's gradient picks.
fn picked(gradient: Gradients, options: &Options) -> Result<Gradients> {
    let among = |numbers: &Gradients| match options.salience {
        Salience::Least => {
            let rest = 1.0 - options.salient * (1.0 - f64::EPSILON);
            gradients::most_salient(numbers, rest).map(opposite)
        }
        _ => gradients::most_salient(numbers, options.salient),
    };
    if options.salience_over == Over::Network {
        return among(&gradient);
    }
    let mut all = Gradients::new();
    for (name, tensor) in gradient {
        all.extend(among(&Gradients::from([(name, tensor)]))?);
    }
    Ok(all)
}

fn opposite(mask: Gradients) -> Gradients {
    mask.into_iter()
        .map(|(name, m)| (name, m.neg() + 1.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published: one example of each side in every iteration, `L_reverse + alpha_1 L_keep`,
    /// however the split divides a trajectory.
    #[test]
    fn each_side_is_a_mean_of_its_own() {
        for (kept, reversed) in [(1, 1), (2, 8), (7, 43), (4, 46)] {
            let keeps = [vec![false; reversed], vec![true; kept]].concat();
            let found = weights(&keeps, 0.5);
            let sum = |side: bool| {
                found
                    .iter()
                    .zip(&keeps)
                    .filter(|(_, k)| **k == side)
                    .map(|(w, _)| w)
                    .sum::<f32>()
            };
            assert!(
                (sum(false) - 1.0).abs() < 1e-6 && (sum(true) - 0.5).abs() < 1e-6,
                "{kept} {reversed}"
            );
        }
        assert_eq!(weights(&[false, false], 3.0), [0.5, 0.5]);
    }
}
