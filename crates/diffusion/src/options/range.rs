//! The numbers that an option can be.

use std::{fmt, ops::Bound};

/// From where to where a number may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    low: Bound<f64>,
    high: Bound<f64>,
}

/// What counts and sizes are at most.
pub const MILLION: usize = 1_000_000;

/// A count or a size.
pub const COUNT: Range = whole(1, MILLION);
/// Any finite number.
pub const FINITE: Range = numbers(Bound::Unbounded, Bound::Unbounded);
/// A step size and the like.
pub const ABOVE_ZERO: Range = numbers(Bound::Excluded(0.0), Bound::Unbounded);
/// A weight, which may be 0.
pub const WEIGHT: Range = numbers(Bound::Included(0.0), Bound::Unbounded);
/// A share or a chance.
pub const SHARE: Range = numbers(Bound::Included(0.0), Bound::Included(1.0));
/// A share of which there is some.
pub const SHARE_ABOVE_ZERO: Range = numbers(Bound::Excluded(0.0), Bound::Included(1.0));
/// A share of which not all is there.
pub const BELOW_ONE: Range = numbers(Bound::Included(0.0), Bound::Excluded(1.0));

/// Whole numbers from one to another.
pub const fn whole(least: usize, most: usize) -> Range {
    numbers(Bound::Included(least as f64), Bound::Included(most as f64))
}

/// Numbers between two bounds.
pub const fn numbers(low: Bound<f64>, high: Bound<f64>) -> Range {
    Range { low, high }
}

impl Range {
    /// Whether a number is in it; none is that is not finite.
    pub fn contains(self, number: f64) -> bool {
        let above = match self.low {
            Bound::Included(low) => number >= low,
            Bound::Excluded(low) => number > low,
            Bound::Unbounded => true,
        };
        let below = match self.high {
            Bound::Included(high) => number <= high,
            Bound::Excluded(high) => number < high,
            Bound::Unbounded => true,
        };
        number.is_finite() && above && below
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Bound::{Excluded, Included, Unbounded};
        match (self.low, self.high) {
            (Unbounded, Unbounded) => f.write_str("a finite number"),
            (Included(low), Unbounded) => write!(f, "a finite number, {low} or more"),
            (Excluded(low), Unbounded) => write!(f, "a finite number above {low}"),
            (Unbounded, Included(high)) => write!(f, "a finite number, {high} or less"),
            (Unbounded, Excluded(high)) => write!(f, "a finite number below {high}"),
            (Included(low), Included(high)) => write!(f, "{low} to {high}"),
            (Excluded(low), Included(high)) => write!(f, "more than {low} and at most {high}"),
            (Included(low), Excluded(high)) => write!(f, "at least {low} and less than {high}"),
            (Excluded(low), Excluded(high)) => write!(f, "more than {low} and less than {high}"),
        }
    }
}

/// A value that may be held against a [`Range`].
pub trait Checked {
    /// The number that it is, if it is one.
    fn number(&self) -> Option<f64>;
}

impl Checked for f64 {
    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

impl Checked for usize {
    fn number(&self) -> Option<f64> {
        Some(*self as f64)
    }
}

impl<T: Checked> Checked for Option<T> {
    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(T::number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_a_range_or_not() {
        for (range, inside, outside) in [
            (COUNT, [1.0, 1e6], [0.0, 1e6 + 1.0]),
            (FINITE, [-1e300, 1e300], [f64::NAN, f64::INFINITY]),
            (ABOVE_ZERO, [1e-300, 1e300], [0.0, f64::INFINITY]),
            (WEIGHT, [0.0, 1e300], [-1e-300, f64::NAN]),
            (SHARE, [0.0, 1.0], [-0.1, 1.1]),
            (SHARE_ABOVE_ZERO, [0.1, 1.0], [0.0, 1.1]),
            (BELOW_ONE, [0.0, 0.9], [-0.1, 1.0]),
        ] {
            assert!(inside.into_iter().all(|n| range.contains(n)), "{range}");
            assert!(!outside.into_iter().any(|n| range.contains(n)), "{range}");
        }
    }

    #[test]
    fn a_range_is_said_in_words() {
        for (range, said) in [
            (COUNT, "1 to 1000000"),
            (FINITE, "a finite number"),
            (ABOVE_ZERO, "a finite number above 0"),
            (WEIGHT, "a finite number, 0 or more"),
            (SHARE, "0 to 1"),
            (SHARE_ABOVE_ZERO, "more than 0 and at most 1"),
            (BELOW_ONE, "at least 0 and less than 1"),
        ] {
            assert_eq!(range.to_string(), said);
        }
    }
}
