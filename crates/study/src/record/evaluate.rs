//! What `run.json` holds of an evaluation.

use serde::{Deserialize, Serialize};

/// Everything that decides the rows of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluatePlan {
    /// `evaluate`.
    pub command: String,
    /// What is judged.
    pub subjects: Vec<SubjectPlan>,
    /// What is asked about.
    pub concepts: Vec<String>,
    /// The folder of every attack.
    pub attacks: Vec<String>,
    /// What decides the attacks besides their targets.
    pub attack_settings: AttackSettings,
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance.
    pub guidance: f64,
    /// The sampler, if it is not the checkpoint's.
    pub sampler: Option<String>,
    /// Hash of everything that looks.
    pub instruments: String,
    /// The map of what depends on what.
    pub impact: Option<ImpactPlan>,
}

/// Something that draws pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectPlan {
    /// Its id.
    pub subject: String,
    /// How it came about.
    pub kind: String,
    /// Content hash of what decides its pictures.
    pub hash: String,
    /// How many pictures.
    pub pictures: usize,
    /// Hash of what is asked.
    pub asked: String,
}

/// What decides attacks besides their targets. What is not said stays out, so that plans of earlier
/// versions keep their hash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttackSettings {
    /// Seed of everything that attacks draw.
    pub seed: u64,
    /// Pictures; each attack's own number if null.
    pub n: Option<usize>,
    /// The most steps; each attack's own number if null.
    pub budget: Option<usize>,
    /// Denoising steps, as the user says.
    pub steps: Option<usize>,
    /// Strength of guidance, as the user says.
    pub guidance: Option<f64>,
    /// Sampler, as the user says.
    pub sampler: Option<String>,
    /// Hash of the CLIP that attacks are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<String>,
}

/// Every concept of a list erased in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImpactPlan {
    /// Id of the method.
    pub method: String,
    /// What is erased.
    pub erased: Vec<String>,
    /// Content hash of the model.
    pub base: String,
}

/// What is kept of an evaluation beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluateOutcome {
    /// When it was begun.
    pub created: String,
    /// Where it ran.
    pub device: String,
    /// On how many threads.
    pub threads: usize,
    /// How long, interrupted parts included.
    pub seconds: f64,
    /// Numbers that are missing or not to be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<usize>,
}
