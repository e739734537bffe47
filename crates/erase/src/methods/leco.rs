//! LECO: "Low-rank adaptation for Erasing COncepts", p1atdev 2023. Published as code only
//! (<https://github.com/p1atdev/LECO>); kohya's sd-scripts have it as `train_leco.py`.
//!
//! A low-rank adapter learns, for the prompt `target`, what the frozen network predicts for other
//! prompts. With `p` the positive prompt, `u` the unconditional and `n` the neutral one:
//!
//! ```text
//! erase:   goal = eps*(n) - g (eps*(p) - eps*(u))
//! enhance: goal = eps*(n) + g (eps*(p) - eps*(u))
//! loss     = w mean (eps_m(x_t, target) - goal)^2
//! ```
//!
//! in what the network predicts (epsilon or v). `x_t` is where the adapted model itself arrives
//! from noise after some of its steps, guided from `u` towards `target`. `m` multiplies what the
//! adapter adds, so that one adapter can learn opposite goals at opposite signs (sliders).
//!
//! Where this differs from the code: entries come round by turns and are not drawn with
//! replacement; [`Label`]; the names of `train_method` mean what they say (the code looks for them
//! in the names of whole transformers, so that `noxattn` is `full` and `xattn` is nothing).

use std::{borrow::Cow, collections::BTreeMap, ops::ControlFlow};

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Conditioning, Noise, Pipeline, Prediction, Timestep, TorchRng,
    guidance::guided,
    options,
    options::{ABOVE_ZERO, COUNT, FINITE, MILLION, Presets, WEIGHT, whole},
    presets,
    samplers::{Progress, Run, Sampler, Step},
};
use scumble_nn::Context;
use serde::{Deserialize, Serialize};

use crate::{
    concepts::concept::Concept,
    concepts::prompt::ConceptPrompt,
    data::noised::squared_error,
    edit::{Change, Edit},
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::{draw, stream},
    training::adam::Adam,
    training::lora::{self, LORA, Layers},
    training::train::{LrSchedule, Train, train},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "leco",
    paper: "no paper: p1atdev, LECO, Low-rank adaptation for Erasing COncepts, 2023, https://github.com/p1atdev/LECO; train_leco.py of kohya's sd-scripts",
    moves: "U-Net: a low-rank adapter beside every linear layer and 1x1 convolution of the transformers, or beside one kind of attention",
    needs: "nothing; takes LECO's prompt files (--prompts)",
    several: true,
    preserves: false,
    pictures: false,
    seconds: None,
    peak_mb: None,
    published_evaluations: Some(31_000),
    fixed: "the published numbers, the network told the timestep that its latents have",
    erase,
};

options! {
    /// LECO's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Beside which layers of the transformers the adapter lies (LECO's `training_method`).
        pub train_method: Place,
        /// Rank of the adapter (kohya's `network_dim`).
        pub rank: usize where COUNT,
        /// Its alpha: what it adds is multiplied by `alpha / rank`.
        pub alpha: f64 where ABOVE_ZERO,
        /// Training steps.
        pub iterations: usize where COUNT,
        /// AdamW's step size at the first step.
        pub lr: f64 where ABOVE_ZERO,
        /// `constant`, `linear` (falling to 0) or `cosine` (falling along half a cosine).
        pub lr_schedule: LrSchedule,
        /// Largest norm of a step's gradient, 0 for any; kohya's scripts have 1.
        pub max_grad_norm: f64 where WEIGHT,
        /// How far past the neutral prediction to go where a concept is named: LECO's
        /// `guidance_scale`, which entries of a file say themselves.
        pub eta: f64 where FINITE,
        /// Entries a step.
        pub pairs: usize where COUNT,
        /// Examples of each, where an entry does not say its `batch_size`.
        pub batch: usize where COUNT,
        /// `ddim`, or `ddpm` as in kohya's scripts: how the adapted model is sampled.
        pub sampler: Walk,
        /// Steps of a whole trajectory, of which some are walked (LECO's `max_denoising_steps`).
        pub sampling_steps: usize where whole(2, MILLION),
        /// Guidance on the way.
        pub start_guidance: f64 where FINITE,
        /// `own` or `published`: which timestep the network is told of the latents.
        pub label: Label,
        /// What to train, as in LECO's prompt files; made of the concepts if empty.
        pub entries: Vec<Entry>,
    }
}

