//! Intervals of anything that is computed from pictures, by drawing the pictures again.

use super::{
    clustered::Clusters,
    interval::{Interval, average, same_length},
    random::SplitMix,
};
use crate::error::{Error, Result};

/// How often a sample is drawn again, unless something else is asked for.
const RESAMPLES: usize = 2000;

/// The percentile bootstrap (Efron 1979) of any statistic of pictures: `statistic` is given the
/// positions of a sample.
///
/// What is drawn again, with replacement, is clusters (Davison and Hinkley 1997, section 3.8): all
/// pictures of a cluster or none. The ends are the 2.5% and 97.5% percentiles of `resamples`
/// samples, interpolated as NumPy does. A sample for which the statistic is not a number is left
/// out. The same seed gives the same interval.
///
/// # Errors
/// If there are no pictures, no resamples, or the statistic is not a number.
fn bootstrap(
    clusters: &Clusters,
    resamples: usize,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> f64,
) -> Result<Interval> {
    let (n, groups) = (clusters.pictures(), clusters.members());
    if n == 0 || resamples == 0 {
        return Err(Error::input(format!(
            "an interval needs at least 1 picture and 1 resample, found {n} and {resamples}"
        )));
    }
    let value = statistic(&(0..n).collect::<Vec<_>>());
    if value.is_nan() {
        return Err(Error::input(format!(
            "the statistic of these {n} pictures is not a number"
        )));
    }
    let mut random = SplitMix::new(seed);
    let mut values = Vec::with_capacity(resamples);
    let mut sample = Vec::with_capacity(n);
    for _ in 0..resamples {
        sample.clear();
        (0..groups.len()).for_each(|_| sample.extend(&groups[random.below(groups.len())]));
        values.push(statistic(&sample));
    }
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    Ok(Interval {
        value,
        low: percentile(&values, 0.025),
        high: percentile(&values, 0.975),
    })
}

/// The percentile bootstrap of a mean, with `RESAMPLES` resamples; `values` are in the order of
/// the clusters' pictures.
///
/// # Errors
/// If there are no values, one of them is not finite, or the clusters are of another number of pictures.
pub fn mean(values: &[f64], clusters: &Clusters, seed: u64) -> Result<Interval> {
    same_length(values.len(), clusters.pictures())?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::input(format!(
            "expected finite numbers to take the mean of, found {value}"
        )));
    }
    bootstrap(clusters, RESAMPLES, seed, |sample| {
        average(sample.iter().map(|&i| values[i]))
    })
}

/// The value below which a fraction of sorted values lies, linearly interpolated (NumPy's default);
/// not a number of none.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let at = fraction * sorted.len().saturating_sub(1) as f64;
    let (lower, part) = (at.floor() as usize, at.fract());
    match (sorted.get(lower), sorted.get(lower + 1)) {
        (Some(a), Some(b)) => a + part * (b - a),
        (Some(a), None) => *a,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::near::close;

    #[test]
    fn percentiles_are_numpys() {
        // np.percentile([1, 2, 4, 8, 16], [2.5, 50, 97.5]) -> [1.1, 4.0, 15.2]
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        close(percentile(&values, 0.025), 1.1, 1e-12);
        close(percentile(&values, 0.5), 4.0, 1e-12);
        close(percentile(&values, 0.975), 15.2, 1e-12);
        assert_eq!(
            (percentile(&[3.0], 0.9), percentile(&[], 0.5).is_nan()),
            (3.0, true)
        );
    }

    #[test]
    fn a_bootstrapped_mean_is_the_normal_interval_where_that_holds() {
        // 400 values spread evenly over [0, 1]: the deviation of their mean is sqrt(1/12/400).
        let values: Vec<f64> = (0..400).map(|i| (f64::from(i) + 0.5) / 400.0).collect();
        let each = Clusters::each(400);
        let found = mean(&values, &each, 1).unwrap();
        let half = 1.96 * (1.0f64 / 12.0 / 400.0).sqrt();
        close(found.value, 0.5, 1e-12);
        close(found.low, 0.5 - half, 0.1 * half);
        close(found.high, 0.5 + half, 0.1 * half);
        assert_eq!(mean(&values, &each, 1).unwrap(), found);
        assert_ne!(mean(&values, &each, 2).unwrap(), found);
        let one = mean(&[0.25], &Clusters::each(1), 1).unwrap();
        assert_eq!((one.value, one.low, one.high), (0.25, 0.25, 0.25));
    }

    #[test]
    fn pictures_of_one_prompt_that_say_the_same_are_no_more_than_one() {
        // 40 prompts with 10 pictures each, all alike within a prompt: as 40 numbers, so sqrt(10)
        // times as wide as 400 would be.
        let values: Vec<f64> = (0..400).map(|i| (f64::from(i / 10) + 0.5) / 40.0).collect();
        let wide = mean(
            &values,
            &Clusters::by(values.iter().map(|v| (v * 1e6) as u64)),
            1,
        )
        .unwrap();
        let narrow = mean(&values, &Clusters::each(400), 1).unwrap();
        close(
            (wide.high - wide.low) / (narrow.high - narrow.low),
            10f64.sqrt(),
            0.3,
        );
        assert_eq!(wide.value, narrow.value);
    }

    #[test]
    fn any_statistic_has_an_interval() {
        let values = [5.0, 1.0, 9.0, 3.0, 7.0];
        let largest = |sample: &[usize]| sample.iter().map(|&i| values[i]).fold(f64::MIN, f64::max);
        let found = bootstrap(&Clusters::each(5), 500, 3, largest).unwrap();
        assert!(
            found.value == 9.0 && found.high == 9.0 && found.low < 9.0,
            "{found:?}"
        );
        // A sample without any even position has no mean of them; the interval is that of the
        // samples that have one.
        let picky = |sample: &[usize]| {
            average(
                sample
                    .iter()
                    .filter(|&&i| i != 1)
                    .map(|&i| values[i])
                    .collect::<Vec<_>>()
                    .into_iter(),
            )
        };
        assert!(bootstrap(&Clusters::each(2), 200, 3, picky).unwrap().low == 5.0);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let each = Clusters::each(2);
        assert!(mean(&[], &Clusters::each(0), 0).is_err());
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(
                mean(&[1.0, bad], &each, 0)
                    .unwrap_err()
                    .to_string()
                    .starts_with("expected finite numbers")
            );
        }
        let found = mean(&[2.0, 2.0], &each, 0).unwrap();
        assert_eq!((found.value, found.low, found.high), (2.0, 2.0, 2.0));
        assert!(mean(&[1.0], &each, 0).is_err());
    }
}
