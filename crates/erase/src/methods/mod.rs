//! The methods by name: what each moves, what it needs, and the paper it comes from.

use scumble_diffusion::options::{Opt, Options, Presets};
use scumble_families as families;
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    guards,
    job::{Job, recorded},
};

pub use crate::method::Method;
pub use scumble_diffusion::Variant;

/// Every method is a file of this folder and a word in the list below. The file says what it is in
/// a constant `METHOD`, which options it has in a struct `Options`, and what these are by default
/// in a function `presets` of a job.
macro_rules! methods {
    ($($name:ident)*) => {
        $(pub mod $name;)*

        /// Every method.
        pub const ALL: &[Method] = &[$($name::METHOD),*];

        /// Of every method its name, its options and their presets.
        const KNOWN: &[(&str, fn() -> Vec<Opt>, PresetsOf)] = &[$((
            $name::METHOD.id,
            $name::Options::list,
            |job| $name::presets(job)?.try_map(|options| recorded(&options)),
        )),*];
    };
}

/// The presets of a method for a job, as named values.
type PresetsOf = fn(&Job<'_>) -> Result<Presets<Value>>;

methods! {
    esd
    uce
    rece
    realera
    trce
    mace
    speed
    oce
    few_shot
    advunlearn
    hirm
    receler
    stereo
    salun
    erasediff
    scissorhands
    sa
    spm
    leco
    ant
    ac
    all_but_one
    doco
    fmn
}

/// Methods that can be told where pictures show the concept (`--masks`).
pub const MASKED: &[&str] = &[mace::METHOD.id];

/// Methods that train the text encoder, and only work where there is a single one.
const OF_ONE_TEXT_ENCODER: [&str; 3] =
    [advunlearn::METHOD.id, few_shot::METHOD.id, hirm::METHOD.id];

impl Method {
    /// The ids of the families on which it works.
    pub fn families(&self) -> Vec<&'static str> {
        let ids = families::FAMILIES.iter().map(|family| family.id);
        ids.filter(|id| self.works_on(id).is_ok()).collect()
    }

    /// Its options: what each means and what it can be. A guard has none here.
    pub fn options(&self) -> Vec<Opt> {
        let known = KNOWN.iter().find(|(id, ..)| *id == self.id);
        known.map_or_else(Vec::new, |(_, options, _)| options())
    }

    /// What they are for a job where the user sets none.
    ///
    /// # Errors
    /// If the job asks for a preset that there is not.
    pub fn presets(&self, job: &Job<'_>) -> Result<Presets<Value>> {
        match KNOWN.iter().find(|(id, ..)| *id == self.id) {
            Some((.., presets)) => presets(job),
            None => Ok(Presets::same(Value::Object(Map::new()))),
        }
    }

    /// Whether it works on the family of that id.
    ///
    /// # Errors
    /// If it does not, with the reason.
    pub fn works_on(&self, family: &str) -> Result<()> {
        let Some(found) = families::named(family) else {
            return Err(Error::input(format!(
                "{} does not work on {family}",
                self.id
            )));
        };
        let encoders = found.text_encoders().len();
        if encoders == 1 || !OF_ONE_TEXT_ENCODER.contains(&self.id) {
            return Ok(());
        }
        Err(Error::input(format!(
            "{} does not work on {family}: it trains the text encoder, of which {family} has {}, and its paper says nothing of them",
            self.id,
            crate::training::trainable::in_words(encoders)
        ))
        .with_hint("uce, esd and most others work: `scumble methods --json` names the families of each"))
    }
}

/// The method of that name; a guard counts as one.
///
/// # Errors
/// If there is none; the error lists them.
pub fn named(id: &str) -> Result<&'static Method> {
    let plain = id.trim().to_lowercase().replace('_', "-");
    ALL.iter()
        .chain(guards::METHODS)
        .find(|m| m.id == plain)
        .ok_or_else(|| {
            let ids = |list: &[Method]| list.iter().map(|m| m.id).collect::<Vec<_>>().join(", ");
            let hint = format!(
                "choose one of {}, or a guard: {}",
                ids(ALL),
                ids(guards::METHODS)
            );
            Error::input(format!("there is no method `{id}`")).with_hint(hint)
        })
}