/// Beside which layers of the transformers an adapter lies. They have ESD's names too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// All of them.
    #[serde(alias = "esd-all")]
    Full,
    /// The cross-attention.
    #[serde(alias = "esd-x")]
    Xattn,
    /// All but the cross-attention.
    #[serde(alias = "esd-u", alias = "innoxattn")]
    Noxattn,
    /// The self-attention.
    Selfattn,
}

impl Place {
    fn layers(self) -> Layers {
        match self {
            Self::Full => Layers::Transformers,
            Self::Xattn => Layers::CrossAttention,
            Self::Noxattn => Layers::NoCrossAttention,
            Self::Selfattn => Layers::SelfAttention,
        }
    }
}

/// How the adapted model is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Walk {
    /// The default of LECO's code.
    Ddim,
    /// That of kohya's.
    Ddpm,
}

/// Which timestep the network is told of latents where `k` of `N` steps were walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// That of the sampler's next step, which is as noisy as the latents are.
    Own,
    /// `T - 1 - T k / N` of T timesteps of training: 19 above at 50 steps, 24 at 40.
    Published,
}

/// Whether a target is led away from the positive prompt or towards it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Away from it.
    #[default]
    Erase,
    /// Towards it.
    Enhance,
}

/// An entry of a LECO prompt file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The prompt that is trained.
    pub target: String,
    /// The prompt whose concept is taken out or put in; the target if absent.
    #[serde(default)]
    pub positive: Option<String>,
    /// What the positive prompt is compared with.
    #[serde(default)]
    pub unconditional: String,
    /// Where the target starts from; the unconditional prompt if absent.
    #[serde(default)]
    pub neutral: Option<String>,
    /// Away from the positive prompt, or towards it.
    #[serde(default)]
    pub action: Action,
    /// How far.
    #[serde(default = "one")]
    pub guidance_scale: f64,
    /// Height and width in pixels; the model's own if absent.
    #[serde(default)]
    pub resolution: Option<[usize; 2]>,
    /// Whether each step takes a size of its own, in steps of 64 pixels from half of `resolution`.
    #[serde(default)]
    pub dynamic_resolution: bool,
    /// Whether each step says another crop of a larger picture to a model that is told of crops.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dynamic_crops: bool,
    /// Examples a step; the option `batch` if absent.
    #[serde(default)]
    pub batch_size: Option<usize>,
    /// What the adapter is multiplied by while this entry is trained; may be negative.
    #[serde(default = "one")]
    pub multiplier: f64,
    /// Its weight in the loss.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// Most examples of one entry in a step, and longest side of a picture in pixels: more is a slip of
/// the hand.
const MOST_EXAMPLES: usize = 1024;
const LONGEST_SIDE: usize = 8192;
/// What `dynamic_resolution` goes by, in pixels.
const STRIDE: usize = 64;

