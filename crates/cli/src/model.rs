//! From `--model` and `--device` to a checkpoint and a pipeline.

use std::path::Path;

use burn::tensor::Device;
use scumble_diffusion::Pipeline;
use scumble_nn::files::{Checkpoint, OpenOptions, Prediction};

use crate::{args::ModelArgs, device, failure::Failure, miniature, output};

/// A checkpoint, its content hash and where it came from.
pub(crate) struct Model {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) hash: String,
    pub(crate) device: Device,
    /// The device in words, for a record.
    pub(crate) device_name: String,
    /// Whether it is the built-in miniature itself.
    pub(crate) builtin: bool,
}

impl Model {
    /// Opens what `--model` names, or the miniature; says what is worth saying about it.
    pub(crate) fn open(args: &ModelArgs, path: Option<&Path>, quiet: bool) -> Result<Self, Failure> {
        // This thread is one of the pool's: otherwise it would sleep and be woken at every parallel loop. Fails only if the
        // pool is already there, and then keeps its size.
        let pool = rayon::ThreadPoolBuilder::new().use_current_thread().num_threads(args.reading.threads.unwrap_or(0).into());
        let _ = pool.build_global();
        let (device, device_name) = device::open(&args.reading.device)?;
        let options = OpenOptions {
            config: args.reading.config.clone(),
            prediction_type: args.reading.prediction_type.as_deref().map(prediction).transpose()?,
            variant: args.reading.variant_files.clone(),
        };
        let (checkpoint, builtin) = match path.or(args.model.as_deref()) {
            Some(path) if path.as_os_str() != miniature::NAME && !path.exists() => {
                return Err(Failure::new(format!("--model {}: there is no such file or folder", path.display())));
            }
            Some(path) if path.as_os_str() != miniature::NAME || path.exists() => (Checkpoint::open(path, &options)?, false),
            _ => (Checkpoint::read(&miniature::model(), &options)?, true),
        };
        if !quiet {
            if device_name != "cpu" {
                output::note(&format!("note: computing on {device_name}"));
            }
            for note in &checkpoint.notes {
                output::note(&format!("note: {note}"));
            }
        }
        let hash = checkpoint.hash();
        Ok(Self { checkpoint, hash, device, device_name, builtin })
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
        _ => Err(Failure::new(format!("--prediction-type {text}: expected epsilon or v_prediction"))),
    }
}
