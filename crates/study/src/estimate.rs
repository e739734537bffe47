//! What a run will take, before it is begun: the method or the attack itself is run on an outline of
//! the model, which computes nothing and counts what it is asked; what one sample takes is measured
//! on the model.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use burn::tensor::Tensor;
use scumble_diffusion::{Pipeline, Timestep};
use scumble_erase::{Event, Store};
use scumble_nn::{Asked, Context, Weights, files::Tensors};

use crate::{
    Listener,
    failure::Failure,
    host::Host,
    memory,
    model::Model,
    record::{Estimate, bytes_in_words},
};

/// Whoever asks this long for nothing but counting asks for so much that the rest of it may be taken
/// to go on as it began.
const LONGEST: Duration = Duration::from_secs(20);

/// Bytes for each number that is trained: itself, its gradient, Adam's two moments, and the copy
/// that the graph holds.
const TRAINED: u64 = 20;

/// Of these, those that a sample with its gradient holds too.
const TRIED: u64 = 8;

/// Bytes for each number of an edit that is solved for: matrices before and after, in f64, and as
/// the edit has them (measured on RealEra, bench/speed/REAL_SIZE.md).
const SOLVED_IN: u64 = 36;

/// Prompts that go through the text encoders at once where there are many.
const MANY: usize = 16;

/// Seconds for each number of an edit that no training makes: about what a closed form's products
/// over a matrix take.
const SOLVED: f64 = 1.5e-8;

/// The program itself and its buffers.
const PROGRAM: u64 = 200 << 20;

/// What was asked of an outline.
pub(crate) struct Counted {
    pub(crate) denoiser: Asked,
    /// Prompts through the text encoders; one that was differentiated counts for three more.
    pub(crate) prompts: u64,
    /// Numbers that are changed, as many as the model itself has there.
    pub(crate) numbers: u64,
    /// The names of those in the denoiser that get new values.
    pub(crate) moved: Vec<String>,
    /// Bytes that are kept, in the model's size.
    pub(crate) kept: u64,
    /// How much of it was counted.
    pub(crate) share: f64,
}

impl Counted {
    /// What it takes on the model.
    ///
    /// # Errors
    /// If a sample cannot be drawn.
    pub(crate) fn on(&self, model: &Model, pipeline: &Pipeline) -> Result<Estimate, Failure> {
        let all = |samples: u64| (samples as f64 / self.share).round();
        let asked = self.denoiser;
        let (plain, trained) = (all(asked.plain), all(asked.with_gradient));
        let batch = (asked.plain + asked.with_gradient)
            .div_ceil(asked.calls.max(1))
            .max(1);
        let most = if model.profile.is_small() { 16 } else { 1 };
        let batch = usize::try_from(batch).unwrap_or(1).min(most);

        memory::forget_peak();
        let together = if self.prompts >= 4 * MANY as u64 {
            MANY
        } else {
            2
        };
        let mut seconds = all(self.prompts) * text_seconds(pipeline, together);
        if plain > 0.0 {
            seconds += plain * sample_seconds(pipeline, batch, None)?;
        }
        if trained > 0.0 {
            seconds += trained * sample_seconds(pipeline, batch, Some(&self.moved))?;
        } else {
            seconds += self.numbers as f64 * SOLVED;
        }
        Ok(Estimate {
            seconds,
            memory: self.bytes(pipeline, batch) + self.beyond_one(pipeline, batch)?,
            evaluations: (plain + 3.0 * trained) as u64,
            disk: 4 * self.numbers + self.kept,
        })
    }
}

impl Counted {
    /// The most memory that it will hold: what the samples held that were tried just now, and what a
    /// training or a solution holds beside them.
    fn bytes(&self, pipeline: &Pipeline, batch: usize) -> u64 {
        let Some(tried) = memory::peak().filter(|_| self.denoiser.calls > 0) else {
            return reckoned(pipeline, self, batch);
        };
        let beside = if self.denoiser.with_gradient > 0 {
            TRAINED - TRIED
        } else {
            SOLVED_IN
        };
        tried + self.numbers * beside + self.kept
    }

