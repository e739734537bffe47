//! Elementary functions as branch-free arithmetic, so that loops over them vectorise.

/// `e^x` to about 1 ulp for x in [-87, 88]; clamped outside.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; ln 2 is taken off in two parts to
    // keep r exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which in between stands in
    // the lowest bits: a cast to an integer would cost as much as all the rest.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function to about 3e-7: an odd rational function of degree 13 over 8, exact to f32
/// beyond |x| = 4.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let p = -2.726_142_3e-10;
    let p = p * z + 2.770_681_4e-8;
    let p = p * z - 2.101_024e-6;
    let p = p * z - 5.692_506_5e-5;
    let p = p * z - 7.349_906e-4;
    let p = p * z - 2.954_6e-3;
    let p = p * z - 1.609_603_4e-2;
    let q = -1.456_607_2e-5;
    let q = q * z - 2.133_740_5e-4;
    let q = q * z - 1.682_827e-3;
    let q = q * z - 7.373_329e-3;
    let q = q * z - 1.426_473_9e-2;
    x * p / q
}

/// The exact GELU, `x Phi(x)`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Its derivative, `Phi(x) + x phi(x)`.
#[inline(always)]
pub(crate) fn gelu_slope(x: f32) -> f32 {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * INV_SQRT_2PI * exp(-0.5 * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Maclaurin series in f64, enough terms for |x| <= 5.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn exp_is_right_to_a_few_ulp() {
        for i in -8600..8700 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) / expected - 1.0).abs() < 3e-7,
                "exp({x}) = {}, not {expected}",
                exp(x)
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(1e9).is_finite());
    }

    #[test]
    fn erf_and_gelu_are_right() {
        for i in -5000..=5000 {
            let x = f64::from(i) / 1000.0;
            let expected = erf_series(x);
            assert!(
                (f64::from(erf(x as f32)) - expected).abs() < 5e-7,
                "erf({x}) = {}, not {expected}",
                erf(x as f32)
            );
            let phi = 0.5 * (1.0 + erf_series(x * std::f64::consts::FRAC_1_SQRT_2));
            let slope = phi + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(gelu(x as f32)) - x * phi).abs() < 2e-6);
            assert!((f64::from(gelu_slope(x as f32)) - slope).abs() < 2e-6);
        }
    }
}
