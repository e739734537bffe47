//! Concept Inversion: "Circumventing Concept Erasure Methods For Text-to-Image Generative Models", Pham et al., ICLR 2024
//! (arXiv 2308.01508).
//!
//! One new word is learned through the edited model, whose weights stay: textual inversion (Gal et al. 2023) on pictures that
//! the unedited model drew of the concept. With `v` the word's vectors, `p(v)` a caption with the word in the concept's place:
//!
//! `min_v  E mean (n - eps(z_t, t, f(p(v))))^2`
//!
//! Where a guard acts, the guided predictions are compared: of the guarded model for `p(v)`, and the unedited model's guidance
//! towards the concept. A guard that remembers (SLD's momentum) is led down several noise levels of the same picture, and the
//! gradient goes back through all of them.

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{Noise, Prompted, Timestep, TorchRng};
use scumble_erase::{
    Error, Event, Result, Variant,
    adam::{Adam, Moments},
    checks,
    seeds::{draw as epochs, stream},
};
use scumble_nn::files::{Embedding, HostTensor, Tensors};
use serde::{Deserialize, Serialize};

use super::{Attack, as_value};
use crate::{
    found::Found,
    job::Job,
    lessons::lessons,
    placed::Placed,
    predict::{Aim, Goal, Noisy},
    prompts::together,
    protocol::{Notes, Outcome, Start},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "concept-inversion",
    paper: "Pham et al., Circumventing Concept Erasure Methods, ICLR 2024, arXiv 2308.01508",
    access: "gradients, and the text encoder's input",
    finds: "a word (a textual-inversion file)",
    step: "a training step of the word",
    cases: 48,
    options: |job, variant| as_value(&job.options(&defaults(job, variant))?),
    run,
};

/// Where the word's vectors begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// At the concept's own word.
    Concept,
    /// At random words.
    Random,
}

/// The options of Concept Inversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Vectors of the new word.
    pub vectors: usize,
    /// Training steps.
    pub iterations: usize,
    /// Pictures a step.
    pub batch: usize,
    /// AdamW's step size.
    pub lr: f64,
    /// `concept` or `random`.
    pub init: Init,
    /// Pictures to learn from, drawn by the unedited model.
    pub pictures: usize,
    /// Noise levels that a guard that remembers is led through.
    pub levels: usize,
}

/// The defaults. The published step size is multiplied by batch and accumulation: 5e-3 becomes 8e-2.
pub fn defaults(job: &Job<'_>, variant: Variant) -> Options {
    let published = Options { vectors: 1, iterations: 5000, batch: 16, lr: 8e-2, init: Init::Concept, pictures: 25, levels: 35 };
    match (variant, job.miniature) {
        (Variant::Fixed, true) => Options { iterations: 200, batch: 8, lr: 0.4, pictures: 48, levels: 4, ..published },
        _ => published,
    }
}

/// Where an interrupted run keeps its word.
const KEPT: &str = "inversion";
/// Steps between two notes of it.
const KEEP_EVERY: usize = 50;

fn run(job: &mut Job<'_>, _: &Start, variant: Variant) -> Result<Outcome> {
    let options: Options = job.options(&defaults(job, variant))?;
    checks::counts(&[
        ("vectors", options.vectors),
        ("iterations", options.iterations),
        ("batch", options.batch),
        ("pictures", options.pictures),
        ("levels", options.levels),
    ])?;
    checks::above_zero(&[("lr", options.lr)])?;
    let iterations = job.budget.unwrap_or(usize::MAX).min(options.iterations);
    let token = format!("<{}>", slug(job.word));
    let (captions, pictures) = lessons(job, options.pictures, "")?;
    let reworded: Vec<String> = captions.iter().map(|caption| job.reworded(caption, &token)).collect::<Result<_>>()?;
    let placed = Placed::word(job.victim, &reworded, &token, options.vectors)?;
    let aim = Aim::new(job.base, job.victim, Goal::Noise, true, job.drawing);
    let concepts: Vec<Prompted> = captions.iter().map(|caption| job.base.prompted(std::slice::from_ref(caption))).collect();

    let start = begin(job, &options);
    let shape = start.dims();
    let count = shape[0] * shape[1];
    let mut word = start.reshape([count]);
    let mut moments = Moments::zeros_like(&word);
    let mut done = 0;
    if let Some((step, kept)) = restored(job, count)? {
        (done, word, moments) = (step, kept[0].clone(), Moments { m: kept[1].clone(), v: kept[2].clone() });
    }
    job.tell(Event::Stage { name: "learning a word", total: iterations, done })?;
    while done < iterations {
        let leaf = word.clone().autodiff().require_grad();
        let loss = loss(job, &aim, &options, &placed, &concepts, &pictures, leaf.clone().reshape(shape), done)?;
        let value: f32 = loss.clone().inner().into_scalar();
        if !value.is_finite() {
            return Err(Error::Diverged { step: done + 1, loss: value });
        }
        let mut gradients = loss.backward();
        if let Some(gradient) = leaf.grad_remove(&mut gradients) {
            word = moments.step_with(Adam::decoupled(), word, gradient, options.lr, done + 1);
        }
        done += 1;
        let told = job.tell(Event::Step { done, loss: Some(value) });
        if told.is_err() || done % KEEP_EVERY == 0 {
            keep(job, done, [&word, &moments.m, &moments.v])?;
        }
        told?;
    }
    let numbers: Vec<f32> = word.into_data().iter::<f32>().collect();
    let vectors = numbers.chunks_exact(shape[1]).map(<[f32]>::to_vec).collect();
    Ok(Outcome { found: Found::Word(Embedding { token, vectors }), budget: iterations, spent: done, notes: Notes::new() })
}

