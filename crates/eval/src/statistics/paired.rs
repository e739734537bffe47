//! Two subjects on the same pictures, each picture for itself.

use super::interval::{Interval, same_length};
use crate::{
    error::{Error, Result},
    rates::{Rate, Z95},
};

/// How two subjects did on the same pictures: the four cells of a paired table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Hits of both.
    pub both: usize,
    /// Hits of the first only.
    pub first: usize,
    /// Hits of the second only.
    pub second: usize,
    /// Hits of neither.
    pub neither: usize,
}

impl Paired {
    /// Counts hits on the same pictures, in one order.
    ///
    /// # Errors
    /// If the two are not of one length.
    pub fn of(first: &[bool], second: &[bool]) -> Result<Self> {
        same_length(first.len(), second.len())?;
        let mut table = Self::default();
        for hits in first.iter().zip(second) {
            *match hits {
                (true, true) => &mut table.both,
                (true, false) => &mut table.first,
                (false, true) => &mut table.second,
                (false, false) => &mut table.neither,
            } += 1;
        }
        Ok(table)
    }

    /// Pictures in the table.
    pub fn n(self) -> usize {
        self.both + self.first + self.second + self.neither
    }

    /// McNemar's exact test (1947): how likely a split of the pairs that differ is to be at least
    /// this uneven by chance, in [0, 1].
    ///
    /// Two-sided and binomial, without the continuity correction or mid-p; 1 where no pair differs.
    pub fn mcnemar(self) -> f64 {
        let (fewer, differing) = (self.first.min(self.second), self.first + self.second);
        // Sums of binomials of half, by logarithms: 2^-n underflows at a thousand pairs.
        let mut term = -(differing as f64) * std::f64::consts::LN_2;
        let mut tail = term.exp();
        for k in 0..fewer {
            term += ((differing - k) as f64 / (k + 1) as f64).ln();
            tail += term.exp();
        }
        (2.0 * tail).min(1.0)
    }

    /// The first rate minus the second, with Newcombe's hybrid score interval for paired
    /// proportions (1998, method 10).
    ///
    /// It joins the two Wilson intervals by the correlation of the pairs, so it stays within [-1,
    /// 1] and is of use where a rate is 0 or 1.
    ///
    /// # Errors
    /// If there are no pictures.
    pub fn difference(self) -> Result<Interval> {
        if self.n() == 0 {
            return Err(Error::input(
                "a difference of two rates needs at least 1 picture, found 0",
            ));
        }
        let n = self.n();
        let rates = [
            Rate {
                hits: self.both + self.first,
                n,
            },
            Rate {
                hits: self.both + self.second,
                n,
            },
        ];
        let [p1, p2] = rates.map(Rate::fraction);
        let [(l1, u1), (l2, u2)] = rates.map(|rate| rate.wilson(Z95));
        let phi = self.correlation();
        let ends = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
        let value = p1 - p2;
        Ok(Interval {
            value,
            low: (value - ends(p1 - l1, u2 - p2)).max(-1.0),
            high: (value + ends(u1 - p1, p2 - l2)).min(1.0),
        })
    }

    /// The correlation of the pairs, with Newcombe's correction for continuity where it is
    /// positive; 0 where a margin is empty.
    fn correlation(self) -> f64 {
        let [a, b, c, d] =
            [self.both, self.first, self.second, self.neither].map(|count| count as f64);
        let margins = (a + b) * (c + d) * (a + c) * (b + d);
        if margins == 0.0 {
            return 0.0;
        }
        let along = a * d - b * c;
        let corrected = if along > 0.0 {
            (along - (a + b + c + d) / 2.0).max(0.0)
        } else {
            along
        };
        corrected / margins.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::random::SplitMix, *};
    use crate::near::close;

    #[test]
    fn mcnemar_is_scipys() {
        // scipy.stats.binomtest(min(b, c), b + c, 0.5).pvalue
        for (first, second, p) in [
            (0, 0, 1.0),
            (5, 5, 1.0),
            (0, 1, 1.0),
            (1, 9, 0.021484375),
            (12, 2, 0.012939453125),
            (0, 20, 1.9073486328125e-06),
            (700, 800, 0.010559255466711506),
        ] {
            let table = Paired {
                both: 3,
                first,
                second,
                neither: 8,
            };
            close(table.mcnemar(), p, 1e-9 * p);
            close(
                Paired {
                    first: second,
                    second: first,
                    ..table
                }
                .mcnemar(),
                p,
                1e-9 * p,
            );
        }
        assert_eq!(
            Paired {
                first: 4000,
                ..Paired::default()
            }
            .mcnemar(),
            0.0
        );
    }

    #[test]
    fn paired_differences_are_newcombes() {
        // Newcombe's formulas in Python with z = 1.96; his paper's table II prints the first as
        // 0.0569 to 0.3404. den = ((a+b)*(c+d)*(a+c)*(b+d))**.5; x = a*d - b*c; x = max(x - n/2, 0)
        // if x > 0 else x; f = x/den if den else 0 low = t - ((p1-l1)**2 - 2*f*(p1-l1)*(u2-p2) +
        // (u2-p2)**2)**.5; high = t + ((p2-l2)**2 - 2*f*(p2-l2)*(u1-p1) + (u1-p1)**2)**.5
        for (cells, value, low, high) in [
            ([36, 12, 2, 0], 0.2, 0.0569267092, 0.3404302760),
            ([1, 1, 97, 1], -0.96, -0.9850259694, -0.8736698076),
            ([0, 30, 0, 70], 0.3, 0.2109038875, 0.3958503843),
            ([0, 0, 0, 54], 0.0, -0.0664158668, 0.0664158668),
            ([54, 0, 0, 0], 0.0, -0.0664158668, 0.0664158668),
        ] {
            let [both, first, second, neither] = cells;
            let found = Paired {
                both,
                first,
                second,
                neither,
            }
            .difference()
            .unwrap();
            close(found.value, value, 1e-9);
            close(found.low, low, 1e-9);
            close(found.high, high, 1e-9);
            let mirrored = Paired {
                both,
                first: second,
                second: first,
                neither,
            }
            .difference()
            .unwrap();
            close(mirrored.low, -high, 1e-9);
        }
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        // Pairs whose rates are 0.7 and 0.5 and that hit together more often than by chance: 0.45,
        // 0.25, 0.05, 0.25.
        let mut random = SplitMix::new(11);
        let trials = 2000;
        let mut covered = 0;
        for _ in 0..trials {
            let mut table = Paired::default();
            for _ in 0..48 {
                match random.below(20) {
                    0..9 => table.both += 1,
                    9..14 => table.first += 1,
                    14 => table.second += 1,
                    _ => table.neither += 1,
                }
            }
            let found = table.difference().unwrap();
            covered += usize::from(found.low <= 0.2 && 0.2 <= found.high);
        }
        let rate = covered as f64 / f64::from(trials);
        assert!((0.93..0.98).contains(&rate), "{rate}");
    }

    #[test]
    fn counts_pairs_and_says_what_is_missing() {
        let table = Paired::of(
            &[true, true, false, false, true],
            &[true, false, true, false, true],
        )
        .unwrap();
        assert_eq!(
            table,
            Paired {
                both: 2,
                first: 1,
                second: 1,
                neither: 1
            }
        );
        assert_eq!(table.n(), 5);
        let error = Paired::of(&[true], &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "paired values must be of the same pictures, found 1 and 0 of them"
        );
        assert!(Paired::default().difference().is_err());
    }
}
