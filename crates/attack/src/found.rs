//! What an attack found: enough to draw its pictures again, on this edit or on another.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Picture, Pipeline};
use scumble_erase::{Edit, Error, Result};
use scumble_nn::files::{
    Embedding, EmbeddingLayout, HostTensor, TensorFile, Tensors, read_embedding, write,
    write_embedding,
};
use serde::{Deserialize, Serialize};

use crate::{
    job::{Case, Job},
    latent_classifier::{self, LatentClassifier, Teaching},
    probe::Trial,
};

/// What brings the concept back.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of them in a run")]
pub enum Found {
    /// A prompt and a seed for each case.
    Cases(Vec<Case>),
    /// Vectors that stand before each case's prompt as if they were words, `[cases, tokens,
    /// width]`.
    Prefixes(Tensor<3>),
    /// Vectors for a new word in the place of the concept's (textual inversion).
    Word(Embedding),
    /// A change of the weights.
    Weights(Box<Edit>),
    /// Another way of drawing each case.
    Revival(Revival),
}

/// Another way of drawing each case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revival {
    /// What is different for each case.
    pub trials: Vec<Trial>,
    /// How the classifier was taught that some of them are led by: enough to teach it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier: Option<Teaching>,
}

impl Revival {
    /// The classifier, if a trial needs it: from the cache, or taught.
    ///
    /// # Errors
    /// If a trial needs it and nothing says how it was taught, there is nothing to teach it from, or the caller interrupts.
    pub fn classifier(&self, job: &mut Job<'_>) -> Result<Option<LatentClassifier>> {
        if !self.trials.iter().any(Trial::wants_classifier) {
            return Ok(None);
        }
        let teaching = self.classifier.ok_or_else(|| {
            Error::input("a trial is led by a classifier, and nothing says how it was taught")
        })?;
        Ok(Some(latent_classifier::taught(job, &teaching)?))
    }
}

/// How a finding's files are called in a run's folder.
const CASES: &str = "found.jsonl";
const PREFIXES: &str = "prefixes.safetensors";
const WEIGHTS: &str = "relearned.safetensors";
const REVIVAL: &str = "revival.json";
/// The largest file of prompts that is read, in bytes.
const MOST: u64 = 256 << 20;

/// A line of a file of cases: a row of a prompt file, as `scumble generate --prompts` reads them.
#[derive(Serialize, Deserialize)]
struct Row {
    case_number: usize,
    prompt: String,
    evaluation_seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evaluation_guidance: Option<f64>,
}

impl Found {
    /// The pictures of these latents as a judge is to see them: of an inpainting trial the part
    /// alone that was drawn anew.
    pub(crate) fn looked_at(&self, latents: &Tensor<4>, pictures: &[Picture]) -> Vec<Picture> {
        let Self::Revival(revival) = self else {
            return pictures.to_vec();
        };
        let [_, _, h, w] = latents.dims();
        pictures
            .iter()
            .zip(&revival.trials)
            .map(|(picture, trial)| trial.looked_at(picture, [h, w]))
            .collect()
    }

    /// Writes it into a folder; the file's name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<String> {
        let name = match self {
            Self::Cases(cases) => {
                let row = |(i, case): (usize, &Case)| {
                    let (prompt, evaluation_seed, evaluation_guidance) =
                        (case.prompt.clone(), case.seed, case.guidance);
                    let row = Row {
                        case_number: i,
                        prompt,
                        evaluation_seed,
                        evaluation_guidance,
                    };
                    serde_json::to_string(&row).unwrap_or_default() + "\n"
                };
                let text: String = cases.iter().enumerate().map(row).collect();
                scumble_nn::files::safetensors::write_atomically(&folder.join(CASES), |file| {
                    file.write_all(text.as_bytes())
                })?;
                CASES.to_owned()
            }
            Self::Prefixes(vectors) => {
                let values: Vec<f32> = vectors.clone().into_data().iter::<f32>().collect();
                let tensors = Tensors::from([(
                    "prefixes".to_owned(),
                    HostTensor::from_f32(vectors.dims(), &values),
                )]);
                write(folder.join(PREFIXES), tensors, &BTreeMap::new())?;
                PREFIXES.to_owned()
            }
            Self::Word(embedding) => {
                let name = format!("{}.safetensors", embedding.token.trim_matches(['<', '>']));
                write_embedding(&folder.join(&name), embedding, EmbeddingLayout::Diffusers)?;
                name
            }
            Self::Revival(revival) => {
                let text = serde_json::to_string(revival).unwrap_or_default();
                scumble_nn::files::safetensors::write_atomically(&folder.join(REVIVAL), |file| {
                    file.write_all(text.as_bytes())
                })?;
                REVIVAL.to_owned()
            }
            Self::Weights(edit) => {
                edit.save(&folder.join(WEIGHTS))?;
                WEIGHTS.to_owned()
            }
        };
        Ok(name)
    }

    /// Reads what a file of an earlier attack holds, for this model.
    ///
    /// # Errors
    /// If it is not one.
    pub fn open(path: &Path, model: &Pipeline) -> Result<Self> {
        let (width, device) = (model.token_width(), model.device());
        let bad = |problem: String| Error::from(scumble_nn::Error::file(path, problem));
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        match name.as_str() {
            CASES => {
                // The file may be anybody's: no more is read than a million prompts need.
                let file = fs_err::File::open(path).map_err(scumble_nn::Error::from)?;
                let lines = BufReader::new(file.take(MOST)).lines();
                let row = |line: std::io::Result<String>| {
                    let row: Row = serde_json::from_str(&line.map_err(scumble_nn::Error::from)?)
                        .map_err(|e| bad(format!("holds a line that is no found prompt: {e}")))?;
                    Ok(Case {
                        prompt: row.prompt,
                        seed: row.evaluation_seed,
                        guidance: row.evaluation_guidance,
                    })
                };
                Ok(Self::Cases(lines.map(row).collect::<Result<_>>()?))
            }
            PREFIXES => {
                let mut file = TensorFile::open(path)?;
                let tensor = file
                    .tensors
                    .remove("prefixes")
                    .ok_or_else(|| bad("holds no `prefixes`".into()))?;
                match (tensor.shape(), tensor.to_f32()) {
                    (&[n, tokens, w], Some(values)) if w == width => Ok(Self::Prefixes(
                        Tensor::from_data(TensorData::new(values, [n, tokens, w]), device),
                    )),
                    (shape, _) => Err(bad(format!(
                        "`prefixes`: expected floats [cases, tokens, {width}], found {shape:?}"
                    ))),
                }
            }
            REVIVAL => {
                let mut text = String::new();
                let file = fs_err::File::open(path).map_err(scumble_nn::Error::from)?;
                file.take(MOST)
                    .read_to_string(&mut text)
                    .map_err(scumble_nn::Error::from)?;
                let revival: Revival = serde_json::from_str(&text)
                    .map_err(|e| bad(format!("holds no trials: {e}")))?;
                revival.trials.iter().try_for_each(Trial::check)?;
                Ok(Self::Revival(revival))
            }
            WEIGHTS => Ok(Self::Weights(Box::new(Edit::open(path)?))),
            _ => Ok(Self::Word(read_embedding(
                &TensorFile::open(path)?,
                &model.encoder_widths(),
            )?)),
        }
    }
}
