//! Options of methods, attacks and guards as data: what each means, what it can be, and what it is
//! in every preset.
//!
//! [`options!`](crate::options!) declares a struct of options once: name, meaning, type and
//! range stand in one place, serde reads and writes it, [`Options::list`] is what `scumble methods ID`
//! prints, and [`Options::check`] holds values against the ranges. [`Presets`] is a table with a column for each
//! variant, which [`presets!`](crate::presets!) writes.

mod kind;
mod presets;
mod range;

use std::{borrow::Cow, fmt::Display};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    kind::Kind,
    presets::{Presets, Scale, Variant},
    range::{
        ABOVE_ZERO, BELOW_ONE, COUNT, Checked, FINITE, MILLION, Range, SHARE, SHARE_ABOVE_ZERO,
        WEIGHT, numbers, whole,
    },
};
use crate::error::{Error, Result};

/// One option.
#[derive(Clone, Debug, PartialEq)]
pub struct Opt {
    /// What stands before `=` after `--set`.
    pub key: &'static str,
    /// What it means, in Markdown.
    pub doc: &'static str,
    /// What its type is.
    pub kind: Kind,
    /// The numbers that it can be, where not all of its type.
    pub range: Option<Range>,
}

impl Opt {
    /// What it means, as plain text.
    pub fn meaning(&self) -> String {
        self.doc.trim().replace('`', "")
    }

    /// What it can be, in words.
    pub fn expected(&self) -> String {
        let range = self.range.map_or_else(
            || self.kind.plainly(),
            |range| Cow::Owned(range.to_string()),
        );
        if self.kind.nullable() {
            format!("{range}, or null")
        } else {
            range.into_owned()
        }
    }
}

/// A struct of options; [`options!`](crate::options!) implements it.
pub trait Options: Clone + Serialize + DeserializeOwned {
    /// Its options in their order, those of flattened structs among them.
    fn list() -> Vec<Opt>;

    /// Whether every number is in its range.
    ///
    /// # Errors
    /// If one is not; the error names it, its value, what was expected and its default.
    fn check(&self, defaults: &Self) -> Result<()>;
}

/// What is said of an option whose value does not fit.
pub fn unfit(key: &str, value: impl Display, expected: impl Display) -> Error {
    Error::input(format!("the option {key} is {value}, expected {expected}"))
}

/// Whether a number is in its range; for the code that [`options!`](crate::options!) writes.
///
/// # Errors
/// If it is not. Where the range has no hint of its own, the hint is the default.
pub fn in_range<T: Checked + Serialize>(
    key: &str,
    value: &T,
    default: &T,
    range: Range,
    hint: Option<&str>,
) -> Result<()> {
    match value.number() {
        Some(number) if !range.contains(number) => {
            let default = || format!("its default is {}", serde_json::json!(default));
            let hint = hint.map_or_else(default, String::from);
            Err(unfit(key, number, range).with_hint(hint))
        }
        _ => Ok(()),
    }
}

/// Declares a struct of options. A range follows the type of a number, and a hint may follow it:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use scumble_diffusion::options::{ABOVE_ZERO, Options as _, SHARE_ABOVE_ZERO};
///
/// scumble_diffusion::options! {
///     /// What can be set.
///     #[derive(Clone, Debug, Serialize, Deserialize)]
///     pub struct Options {
///         /// Adam's step size.
///         pub lr: f64 where ABOVE_ZERO,
///         /// The share of `numbers` that move.
///         pub top: f64 where SHARE_ABOVE_ZERO => "1 is all of them",
///         /// Which tensors move.
///         pub train_method: String,
///     }
/// }
///
/// let list = Options::list();
/// assert_eq!(list[1].meaning(), "The share of numbers that move.");
/// assert_eq!(list[1].expected(), "more than 0 and at most 1");
/// ```
///
/// Of a field with `#[serde(flatten)]`, which is a struct of options itself, its options count.
#[macro_export]
macro_rules! options {
    (
        $(#[$about:meta])*
        $sees:vis struct $name:ident {$(
            $(#[doc = $doc:literal])+
            $(#[serde($($serde:tt)+)])?
            pub $field:ident: $type:ty $(where $range:expr $(=> $hint:literal)?)?
        ),* $(,)?}
    ) => {
        $(#[$about])*
        $sees struct $name {$(
            $(#[doc = $doc])+
            $(#[serde($($serde)+)])?
            pub $field: $type
        ),*}

        impl $crate::options::Options for $name {
            #[allow(clippy::vec_init_then_push, reason = "what is flattened extends the list")]
            fn list() -> Vec<$crate::options::Opt> {
                let mut list = Vec::new();
                $($crate::options!(
                    @list list, $field, $type, concat!($($doc),+), [$($range)?], [$($($serde)+)?]
                );)*
                list
            }

            fn check(&self, defaults: &Self) -> $crate::Result<()> {
                $($crate::options!(
                    @check self, defaults, $field, [$($range $(, $hint)?)?], [$($($serde)+)?]
                );)*
                Ok(())
            }
        }
    };

    (@list $list:ident, $field:ident, $type:ty, $doc:expr, [], [flatten]) => {
        $list.extend(<$type as $crate::options::Options>::list());
    };
    (@list $list:ident, $field:ident, $type:ty, $doc:expr, [$($range:expr)?], [$($serde:tt)*]) => {
        $list.push($crate::options::Opt {
            key: stringify!($field),
            doc: $doc,
            kind: $crate::options::Kind::of::<$type>(),
            range: $crate::options!(@range $($range)?),
        });
    };

    (@range) => { None };
    (@range $range:expr) => { Some($range) };

    (@check $self:ident, $defaults:ident, $field:ident, [], [flatten]) => {
        $crate::options::Options::check(&$self.$field, &$defaults.$field)?;
    };
    (@check $self:ident, $defaults:ident, $field:ident, [], [$($serde:tt)*]) => {};
    (@check $self:ident, $defaults:ident, $field:ident, [$range:expr], [$($serde:tt)*]) => {
        $crate::options::in_range(
            stringify!($field), &$self.$field, &$defaults.$field, $range, None,
        )?;
    };
    (@check $self:ident, $defaults:ident, $field:ident, [$range:expr, $hint:literal], [$($serde:tt)*]) => {
        $crate::options::in_range(
            stringify!($field), &$self.$field, &$defaults.$field, $range, Some($hint),
        )?;
    };
}
