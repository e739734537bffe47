//! What a training will take: a few of its steps, done on the spot in a folder of their own.

use std::{ops::ControlFlow, path::Path, time::Instant};

use scumble_diffusion::{Picture, Pipeline};
use scumble_train::{Bin, Job, Part, Recipe, Training, Watcher};

use super::Prepared;
use crate::{
    failure::{Failure, Result},
    host::Host,
    memory,
    record::{Estimate, bytes_in_words},
    request::TrainRequest,
};

/// Steps that are tried; the first of them makes what the others use again.
const TRIED: usize = 4;
/// Passes through a network that one example of a step takes: there, and back, which counts twice.
const PASSES: u64 = 3;

/// Tries it.
pub(super) fn estimate(
    prepared: &Prepared,
    request: &TrainRequest,
    host: Host<'_>,
) -> Result<Estimate> {
    estimate_of(&prepared.recipe, prepared, request, host)
}

fn estimate_of(
    own: &Recipe,
    prepared: &Prepared,
    request: &TrainRequest,
    host: Host<'_>,
) -> Result<Estimate> {
    let folder = tempfile::tempdir()?;
    let recipe = short(own);
    let mut timer = Timer {
        host,
        stages: Vec::new(),
    };
    let mut most = 0;
    // Each part needs those before it: they are tried too, and not counted.
    for part in Part::ALL {
        if prepared.tuned.is_some() && part != Part::Denoiser {
            continue;
        }
        if part > *prepared.parts.last().unwrap_or(&part) {
            break;
        }
        let counts = prepared.parts.contains(&part);
        if part == Part::Judge && !counts {
            continue;
        }
        let parts = [part];
        let (data, device) = (prepared.data.as_ref(), &prepared.device);
        let mut job = Job::new(&recipe, data, folder.path(), &parts, device);
        job.seed = request.seed;
        job.trial = true;
        let before = timer.stages.len();
        memory::forget_peak();
        match &prepared.tuned {
            Some(tuned) => tuned.trial(&job, &mut timer)?,
            None => drop(scumble_train::train(&job, &mut timer)?),
        }
        if counts {
            // What a training gathers before its steps, and a trial has little of.
            let more: u64 = timer.stages[before..]
                .iter()
                .map(|stage| {
                    let more =
                        wanted(stage, own, prepared.data.count()).saturating_sub(stage.total);
                    (more * gathered(stage, own, folder.path())) as u64
                })
                .sum();
            most = most.max(peak()? + more);
        } else {
            timer.stages.truncate(before);
        }
    }
    let wanted = |stage: &Stage| wanted(stage, own, prepared.data.count());
    let seconds: f64 = timer
        .stages
        .iter()
        .map(|stage| stage.each() * wanted(stage) as f64)
        .sum();
    let of_denoiser = timer
        .stages
        .iter()
        .any(|stage| stage.name == Part::Denoiser.name());
    let training = &own.denoiser.training;
    let evaluations = match of_denoiser {
        true => PASSES * (training.steps * training.batch) as u64,
        false => 0,
    };
    let latents = timer.stages.iter().find(|stage| stage.name == LATENTS);
    let longer = latents.map_or(1.0, |stage| {
        wanted(stage) as f64 / stage.total.max(1) as f64
    });
    Ok(Estimate {
        seconds: request
            .minutes
            .map_or(seconds, |minutes| seconds.min(60.0 * minutes)),
        memory: most,
        evaluations,
        disk: bytes(folder.path(), longer)?,
    })
}

/// Sees that a training keeps to the memory that it may take.
///
/// # Errors
/// If it does not; then it says what would.
pub(super) fn keep_to(
    most: u64,
    prepared: &Prepared,
    request: &TrainRequest,
    host: Host<'_>,
) -> Result<()> {
    let found = estimate(prepared, request, host)?;
    if found.memory <= most {
        return Ok(());
    }
    let problem = format!(
        "--memory {}: this needs about {}",
        bytes_in_words(most),
        bytes_in_words(found.memory)
    );
    // Half the examples at once, and half of those: the first that fits is the largest.
    let mut least = (found.memory, None);
    for halvings in 1.. {
        let Some(recipe) = in_parts(&prepared.recipe, halvings) else {
            break;
        };
        let memory = estimate_of(&recipe, prepared, request, host)?.memory;
        least = (
            memory,
            Some(recipe.denoiser.training.micro_batch.unwrap_or(1)),
        );
        if memory <= most {
            break;
        }
    }
    let fits = match least {
        (memory, Some(micro)) if memory <= most => format!(
            "`micro_batch = {micro}` in the recipe's [vae.training], [denoiser.training] and [judge.training] holds {}, and the result is the same to rounding",
            bytes_in_words(memory)
        ),
        (memory, _) => format!(
            "one example at a time (`micro_batch = 1`) holds {} still; smaller networks, with --model adapters (--rank 4) or fewer tensors (--train-method esd-x), or a machine with more",
            bytes_in_words(memory)
        ),
    };
    Err(Failure::new(problem).with_hint(fits))
}