impl Entry {
    /// LECO's usual entry: `target` is led away from itself, past the empty prompt.
    pub fn erasing(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            positive: None,
            unconditional: String::new(),
            neutral: None,
            action: Action::Erase,
            guidance_scale: 1.0,
            resolution: None,
            dynamic_resolution: false,
            dynamic_crops: false,
            batch_size: None,
            multiplier: 1.0,
            weight: 1.0,
        }
    }

    /// The entry of a concept's prompt. An anchor is both what is compared with and what is left.
    /// A prompt that loses the concept (`from`) starts from itself; that subtracts the concept once
    /// more than a prompt that starts from the empty one.
    fn of(prompt: &ConceptPrompt, eta: f64) -> Self {
        let erased = Self {
            guidance_scale: eta,
            ..Self::erasing(&prompt.erase)
        };
        match (&prompt.from, &prompt.anchor) {
            (Some(from), _) => Self {
                target: from.clone(),
                positive: Some(prompt.erase.clone()),
                neutral: Some(from.clone()),
                guidance_scale: eta + 1.0,
                ..erased
            },
            (None, Some(anchor)) => Self {
                unconditional: anchor.clone(),
                ..erased
            },
            (None, None) => erased,
        }
    }

    /// The positive prompt.
    pub fn positive(&self) -> &str {
        self.positive.as_deref().unwrap_or(&self.target)
    }

    /// The neutral prompt.
    pub fn neutral(&self) -> &str {
        self.neutral.as_deref().unwrap_or(&self.unconditional)
    }

    /// Its prompts under the names of their keys.
    fn prompts(&self) -> [(&'static str, &str); 4] {
        [
            ("target", &self.target),
            ("positive", self.positive()),
            ("unconditional", &self.unconditional),
            ("neutral", self.neutral()),
        ]
    }

    /// What the difference of positive and unconditional prediction is multiplied by.
    fn offset(&self) -> f64 {
        match self.action {
            Action::Erase => -self.guidance_scale,
            Action::Enhance => self.guidance_scale,
        }
    }

    /// What is impossible about it, on any model: the key and the problem.
    fn impossible(&self) -> Option<(&'static str, String)> {
        for (key, value) in [
            ("guidance_scale", self.guidance_scale),
            ("multiplier", self.multiplier),
            ("weight", self.weight),
        ] {
            if !value.is_finite() {
                return Some((key, format!("is {value}, expected a finite number")));
            }
        }
        if self.multiplier == 0.0 {
            let problem = "is 0, at which the adapter does nothing and learns nothing";
            return Some(("multiplier", problem.into()));
        }
        if self.weight <= 0.0 {
            let problem = format!("is {}, expected a number above 0", self.weight);
            return Some(("weight", problem));
        }
        if let Some(n) = self.batch_size.filter(|n| !(1..=MOST_EXAMPLES).contains(n)) {
            return Some((
                "batch_size",
                format!("is {n}, expected 1 to {MOST_EXAMPLES}"),
            ));
        }
        let mut sides = self.resolution.into_iter().flatten();
        if let Some(side) = sides.find(|side| !(1..=LONGEST_SIDE).contains(side)) {
            let problem = format!("is {side}, expected 1 to {LONGEST_SIDE} pixels");
            return Some(("resolution", problem));
        }
        None
    }

    /// Its height and width in a step, drawn if they vary.
    fn size(&self, own: [usize; 2], rng: &mut TorchRng) -> [usize; 2] {
        let [height, width] = self.resolution.unwrap_or(own);
        if !self.dynamic_resolution || height != width {
            return [height, width];
        }
        let least = (height / 2 / STRIDE).max(1);
        let most = (height / STRIDE).max(least);
        let mut side = || rng.integers(1, least as i64, most as i64 + 1)[0] as usize * STRIDE;
        [side(), side()]
    }

    /// How its pictures are framed in a step.
    fn frame(&self, own: [usize; 2], rng: &mut TorchRng) -> Frame {
        let size = self.size(own, rng);
        Frame {
            size,
            crop: self.dynamic_crops.then(|| Crop::drawn(size, rng)),
        }
    }
}

/// The size of pictures, and what the model is told that they were cut from, if not from
/// themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Frame {
    size: [usize; 2],
    crop: Option<Crop>,
}

/// A picture's height and width before it was cropped, and where the crop began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crop {
    original: [usize; 2],
    corner: [usize; 2],
}

impl Crop {
    /// As LECO's code draws it: of a picture one to three times as large, from anywhere.
    fn drawn(size: [usize; 2], rng: &mut TorchRng) -> Self {
        let scale = 1.0 + 2.0 * f64::from(rng.uniform(1)[0]);
        let original = size.map(|side| (side as f64 * scale) as usize);
        let mut within = |axis: usize| {
            let room = original[axis] - size[axis];
            rng.integers(1, 0, room.max(1) as i64)[0] as usize
        };
        let corner = [within(0), within(1)];
        Self { original, corner }
    }
}

impl Frame {
    /// The model that is told of it.
    fn told(self, pipeline: &Pipeline) -> Result<Cow<'_, Pipeline>> {
        let Some(crop) = self.crop else {
            return Ok(Cow::Borrowed(pipeline));
        };
        let mut told = pipeline.clone();
        told.set_size_condition(Some(crop.original), crop.corner)?;
        Ok(Cow::Owned(told))
    }
}

