//! The attacks by name.

use scumble_diffusion::options::{Opt, Options, Presets};
use scumble_erase::{Error, Result, Variant, job::recorded};
use serde_json::Value;

use crate::{
    job::Job,
    protocol::{Outcome, Start},
};

/// Every attack is a file of this folder and a word in the list below. The file says what it is in
/// a constant `ATTACK`, which options it has in a struct `Options`, and what these are by default
/// in a function `presets` of a job.
macro_rules! attacks {
    ($($name:ident)*) => {
        $(pub mod $name;)*

        /// Every attack.
        pub const ALL: &[Attack] = &[$($name::ATTACK),*];

        /// Of every attack its name, its options and their presets.
        const KNOWN: &[(&str, fn() -> Vec<Opt>, PresetsOf)] = &[$((
            $name::ATTACK.id,
            $name::Options::list,
            |job| $name::presets(job)?.try_map(|options| recorded(&options)),
        )),*];
    };
}

/// The presets of an attack for a job, as named values.
type PresetsOf = fn(&Job<'_>) -> Result<Presets<Value>>;

attacks! {
    concept_inversion
    unlearndiff
    pgd
    fgsm
    p4d
    pez
    ring_a_bell
    random
    relearn
    revive
    paraphrase
    worst_case
}

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

impl Attack {
    /// Its options: what each means and what it can be.
    pub fn list(&self) -> Vec<Opt> {
        let known = KNOWN.iter().find(|(id, ..)| *id == self.id);
        known.map_or_else(Vec::new, |(_, list, _)| list())
    }

    /// What they are for a job where the user sets none.
    ///
    /// # Errors
    /// If the job asks for a preset that there is not.
    pub fn presets(&self, job: &Job<'_>) -> Result<Presets<Value>> {
        match KNOWN.iter().find(|(id, ..)| *id == self.id) {
            Some((.., presets)) => presets(job),
            None => Err(Error::input(format!("there is no attack `{}`", self.id))),
        }
    }
}

/// The attack of that name; hyphens and underscores are the same.
///
/// # Errors
/// If there is none.
pub fn named(id: &str) -> Result<&'static Attack> {
    let plain = id.trim().to_lowercase().replace('_', "-");
    ALL.iter().find(|attack| attack.id == plain).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|attack| attack.id).collect();
        Error::input(format!("there is no attack `{id}`"))
            .with_hint(format!("the attacks are {}", known.join(", ")))
    })
}
