//! The order of the parts, and which of them are done.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use scumble_erase::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    examples::Examples,
    fit::Outcome,
    layout::Layout,
    parts::{clip, denoiser, judge, tokenizer, vae},
    recipe::Recipe,
    watcher::Watcher,
};

/// A part of a model that is trained by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Byte-pair encoding.
    Tokenizer,
    /// Both towers; the text tower is the model's encoder.
    Clip,
    /// The autoencoder.
    Vae,
    /// The denoiser.
    Denoiser,
    /// Who judges its pictures.
    Judge,
}

impl Part {
    /// In the order in which they are trained: each needs those before it.
    pub const ALL: [Self; 5] = [
        Self::Tokenizer,
        Self::Clip,
        Self::Vae,
        Self::Denoiser,
        Self::Judge,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Clip => "clip",
            Self::Vae => "vae",
            Self::Denoiser => "denoiser",
            Self::Judge => "judge",
        }
    }

    /// Its share of the time, where only the whole time is said.
    fn share(self) -> f64 {
        match self {
            Self::Tokenizer => 0.0,
            Self::Clip => 0.12,
            Self::Vae => 0.25,
            Self::Denoiser => 0.5,
            Self::Judge => 0.13,
        }
    }

    /// The files that a part needs of those before it.
    fn needs(self) -> &'static [(&'static str, Self)] {
        match self {
            Self::Tokenizer | Self::Vae | Self::Judge => &[],
            Self::Clip => &[("tokenizer/vocab.json", Self::Tokenizer)],
            Self::Denoiser => &[
                ("tokenizer/vocab.json", Self::Tokenizer),
                ("text_encoder/model.safetensors", Self::Clip),
                ("vae/config.json", Self::Vae),
            ],
        }
    }
}

/// A training.
pub struct Job<'a> {
    /// What is trained.
    pub recipe: &'a Recipe,
    /// What it learns from.
    pub data: &'a dyn Examples,
    /// The model's folder.
    pub folder: &'a Path,
    /// The parts to train, in their order.
    pub parts: &'a [Part],
    /// Seconds after which it ends, shared among the parts.
    pub seconds: Option<f64>,
    /// Of all random numbers.
    pub seed: u64,
    /// Where it computes.
    pub device: &'a Device,
    /// Seconds of the part that is at work.
    pub(crate) most: Option<f64>,
}

/// What came of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Which it is.
    pub part: Part,
    /// Steps that were done.
    pub steps: usize,
    /// Seconds that they took, in all runs together.
    pub seconds: f64,
    /// Mean loss of the last steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

impl<'a> Job<'a> {
    /// A training of these parts.
    pub fn new(
        recipe: &'a Recipe,
        data: &'a dyn Examples,
        folder: &'a Path,
        parts: &'a [Part],
        device: &'a Device,
    ) -> Self {
        Self {
            recipe,
            data,
            folder,
            parts,
            seconds: None,
            seed: 0,
            device,
            most: None,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.folder)
    }

    /// Where states lie that a stopped training continues from.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("train/state")
    }
}

/// Trains the parts that are not done, and says what came of all that were asked for.
///
/// # Errors
/// If a part needs one that is not there, its loss is not finite, its data cannot be read, or
/// somebody asks to stop; the same call continues then.
pub fn train(job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<Vec<Trained>> {
    fs_err::create_dir_all(job.state()).map_err(scumble_nn::Error::from)?;
    let shares: f64 = job.parts.iter().map(|part| part.share()).sum();
    let mut all = Vec::new();
    for &part in job.parts {
        let done = job.state().join(format!("{}.json", part.name()));
        if let Ok(text) = fs_err::read_to_string(&done)
            && let Ok(trained) = serde_json::from_str(&text)
        {
            all.push(trained);
            continue;
        }
        for (file, of) in part.needs() {
            if !job.folder.join(file).exists() {
                return Err(Error::input(format!(
                    "--part {}: {} is not there",
                    part.name(),
                    job.folder.join(file).display()
                ))
                .with_hint(format!(
                    "train it first, with --part {}, or all parts",
                    of.name()
                )));
            }
        }
        let most = job.seconds.filter(|_| shares > 0.0);
        let job = Job {
            most: most.map(|seconds| seconds * part.share() / shares),
            ..*job
        };
        let outcome = match part {
            Part::Tokenizer => tokenizer::train(&job).map(|()| Outcome {
                steps: 0,
                seconds: 0.0,
                loss: f64::NAN,
            }),
            Part::Clip => clip::train(&job, watcher),
            Part::Vae => vae::train(&job, watcher),
            Part::Denoiser => denoiser::train(&job, watcher),
            Part::Judge => judge::train(&job, watcher),
        }?;
        let trained = Trained {
            part,
            steps: outcome.steps,
            seconds: outcome.seconds,
            loss: Some(outcome.loss).filter(|loss| loss.is_finite()),
        };
        job.layout().json(
            &format!("train/state/{}.json", part.name()),
            &json!(trained),
        )?;
        all.push(trained);
    }
    Ok(all)
}