/// Checks what entries say by themselves.
///
/// # Errors
/// If one says something impossible; the error names the entry, counted from 1, and the key.
pub fn check(entries: &[Entry]) -> Result<()> {
    let found = entries
        .iter()
        .enumerate()
        .find_map(|(i, entry)| Some((i, entry.impossible()?)));
    match found {
        Some((i, (key, problem))) => {
            Err(Error::input(format!("entry {}: `{key}` {problem}", i + 1)))
        }
        None => Ok(()),
    }
}

/// Checks that entries fit a model: prompts its text encoder, sizes its autoencoder.
///
/// # Errors
/// If one does not; the error names the entry, counted from 1, and the key.
pub fn fit(entries: &[Entry], pipeline: &Pipeline) -> Result<()> {
    let factor = pipeline.autoencoder.config.factor();
    for (i, entry) in entries.iter().enumerate() {
        for (key, text) in entry.prompts() {
            if let Some(lost) = pipeline.tokenizer.encode(text).lost {
                return Err(Error::input(format!(
                    "entry {}: `{key}` does not fit the text encoder's {} tokens: `{lost}` would be lost",
                    i + 1,
                    pipeline.tokenizer.context()
                ))
                .with_hint("use fewer words"));
            }
        }
        if entry.dynamic_crops && !pipeline.takes_size_condition() {
            return Err(Error::input(format!(
                "entry {}: `dynamic_crops` is for models that are told of crops, and this one is not",
                i + 1
            ))
            .with_hint("SDXL is; leave it out, or say false"));
        }
        let mut sides = entry.resolution.into_iter().flatten();
        if let Some(side) = sides.find(|side| side % factor != 0) {
            return Err(Error::input(format!(
                "entry {}: `resolution` is {side}, expected a multiple of {factor}",
                i + 1
            )));
        }
    }
    Ok(())
}

/// The presets for a job: the published numbers, and those that work at the miniature's size.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            train_method: Place::Full,
            rank: 4,
            alpha: 1.0,
            iterations: 500,
            lr: 1e-4,
            lr_schedule: LrSchedule::Constant,
            max_grad_norm: 0.0,
            eta: 1.0,
            pairs: 1,
            batch: 1,
            sampler: Walk::Ddim,
            sampling_steps: 50,
            start_guidance: 3.0,
            label: Label::Published,
            entries: Vec::new(),
        },
        reference: paper,
        fixed: paper { label: Label::Own },
        small: fixed {
            alpha: 4.0,
            iterations: 200 * job.concepts.len().clamp(1, 5),
            lr: 3e-3,
            lr_schedule: LrSchedule::Linear,
            pairs: 8,
            sampling_steps: 20,
        },
    })
}

/// Erases the job's concepts, or does what the entries say.
///
/// # Errors
/// If an option or entry is impossible, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let mut options: Options = job.options(presets, variant)?;
    let entries = entries(job, &options)?;
    check(&entries)?;
    fit(&entries, job.pipeline)?;
    let (own, small) = (own_size(job.pipeline), job.profile.is_small());
    for note in without_effect(&entries, own, small) {
        job.tell(Event::Note(&note))?;
    }
    let entries: Vec<Entry> = entries
        .into_iter()
        .map(|entry| settled(entry, own, options.batch, small))
        .collect();

    let adapted = lora::attached(
        job.pipeline,
        options.train_method.layers(),
        options.rank,
        job.seed,
    )?;
    job.tell(Event::Note(&LORA.describe(&adapted)?))?;
    let prompts = Prompts::encode(job.pipeline, &entries);

    let (pipeline, seed) = (job.pipeline, job.seed);
    let order = stream(seed, "leco/entries").seed();
    let mut steps = Train::new(
        LORA,
        options.iterations,
        options.lr,
        options.lr_schedule,
        "leco",
    );
    steps.adam = Adam::decoupled();
    steps.start = Some(&adapted);
    steps.clip = (options.max_grad_norm > 0.0).then_some(options.max_grad_norm);
    let values = train(job, steps, &mut |edited, step| {
        let mut rng = stream(seed, "leco/steps").rng(step);
        let walked = rng.integers(1, 1, options.sampling_steps as i64)[0] as usize;
        // What is framed alike, at one strength of the adapter, is one batch.
        let mut batches: BTreeMap<(Frame, u64), Vec<usize>> = BTreeMap::new();
        for i in draw(entries.len(), options.pairs, order, step) {
            let key = (
                entries[i].frame(own, &mut rng),
                entries[i].multiplier.to_bits(),
            );
            let examples = entries[i].batch_size.unwrap_or(options.batch);
            batches
                .entry(key)
                .or_default()
                .extend(std::iter::repeat_n(i, examples));
        }
        let mut total = Tensor::<1>::zeros([1], pipeline.device());
        for ((frame, multiplier), rows) in batches {
            let (frozen, edited) = (frame.told(pipeline)?, frame.told(edited)?);
            let batch = Batch {
                frozen: &frozen,
                edited: &edited,
                entries: &entries,
                prompts: &prompts,
                rows,
                size: frame.size,
                multiplier: f64::from_bits(multiplier),
            };
            total = total + batch.loss(&options, walked, &mut rng)?;
        }
        Ok(total)
    })?;
    let mut changes = lora::changes(&adapted, values);
    for change in changes.values_mut() {
        if let Change::LowRank(low) = change {
            low.alpha = options.alpha as f32;
        }
    }
    options.entries = entries;
    Ok(Edit {
        about: job.about(METHOD.id, &options)?,
        changes,
    })
}

