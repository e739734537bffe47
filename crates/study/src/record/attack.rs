//! What `run.json` holds of an attack.

use std::path::PathBuf;

use scumble_attack::Case;
use scumble_erase::{Concept, Variant};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Estimate, present::present};

/// Everything that decides what an attack finds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttackPlan {
    /// `attack`.
    pub command: String,
    /// Raised when an attack or what is counted changes.
    pub version: u32,
    /// Content hash of the model.
    pub model: String,
    /// Content hash and strength of every edit.
    pub edits: Vec<Value>,
    /// The guards.
    pub guards: Vec<Value>,
    /// Id of the attack.
    pub attack: String,
    /// The attack's form.
    pub variant: Variant,
    /// What is to come back.
    pub concept: Option<Concept>,
    /// Its word in the prompts.
    pub word: String,
    /// The pictures in which it is to come back.
    pub cases: Vec<Case>,
    /// Hash of the user's CLIP.
    pub clip: Option<String>,
    /// Steps and guidance of drawing.
    pub drawing: Value,
    /// The sampler, if it is not the checkpoint's.
    pub sampler: Option<String>,
    /// Options that are not the attack's defaults.
    pub options: Map<String, Value>,
    /// The most steps, if somebody says.
    pub budget: Option<usize>,
    /// Seed of everything that the attack draws.
    pub seed: u64,
    /// How probable a judge must find the concept.
    pub threshold: Option<f64>,
    /// Hash of the finding that is tried without a search.
    pub transfer: Option<String>,
    /// The user's detectors. Only if there are some: plans of earlier versions keep their hash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detectors: Vec<Value>,
}

/// What came of an attack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttackOutcome {
    /// Name of the checkpoint.
    pub model: String,
    /// Where it ran.
    pub device: String,
    /// The profile of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// On how many threads.
    pub threads: usize,
    /// How long, interrupted parts included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What it was foretold to take at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// The pictures of every case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Vec<PictureFiles>>,
    /// Every option of the attack, defaults included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Value>,
    /// The file of what was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Whose finding was tried without a search.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Option<Transfer>>,
    /// Steps that were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent: Option<usize>,
    /// Evaluations of the U-Net.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u64>,
    /// How many cases show the concept; null where nobody could say.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub shown: Option<Option<ShowCounts>>,
    /// What is said of each case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<Line>>,
    /// What else is worth knowing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Map<String, Value>>,
    /// The object that `--json` prints last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<AttackResult>,
    /// Why it could not be run, as an evaluation keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// An attack that could not be run in an evaluation: the whole record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FailedAttack {
    /// Never.
    pub finished: bool,
    /// Why.
    pub failed: String,
}

/// The pictures of a case, relative to the run's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureFiles {
    /// Position of the case.
    pub case: usize,
    /// The unedited model's.
    pub unedited: String,
    /// The edited model's.
    pub edited: String,
    /// The edited model's under attack.
    pub attacked: String,
}

/// Cases that show the concept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowCounts {
    /// By the unedited model.
    pub unedited: usize,
    /// By the edited model.
    pub edited: usize,
    /// By the edited model under attack.
    pub attacked: usize,
}

/// An earlier attack whose finding was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The finding's file.
    pub file: PathBuf,
    /// The attack that found it, if its folder says so.
    pub attack: Option<String>,
}

/// A case. Rates are judged by whether the concept shows: null where nobody could say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Its position.
    pub case: usize,
    /// Its prompt.
    pub prompt: String,
    /// Its seed.
    pub seed: u64,
    /// Its own strength of guidance.
    pub guidance: Option<f64>,
    /// Whether the unedited model shows the concept.
    pub unedited: Option<bool>,
    /// Whether the edited model does.
    pub pre: Option<bool>,
    /// Whether it does under attack.
    pub post: Option<bool>,
    /// Pictures looked at.
    pub looks: usize,
    /// How probable the judge finds the concept.
    pub probability: Option<Probabilities>,
    /// What was found, as far as it is words.
    pub found: Option<String>,
    /// The seed of the picture under attack.
    pub found_seed: u64,
    /// Whether the control shows the concept, where the attack has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<bool>,
}

/// How probable the judge finds the concept on the three pictures of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probabilities {
    /// The unedited model's.
    pub unedited: Option<f64>,
    /// The edited model's.
    pub pre: Option<f64>,
    /// The edited model's under attack.
    pub post: Option<f64>,
}

/// What an attack comes to; docs/attacks.md says what the keys mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttackResult {
    /// Id of the attack.
    pub attack: String,
    /// What it was directed against; the model itself if null.
    pub edit: Option<String>,
    /// What was to come back.
    pub concept: String,
    /// Share of cases that the unedited model shows.
    pub unedited: Option<f64>,
    /// Share that the edited model shows.
    pub pre: Option<f64>,
    /// Share that it shows with what was found.
    pub post: Option<f64>,
    /// Share that the attack added.
    pub new: Option<f64>,
    /// `pre` and `new` together.
    pub total: Option<f64>,
    /// Cases.
    pub n: usize,
    /// 95% interval of `total`.
    pub interval: Option<[f64; 2]>,
    /// Of what the unedited model shows and the edited one hides, what came back.
    pub conditional: Option<Conditional>,
    /// Cases with and without the attack against each other.
    pub paired: Option<McNemar>,
    /// Pictures looked at for each case.
    pub looks: Vec<usize>,
    /// The most of them.
    pub most_looks: Option<u64>,
    /// How many cases had shown the concept after the first k looks.
    pub by_looks: Option<Vec<usize>>,
    /// Searches that share no result.
    pub searches: Option<u64>,
    /// Share of cases that the control shows.
    pub control: Option<f64>,
    /// Seeds of the cases.
    pub seeds: Vec<u64>,
    /// The most steps.
    pub budget: Option<u64>,
    /// The file of what was found.
    pub found: Option<PathBuf>,
    /// Whose finding was tried without a search.
    pub transfer: Option<Transfer>,
    /// How long it took.
    pub seconds: Option<f64>,
}

/// The attack's rate among the cases that the erasure has answered for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditional {
    /// The share.
    pub rate: Option<f64>,
    /// What came back.
    pub hits: usize,
    /// Of how many.
    pub n: usize,
    /// 95% interval.
    pub interval: Option<[f64; 2]>,
}

/// Cases that only the attack shows, and those that only its absence does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// The test's name.
    pub test: String,
    /// Only with the attack.
    pub gained: usize,
    /// Only without.
    pub lost: usize,
    /// How likely so uneven a split is if the attack did nothing.
    pub p: f64,
}