    /// What the samples of its largest call with a gradient hold beyond those that were tried: each
    /// as much more as two hold more than one.
    fn beyond_one(&self, pipeline: &Pipeline, batch: usize) -> Result<u64, Failure> {
        let together = usize::try_from(self.denoiser.together).unwrap_or(1);
        let (Some(one), true) = (memory::peak(), together > batch && batch == 1) else {
            return Ok(0);
        };
        memory::forget_peak();
        sample_seconds(pipeline, 2, Some(&self.moved))?;
        let more = memory::peak().unwrap_or(one).saturating_sub(one);
        Ok(more * (together - 1) as u64)
    }
}

/// The prompts that went through the text encoders of an outline.
pub(crate) fn prompts(outline: &Pipeline) -> u64 {
    let encoders = outline.encoder_widths().into_iter();
    let asked = encoders.filter_map(|(id, _)| Some(outline.weights(id)?.evaluations().asked()));
    asked
        .map(|asked| asked.plain + 3 * asked.with_gradient)
        .max()
        .unwrap_or(0)
}

/// Ends what counts for too long.
pub(crate) struct Patience {
    began: Instant,
    total: Cell<usize>,
    share: Cell<f64>,
}

impl Patience {
    /// From now on.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            total: Cell::new(1),
            share: Cell::new(1.0),
        }
    }

    /// Whether to go on.
    pub(crate) fn hears(&self, event: &Event<'_>, listener: &dyn Listener) -> ControlFlow<()> {
        match *event {
            Event::Stage { total, .. } => self.total.set(total.max(1)),
            Event::Step { done, .. } if self.began.elapsed() > LONGEST => {
                let share = done as f64 / self.total.get() as f64;
                self.share.set(share.clamp(1e-6, 1.0));
                return ControlFlow::Break(());
            }
            _ => {}
        }
        listener.go_on()
    }

    /// How much was counted.
    pub(crate) fn share(&self) -> f64 {
        self.share.get()
    }
}

/// What a run will take, said before it begins; an error if that is more than it may. A run on a
/// small model is over sooner than this would be worth, unless somebody sets a limit.
///
/// # Errors
/// If it takes more memory than it may, or the user interrupts. What is wrong with the job the run
/// itself will say.
pub(crate) fn foretold(
    wanted: bool,
    most: Option<u64>,
    model: &Model,
    host: Host<'_>,
    estimate: impl FnOnce() -> Result<Estimate, Failure>,
) -> Result<Option<Estimate>, Failure> {
    let said = wanted && !model.profile.is_small();
    if !said && most.is_none() {
        return Ok(None);
    }
    let found = match estimate() {
        Ok(found) => found,
        Err(failure) if failure.is_interrupt() => return Err(failure),
        Err(failure) => {
            host.listener
                .detail(&format!("what this takes cannot be foretold: {failure}"));
            return Ok(None);
        }
    };
    keep_to(most, &found, host)?;
    if said {
        host.listener.note(&format!("estimate  {found}"));
    }
    Ok(Some(found))
}