/// The entries that the user gave, or those of the concepts.
fn entries(job: &Job<'_>, options: &Options) -> Result<Vec<Entry>> {
    if options.entries.is_empty() {
        let of = |concept: &Concept| -> Vec<Entry> {
            let prompts = concept.prompts.iter();
            prompts.map(|p| Entry::of(p, options.eta)).collect()
        };
        let made: Vec<Entry> = job.concepts.iter().flat_map(of).collect();
        return if made.is_empty() {
            Err(Error::input("there is no concept to erase"))
        } else {
            Ok(made)
        };
    }
    let say_all = options.entries.iter().all(|e| e.batch_size.is_some());
    for (key, says, idle) in [
        ("eta", "guidance_scale", true),
        ("batch", "batch_size", say_all),
    ] {
        if idle && job.options.contains_key(key) {
            return Err(Error::input(format!(
                "{key} has no effect with entries that say their `{says}`"
            ))
            .with_hint("change it in the prompt file"));
        }
    }
    Ok(options.entries.clone())
}

/// The model's own height and width in pixels.
fn own_size(pipeline: &Pipeline) -> [usize; 2] {
    [pipeline.denoiser.config.sample_size * pipeline.autoencoder.config.factor(); 2]
}

/// What entries ask for and do not get.
fn without_effect(entries: &[Entry], own: [usize; 2], small: bool) -> Vec<String> {
    let list = |of: &dyn Fn(&Entry) -> bool| -> Option<String> {
        let found: Vec<String> = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| of(entry))
            .map(|(i, _)| (i + 1).to_string())
            .collect();
        (!found.is_empty()).then(|| found.join(", "))
    };
    let mut notes = Vec::new();
    let [height, width] = own;
    if small {
        let other = |e: &Entry| e.resolution.is_some_and(|size| size != own);
        if let Some(which) = list(&other) {
            notes.push(format!(
                "`resolution` of entry {which} has no effect: the miniature learns at its own {height} x {width} pixels"
            ));
        }
        if let Some(which) = list(&|e| e.dynamic_resolution) {
            notes.push(format!(
                "`dynamic_resolution` of entry {which} has no effect on the miniature"
            ));
        }
    } else if let Some(which) = list(&|e| {
        let [height, width] = e.resolution.unwrap_or(own);
        e.dynamic_resolution && height != width
    }) {
        notes.push(format!(
            "`dynamic_resolution` of entry {which} has no effect: it varies squares only"
        ));
    }
    notes
}

/// An entry with everything in it that it leaves to others.
fn settled(entry: Entry, own: [usize; 2], batch: usize, small: bool) -> Entry {
    Entry {
        positive: Some(entry.positive().to_owned()),
        neutral: Some(entry.neutral().to_owned()),
        resolution: Some(entry.resolution.filter(|_| !small).unwrap_or(own)),
        dynamic_resolution: entry.dynamic_resolution && !small,
        batch_size: Some(entry.batch_size.unwrap_or(batch)),
        ..entry
    }
}

