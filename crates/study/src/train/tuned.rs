//! A model whose denoiser is trained: what is opened of it, and what its edit says of itself.

use scumble_diffusion::Pipeline;
use scumble_erase::{About, edit::FORMAT};
use scumble_train::{Job, Moves, Part, Recipe, Trained, Tuning, Watcher, tune};
use serde_json::json;

use crate::{
    failure::{Failure, Result},
    folder::EDIT,
    host::Host,
    memory,
    model::Model,
    record::{TunedPlan, bytes_in_words},
    request::TrainRequest,
};

/// Bytes for each number that moves: it, its gradient, two means, the moving average, the network's copy, and what is
/// copied of them while a state is stored.
const BYTES: usize = 40;

/// A model that is trained.
pub(super) struct Tuned {
    model: Model,
    pipeline: Pipeline,
    moves: Moves,
}

impl Tuned {
    /// The one that a request names, if it names one.
    ///
    /// # Errors
    /// If it cannot be read, or memory does not suffice for what is to be trained of it.
    pub(super) fn open(request: &TrainRequest, host: Host<'_>) -> Result<Option<Self>> {
        let Some((asked, moves)) = request.tuned() else {
            return Ok(None);
        };
        only_its_denoiser(request)?;
        let model = Model::open(asked, host)?;
        let pipeline = model.pipeline()?;
        let tuned = Self {
            model,
            pipeline,
            moves,
        };
        tuned.fits()?;
        Ok(Some(tuned))
    }

    /// Whether what moves has room beside the model.
    fn fits(&self) -> Result<()> {
        let weights = &self.pipeline.denoiser.weights;
        let size = |name| weights.get(name).map_or(0, |w| w.shape.iter().product());
        let names = self.moves.tensors(&self.pipeline)?;
        let own: usize = names.iter().map(|name| size(name)).sum();
        let numbers = own + self.moves.beside(&self.pipeline);
        let needed = (BYTES * numbers) as u64;
        match memory::free() {
            Some(free) if needed > free => Err(Failure::new(format!(
                "--model {}: training {numbers} numbers holds {} beside the model, and {} are free",
                self.model.checkpoint.name,
                bytes_in_words(needed),
                bytes_in_words(free)
            ))
            .with_hint("--rank 4 trains adapters, --train-method esd-x the cross-attention alone")),
            _ => Ok(()),
        }
    }

    /// What is trained of a model: pictures of its size, for as long as suits its width where the
    /// user has no recipe.
    pub(super) fn recipe(&self, recipe: Recipe, is_theirs: bool) -> Result<Recipe> {
        if matches!(self.moves, Moves::Again) && !is_theirs && !self.model.profile.is_small() {
            return Err(Failure::new(
                "--from-scratch: a model of full width needs a recipe that says for how long",
            )
            .with_hint("give a RECIPE with [denoiser.training]: from random numbers it takes days on many GPUs"));
        }
        let [_, _, height, width] = self.pipeline.latent_shape(1, None, None)?;
        let adapters = matches!(self.moves, Moves::Adapters(_));
        let recipe = match is_theirs || self.model.profile.is_small() {
            true => recipe,
            false => recipe.for_full_width(adapters),
        };
        let factor = self.pipeline.autoencoder.config.factor();
        Ok(Recipe {
            side: height.min(width) * factor,
            ..recipe
        })
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn name(&self) -> String {
        self.model.checkpoint.name.clone()
    }

    /// Takes away what an earlier training of another plan left, so that nobody takes its edit for this one's.
    pub(super) fn begin_anew(request: &TrainRequest) -> Result<()> {
        let edit = request.folder.join(EDIT);
        if edit.exists() {
            fs_err::remove_file(edit)?;
        }
        Ok(())
    }

    pub(super) fn plan(&self) -> TunedPlan {
        TunedPlan {
            hash: self.model.hash.clone(),
            moves: match self.moves {
                Moves::Everything => "all".into(),
                Moves::Tensors(choice) => choice.name.into(),
                Moves::Adapters(rank) => format!("lora {rank}"),
                Moves::Again => "again".into(),
            },
        }
    }

    /// Trains it and writes the edit beside the run.
    ///
    /// # Errors
    /// If training fails, somebody asks to stop, or the edit cannot be written.
    pub(super) fn train(
        &self,
        job: &Job<'_>,
        request: &TrainRequest,
        without: &[String],
        watcher: &mut dyn Watcher,
    ) -> Result<Trained> {
        let checkpoint = &self.model.checkpoint;
        let options = json!({
            "moves": self.plan().moves,
            "training": job.recipe.denoiser.training,
        });
        let method = match self.moves {
            Moves::Again => "retrain",
            _ => "fine-tune",
        };
        let about = About {
            format: FORMAT,
            method: method.into(),
            concepts: without.to_vec(),
            base: checkpoint.name.clone(),
            base_hash: self.model.hash.clone(),
            family: checkpoint.family.name().into(),
            options,
            seed: request.seed,
            version: env!("CARGO_PKG_VERSION").into(),
            ..About::default()
        };
        let tuning = Tuning {
            model: &self.pipeline,
            about,
            moves: self.moves,
        };
        let (trained, edit) = tune(job, tuning, watcher)?;
        edit.save(&request.folder.join(EDIT))?;
        Ok(trained)
    }

    /// Does the steps of a job and keeps nothing.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub(super) fn trial(&self, job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<()> {
        let tuning = Tuning {
            model: &self.pipeline,
            about: About::default(),
            moves: self.moves,
        };
        tune(job, tuning, watcher)?;
        Ok(())
    }

    /// Whether the edit is there.
    pub(super) fn is_done(request: &TrainRequest) -> bool {
        request.model.is_none() || request.folder.join(EDIT).is_file()
    }
}

/// The part that is trained of it: what else is asked for is refused.
fn only_its_denoiser(request: &TrainRequest) -> Result<()> {
    match request.parts.iter().find(|part| **part != Part::Denoiser) {
        Some(part) => Err(Failure::new(format!(
            "--part {}: of a model that there is already the denoiser is trained, and nothing else",
            part.name()
        ))
        .with_hint("leave --model out to make a whole model, or leave --part out")),
        None => Ok(()),
    }
}
