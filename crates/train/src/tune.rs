//! A model's denoiser, trained further or again: what it learns is an edit of the model.

use std::collections::BTreeMap;

use scumble_diffusion::Pipeline;
use scumble_erase::{
    About, Change, Edit, Error, Result, Trainable,
    training::{
        gradients::Gradients,
        lora::{self, LORA, Layers},
    },
};
use scumble_families as families;
use scumble_nn::{Weights, files::HostTensor};

use crate::{
    fit::Outcome, init::Init, job::Job, part::Part, parts::denoiser::learn, train::Trained,
    watcher::Watcher,
};

/// A model that is trained, and what its edit says of itself.
pub struct Tuning<'a> {
    /// The model.
    pub model: &'a Pipeline,
    /// The edit's own words.
    pub about: About,
    /// What is trained of the denoiser.
    pub moves: Moves,
}

/// What is trained of a denoiser.
#[derive(Clone, Copy, Debug)]
pub enum Moves {
    /// All of its tensors.
    Everything,
    /// Some of its tensors.
    Tensors(Trainable),
    /// Adapters of this rank, beside every linear layer of its transformers (LoRA).
    Adapters(usize),
    /// All of it, which begins with random numbers: the same model, had it seen other pictures.
    Again,
}

impl Moves {
    /// The names of a model's own tensors that move; none of them beside adapters.
    ///
    /// # Errors
    /// If the choice picks none, or some of another network.
    pub fn tensors(self, model: &Pipeline) -> Result<Vec<String>> {
        match self {
            Self::Tensors(choice) => {
                let (own, theirs) = (choice.component(model), families::of(model).denoiser());
                if own == theirs {
                    return choice.pick_in(model);
                }
                Err(Error::input(format!(
                    "--train-method {}: moves the {own}, and what is trained is the {theirs}",
                    choice.name
                ))
                .with_hint("choose one of the denoiser, such as esd-all or esd-x"))
            }
            Self::Adapters(_) => Ok(Vec::new()),
            Self::Everything | Self::Again => {
                let names = model.denoiser.weights.iter().map(|(name, _)| name.clone());
                Ok(names.collect())
            }
        }
    }
}

impl Moves {
    /// How many numbers move beside a model's own tensors: those of adapters.
    pub fn beside(self, model: &Pipeline) -> usize {
        let Self::Adapters(rank) = self else {
            return 0;
        };
        let ends = |module: &String| {
            let weight = model.denoiser.weights.get(&format!("{module}.weight"))?;
            Some(weight.shape.iter().take(2).sum::<usize>())
        };
        let modules = Layers::Transformers.of(model);
        rank * modules.iter().filter_map(ends).sum::<usize>()
    }
}

/// Trains a model's denoiser; what it has learned, as an edit.
///
/// # Errors
/// If nothing may move, the loss is not finite, the data cannot be read, or somebody asks to stop;
/// the same call continues then.
pub fn tune(
    job: &Job<'_>,
    tuning: Tuning<'_>,
    watcher: &mut dyn Watcher,
) -> Result<(Trained, Edit)> {
    fs_err::create_dir_all(job.state()).map_err(scumble_nn::Error::from)?;
    let job = Job {
        most: job.seconds,
        ..*job
    };
    let (start, moving) = start(&job, &tuning)?;
    let moves = |name: &str| moving.iter().any(|one| one == name);
    let (
        Outcome {
            steps,
            seconds,
            loss,
        },
        weights,
    ) = learn(&job, &start, &moves, watcher)?;
    let trained = Trained {
        part: Part::Denoiser,
        steps,
        seconds,
        given: job.most,
        loss: Some(loss).filter(|loss| loss.is_finite()),
    };
    let changes = match tuning.moves {
        Moves::Adapters(_) => {
            let value = |name: &String| Some((name.clone(), weights.get(name)?.flat()));
            let values: Gradients = moving.iter().filter_map(value).collect();
            lora::changes(&start, values)
        }
        Moves::Everything | Moves::Tensors(_) | Moves::Again => values(&start, &weights, &moving),
    };
    let about = tuning.about;
    Ok((trained, Edit { about, changes }))
}

/// The model as its training begins, and the names of the tensors that move.
fn start(job: &Job<'_>, tuning: &Tuning<'_>) -> Result<(Pipeline, Vec<String>)> {
    let model = tuning.model;
    let own = tuning.moves.tensors(model)?;
    match tuning.moves {
        Moves::Everything | Moves::Tensors(_) => Ok((model.clone(), own)),
        Moves::Adapters(rank) => {
            let adapted = lora::attached(model, Layers::Transformers, rank, job.seed)?;
            let names = LORA.pick_in(&adapted)?;
            Ok((adapted, names))
        }
        Moves::Again => {
            let weights = model.denoiser.weights.iter();
            let manifest = weights.map(|(name, weight)| (name.clone(), weight.shape.clone()));
            let first = Init::Residual.weights(&manifest.collect(), job.seed, job.device);
            // Into the model's own, which knows whether its parts are computed again.
            let mut fresh = model.clone();
            for (name, weight) in first.iter() {
                fresh.denoiser.weights.replace(name, weight.flat())?;
            }
            Ok((fresh, own))
        }
    }
}

/// New numbers of tensors as changes of an edit.
fn values(
    model: &Pipeline,
    weights: &Weights,
    names: &[String],
) -> BTreeMap<(String, String), Change> {
    let denoiser = families::of(model).denoiser();
    let change = |name: &String| {
        let weight = weights.get(name)?;
        let host = HostTensor::of_f32(weight.shape.clone(), weight.numbers());
        Some(((denoiser.to_owned(), name.clone()), Change::Value(host)))
    };
    names.iter().filter_map(change).collect()
}
