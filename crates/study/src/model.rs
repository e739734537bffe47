//! From the name of a model and of a device to a checkpoint and a pipeline.

use crate::{
    built_in::BuiltIn, companions::Companions, device, failure::Failure, hashed::Files, host::Host,
    hub, machine, request::ModelRequest,
};
use burn::tensor::Device;
use scumble_diffusion::{Pipeline, Schedule};
use scumble_erase::{Profile, World, profile::BuiltInWorld};
use scumble_families::{self as families, Family};
use scumble_nn::files::{Checkpoint, OpenOptions, Prediction};

/// Numbers of a map that pass a part of a U-Net together on the way back of a gradient: one picture
/// of 512 pixels at a time at its widest levels.
const MAPS_AT_ONCE: usize = 1 << 20;

/// A checkpoint, its content hash and where it came from.
pub struct Model {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Its content hash.
    pub hash: String,
    /// Where it computes.
    pub device: Device,
    /// The device in words, for a record.
    pub device_name: String,
    /// Whether it is the compiled-in checkpoint, which has no path.
    pub builtin: bool,
    /// What kind of checkpoint it is.
    pub profile: Profile,
    /// The judges and the CLIP of its own, if it comes with them.
    own: Option<Companions>,
    /// How it was read.
    pub(crate) options: OpenOptions,
}

impl Model {
    /// Opens what is asked for, or the built-in checkpoint; says what is worth saying about it.
    ///
    /// # Errors
    /// If there is no such model or device, or a file is not what it seems to be.
    pub fn open(asked: impl Into<ModelRequest>, host: Host<'_>) -> Result<Self, Failure> {
        let args = asked.into();
        machine::use_threads(args.reading.threads);
        let (device, device_name) = device::open(&args.reading.device)?;
        let options = OpenOptions {
            config: args.reading.config.clone(),
            prediction_type: args
                .reading
                .prediction_type
                .as_deref()
                .map(prediction)
                .transpose()?,
            timestep_spacing: args.reading.timestep_spacing.clone(),
            variant: args.reading.variant_files.clone(),
        };
        let asked = args.model.as_deref();
        let asked = asked.filter(|path| path.as_os_str() != host.built_in.name || path.exists());
        let found = asked
            .map(|path| hub::located(path, "--model", host.hub))
            .transpose()?;
        let files = found.as_deref().map(|path| Files::of(path, &options));
        let (checkpoint, builtin) = match &found {
            Some(path) => (Checkpoint::open(path, &options)?, false),
            None => (Checkpoint::read(&host.built_in.model, &options)?, true),
        };
        let say = |text: String| host.listener.note(&format!("note: {text}"));
        if device_name != "cpu" {
            say(format!("computing on {device_name}"));
        }
        if let (Some(path), true) = (&found, asked != found.as_deref()) {
            say(format!(
                "found in the local Hugging Face cache: {}",
                path.display()
            ));
        }
        host.say(&checkpoint.notes);
        host.say(&Schedule::passed_over(&checkpoint.scheduler));
        let made = || Ok(checkpoint.checked_hash()?);
        let hash = match &files {
            Some(files) => files.hash(host.cache, made),
            None => made(),
        }?;
        let own = match &found {
            Some(folder) => Companions::of_folder(folder)?,
            None => None,
        };
        // What the model never saw its judges have never seen either: the miniature's look then.
        let taught = own.is_some();
        let own = own.filter(|own| own.lacks.is_empty());
        let profile = if builtin || host.built_in.is_one(&checkpoint) {
            Profile::MINIATURE
        } else if taught {
            Profile::EMOJI_WORLD
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
            own,
            options,
        })
    }

    /// Who looks at its pictures: its own judges, or the miniature's.
    pub(crate) fn companions<'a>(&'a self, host: Host<'a>) -> &'a Companions {
        self.own.as_ref().unwrap_or(&host.built_in.companions)
    }

    /// Whether the miniature's judges are to look at its pictures: of the miniature unasked, of
    /// another model if `asked` with `--judge`.
    ///
    /// # Errors
    /// If the model has another vocabulary, so that its prompts and the judges' labels have nothing to do with each other.
    pub fn home(&self, asked: bool, built_in: &BuiltIn) -> Result<bool, Failure> {
        if asked && self.profile.world.is_none() && !built_in.speaks_the_same(&self.checkpoint) {
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
    pub fn world(&self, asked: bool, built_in: &BuiltIn) -> Result<Option<World>, Failure> {
        let home = self.home(asked, built_in)?;
        let own = self.profile.world.unwrap_or(BuiltInWorld::Emoji);
        Ok(home.then(|| own.open()))
    }

    /// Its family.
    pub fn family(&self) -> &'static Family {
        families::of_files(self.checkpoint.family)
    }

    /// The strength of classifier-free guidance where nobody says one.
    pub fn guidance(&self) -> f64 {
        self.profile.drawing.guidance
    }

    /// The model on its device, ready to compute.
    ///
    /// # Errors
    /// If its tensors and its configurations do not fit together.
    pub fn pipeline(&self) -> Result<Pipeline, Failure> {
        let mut pipeline = families::load(&self.checkpoint, &self.device)?;
        // A training step of a full U-Net keeps more than most machines have.
        let again = (!self.profile.is_small()).then_some(MAPS_AT_ONCE);
        pipeline.denoiser.weights.set_recomputing(again);
        Ok(pipeline)
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
