//! What `run.json` holds of an erasure.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use scumble_erase::{Concept, Variant};
use scumble_eval::{Rate, Rates};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Everything that decides an edit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErasePlan {
    /// `erase`.
    pub command: String,
    /// Content hash of the model.
    pub model: String,
    /// Id of the method.
    pub method: String,
    /// The method's form.
    pub variant: Variant,
    /// What is erased.
    pub concepts: Vec<Concept>,
    /// What is kept.
    pub preserve: Vec<Concept>,
    /// Where the captions of what is kept come from, how many there are, and their hash.
    pub captions: Value,
    /// The user's pictures.
    pub pictures: Option<UserFiles>,
    /// Options that are not the method's defaults.
    pub options: Map<String, Value>,
    /// Seed of everything that is drawn for training.
    pub seed: u64,
    /// The user's masks. Only if there are some: plans of earlier versions keep their hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<UserFiles>,
}

/// Files of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFiles {
    /// How many.
    pub n: usize,
    /// Hash of what they hold.
    pub hash: String,
}

/// What came of an erasure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EraseOutcome {
    /// Name of the checkpoint.
    pub model: String,
    /// All that was noted.
    pub notes: Vec<String>,
    /// Where it ran.
    pub device: String,
    /// The profile of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// On how many threads.
    pub threads: usize,
    /// What the method took; there as soon as the edit is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// What was foretold, before it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Every option of the method, defaults included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Value>,
    /// The object that `--json` prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<EraseResult>,
    /// What the text output says beside the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// What making an edit took, interrupted parts included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds of the method alone.
    pub seconds: f64,
    /// Sample-evaluations of the U-Net, a training sample counting 3; what was found in the cache
    /// counts nothing.
    pub evaluations: u64,
    /// The most bytes that the process held meanwhile, where the system says.
    #[serde(default)]
    pub memory: Option<u64>,
}

/// What an erasure is foretold to take, on this machine and device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Seconds of the method alone.
    pub seconds: f64,
    /// The most bytes that the process will hold.
    pub memory: u64,
    /// As in [`Cost`].
    pub evaluations: u64,
    /// Bytes that it will write: the edit, and what the cache keeps for other runs.
    pub disk: u64,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = match self.seconds {
            s if s < 10.0 => format!("{s:.1} s"),
            s if s < 90.0 => format!("{s:.0} s"),
            s if s < 5400.0 => format!("{:.0} min", s / 60.0),
            s => format!("{:.1} h", s / 3600.0),
        };
        write!(
            f,
            "about {time}, {} of memory, {} on disk; {} evaluations of the U-Net",
            bytes_in_words(self.memory),
            bytes_in_words(self.disk),
            self.evaluations
        )
    }
}

/// A number of bytes for people.
pub fn bytes_in_words(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 30) {
        gib if gib < 1.0 => format!("{:.0} MiB", 1024.0 * gib),
        gib => format!("{gib:.1} GiB"),
    }
}

/// What an erasure comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EraseResult {
    /// Id of the method.
    pub method: String,
    /// What was erased; `; ` between several.
    pub concept: String,
    /// The edit's file.
    pub edit: PathBuf,
    /// What the method took.
    pub seconds: f64,
    /// Rates of the unedited model; null where nobody judged.
    pub before: Option<Sides>,
    /// Rates of the edited model.
    pub after: Option<Sides>,
    /// How many pictures were judged.
    pub n: Option<PictureCounts>,
    /// How far the edit moved predictions without a prompt.
    pub uncond_drift: Option<f64>,
    /// As in [`Cost`].
    pub evaluations: u64,
    /// As in [`Cost`].
    pub memory: Option<u64>,
    /// What was foretold; null where nobody asked, or nothing could be.
    pub estimate: Option<Estimate>,
    /// The same of each, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concepts: Option<Vec<OneConcept>>,
}

/// Rates as fractions; null of no pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sides {
    /// Of the concept's own pictures, those that show it.
    pub target: Option<f64>,
    /// Of the others, those that show what they should.
    pub others: Option<f64>,
}

/// Pictures judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureCounts {
    /// Of the concept.
    pub target: usize,
    /// Of the others.
    pub others: usize,
}

/// Rates of one concept of several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneConcept {
    /// Its name.
    pub concept: String,
    /// Of the unedited model; null if no judge knows it.
    pub before: Option<Sides>,
    /// Of the edited model.
    pub after: Option<Sides>,
    /// Pictures judged.
    pub n: Option<PictureCounts>,
}

/// What the text output says beside the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// The guard that the edit is, in words.
    pub guard: Option<String>,
    /// Tensors changed.
    pub tensors: usize,
    /// Numbers changed.
    pub numbers: usize,
    /// A prompt that asks for the first concept.
    pub prompt: Option<String>,
    /// Whether objects are still right in prompts that name an erased style.
    pub target_objects: Option<BeforeAfter<Option<Rate>>>,
    /// The picture of both sides.
    pub grid: Option<PathBuf>,
    /// Every option of the method, defaults included.
    pub options: Value,
    /// Whether judges were asked.
    pub judged: bool,
    /// The user's detectors that were asked, and of how many pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detectors: Option<Value>,
    /// Hits and n of every rate of every concept.
    pub rates: Option<ConceptRates>,
    /// What was seen picture by picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<BeforeAfter<Vec<Option<PictureByPicture>>>>,
}

/// Rates of every concept; null for one that no judge knows.
pub type ConceptRates = BeforeAfter<Vec<Option<Rates>>>;

/// Something of the unedited model and of the edited one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BeforeAfter<T> {
    /// Of the unedited model.
    pub before: T,
    /// Of the edited one.
    pub after: T,
}

/// The answers about a concept's pictures, `1` for one that shows what it was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureByPicture {
    /// The target's, by prompt.
    pub target: BTreeMap<String, String>,
    /// The others', by object.
    pub others: BTreeMap<String, String>,
}
