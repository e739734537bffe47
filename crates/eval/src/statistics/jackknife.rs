//! Intervals of distances between distributions.

use super::{clustered::Clusters, interval::Interval, student::quantile as student};
use crate::error::Result;

/// Groups of pictures that the jackknife leaves out in turn.
pub const GROUPS: usize = 10;

/// A statistic of pictures and its interval by the delete-a-group jackknife: value ± t standard
/// errors, t Student's for one less than the number of groups (2.26 of ten). `statistic` is given
/// the positions of the pictures that are left.
///
/// Clusters are put into [`GROUPS`] groups in turn and are never divided; of fewer clusters each is
/// a group. `None` of fewer than two clusters. A bootstrap would repeat pictures, which distances
/// between distributions take for less variety.
///
/// # Errors
/// If the statistic fails.
pub fn jackknife(
    clusters: &Clusters,
    mut statistic: impl FnMut(&[usize]) -> Result<f64>,
) -> Result<(f64, Option<Interval>)> {
    let value = statistic(&(0..clusters.pictures()).collect::<Vec<_>>())?;
    let groups = GROUPS.min(clusters.len());
    if groups < 2 {
        return Ok((value, None));
    }
    let mut group = vec![0; clusters.pictures()];
    for (k, members) in clusters.members().iter().enumerate() {
        members.iter().for_each(|&i| group[i] = k % groups);
    }
    let mut parts = Vec::with_capacity(groups);
    for left_out in 0..groups {
        let kept: Vec<usize> = (0..group.len()).filter(|&i| group[i] != left_out).collect();
        parts.push(statistic(&kept)?);
    }
    let g = groups as f64;
    let mean = parts.iter().sum::<f64>() / g;
    let error =
        ((g - 1.0) / g * parts.iter().map(|part| (part - mean).powi(2)).sum::<f64>()).sqrt();
    let half = student(groups - 1) * error;
    Ok((
        value,
        Some(Interval {
            value,
            low: value - half,
            high: value + half,
        }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_mean_it_is_students_interval_of_group_means() {
        // Of a mean the jackknife's standard error is that of the mean of the ten group means.
        let values: Vec<f64> = (0..40).map(|i| f64::from((i * 7) % 11)).collect();
        let mean = |of: &[usize]| Ok(of.iter().map(|&i| values[i]).sum::<f64>() / of.len() as f64);
        let (value, interval) = jackknife(&Clusters::each(40), mean).unwrap();
        let groups: Vec<f64> = (0..10)
            .map(|g| (0..4).map(|k| values[g + 10 * k]).sum::<f64>() / 4.0)
            .collect();
        let variance = groups.iter().map(|x| (x - value).powi(2)).sum::<f64>() / 9.0;
        let half = 2.262_157_163 * (variance / 10.0).sqrt();
        let found = interval.unwrap();
        assert!(
            (found.high - value - half).abs() < 1e-8 && (value - found.low - half).abs() < 1e-8,
            "{found:?} {half}"
        );
    }

    #[test]
    fn prompts_are_not_divided_between_groups() {
        let clusters = Clusters::by((0..60).map(|i| i / 5));
        let mut sizes = Vec::new();
        let count = |kept: &[usize]| {
            sizes.push(kept.len());
            assert!((0..12).all(|prompt| {
                [0, 5].contains(&kept.iter().filter(|&&i| i / 5 == prompt).count())
            }));
            Ok(1.0)
        };
        jackknife(&clusters, count).unwrap();
        // Twelve prompts of five: two groups have two of them.
        assert_eq!(sizes, [60, 50, 50, 55, 55, 55, 55, 55, 55, 55, 55]);
        assert_eq!(
            jackknife(&Clusters::by([1, 1, 1]), |_| Ok(3.0)).unwrap(),
            (3.0, None)
        );
        assert_eq!(
            jackknife(&Clusters::by([1, 1, 2]), |kept| Ok(kept.len() as f64))
                .unwrap()
                .1
                .map(|i| i.value),
            Some(3.0)
        );
    }
}