/// The same training with the examples of each step in so many halvings; `None` once they are single.
fn in_parts(recipe: &Recipe, halvings: u32) -> Option<Recipe> {
    let mut halved = recipe.clone();
    let smaller = |training: &mut Training| {
        let (before, divisor) = (
            training.micro_batch.unwrap_or(training.batch),
            1 << halvings,
        );
        let micro = (1..=(before / divisor).max(1)).rev();
        let micro = micro
            .into_iter()
            .find(|n| training.batch.is_multiple_of(*n));
        training.micro_batch = micro;
        before / divisor >= 1
    };
    let parts = [
        &mut halved.vae.training,
        &mut halved.denoiser.training,
        &mut halved.judge.training,
    ];
    let some = parts.map(smaller).contains(&true);
    some.then_some(halved)
}

/// The same training, over after a few steps.
fn short(recipe: &Recipe) -> Recipe {
    let mut short = recipe.clone();
    let few = |training: &mut Training| training.steps = training.steps.min(TRIED);
    few(&mut short.clip.training);
    few(&mut short.vae.training);
    few(&mut short.denoiser.training);
    few(&mut short.judge.training);
    let batch = short.denoiser.training.batch;
    short.denoiser.latents = short.denoiser.latents.min(batch.max(2));
    short
}

/// What latents are called that are encoded before a denoiser is trained.
const LATENTS: &str = "latents";

/// The most that was held since it was last forgotten.
fn peak() -> Result<u64> {
    let unknown = || Failure::new("this system does not say how much memory a process holds");
    memory::peak().ok_or_else(unknown)
}

fn size(file: &Path) -> u64 {
    fs_err::metadata(file).map_or(0, |data| data.len())
}

/// Bytes in memory of an example that is gathered before the steps: a latent as it is encoded, a
/// decoded picture.
fn gathered(stage: &Stage, recipe: &Recipe, folder: &Path) -> usize {
    match stage.name.as_str() {
        // Kept as f16, made as f32.
        LATENTS => {
            2 * size(&folder.join("train/state/latents.safetensors")) as usize / stage.total.max(1)
        }
        "decoded" => 3 * recipe.side * recipe.side,
        _ => 0,
    }
}

/// How many steps, or examples, the whole training has where the trial had a few.
fn wanted(stage: &Stage, recipe: &Recipe, count: Option<usize>) -> usize {
    match stage.name.as_str() {
        LATENTS => count.unwrap_or(usize::MAX).min(recipe.denoiser.latents),
        "decoded" => recipe.judge.decoded_pictures(),
        name if name == Part::Clip.name() => recipe.clip.training.steps,
        name if name == Part::Vae.name() => recipe.vae.training.steps,
        name if name == Part::Denoiser.name() => recipe.denoiser.training.steps,
        _ => recipe.judge.training.steps,
    }
}

/// The bytes of the files in a folder; the latents among them are `longer` in truth.
fn bytes(folder: &Path, longer: f64) -> Result<u64> {
    let mut sum = 0;
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += match entry.file_name() == "latents.safetensors" {
            _ if data.is_dir() => bytes(&entry.path(), longer)?,
            true => (data.len() as f64 * longer) as u64,
            false => data.len(),
        };
    }
    Ok(sum)
}

/// Hears how long steps take.
struct Timer<'a> {
    host: Host<'a>,
    stages: Vec<Stage>,
}

/// One part of the work.
struct Stage {
    name: String,
    total: usize,
    began: Instant,
    /// When the first step was done and how many were then, and the same of the last.
    first: Option<(f64, usize)>,
    last: (f64, usize),
}

impl Stage {
    /// Seconds of a step; the first does not count where there are others.
    fn each(&self) -> f64 {
        let (seconds, steps) = self.last;
        match self.first {
            Some((began, before)) if steps > before => (seconds - began) / (steps - before) as f64,
            _ => seconds / steps.max(1) as f64,
        }
    }
}

impl Watcher for Timer<'_> {
    fn stage(&mut self, name: &str, total: usize, _done: usize) {
        self.stages.push(Stage {
            name: name.to_owned(),
            total,
            began: Instant::now(),
            first: None,
            last: (0.0, 0),
        });
    }

    fn step(&mut self, done: usize, _progress: f64, _message: &str) -> ControlFlow<()> {
        if let Some(stage) = self.stages.last_mut() {
            let now = (stage.began.elapsed().as_secs_f64(), done);
            stage.first.get_or_insert(now);
            stage.last = now;
        }
        self.host.listener.go_on()
    }

    fn loss(&mut self, _part: &str, _step: usize, _loss: f64, _lr: f64) {}

    fn wants_look(&mut self, _part: &str, _step: usize) -> bool {
        false
    }

    fn reconstructions(
        &mut self,
        _step: usize,
        _before: &[Picture],
        _after: &[Picture],
    ) -> scumble_erase::Result<()> {
        Ok(())
    }

    fn model(&mut self, _step: usize, _model: &Pipeline) -> scumble_erase::Result<()> {
        Ok(())
    }

    fn reliability(&mut self, _part: &str, _step: usize, _bins: &[Bin]) {}

    fn measured(&mut self, _part: &str, _step: usize, _name: &str, _value: f64) {}
}
