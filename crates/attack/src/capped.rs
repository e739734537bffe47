//! The capped simplex: weights between 0 and 1 with a given sum.

/// The nearest point of `{w in [0, 1]^n, sum w = m}` to `w`: `clip(w - mu, 0, 1)` with the `mu`
/// that makes the sum right.
///
/// `mu` is found exactly on the piece of the (piecewise linear) sum where it lies; the published
/// code bisects it to 1e-5, after which the sum can be off by n times that. `m` is brought into 0
/// to n.
pub(crate) fn project(weights: &mut [f64], m: f64) {
    let m = m.clamp(0.0, weights.len() as f64);
    let sum = |mu: f64| {
        weights
            .iter()
            .map(|w| (w - mu).clamp(0.0, 1.0))
            .sum::<f64>()
    };
    // The sum falls with mu, and bends where a weight leaves 0 or 1.
    let mut bends: Vec<f64> = weights.iter().flat_map(|w| [*w, w - 1.0]).collect();
    bends.sort_by(f64::total_cmp);
    let below = bends.iter().rposition(|&mu| sum(mu) >= m);
    let mu = match below {
        None => bends.first().copied().unwrap_or(0.0),
        Some(i) if i + 1 == bends.len() => bends[i],
        Some(i) => {
            let (low, high) = (bends[i], bends[i + 1]);
            let (more, less) = (sum(low), sum(high));
            if more > less {
                low + (more - m) / (more - less) * (high - low)
            } else {
                low
            }
        }
    };
    weights
        .iter_mut()
        .for_each(|w| *w = (*w - mu).clamp(0.0, 1.0));
}

/// The `m` heaviest, the heaviest first; of equal weights the earlier.
pub(crate) fn heaviest(weights: &[f64], m: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    order.truncate(m);
    order
}

#[cfg(test)]
mod tests {
    use scumble_diffusion::TorchRng;

    use super::*;

    #[test]
    fn projections_lie_on_the_capped_simplex_and_are_nearest() {
        let mut rng = TorchRng::new(5);
        for (n, m) in [
            (1, 1.0),
            (4, 2.0),
            (10, 1.0),
            (100, 10.0),
            (37, 36.5),
            (5, 0.0),
            (5, 5.0),
        ] {
            for scale in [0.1, 1.0, 100.0] {
                let start: Vec<f64> = rng
                    .normal(n)
                    .into_iter()
                    .map(|x| f64::from(x) * scale)
                    .collect();
                let mut w = start.clone();
                project(&mut w, m);
                assert!(
                    (w.iter().sum::<f64>() - m).abs() < 1e-9 * n as f64,
                    "{n} {m} {scale}: {}",
                    w.iter().sum::<f64>()
                );
                assert!(w.iter().all(|x| (0.0..=1.0).contains(x)));
                // Nearest: moving weight from any place to any other, where the caps let it, does
                // not come closer.
                for i in 0..n {
                    for j in 0..n {
                        if w[i] > 1e-9 && w[j] < 1.0 - 1e-9 {
                            let slope = (start[j] - w[j]) - (start[i] - w[i]);
                            assert!(slope < 1e-9 * scale.max(1.0), "{n} {m} {i} {j} {slope}");
                        }
                    }
                }
            }
        }
        let mut none: [f64; 0] = [];
        project(&mut none, 3.0);
    }

    #[test]
    fn the_heaviest_come_in_order() {
        assert_eq!(heaviest(&[0.1, 0.9, 0.9, 0.5], 3), [1, 2, 3]);
    }
}
