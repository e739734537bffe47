//! How far a number can be trusted, and whether two numbers differ.
//!
//! Wilson's interval of one rate is in [`rates`](crate::rates); here are intervals of means and of anything else that is
//! computed from pictures, and the comparisons of two subjects that drew the same prompts from the same noise.

use crate::{
    error::{Error, Result},
    rates::{Rate, Z95},
};

/// How often a sample is drawn again, unless something else is asked for.
pub const RESAMPLES: usize = 2000;

/// A number and its two-sided 95% interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The number itself.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// SplitMix64 (Steele, Lea and Flood 2014): enough to draw indices with, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An index below `n`; with n below 2^32 it prefers none by more than one in 2^32.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// `count` different indices below `n`, in the order they were drawn (the start of Fisher and Yates' shuffle).
    pub(crate) fn choose(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        let count = count.min(n);
        for at in 0..count {
            all.swap(at, at + self.below(n - at));
        }
        all.truncate(count);
        all
    }
}

/// The percentile bootstrap (Efron 1979) of any statistic of `n` pictures: `statistic` is given the positions of a sample.
///
/// The ends are the 2.5% and 97.5% percentiles of `resamples` samples drawn with replacement, interpolated as NumPy does. A sample
/// for which the statistic is not a number is left out. The same seed gives the same interval.
///
/// # Errors
/// If there are no pictures, no resamples, or the statistic is not a number.
pub fn bootstrap(n: usize, resamples: usize, seed: u64, mut statistic: impl FnMut(&[usize]) -> f64) -> Result<Interval> {
    if n == 0 || resamples == 0 {
        return Err(Error::input(format!("an interval needs at least 1 picture and 1 resample, found {n} and {resamples}")));
    }
    let mut indices: Vec<usize> = (0..n).collect();
    let value = statistic(&indices);
    if value.is_nan() {
        return Err(Error::input(format!("the statistic of these {n} pictures is not a number")));
    }
    let mut random = SplitMix::new(seed);
    let mut values = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        indices.iter_mut().for_each(|index| *index = random.below(n));
        values.push(statistic(&indices));
    }
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    Ok(Interval { value, low: percentile(&values, 0.025), high: percentile(&values, 0.975) })
}

/// The percentile bootstrap of a mean, with [`RESAMPLES`] resamples.
///
/// # Errors
/// If there are no values or one of them is not a number.
pub fn mean(values: &[f64], seed: u64) -> Result<Interval> {
    bootstrap(values.len(), RESAMPLES, seed, |sample| average(sample.iter().map(|&i| values[i])))
}

/// The mean of `a - b` over pairs on the same seed, with its percentile bootstrap: a difference that 0 lies outside of.
///
/// # Errors
/// If the two are not of one length, are empty, or hold what is not a number.
pub fn paired_difference(a: &[f64], b: &[f64], seed: u64) -> Result<Interval> {
    same_length(a.len(), b.len())?;
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    mean(&differences, seed)
}

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

    /// McNemar's exact test (1947): how likely a split of the pairs that differ is to be at least this uneven by chance, in [0, 1].
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

    /// The first rate minus the second, with Newcombe's hybrid score interval for paired proportions (1998, method 10).
    ///
    /// It joins the two Wilson intervals by the correlation of the pairs, so it stays within [-1, 1] and is of use where a rate is 0 or 1.
    ///
    /// # Errors
    /// If there are no pictures.
    pub fn difference(self) -> Result<Interval> {
        if self.n() == 0 {
            return Err(Error::input("a difference of two rates needs at least 1 picture, found 0"));
        }
        let n = self.n();
        let rates = [Rate { hits: self.both + self.first, n }, Rate { hits: self.both + self.second, n }];
        let [p1, p2] = rates.map(Rate::fraction);
        let [(l1, u1), (l2, u2)] = rates.map(|rate| rate.wilson(Z95));
        let phi = self.correlation();
        let ends = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
        let value = p1 - p2;
        Ok(Interval { value, low: (value - ends(p1 - l1, u2 - p2)).max(-1.0), high: (value + ends(u1 - p1, p2 - l2)).min(1.0) })
    }

    /// The correlation of the pairs, with Newcombe's correction for continuity where it is positive; 0 where a margin is empty.
    fn correlation(self) -> f64 {
        let [a, b, c, d] = [self.both, self.first, self.second, self.neither].map(|count| count as f64);
        let margins = (a + b) * (c + d) * (a + c) * (b + d);
        if margins == 0.0 {
            return 0.0;
        }
        let along = a * d - b * c;
        let corrected = if along > 0.0 { (along - (a + b + c + d) / 2.0).max(0.0) } else { along };
        corrected / margins.sqrt()
    }
}

/// The value below which a fraction of sorted values lies, linearly interpolated (NumPy's default); 0 of none.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let at = fraction * sorted.len().saturating_sub(1) as f64;
    let (lower, part) = (at.floor() as usize, at.fract());
    match (sorted.get(lower), sorted.get(lower + 1)) {
        (Some(a), Some(b)) => a + part * (b - a),
        (Some(a), None) => *a,
        _ => f64::NAN,
    }
}

