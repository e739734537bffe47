//! The attacks by name.

use scumble_diffusion::options::{Opt, Options, Presets};
use scumble_erase::{Error, Result, job::recorded};
use serde_json::Value;

use crate::job::Job;

pub use crate::attack::{Attack, Threat};

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
