//! The methods by name: what each moves, what it needs, and the paper it comes from.

use std::str::FromStr;

use scumble_families as families;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    edit::Edit,
    error::{Error, Result},
    guards,
    job::Job,
    trainable,
};

/// Every method is a file of this folder that says what it is in a constant `METHOD`, and a line in
/// the list below. Its `defaults` take a job and a variant; where they take or give something else,
/// the line says how.
macro_rules! methods {
    (@defaults $name:ident) => { |job, variant| as_value(&$name::defaults(job, variant)) };
    (@defaults $name:ident $defaults:expr) => { $defaults };
    ($($name:ident $(=> $defaults:expr;)?)*) => {
        $(pub mod $name;)*

        /// Every method.
        pub const ALL: &[Method] = &[$($name::METHOD),*];

        /// Of every method its name, its source and its defaults.
        const KNOWN: &[(&str, &str, Defaults)] = &[$((
            $name::METHOD.id,
            include_str!(concat!(stringify!($name), ".rs")),
            methods!(@defaults $name $($defaults)?),
        )),*];
    };
}

/// A method's default options for a job, as named values.
type Defaults = fn(&Job<'_>, Variant) -> Result<Value>;

methods! {
    esd => |job, variant| as_value(&esd::defaults(job, variant, trainable::ESD_X));
    uce
    rece => |job, variant| as_value(&rece::defaults(job, variant)?);
    realera
    trce
    mace => |job, variant| as_value(&mace::defaults(job, variant)?);
    speed => |job, variant| as_value(&speed::defaults(job, variant)?);
    oce => |job, variant| as_value(&oce::defaults(job, variant)?);
    few_shot
    advunlearn => |job, variant| as_value(&advunlearn::defaults(job, variant, trainable::TEXT_ENCODER));
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
            trainable::in_words(encoders)
        ))
        .with_hint("uce, esd and most others work: `scumble methods --json` names the families of each"))
    }
}

/// Options that several methods have stand in these.
const SHARED: [&str; 2] = [include_str!("../forget.rs"), include_str!("../steering.rs")];

fn as_value<T: Serialize>(options: &T) -> Result<Value> {
    serde_json::to_value(options)
        .map_err(|e| Error::input(format!("cannot record the options: {e}")))
}

/// The default options of a method for a job, as named values; none for what is no method of the
/// list.
///
/// # Errors
/// If the job asks for a preset that there is not.
pub(crate) fn defaults(id: &str, job: &Job<'_>, variant: Variant) -> Result<Value> {
    let known = KNOWN.iter().find(|(known, ..)| *known == id);
    known.map_or_else(
        || Ok(Value::Object(Map::new())),
        |(_, _, defaults)| defaults(job, variant),
    )
}

/// The sources in which a method's options are declared, its own first.
pub(crate) fn sources(id: &str) -> Vec<&'static str> {
    let own = KNOWN
        .iter()
        .filter(|(known, ..)| *known == id)
        .map(|(_, source, _)| *source);
    own.chain(SHARED).collect()
}

/// Which of a method's forms to run where paper and published code disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The formulas and numbers as printed.
    Paper,
    /// What the published code does.
    Reference,
    /// What works.
    #[default]
    Fixed,
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "paper" => Ok(Self::Paper),
            "reference" => Ok(Self::Reference),
            "fixed" => Ok(Self::Fixed),
            _ => Err(Error::input(format!("there is no variant `{text}`"))
                .with_hint("choose one of paper, reference, fixed")),
        }
    }
}

/// An eraser.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// What users type after `--method`.
    pub id: &'static str,
    /// Authors, title, venue, arXiv number.
    pub paper: &'static str,
    /// Which tensors it changes.
    pub moves: &'static str,
    /// What it needs beside the model and the concept's name.
    pub needs: &'static str,
    /// Whether it takes several concepts at once.
    pub several: bool,
    /// Whether it takes concepts and captions to keep.
    pub preserves: bool,
    /// Whether it learns from pictures, which the user may give.
    pub pictures: bool,
    /// Seconds for `church` on the miniature, without the judging (2 cores;
    /// bench/study/methods measures it).
    pub seconds: Option<f64>,
    /// Peak memory of that run, in MiB.
    pub peak_mb: Option<f64>,
    /// Sample-evaluations of the U-Net that the published settings ask for one object, a training
    /// sample counting 3, as the method's page describes the published loop; pictures that the
    /// published code finds ready are not counted. `None` where no code is public.
    pub published_evaluations: Option<u64>,
    /// The method itself.
    pub erase: fn(&mut Job<'_>, Variant) -> Result<Edit>,
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