fn average(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

fn same_length(a: usize, b: usize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::input(format!("paired values must be of the same pictures, found {a} and {b} of them"))
        .with_hint("compare subjects on the prompts and seeds that both have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
    }

    #[test]
    fn splitmix_is_the_published_one() {
        // The first outputs of Vigna's splitmix64.c for the seed 1234567.
        let mut random = SplitMix::new(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert!((0..1000).all(|_| random.below(7) < 7));
        let mut chosen = random.choose(50, 20);
        chosen.sort_unstable();
        chosen.dedup();
        assert!(chosen.len() == 20 && chosen.iter().all(|&i| i < 50));
        assert_eq!(random.choose(3, 9).len(), 3);
    }

    #[test]
    fn percentiles_are_numpys() {
        // np.percentile([1, 2, 4, 8, 16], [2.5, 50, 97.5]) -> [1.1, 4.0, 15.2]
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        close(percentile(&values, 0.025), 1.1, 1e-12);
        close(percentile(&values, 0.5), 4.0, 1e-12);
        close(percentile(&values, 0.975), 15.2, 1e-12);
        assert_eq!((percentile(&[3.0], 0.9), percentile(&[], 0.5).is_nan()), (3.0, true));
    }

    #[test]
    fn a_bootstrapped_mean_is_the_normal_interval_where_that_holds() {
        // 400 values spread evenly over [0, 1]: the deviation of their mean is sqrt(1/12/400).
        let values: Vec<f64> = (0..400).map(|i| (f64::from(i) + 0.5) / 400.0).collect();
        let found = mean(&values, 1).unwrap();
        let half = 1.96 * (1.0f64 / 12.0 / 400.0).sqrt();
        close(found.value, 0.5, 1e-12);
        close(found.low, 0.5 - half, 0.1 * half);
        close(found.high, 0.5 + half, 0.1 * half);
        assert_eq!(mean(&values, 1).unwrap(), found);
        assert_ne!(mean(&values, 2).unwrap(), found);
        let one = mean(&[0.25], 1).unwrap();
        assert_eq!((one.value, one.low, one.high), (0.25, 0.25, 0.25));
    }

    #[test]
    fn any_statistic_has_an_interval() {
        let values = [5.0, 1.0, 9.0, 3.0, 7.0];
        let largest = |sample: &[usize]| sample.iter().map(|&i| values[i]).fold(f64::MIN, f64::max);
        let found = bootstrap(5, 500, 3, largest).unwrap();
        assert!(found.value == 9.0 && found.high == 9.0 && found.low < 9.0, "{found:?}");
        // A sample without any even position has no mean of them; the interval is that of the samples that have one.
        let picky =
            |sample: &[usize]| average(sample.iter().filter(|&&i| i != 1).map(|&i| values[i]).collect::<Vec<_>>().into_iter());
        assert!(bootstrap(2, 200, 3, picky).unwrap().low == 5.0);
    }

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
            let table = Paired { both: 3, first, second, neither: 8 };
            close(table.mcnemar(), p, 1e-9 * p);
            close(Paired { first: second, second: first, ..table }.mcnemar(), p, 1e-9 * p);
        }
        assert_eq!(Paired { first: 4000, ..Paired::default() }.mcnemar(), 0.0);
    }

    #[test]
    fn paired_differences_are_newcombes() {
        // Newcombe's formulas in Python with z = 1.96; his paper's table II prints the first as 0.0569 to 0.3404.
        // den = ((a+b)*(c+d)*(a+c)*(b+d))**.5; x = a*d - b*c; x = max(x - n/2, 0) if x > 0 else x; f = x/den if den else 0
        // low = t - ((p1-l1)**2 - 2*f*(p1-l1)*(u2-p2) + (u2-p2)**2)**.5; high = t + ((p2-l2)**2 - 2*f*(p2-l2)*(u1-p1) + (u1-p1)**2)**.5
        for (cells, value, low, high) in [
            ([36, 12, 2, 0], 0.2, 0.0569267092, 0.3404302760),
            ([1, 1, 97, 1], -0.96, -0.9850259694, -0.8736698076),
            ([0, 30, 0, 70], 0.3, 0.2109038875, 0.3958503843),
            ([0, 0, 0, 54], 0.0, -0.0664158668, 0.0664158668),
            ([54, 0, 0, 0], 0.0, -0.0664158668, 0.0664158668),
        ] {
            let [both, first, second, neither] = cells;
            let found = Paired { both, first, second, neither }.difference().unwrap();
            close(found.value, value, 1e-9);
            close(found.low, low, 1e-9);
            close(found.high, high, 1e-9);
            let mirrored = Paired { both, first: second, second: first, neither }.difference().unwrap();
            close(mirrored.low, -high, 1e-9);
        }
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        // Pairs whose rates are 0.7 and 0.5 and that hit together more often than by chance: 0.45, 0.25, 0.05, 0.25.
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
        let table = Paired::of(&[true, true, false, false, true], &[true, false, true, false, true]).unwrap();
        assert_eq!(table, Paired { both: 2, first: 1, second: 1, neither: 1 });
        assert_eq!(table.n(), 5);
        let error = Paired::of(&[true], &[]).unwrap_err().to_string();
        assert_eq!(error, "paired values must be of the same pictures, found 1 and 0 of them");
        assert!(Paired::default().difference().is_err());
        assert!(mean(&[], 0).is_err() && mean(&[1.0, f64::NAN], 0).is_err());
        let found = paired_difference(&[3.0, 4.0, 5.0], &[1.0, 2.0, 3.0], 0).unwrap();
        assert_eq!((found.value, found.low, found.high), (2.0, 2.0, 2.0));
        assert!(paired_difference(&[1.0], &[1.0, 2.0], 0).is_err());
    }
}
