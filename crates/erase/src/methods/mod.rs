//! The methods by name: what each moves, what it needs, and the paper it comes from.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    edit::Edit,
    error::{Error, Result},
    guards,
    job::Job,
};

/// Every method is a file of this folder that says what it is in a constant `METHOD`, and a line in the list below.
macro_rules! methods {
    ($($name:ident)*) => {
        $(pub mod $name;)*

        /// Every method.
        pub const ALL: &[Method] = &[$($name::METHOD),*];
    };
}

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
    ant
    ac
    all_but_one
    doco
    fmn
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
            _ => Err(Error::input(format!("there is no variant `{text}`")).with_hint("choose one of paper, reference, fixed")),
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
    /// Seconds for `church` on the miniature, without the judging (2 cores; bench/methods measures it).
    pub seconds: Option<f64>,
    /// Peak memory of that run, in MiB.
    pub peak_mb: Option<f64>,
    /// Sample-evaluations of the U-Net that the published settings ask for one object, a training sample counting 3, as the method's
    /// page describes the published loop; pictures that the published code finds ready are not counted. `None` where no code is public.
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
    ALL.iter().chain(guards::METHODS).find(|m| m.id == plain).ok_or_else(|| {
        let ids = |list: &[Method]| list.iter().map(|m| m.id).collect::<Vec<_>>().join(", ");
        let hint = format!("choose one of {}, or a guard: {}", ids(ALL), ids(guards::METHODS));
        Error::input(format!("there is no method `{id}`")).with_hint(hint)
    })
}
