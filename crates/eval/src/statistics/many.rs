//! Many tests at once.

/// Holm's step-down adjusted p-values (1979), in the order given: the largest level at which all
/// tests together err with at most that probability, whatever hangs together among them. Never
/// below the p-values themselves.
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[a].total_cmp(&ps[b]));
    let mut adjusted = vec![1.0; ps.len()];
    let mut most = 0.0_f64;
    for (rank, i) in order.into_iter().enumerate() {
        most = most.max(((ps.len() - rank) as f64 * ps[i]).min(1.0));
        adjusted[i] = most;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_is_rs() {
        // p.adjust(c(.01, .04, .03, .005), "holm"): 0.03 0.06 0.06 0.02
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(holm(&[0.5, 0.9, 0.5]), [1.0, 1.0, 1.0]);
        assert_eq!(holm(&[0.2]), [0.2]);
        assert!(holm(&[]).is_empty());
    }
}