/// The entries' prompts, encoded once.
struct Prompts {
    /// One row for each distinct prompt.
    encoded: Conditioning,
    /// The rows of each entry's target, positive, unconditional and neutral prompt.
    rows: Vec<[usize; 4]>,
}

const TARGET: usize = 0;
const POSITIVE: usize = 1;
const UNCONDITIONAL: usize = 2;
const NEUTRAL: usize = 3;

impl Prompts {
    fn encode(pipeline: &Pipeline, entries: &[Entry]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        let mut row = |text: &str| {
            texts.iter().position(|t| t == text).unwrap_or_else(|| {
                texts.push(text.to_owned());
                texts.len() - 1
            })
        };
        let rows = entries
            .iter()
            .map(|entry| entry.prompts().map(|(_, text)| row(text)))
            .collect();
        // kohya's scripts encode the empty prompt of SDXL too, where diffusers' pipeline takes zeros.
        Self {
            encoded: pipeline.reading_empty_prompts().encode(&texts),
            rows,
        }
    }

    /// Some of the prompts of entries, stacked: the first kind of all of them, then the second.
    fn of(&self, entries: &[usize], kinds: &[usize]) -> Context {
        let rows: Vec<usize> = kinds
            .iter()
            .flat_map(|&kind| entries.iter().map(move |&i| self.rows[i][kind]))
            .collect();
        Context::from(self.encoded.select(&rows))
    }
}

/// Examples of one size, at one strength of the adapter.
struct Batch<'a> {
    frozen: &'a Pipeline,
    /// The model in training.
    edited: &'a Pipeline,
    entries: &'a [Entry],
    prompts: &'a Prompts,
    /// The entry of each example.
    rows: Vec<usize>,
    size: [usize; 2],
    multiplier: f64,
}

