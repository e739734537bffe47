//! An evaluation.

use std::path::PathBuf;

use scumble_attack::Attack;
use scumble_erase::{ConceptKind, Variant, methods::Method};
use scumble_eval::protocol::Set;

use super::parts::{DetectorsRequest, DrawingRequest, ModelRequest, OutputRequest, ReadingRequest};
use crate::{evaluate::Shard, failure::Result};

/// What is to be judged, asked about and attacked.
#[derive(Clone, Debug)]
pub struct EvaluateRequest {
    /// The models; the built-in miniature if there is none.
    pub models: Vec<PathBuf>,
    /// How they are read.
    pub reading: ReadingRequest,
    /// Edits of them, each a path with an optional `:STRENGTH`.
    pub edits: Vec<String>,
    /// Guards, each `ID` or `ID=TEXT`.
    pub guards: Vec<String>,
    /// A checkpoint that never saw the concept.
    pub oracle: Option<PathBuf>,
    /// What to ask about; what the edits say they erased if there is none.
    pub concepts: Vec<String>,
    /// What kind of things they are, which words them; what the edits say if `None`.
    pub kind: Option<ConceptKind>,
    /// Attacks to try on every edit, guard and oracle.
    pub attacks: Vec<AttackChoice>,
    /// Pictures of an attack; its own number if `None`.
    pub attack_n: Option<usize>,
    /// The most steps of an attack; its own number if `None`.
    pub budget: Option<usize>,
    /// The CLIP that attacks are given.
    pub attack_clip: Option<PathBuf>,
    /// Methods by which each concept is erased first.
    pub methods: Vec<&'static Method>,
    /// The method of the map of what depends on what, if there is to be one.
    pub impact: Option<&'static Method>,
    /// Files of further prompts.
    pub prompts: Vec<PathBuf>,
    /// The sets of pictures.
    pub sets: Vec<Set>,
    /// Pictures of a concept that no judge knows, and of each prompt file.
    pub n: Option<usize>,
    /// Who looks at the pictures, each in a column of its own.
    pub detectors: DetectorsRequest,
    /// A CLIP's folder for CLIP scores.
    pub clip: Option<PathBuf>,
    /// Weights of FID's Inception.
    pub inception: Option<PathBuf>,
    /// Weights of LPIPS, in one file or two.
    pub lpips: Vec<PathBuf>,
    /// What FID compares with; the unedited model if `None`.
    pub reference: Option<PathBuf>,
    /// Whether each subject's statistics are written.
    pub save_stats: bool,
    /// How pictures are drawn.
    pub drawing: DrawingRequest,
    /// Seed of attacks, and of pictures whose prompts have none.
    pub seed: u64,
    /// Whether the miniature's judges look at pictures of another model.
    pub judge: bool,
    /// Only a part of the work.
    pub shard: Option<Shard>,
    /// Only the edits that `methods` stand for.
    pub edits_only: bool,
    /// Where the evaluation lies.
    pub output: OutputRequest,
}

impl Default for EvaluateRequest {
    /// The built-in model by itself, in all sets of pictures.
    fn default() -> Self {
        Self {
            models: Vec::new(),
            reading: ReadingRequest::default(),
            edits: Vec::new(),
            guards: Vec::new(),
            oracle: None,
            kind: None,
            concepts: Vec::new(),
            attacks: Vec::new(),
            attack_n: None,
            budget: None,
            attack_clip: None,
            methods: Vec::new(),
            impact: None,
            prompts: Vec::new(),
            sets: Set::ALL.to_vec(),
            n: None,
            detectors: DetectorsRequest::default(),
            clip: None,
            inception: None,
            lpips: Vec::new(),
            reference: None,
            save_stats: false,
            drawing: DrawingRequest::default(),
            seed: 0,
            judge: false,
            shard: None,
            edits_only: false,
            output: OutputRequest::default(),
        }
    }
}

impl EvaluateRequest {
    /// One of its models; the miniature without a path.
    pub fn model(&self, path: Option<&PathBuf>) -> ModelRequest {
        ModelRequest {
            model: path.cloned(),
            reading: self.reading.clone(),
        }
    }
}

/// An attack in one of its forms.
#[derive(Clone, Copy, Debug)]
pub struct AttackChoice {
    /// Which.
    pub attack: &'static Attack,
    /// Its form.
    pub variant: Variant,
}

impl AttackChoice {
    /// The attack of a text `ID` or `ID:VARIANT`.
    ///
    /// # Errors
    /// If there is no such attack or variant.
    pub fn parse(text: &str) -> Result<Self> {
        let (id, variant) = match text.split_once(':') {
            Some((id, variant)) => (id, variant.trim().parse()?),
            None => (text, Variant::default()),
        };
        Ok(Self {
            attack: scumble_attack::attacks::named(id)?,
            variant,
        })
    }

    /// What it is called in results: its id, with the form where that is not the usual one.
    pub fn name(&self) -> String {
        match self.variant {
            Variant::Fixed => self.attack.id.to_owned(),
            Variant::Paper => format!("{}:paper", self.attack.id),
            Variant::Reference => format!("{}:reference", self.attack.id),
        }
    }
}
