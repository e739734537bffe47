//! Student's interval of a mean.

/// The 95% interval of the mean of some numbers, (low, high); `None` for fewer than two, of which
/// nothing is known.
pub(crate) fn student(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = quantile(n - 1.0) * (variance / n).sqrt();
    Some((mean - half, mean + half))
}

/// The 0.975 quantile of Student's distribution with `df` degrees of freedom, at least 1, by
/// bisection of its tail.
fn quantile(df: f64) -> f64 {
    // P(|T| > t) = I_x(df/2, 1/2) at x = df / (df + t²).
    let tail = |t: f64| incomplete_beta(df / 2.0, 0.5, df / (df + t * t));
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if tail(middle) > 0.05 {
            low = middle
        } else {
            high = middle
        }
    }
    (low + high) / 2.0
}

/// The regularised incomplete beta function by its continued fraction (DLMF 8.17.22), evaluated
/// from the front by Lentz's method.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges quickly on one side of the mean only; the other follows by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front =
        (a * x.ln() + b * (1.0 - x).ln() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    let tiny = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / tiny(1.0 - (a + b) * x / (a + 1.0)));
    let mut value = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = value;
        for term in [even, odd] {
            d = 1.0 / tiny(1.0 + term * d);
            c = tiny(1.0 + term / c);
            value *= c * d;
        }
        if (value - before).abs() <= 1e-15 * value.abs() {
            break;
        }
    }
    front * value
}

/// The logarithm of the gamma function for positive numbers: Stirling's series (DLMF 5.11.1) after
/// going up to where it is exact.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 12.0 {
        below += x.ln();
        x += 1.0;
    }
    let r = 1.0 / (x * x);
    let series =
        (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r * (1.0 / 1680.0 - r / 1188.0)))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_scipy() {
        // from scipy import stats  # 1.17.1
        // for v in ([1, 2], [1, 2, 2, 3, 5], [4, 4, 5, 3, 4, 2, 5, 5, 1, 4, 3.5, 2.25], [3, 3, 3]):
        //     t = stats.t.ppf(.975, len(v) - 1); m = sum(v) / len(v); s = stats.sem(v); print(m - t * s, m + t * s)
        for (values, low, high) in [
            (&[1.0, 2.0][..], -4.853102368087, 7.853102368087),
            (&[1.0, 2.0, 2.0, 3.0, 5.0], 0.716923311652, 4.483076688348),
            (
                &[4.0, 4.0, 5.0, 3.0, 4.0, 2.0, 5.0, 5.0, 1.0, 4.0, 3.5, 2.25],
                2.749379677854,
                4.375620322146,
            ),
            (&[3.0, 3.0, 3.0], 3.0, 3.0),
        ] {
            let found = student(values).unwrap();
            assert!(
                (found.0 - low).abs() < 1e-9 && (found.1 - high).abs() < 1e-9,
                "{values:?}: {found:?}"
            );
        }
        assert_eq!(student(&[3.0]), None);
        // print([stats.t.ppf(.975, d) for d in (1, 2, 30, 1000)])
        for (df, t) in [
            (1.0, 12.706204736175),
            (2.0, 4.302652729749),
            (30.0, 2.042272456301),
            (1000.0, 1.962339080826),
        ] {
            assert!((quantile(df) - t).abs() < 1e-9, "{df}: {}", quantile(df));
        }
    }
}
