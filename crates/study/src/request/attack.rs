//! An attack.

use std::path::PathBuf;

use scumble_attack::Attack;
use scumble_erase::{ConceptKind, Variant};
use serde_json::{Map, Value};

use super::parts::{DetectorsRequest, DrawingRequest, ModelRequest, OutputRequest};

/// What is to be brought back, from what, and how.
#[derive(Clone, Debug)]
pub struct AttackRequest {
    /// The model.
    pub model: ModelRequest,
    /// Edits of it, each a path with an optional `:STRENGTH`.
    pub edits: Vec<String>,
    /// LoRAs over it, likewise.
    pub loras: Vec<String>,
    /// Guards, each `ID` or `ID=TEXT`.
    pub guards: Vec<String>,
    /// Which attack.
    pub attack: &'static Attack,
    /// The attack's form.
    pub variant: Variant,
    /// Options of the attack that are not its defaults.
    pub options: Map<String, Value>,
    /// The most steps of the search; the attack's own number if `None`.
    pub budget: Option<usize>,
    /// What to bring back; what the edit says it erased if `None`.
    pub concept: Option<String>,
    /// What kind of thing it is, which words it; what the edit says if `None`.
    pub kind: Option<ConceptKind>,
    /// The concept's word in the prompts.
    pub word: Option<String>,
    /// A file of prompts to bring it back in.
    pub prompts: Option<PathBuf>,
    /// How many pictures; the attack's own number if `None`.
    pub n: Option<usize>,
    /// A CLIP's folder, for attacks that need one.
    pub clip: Option<PathBuf>,
    /// What an earlier attack found, to be tried without a search.
    pub transfer: Option<PathBuf>,
    /// How pictures are drawn.
    pub drawing: DrawingRequest,
    /// Seed of everything that the attack draws.
    pub seed: u64,
    /// Where the result lies.
    pub output: OutputRequest,
    /// Whether the miniature's judges look at pictures of another model.
    pub judge: bool,
    /// Who judges in the place of the miniature's judges; all have to agree.
    pub detectors: DetectorsRequest,
    /// Whether it is estimated, before it begins, what it will take.
    pub foretold: bool,
    /// The most bytes that it may hold; three quarters of what is free if `None`, which is then only
    /// warned about.
    pub memory: Option<u64>,
}

impl AttackRequest {
    /// An attack by its defaults, on the model itself.
    pub fn new(model: ModelRequest, attack: &'static Attack) -> Self {
        Self {
            model,
            edits: Vec::new(),
            loras: Vec::new(),
            guards: Vec::new(),
            attack,
            variant: Variant::default(),
            options: Map::new(),
            budget: None,
            concept: None,
            kind: None,
            word: None,
            prompts: None,
            n: None,
            clip: None,
            transfer: None,
            drawing: DrawingRequest::default(),
            seed: 0,
            output: OutputRequest::default(),
            judge: false,
            detectors: DetectorsRequest::default(),
            foretold: false,
            memory: None,
        }
    }
}
