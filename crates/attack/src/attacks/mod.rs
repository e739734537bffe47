//! The attacks by name.

use scumble_erase::{Error, Result, Variant};
use serde::Serialize;
use serde_json::Value;

use crate::{
    job::Job,
    protocol::{Outcome, Start},
};

/// Every attack is a file of this folder that says what it is in a constant `ATTACK`, and a word in
/// the list below.
macro_rules! attacks {
    ($($name:ident)*) => {
        $(pub mod $name;)*

        /// Every attack.
        pub const ALL: &[Attack] = &[$($name::ATTACK),*];

        /// Of every attack its name and its source, where the meaning of its options stands.
        const SOURCES: &[(&str, &str)] = &[$(($name::ATTACK.id, include_str!(concat!(stringify!($name), ".rs")))),*];
    };
}

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

/// What an attack is.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Its name on the command line.
    pub id: &'static str,
    /// The paper it comes from.
    pub paper: &'static str,
    /// What it may look at: pictures alone, gradients, or the weights.
    pub access: &'static str,
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

/// The sources in which an attack's options are declared: its own, then those of others, whose
/// options it may have.
pub fn sources(id: &str) -> Vec<&'static str> {
    let own = SOURCES.iter().filter(|(known, _)| *known == id);
    own.chain(SOURCES.iter().filter(|(known, _)| *known != id))
        .map(|(_, source)| *source)
        .collect()
}

/// Options as named values.
fn as_value<T: Serialize>(options: &T) -> Result<Value> {
    serde_json::to_value(options)
        .map_err(|e| Error::input(format!("cannot record the options: {e}")))
}
