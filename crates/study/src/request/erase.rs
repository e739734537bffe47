//! An erasure.

use std::path::PathBuf;

use scumble_erase::{ConceptKind, Variant, methods::Method};
use serde_json::{Map, Value};

use super::parts::{DetectorsRequest, DrawingRequest, ModelRequest, OutputRequest};

/// What is to be erased, from what, and how.
#[derive(Clone, Debug)]
pub struct EraseRequest {
    /// From which model.
    pub model: ModelRequest,
    /// What to erase; `prompts` say it if there is none.
    pub concepts: Vec<String>,
    /// How.
    pub method: &'static Method,
    /// The method's form.
    pub variant: Variant,
    /// Options of the method that are not its defaults.
    pub options: Map<String, Value>,
    /// How prompts are made of the concepts.
    pub wording: WordingRequest,
    /// A prompt file in LECO's form.
    pub prompts: Option<PathBuf>,
    /// What becomes of words that the model's world does not know.
    pub unknown: Unknown,
    /// Concepts to keep.
    pub preserve: Vec<String>,
    /// A file of prompts that the model should go on drawing.
    pub captions: Option<PathBuf>,
    /// A folder of pictures of the concept.
    pub pictures: Option<PathBuf>,
    /// A folder of masks that say where those pictures show it.
    pub masks: Option<PathBuf>,
    /// Seed of everything that is drawn for training.
    pub seed: u64,
    /// Where the edit lies.
    pub output: OutputRequest,
    /// Whether the unconditional drift is measured where it is not anyway.
    pub drift: bool,
    /// Whether pictures from before and after are drawn where they are not anyway.
    pub grid: bool,
    /// Whether judges look.
    pub judging: JudgingRequest,
    /// Who looks at pictures from before and after; all have to agree.
    pub detectors: DetectorsRequest,
    /// How many pictures they look at on each side.
    pub pictures_judged: Option<usize>,
    /// How those are drawn.
    pub drawing: DrawingRequest,
    /// Whether it is estimated, before it begins, what it will take.
    pub foretold: bool,
    /// The most bytes that it may hold; three quarters of what is free if `None`, which is then only
    /// warned about.
    pub memory: Option<u64>,
}

impl EraseRequest {
    /// One concept by a method's defaults, judged where judges are at home.
    pub fn new(model: ModelRequest, method: &'static Method, concept: &str) -> Self {
        Self {
            model,
            concepts: vec![concept.to_owned()],
            method,
            variant: Variant::default(),
            options: Map::new(),
            wording: WordingRequest::default(),
            prompts: None,
            unknown: Unknown::default(),
            preserve: Vec::new(),
            captions: None,
            pictures: None,
            masks: None,
            seed: 0,
            output: OutputRequest::default(),
            drift: false,
            grid: false,
            judging: JudgingRequest::default(),
            detectors: DetectorsRequest::default(),
            pictures_judged: None,
            drawing: DrawingRequest::default(),
            foretold: false,
            memory: None,
        }
    }
}

/// How prompts are made of concepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordingRequest {
    /// A prompt with the places `{concept}` and `{object}`.
    pub template: Option<String>,
    /// What `{object}` stands for.
    pub objects: Vec<String>,
    /// What to draw instead: one for all concepts or one for each; the model's own choice if `None`.
    pub anchors: Option<Vec<String>>,
    /// The prompt that a concept is erased from.
    pub from: Option<String>,
    /// What kind of thing the concepts are, which words them on a model whose captions nobody knows.
    pub kind: Option<ConceptKind>,
}

/// What happens to a word that the model's world does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// It is an error, which names words like it.
    #[default]
    Refuse,
    /// It is taken as it stands.
    Allow,
}

/// Whether the miniature's judges look at pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JudgingRequest {
    /// Of the models they are at home with.
    #[default]
    AtHome,
    /// Of whatever model.
    Always,
    /// Never.
    Never,
}
