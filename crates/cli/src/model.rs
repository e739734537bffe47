//! From `--model` and `--device` to a checkpoint and a pipeline.

use std::path::Path;

use burn::tensor::Device;
use scumble_diffusion::{Pipeline, Schedule};
use scumble_erase::{Profile, World, profile::BuiltInWorld};
use scumble_families::{self as families, Family};
use scumble_nn::files::{Checkpoint, OpenOptions, Prediction};
use scumble_study::request::ModelRequest;

use crate::{device, failure::Failure, hub, miniature, output};

/// A checkpoint, its content hash and where it came from.
pub(crate) struct Model {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) hash: String,
    pub(crate) device: Device,
    /// The device in words, for a record.
    pub(crate) device_name: String,
    /// Whether it is the compiled-in checkpoint, which has no path.
    pub(crate) builtin: bool,
    /// What kind of checkpoint it is.
    pub(crate) profile: Profile,
}

impl Model {
    /// Opens what `--model` names, or the miniature; says what is worth saying about it.
    pub(crate) fn open(
        asked: impl Into<ModelRequest>,
        path: Option<&Path>,
        quiet: bool,
    ) -> Result<Self, Failure> {
        let args = asked.into();
        // This thread is one of the pool's: otherwise it would sleep and be woken at every parallel
        // loop. Fails only if the pool is already there, and then keeps its size.
        let pool = rayon::ThreadPoolBuilder::new()
            .use_current_thread()
            .num_threads(args.reading.threads.unwrap_or(0).into());
        let _ = pool.build_global();
        let (device, device_name) = device::open(&args.reading.device)?;
        let options = OpenOptions {
            config: args.reading.config.clone(),
            prediction_type: args
                .reading
                .prediction_type
                .as_deref()
                .map(prediction)
                .transpose()?,
            variant: args.reading.variant_files.clone(),
        };
        let asked = path
            .or(args.model.as_deref())
            .filter(|path| path.as_os_str() != miniature::NAME || path.exists());
        let found = asked
            .map(|path| hub::located(path, "--model"))
            .transpose()?;
        let (checkpoint, builtin) = match &found {
            Some(path) => (Checkpoint::open(path, &options)?, false),
            None => (Checkpoint::read(&miniature::model(), &options)?, true),
        };
        if !quiet {
            if device_name != "cpu" {
                output::note(&format!("note: computing on {device_name}"));
            }
            if let (Some(path), true) = (&found, asked != found.as_deref()) {
                output::note(&format!(
                    "note: found in the local Hugging Face cache: {}",
                    path.display()
                ));
            }
            for note in checkpoint
                .notes
                .iter()
                .chain(&Schedule::passed_over(&checkpoint.scheduler))
            {
                output::note(&format!("note: {note}"));
            }
        }
        let hash = checkpoint.checked_hash()?;
        let profile = if builtin || miniature::is_one(&checkpoint) {
            Profile::MINIATURE
        } else {
            Profile::of_family(families::of_files(checkpoint.family))
        };
        Ok(Self {
            checkpoint,
            hash,
            device,
            device_name,
            builtin,
            profile,
        })
    }

    /// Whether the miniature's judges are to look at its pictures: of the miniature unasked, of
    /// another model if `asked` with `--judge`.
    ///
    /// # Errors
    /// If the model has another vocabulary, so that its prompts and the judges' labels have nothing to do with each other.
    pub(crate) fn home(&self, asked: bool) -> Result<bool, Failure> {
        if asked && self.profile.world.is_none() && !miniature::speaks_the_same(&self.checkpoint) {
            return Err(Failure::new(format!(
                "--judge: the miniature's judges know only the miniature's world, and {} has another vocabulary",
                self.checkpoint.name
            ))
            .with_hint("bring a detector, as in `scumble evaluate --detector FILE`, or look at the pictures"));
        }
        Ok(self.profile.world.is_some() || asked)
    }

    /// The world in which its words are judged: its own, or the miniature's if `asked` with
    /// `--judge`.
    ///
    /// # Errors
    /// As [`home`](Self::home).
    pub(crate) fn world(&self, asked: bool) -> Result<Option<World>, Failure> {
        let home = self.home(asked)?;
        let own = self.profile.world.unwrap_or(BuiltInWorld::Emoji);
        Ok(home.then(|| own.open()))
    }

    /// Its family.
    pub(crate) fn family(&self) -> &'static Family {
        families::of_files(self.checkpoint.family)
    }

    /// The strength of classifier-free guidance where nobody says one.
    pub(crate) fn guidance(&self) -> f64 {
        self.profile.drawing.guidance
    }

    /// The model on its device, ready to compute.
    pub(crate) fn pipeline(&self) -> Result<Pipeline, Failure> {
        Ok(Pipeline::load(&self.checkpoint, &self.device)?)
    }
}

fn prediction(text: &str) -> Result<Prediction, Failure> {
    match text.replace('-', "_").as_str() {
        "epsilon" | "eps" => Ok(Prediction::Epsilon),
        "v_prediction" | "v" => Ok(Prediction::V),
        _ => Err(Failure::new(format!(
            "--prediction-type {text}: expected epsilon or v_prediction"
        ))),
    }
}
