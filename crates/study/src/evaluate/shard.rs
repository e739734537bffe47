//! An evaluation in parts, on several machines or one after the other.

use crate::failure::Failure;

/// Part `i` of `n`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    i: usize,
    n: usize,
}

impl Shard {
    /// The part of a text `I/N`.
    ///
    /// # Errors
    /// If it is no such part.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(format!(
                "--shard {text}: expected I/N with 1 <= I <= N, such as 2/4"
            ))
        };
        let (i, n) = text.split_once('/').ok_or_else(bad)?;
        let (i, n) = (
            i.trim().parse().map_err(|_| bad())?,
            n.trim().parse().map_err(|_| bad())?,
        );
        if (1..=n).contains(&i) {
            Ok(Self { i, n })
        } else {
            Err(bad())
        }
    }

    /// Its folder's name.
    pub fn name(self) -> String {
        format!("{}-of-{}", self.i, self.n)
    }

    /// Whether the item at this position is this part's.
    pub const fn has(self, item: usize) -> bool {
        item % self.n == self.i - 1
    }
}
