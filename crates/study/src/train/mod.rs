//! `scumble train`: a whole model from pictures with captions, or one of its parts.

mod diary;
mod trial;
mod tuned;
mod watch;

use burn::tensor::Device;
use scumble_erase::World;
use scumble_train::{EmojiWorld, Examples, Job, Part, PictureFolder, Recipe, Trained};
use serde_json::json;

use crate::{
    content, device,
    failure::{Failure, Result},
    folder::{Found, RunFolder},
    host::Host,
    machine,
    record::{Estimate, Record, TrainOutcome, TrainPlan, TrainRun},
    request::TrainRequest,
    words::canonical,
};

use self::{tuned::Tuned, watch::Watch};

/// The form of this version's plan.
const FORMAT: u32 = 1;
/// What is asked for most.
const MOST_MINUTES: f64 = 60.0 * 24.0 * 366.0;

/// A training that has ended.
pub struct Training {
    /// What came of it.
    pub record: TrainRun,
    /// Whether nothing had to be done.
    pub was_finished: bool,
}

/// What a request comes to: everything is read, nothing is done.
struct Prepared {
    device: Device,
    tuned: Option<Tuned>,
    recipe: Recipe,
    data: Box<dyn Examples>,
    /// What is left out, in the world's own words.
    without: Vec<String>,
    parts: Vec<Part>,
}

impl Prepared {
    fn of(request: &TrainRequest, host: Host<'_>) -> Result<Self> {
        let minutes = request.minutes;
        if minutes.is_some_and(|m| !(m > 0.0 && m <= MOST_MINUTES)) {
            return Err(Failure::new(format!(
                "--minutes {}: expected a positive number",
                minutes.unwrap_or_default()
            )));
        }
        machine::use_threads(request.reading.threads);
        let (device, _) = device::open(&request.reading.device)?;
        let tuned = Tuned::open(request, host)?;
        let mut recipe = match &request.recipe {
            Some(path) => Recipe::read(path)?,
            None => Recipe::emoji()?,
        };
        if let Some(tuned) = &tuned {
            recipe = tuned.recipe(recipe, request.recipe.is_some())?;
        }
        if request.data.is_some() {
            recipe.data.clone_from(&request.data);
        }
        let mut without = request.without.clone();
        let data: Box<dyn Examples> = match &recipe.data {
            Some(folder) => Box::new(PictureFolder::open(folder, recipe.side, &without)?),
            None => {
                let world = EmojiWorld::new(recipe.side, &without, request.seed)?;
                // Its words, as everything else calls them.
                let words = World::emoji();
                without = without
                    .iter()
                    .map(|name| canonical(name, Some(&words)))
                    .collect();
                Box::new(world)
            }
        };
        let parts = match &request.parts[..] {
            [] if tuned.is_some() => vec![Part::Denoiser],
            [] => asked_of_nobody(data.as_ref()),
            some => some.to_vec(),
        };
        if parts.contains(&Part::Judge) && data.questions().is_empty() {
            return Err(
                Failure::new("--part judge: the pictures have no classes to tell apart").with_hint(
                    "give every line of metadata.jsonl a `label`, of at least two kinds",
                ),
            );
        }
        Ok(Self {
            device,
            tuned,
            recipe,
            data,
            without,
            parts,
        })
    }
}

/// What a training would take on this machine. A few of its steps are done, in a folder of their
/// own that is gone afterwards.
///
/// # Errors
/// If the recipe or the data cannot be read, a step fails, or the user interrupts.
pub fn estimate(request: &TrainRequest, host: Host<'_>) -> Result<Estimate> {
    trial::estimate(&Prepared::of(request, host)?, request, host)
}

/// Trains what is asked for, or goes on with it.
///
/// # Errors
/// If the recipe or the data cannot be read, the folder holds something else, it would take more
/// memory than it may, a loss is not finite, or somebody asks to stop; the same request continues
/// then.
pub fn perform(request: &TrainRequest, host: Host<'_>) -> Result<Training> {
    let prepared = Prepared::of(request, host)?;
    if let Some(most) = request.memory {
        trial::keep_to(most, &prepared, request, host)?;
    }
    let Prepared {
        device,
        tuned,
        recipe,
        data,
        without,
        parts,
    } = prepared;
    let minutes = request.minutes;
    let plan = TrainPlan {
        format: FORMAT,
        command: "train".into(),
        recipe: Some(recipe.clone()),
        without: without.clone(),
        seed: request.seed,
        tuned: tuned.as_ref().map(Tuned::plan),
    };
    let hash = content::hash_of_plan(&json!(plan));
    let place = request.folder.join("train");
    let mut job = Job::new(&recipe, data.as_ref(), &request.folder, &parts, &device);
    job.seconds = minutes.map(|minutes| minutes * 60.0);
    job.seed = request.seed;
    let all_there = |record: &TrainRun| {
        scumble_train::enough(&job, &record.body.parts) && Tuned::is_done(request)
    };
    let found = RunFolder::open_unless(&place, &hash, request.overwrite, &all_there)?;
    let run = match found {
        Found::Finished(record) => {
            host.say_finished(&request.folder);
            return Ok(Training {
                record,
                was_finished: true,
            });
        }
        Found::ToDo(run) => run,
    };
    let mut record: TrainRun = Record {
        plan_hash: Some(hash),
        plan,
        finished: false,
        scumble: env!("CARGO_PKG_VERSION").into(),
        body: TrainOutcome::default(),
    };
    if let Ok(Some(before)) = TrainRun::read(&run.path.join(crate::folder::RECORD)) {
        // Another part of the same plan.
        record.body = before.body;
    } else if tuned.is_some() {
        Tuned::begin_anew(request)?;
    }
    record.body.tuned = tuned.as_ref().map(Tuned::name);
    run.record(&record)?;
    let mut watch = Watch::open(
        &run,
        host,
        &recipe,
        &device,
        data.as_ref(),
        tuned.as_ref().map(Tuned::model),
    )?;
    let trained = match &tuned {
        Some(tuned) => tuned
            .train(&job, request, &without, &mut watch)
            .map(|one| vec![one]),
        None => scumble_train::train(&job, &mut watch).map_err(Failure::from),
    };
    let measured = watch.close()?;
    for measurement in measured {
        record
            .body
            .measured
            .retain(|m| (&m.part, &m.name) != (&measurement.part, &measurement.name));
        record.body.measured.push(measurement);
    }
    let trained = trained.inspect_err(|_| {
        // What was measured is worth keeping, whatever ended it.
        let _ = run.record(&record);
    })?;
    for one in trained {
        record.body.parts.retain(|before| before.part != one.part);
        record.body.parts.push(one);
    }
    record
        .body
        .parts
        .sort_by_key(|trained: &Trained| trained.part);
    record.finished = true;
    run.record(&record)?;
    Ok(Training {
        record,
        was_finished: false,
    })
}

/// All parts, the judge only where the pictures have classes.
fn asked_of_nobody(data: &dyn Examples) -> Vec<Part> {
    let judged = !data.questions().is_empty();
    let parts = Part::ALL.into_iter();
    parts
        .filter(|part| judged || *part != Part::Judge)
        .collect()
}