impl Batch<'_> {
    /// The weighted loss of the examples, `[1]`, where `walked` steps were taken.
    fn loss(&self, options: &Options, walked: usize, rng: &mut TorchRng) -> Result<Tensor<1>> {
        let share = self.multiplier * options.alpha / options.rank as f64;
        let adapted = lora::scaled(self.edited, share)?;
        let (x, at) = self.walk(&adapted.without_gradients(), options, walked, rng)?;
        let n = self.rows.len();
        let timestep = match options.label {
            Label::Own => at.timestep,
            Label::Published => {
                let all = self.frozen.schedule.num_train_timesteps();
                let label = all - 1 - walked * all / options.sampling_steps;
                self.frozen.schedule.timestep(label)?
            }
        };
        let goal = self.goal(&x, timestep)?;
        let targets = self.prompts.of(&self.rows, &[TARGET]);
        let prediction = adapted
            .predict(x, &vec![timestep; n], &targets, None)?
            .raw();
        let weight = |&i: &usize| {
            let entry = &self.entries[i];
            let examples = entry.batch_size.unwrap_or(options.batch) * options.pairs;
            (entry.weight / examples as f64) as f32
        };
        let weights: Vec<f32> = self.rows.iter().map(weight).collect();
        let weights = Tensor::<1>::from_data(TensorData::new(weights, [n]), self.frozen.device());
        Ok((squared_error(prediction, goal) * weights).sum())
    }

    /// Latents where the adapted model arrives after some steps from noise, and the step that would
    /// come next. `[n, channels, h, w]`
    fn walk(
        &self,
        adapted: &Pipeline,
        options: &Options,
        walked: usize,
        rng: &mut TorchRng,
    ) -> Result<(Tensor<4>, Step)> {
        let n = self.rows.len();
        let pair = self.prompts.of(&self.rows, &[UNCONDITIONAL, TARGET]);
        let denoiser = adapted.denoiser();
        let device = self.frozen.device();
        let seeds: Vec<u64> = rng
            .integers(n, 0, i64::from(i32::MAX))
            .iter()
            .map(|&seed| seed as u64)
            .collect();
        let mut noise = Noise::seeds(&seeds);
        let [height, width] = self.size;
        let shape = self.frozen.latent_shape(n, Some(height), Some(width))?;
        let start = noise.draw(shape, device);
        // The step after the last one is asked for and not taken.
        let mut arrived = None;
        let mut model = |x: Tensor<4>, at: Step| -> Result<Prediction> {
            if at.index.0 == walked {
                arrived = Some((x.clone(), at));
                return Ok(Prediction::of_epsilon(x.clone(), x, at.scales)?);
            }
            let both = denoiser
                .predict_at(x.repeat_dim(0, 2), at, &pair, None)?
                .split(2)?;
            let raw = guided(options.start_guidance, both[0].raw(), both[1].raw());
            Ok(both[1].clone().with_raw(raw)?)
        };
        let sampler = match options.sampler {
            Walk::Ddim => Sampler::Ddim,
            Walk::Ddpm => Sampler::Ddpm,
        };
        let run = Run::new(&self.frozen.schedule, options.sampling_steps);
        let mut until = |progress: Progress<'_>| {
            if progress.index.0 >= walked {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let mut fresh = |shape: [usize; 4]| noise.draw(shape, device);
        sampler.sample::<Error>(&run, start, &mut model, &mut fresh, &mut until)?;
        arrived.ok_or_else(|| Error::input("the sampler took fewer steps than it was asked for"))
    }

    /// What the adapter is to predict there: a combination of the frozen model's predictions whose
    /// weights add up to 1, so that it is the same for epsilon and v.
    fn goal(&self, x: &Tensor<4>, timestep: Timestep) -> Result<Tensor<4>> {
        let n = self.rows.len();
        let apart = |&i: &usize| {
            let rows = self.prompts.rows[i];
            rows[NEUTRAL] != rows[UNCONDITIONAL]
        };
        let kinds: &[usize] = if self.rows.iter().any(apart) {
            &[POSITIVE, UNCONDITIONAL, NEUTRAL]
        } else {
            &[POSITIVE, UNCONDITIONAL]
        };
        let all = self
            .frozen
            .predict(
                x.clone().repeat_dim(0, kinds.len()),
                &vec![timestep; n * kinds.len()],
                &self.prompts.of(&self.rows, kinds),
                None,
            )?
            .raw();
        let part = |k: usize| all.clone().narrow(0, k * n, n);
        let (positive, unconditional) = (part(0), part(1));
        let neutral = if kinds.len() == 3 {
            part(2)
        } else {
            unconditional.clone()
        };
        let offsets: Vec<f32> = self
            .rows
            .iter()
            .map(|&i| self.entries[i].offset() as f32)
            .collect();
        let offsets =
            Tensor::<4>::from_data(TensorData::new(offsets, [n, 1, 1, 1]), self.frozen.device());
        Ok(neutral + (positive - unconditional) * offsets)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use burn::tensor::Device;
    use scumble_nn::files::{Checkpoint, OpenOptions};

    use super::*;

    #[test]
    fn the_network_is_told_of_the_crop() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../diffusion/tests/golden/sdxl/model");
        let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
        let model = scumble_families::load(&checkpoint, &Device::flex()).unwrap();
        let context = Context::from(&model.encode(&["a church".to_owned()]));
        let shape = model.latent_shape(1, None, None).unwrap();
        let says = |frame: Frame| -> Vec<f32> {
            let x = Tensor::<4>::ones(shape, model.device());
            let told = frame.told(&model).unwrap();
            let answer = told.predict(x, &[Timestep::new(500.0).unwrap()], &context, None);
            answer.unwrap().raw().into_data().iter::<f32>().collect()
        };
        let size = [16, 16];
        let plain = says(Frame { size, crop: None });
        let of = |original, corner| {
            says(Frame {
                size,
                crop: Some(Crop { original, corner }),
            })
        };
        assert_eq!(of(size, [0, 0]), plain, "uncropped");
        assert_ne!(of([40, 16], [0, 0]), plain);
        assert_ne!(of([40, 16], [9, 0]), of([40, 16], [0, 0]));
    }

    #[test]
    fn crops_lie_within_pictures_one_to_three_times_as_large() {
        let rng = &mut stream(7, "leco/steps").rng(0);
        let mut largest = 0;
        for _ in 0..200 {
            let crop = Crop::drawn([64, 32], rng);
            let [(height, top), (width, left)] =
                [0, 1].map(|axis| (crop.original[axis], crop.corner[axis]));
            assert!((64..192).contains(&height) && (32..96).contains(&width));
            assert!(top + 64 <= height && left + 32 <= width);
            largest = largest.max(height);
        }
        assert!(largest > 170, "{largest}");
    }
}
