//! Student's distribution, for intervals of few groups.

use std::f64::consts::PI;

/// The 0.975 quantile of Student's distribution with `df` degrees of freedom, at least 1; 1.96 of
/// very many.
///
/// By bisection of the distribution function, which has a finite sum for whole degrees of freedom
/// (Abramowitz and Stegun, 26.7.3 and 26.7.4).
pub fn quantile(df: usize) -> f64 {
    if df > 10_000 {
        return crate::rates::Z95;
    }
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if inside(middle, df.max(1)) < 0.95 {
            low = middle
        } else {
            high = middle
        }
    }
    (low + high) / 2.0
}

/// `P(|T| < t)`.
fn inside(t: f64, df: usize) -> f64 {
    let angle = (t / (df as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    // cos^k times the products of odd over even (even df) or even over odd (odd df) numbers, k
    // running up by twos.
    let odd = df % 2 == 1;
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = if df == 1 { 0.0 } else { term };
    let mut k = if odd { 3 } else { 2 };
    while k + 2 <= df {
        term *= cosine * cosine * (k - 1) as f64 / k as f64;
        sum += term;
        k += 2;
    }
    if odd {
        2.0 / PI * (angle + sine * sum)
    } else {
        sine * sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scipys() {
        // scipy.stats.t.ppf(.975, [1, 2, 3, 4, 5, 9, 30, 47, 1000])
        for (df, expected) in [
            (1, 12.706_204_736),
            (2, 4.302_652_730),
            (3, 3.182_446_305),
            (4, 2.776_445_105),
            (5, 2.570_581_836),
            (9, 2.262_157_163),
            (30, 2.042_272_456),
            (47, 2.011_740_514),
            (1000, 1.962_339_081),
        ] {
            let found = quantile(df);
            assert!(
                (found - expected).abs() < 1e-8,
                "{df}: {found}, expected {expected}"
            );
        }
        assert_eq!(quantile(1_000_000), 1.96);
    }
}