/// Sees that it keeps to the memory that it may take; warns where nobody said how much, and it is
/// more than there is.
///
/// # Errors
/// If it does not.
pub(crate) fn keep_to(most: Option<u64>, found: &Estimate, host: Host<'_>) -> Result<(), Failure> {
    match most {
        Some(most) if found.memory > most => Err(Failure::new(format!(
            "--memory {}: this needs about {}, and cannot do with less",
            bytes_in_words(most),
            bytes_in_words(found.memory)
        ))
        .with_hint("a smaller batch (`--set batch=1`), fewer pictures or trajectories, a method that moves fewer tensors, or a machine with more")),
        None if memory::free().is_some_and(|free| found.memory > free / 4 * 3) => {
            host.listener.warn(&format!(
                "note: this needs about {} of memory, and {} are free",
                bytes_in_words(found.memory),
                bytes_in_words(memory::free().unwrap_or(0))
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How much larger a picture's latents are than those of an outline.
///
/// # Errors
/// If one of them draws no pictures.
pub(crate) fn larger(pipeline: &Pipeline, outline: &Pipeline) -> Result<f64, Failure> {
    let numbers = |of: &Pipeline| -> Result<usize, Failure> {
        Ok(of.latent_shape(1, None, None)?.iter().product())
    };
    Ok(numbers(pipeline)? as f64 / numbers(outline)? as f64)
}

/// Seconds that one prompt takes in the text encoders, of so many together.
fn text_seconds(pipeline: &Pipeline, together: usize) -> f64 {
    let prompts = vec!["a photo".to_owned(); together];
    pipeline.encode(&prompts);
    let began = Instant::now();
    pipeline.encode(&prompts);
    began.elapsed().as_secs_f64() / prompts.len() as f64
}

/// Seconds that one sample takes in the denoiser; with a gradient to these tensors, if any are named.
fn sample_seconds(
    pipeline: &Pipeline,
    batch: usize,
    trained: Option<&Vec<String>>,
) -> Result<f64, Failure> {
    let mut model = pipeline.clone();
    let weights = &mut model.denoiser.weights;
    for name in trained.into_iter().flatten() {
        if let Some(weight) = weights.get(name) {
            let leaf = weight.flat().autodiff().require_grad();
            weights.replace(name, leaf)?;
        }
    }
    let [_, channels, height, width] = model.latent_shape(1, None, None)?;
    let context = Context::from(&model.encode(&vec![String::new(); batch]));
    let time: Vec<Timestep> = std::iter::repeat_n(Timestep::new(500.0), batch)
        .flatten()
        .collect();
    let once = || -> Result<f64, Failure> {
        let x = Tensor::<4>::zeros([batch, channels, height, width], model.device());
        let x = match trained {
            Some(moved) if moved.is_empty() => x.autodiff().require_grad(),
            _ => x,
        };
        let began = Instant::now();
        let answer = model.predict(x, &time, &context, None)?.raw();
        if trained.is_some() {
            answer.powi_scalar(2).mean().backward();
        } else {
            answer.sum().into_scalar::<f32>();
        }
        Ok(began.elapsed().as_secs_f64())
    };
    // The first time lays out weights, or brings them into memory.
    let first = once()?;
    let seconds = if first < 1.0 {
        once()?.min(first)
    } else {
        first
    };
    Ok(seconds / batch as f64)
}

/// What a process of this model holds whose samples nobody has tried.
fn reckoned(pipeline: &Pipeline, counted: &Counted, batch: usize) -> u64 {
    let size = |weights: &Weights, used: &dyn Fn(&str) -> bool| -> u64 {
        let used = weights.iter().filter(|(name, _)| used(name));
        used.map(|(_, weight)| weight.bytes()).sum()
    };
    let asked = counted.denoiser.calls > 0;
    let moved = |name: &str| counted.moved.iter().any(|moved| moved == name);
    let mut held = size(&pipeline.denoiser.weights, &|name| asked || moved(name));
    for (id, _) in pipeline.encoder_widths() {
        held += pipeline
            .weights(id)
            .map_or(0, |weights| size(weights, &|_| true));
    }
    let trains = counted.denoiser.with_gradient > 0;
    held += counted.numbers * if trains { TRAINED } else { SOLVED_IN };
    if asked {
        let config = &pipeline.denoiser.config;
        let side = config.sample_size as u64;
        let map = 4 * side * side * config.block_out_channels.first().map_or(0, |&c| c as u64);
        let parts = (2 * config.layers_per_block + 1) as u64 * 4;
        held += map * if trains { 3 * parts + 30 } else { 12 } * batch.max(1) as u64;
    }
    held + counted.kept + PROGRAM
}

/// A store in memory that counts what it is given.
#[derive(Default)]
pub(crate) struct Counting {
    own: RefCell<BTreeMap<String, Tensors>>,
    shared: RefCell<BTreeMap<String, Tensors>>,
}

impl Counting {
    /// Bytes that other runs share.
    pub(crate) fn bytes(&self) -> u64 {
        let shared = self.shared.borrow();
        let tensors = shared.values().flat_map(|tensors| tensors.values());
        tensors.map(|tensor| tensor.bytes().len() as u64).sum()
    }
}

impl Store for Counting {
    fn get(&self, name: &str) -> scumble_erase::Result<Option<Tensors>> {
        Ok(self.own.borrow().get(name).cloned())
    }

    fn put(&self, name: &str, tensors: Tensors) -> scumble_erase::Result<()> {
        self.own.borrow_mut().insert(name.to_owned(), tensors);
        Ok(())
    }

    fn get_shared(&self, hash: &str) -> scumble_erase::Result<Option<Tensors>> {
        Ok(self.shared.borrow().get(hash).cloned())
    }

    fn put_shared(&self, hash: &str, tensors: Tensors) -> scumble_erase::Result<()> {
        self.shared.borrow_mut().insert(hash.to_owned(), tensors);
        Ok(())
    }
}
