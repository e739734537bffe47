//! How many cases go through a network at once, and which may: one place for all attacks.

use crate::job::{Case, Job};

/// Pictures drawn at once.
pub(crate) const DRAWN: usize = 16;
/// Cases differentiated at once.
pub(crate) const BACKWARD: usize = 20;
/// Texts that go through CLIP with gradients at once.
pub(crate) const CLIP: usize = 32;
/// Rows of tokens that go through the text encoder at once.
pub(crate) const ENCODED: usize = 64;

/// Places of cases in groups of one strength of guidance, in the order in which they come.
pub(crate) fn alike(cases: &[Case]) -> Vec<(Option<f64>, Vec<usize>)> {
    let mut groups: Vec<(Option<f64>, Vec<usize>)> = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        match groups
            .iter_mut()
            .find(|(guidance, _)| *guidance == case.guidance)
        {
            Some((_, rows)) => rows.push(i),
            None => groups.push((case.guidance, vec![i])),
        }
    }
    groups
}

/// Some of a job's cases in groups of one strength of guidance.
pub(crate) fn by_guidance(job: &Job<'_>, which: &[usize]) -> Vec<(Option<f64>, Vec<usize>)> {
    let cases: Vec<Case> = which.iter().map(|&i| job.cases[i].clone()).collect();
    let back = |rows: Vec<usize>| rows.into_iter().map(|row| which[row]).collect();
    alike(&cases)
        .into_iter()
        .map(|(guidance, rows)| (guidance, back(rows)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_of_one_guidance_go_together_in_their_order() {
        let case = |guidance| Case {
            prompt: "a".into(),
            seed: 0,
            guidance,
        };
        let cases = [None, Some(2.0), None, Some(3.0), Some(2.0)].map(case);
        let expected = [
            (None, vec![0, 2]),
            (Some(2.0), vec![1, 4]),
            (Some(3.0), vec![3]),
        ];
        assert_eq!(alike(&cases), expected);
        assert!(alike(&[]).is_empty());
    }
}