/// The loss of one step.
#[allow(clippy::too_many_arguments)]
fn loss(
    job: &Job<'_>,
    aim: &Aim<'_>,
    options: &Options,
    placed: &Placed,
    concepts: &[Prompted],
    pictures: &Tensor<4>,
    vectors: Tensor<2>,
    step: usize,
) -> Result<Tensor<1>> {
    let n = options.batch;
    let rows = epochs(placed.len(), n, stream(job.seed, "concept-inversion/pictures").seed(), step);
    let asked = placed.filled(job.victim, &rows, &vectors.unsqueeze::<3>())?;
    let concept = together(&rows.iter().map(|&i| concepts[i].clone()).collect::<Vec<_>>());
    let device = job.victim.device();
    let index: Vec<i64> = rows.iter().map(|&i| i as i64).collect();
    let x0 = pictures.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(index, [n]), device));
    let mut rng = stream(job.seed, "concept-inversion/noise").rng(step);
    let seeds: Vec<u64> = rng.integers(n, 0, i64::from(i32::MAX)).iter().map(|&seed| seed as u64).collect();
    let noise = Noise::seeds(&seeds).draw(x0.dims(), device);
    let schedule = &job.victim.schedule;
    let all = schedule.num_train_timesteps();
    let at = |labels: Vec<usize>| -> Result<Noisy> {
        let t: Vec<Timestep> = labels.into_iter().map(|t| Ok(schedule.timestep(t)?)).collect::<Result<_>>()?;
        Ok(Noisy { x: schedule.add_noise(x0.clone(), noise.clone(), &t)?, noise: noise.clone(), t })
    };
    // One timestep from each of n equal parts of the range, so that a step of few pictures still sees early and late ones.
    let within = rng.uniform(n);
    let spread = |i: usize| (((i as f64 + f64::from(within[i])) * all as f64 / n as f64) as usize).min(all - 1);
    let levels = if aim.guided() {
        // All pictures at the same levels: a window below a drawn timestep, from noisy to clean.
        let top = spread(rng.integers(1, 0, n as i64)[0] as usize).max(options.levels);
        let window = (all * 9 / 100).max(options.levels).min(top);
        (0..options.levels).map(|k| at(vec![top - k * window / options.levels; n])).collect::<Result<Vec<_>>>()?
    } else {
        vec![at((0..n).map(spread).collect())?]
    };
    let last = levels.last().ok_or_else(|| Error::input("levels is 0, expected at least 1"))?;
    let wanted = aim.wanted(last, &concept)?;
    Ok(aim.errors_after(&levels, &asked, wanted)?.mean())
}

/// The vectors to begin with, `[vectors, width]`.
fn begin(job: &Job<'_>, options: &Options) -> Tensor<2> {
    let tokenizer = &job.victim.tokenizer;
    let own = tokenizer.tokens(job.word);
    let ids: Vec<u32> = match options.init {
        Init::Concept if !own.is_empty() => own.iter().copied().cycle().take(options.vectors).collect(),
        _ => {
            let first_special = i64::from(tokenizer.start_id().max(1));
            let drawn = stream(job.seed, "concept-inversion/start").rng(0).integers(options.vectors, 0, first_special);
            drawn.iter().map(|&id| id as u32).collect()
        }
    };
    let embedded = job.victim.text_network().embed(&[ids]);
    let [_, vectors, width] = embedded.dims();
    embedded.reshape([vectors, width])
}

fn keep(job: &Job<'_>, done: usize, parts: [&Tensor<1>; 3]) -> Result<()> {
    let mut tensors = Tensors::from([("done".to_owned(), HostTensor::from_f32([1], &[done as f32]))]);
    for (name, part) in ["word", "m", "v"].into_iter().zip(parts) {
        tensors.insert(name.to_owned(), scumble_erase::train::to_host(part.clone()));
    }
    job.store.put(KEPT, tensors)
}

fn restored(job: &Job<'_>, count: usize) -> Result<Option<(usize, Vec<Tensor<1>>)>> {
    let Some(mut kept) = job.store.get(KEPT)? else { return Ok(None) };
    let mut floats = |name: &str| kept.remove(name).and_then(|host| host.to_f32());
    let done = floats("done").and_then(|done| done.first().copied());
    let device = job.victim.device();
    let parts: Option<Vec<Tensor<1>>> = ["word", "m", "v"]
        .into_iter()
        .map(|name| floats(name).filter(|v| v.len() == count).map(|v| Tensor::<1>::from_floats(v.as_slice(), device)))
        .collect();
    Ok(done.map(|done| done as usize).zip(parts))
}

/// A word that is one token: letters and digits, joined by hyphens.
fn slug(word: &str) -> String {
    let parts: Vec<String> =
        word.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).map(str::to_lowercase).collect();
    if parts.is_empty() { "concept".into() } else { parts.join("-") }
}
