//! Which values options have where the user sets none: a column for each variant of a method, and
//! one more for what works on a small model.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

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

impl Variant {
    /// All in their order.
    pub const ALL: [Self; 3] = [Self::Paper, Self::Reference, Self::Fixed];
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "paper" => Ok(Self::Paper),
            "reference" => Ok(Self::Reference),
            "fixed" => Ok(Self::Fixed),
            _ => Err(Error::input(format!("there is no variant `{text}`"))
                .with_hint("choose one of paper, reference, fixed")),
        }
    }
}

/// For which size of models a preset's numbers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// The models of the papers, such as Stable Diffusion.
    #[default]
    Published,
    /// Models as small as the built-in miniature, for which published numbers do nothing, or are
    /// far too many.
    Small,
}

/// The table of presets; [`presets!`](crate::presets!) writes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presets<T> {
    /// As printed.
    pub paper: T,
    /// As in the published code.
    pub reference: T,
    /// What works on a model of the published size.
    pub fixed: T,
    /// What works on a small one.
    pub small: T,
}

impl<T> Presets<T> {
    /// The names of the columns.
    pub const COLUMNS: [&'static str; 4] = ["paper", "reference", "fixed", "miniature"];

    /// The column of a variant. What is printed and published is the same on every model.
    pub fn of(self, variant: Variant, scale: Scale) -> T {
        match (variant, scale) {
            (Variant::Paper, _) => self.paper,
            (Variant::Reference, _) => self.reference,
            (Variant::Fixed, Scale::Published) => self.fixed,
            (Variant::Fixed, Scale::Small) => self.small,
        }
    }

    /// The same in every column.
    pub fn same(options: T) -> Self
    where
        T: Clone,
    {
        Self {
            paper: options.clone(),
            reference: options.clone(),
            fixed: options.clone(),
            small: options,
        }
    }

    /// What `each` makes of every column, where it can.
    ///
    /// # Errors
    /// The first of its errors.
    pub fn try_map<U, E>(self, mut each: impl FnMut(T) -> Result<U, E>) -> Result<Presets<U>, E> {
        Ok(Presets {
            paper: each(self.paper)?,
            reference: each(self.reference)?,
            fixed: each(self.fixed)?,
            small: each(self.small)?,
        })
    }

    /// What `each` makes of every column.
    pub fn map<U>(self, mut each: impl FnMut(T) -> U) -> Presets<U> {
        Presets {
            paper: each(self.paper),
            reference: each(self.reference),
            fixed: each(self.fixed),
            small: each(self.small),
        }
    }

    /// What `both` makes of every column and that of another table.
    pub fn with<U, V>(self, other: Presets<U>, mut both: impl FnMut(T, U) -> V) -> Presets<V> {
        Presets {
            paper: both(self.paper, other.paper),
            reference: both(self.reference, other.reference),
            fixed: both(self.fixed, other.fixed),
            small: both(self.small, other.small),
        }
    }

    /// The columns in the order of [`COLUMNS`](Self::COLUMNS).
    pub fn columns(self) -> [T; 4] {
        [self.paper, self.reference, self.fixed, self.small]
    }
}

/// Writes a table of [`Presets`]: the first column in full, of every other what differs from an
/// earlier one.
///
/// ```
/// # use scumble_diffusion::presets;
/// #[derive(Clone, Debug, PartialEq)]
/// struct Options { steps: usize, lr: f64 }
///
/// let presets = presets! {
///     paper: Options { steps: 1000, lr: 1e-5 },
///     reference: paper { steps: 500 },
///     fixed: reference,
///     small: fixed { lr: 1e-3 },
/// };
/// assert_eq!(presets.small, Options { steps: 500, lr: 1e-3 });
/// ```
#[macro_export]
macro_rules! presets {
    (
        $paper:ident: $options:expr,
        $($column:ident: $base:ident $({ $($($field:ident).+: $value:expr),* $(,)? })?),* $(,)?
    ) => {{
        let $paper = $options;
        $(
            #[allow(unused_mut, clippy::clone_on_copy, reason = "columns may be equal, options numbers alone")]
            let mut $column = $base.clone();
            $($($column.$($field).+ = $value;)*)?
        )*
        $crate::options::Presets { $paper, $($column),* }
    }};
}
