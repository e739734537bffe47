//! What an attack says of itself, what it is given to begin with, and what it gives back.

use burn::tensor::Tensor;
use scumble_erase::{Result, Variant};
use serde_json::Value;

use crate::{found::Found, job::Job};

/// What an attacker may change. Rates under different threats are not comparable: whoever can train
/// the weights needs no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threat {
    /// The words of a prompt.
    Words,
    /// The vectors that stand for words.
    Embeddings,
    /// The weights.
    Weights,
    /// How pictures are drawn.
    Sampler,
}

impl Threat {
    /// What it is called in results.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Embeddings => "embeddings",
            Self::Weights => "weights",
            Self::Sampler => "sampler",
        }
    }
}

/// What an attack is.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Its name on the command line.
    pub id: &'static str,
    /// The paper it comes from.
    pub paper: &'static str,
    /// What it may look at: pictures alone, gradients, or the weights.
    pub access: &'static str,
    /// What it may change.
    pub threat: Threat,
    /// What it finds.
    pub finds: &'static str,
    /// What a step of its budget is.
    pub step: &'static str,
    /// Cases that it is measured on, if nobody says otherwise.
    pub cases: usize,
    /// All its options, the user's over the defaults: what it will do, before anything is drawn.
    pub options: fn(&Job<'_>, Variant) -> Result<Value>,
    /// Whether everything is there that the attack needs, and its options are possible: asked
    /// before anything is drawn.
    pub ready: fn(&Job<'_>, Variant) -> Result<()>,
    /// The attack itself.
    pub run: fn(&mut Job<'_>, &Start, Variant) -> Result<Outcome>,
}

/// Where an attack begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// A picture of the concept for each case, drawn by the unedited model: latents `[cases,
    /// channels, h, w]`.
    pub targets: Tensor<4>,
    /// Whether the edited model shows the concept anyway.
    pub pre: Vec<bool>,
}

/// What an attack gives back.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it found.
    pub found: Found,
    /// The steps it might have taken.
    pub budget: usize,
    /// The steps it took.
    pub spent: usize,
    /// How many pictures of each case were looked at.
    pub looks: Looks,
    /// How many searches there were that do not share their result: as many as cases, or 1 where
    /// all cases share what was learned.
    pub searches: usize,
    /// What else is worth knowing, such as how often a control shows the concept too.
    pub notes: Notes,
}

/// How many pictures under attack a judge looks at before a case is closed. Each look is another
/// chance for luck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looks {
    /// The most there could have been for a case.
    pub most: usize,
    /// Of each case: up to the first that showed the concept, else all; 0 for a case that was not
    /// attacked.
    pub of: Vec<usize>,
}

impl Looks {
    /// One look at every case: the final picture.
    pub fn once(cases: usize) -> Self {
        Self {
            most: 1,
            of: vec![1; cases],
        }
    }
}

/// Named findings beside the counts.
pub type Notes = serde_json::Map<String, serde_json::Value>;
