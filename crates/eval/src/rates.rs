//! Counted judgements and how far they can be trusted.

use serde::{Deserialize, Serialize};

/// The standard normal quantile of a two-sided 95% interval.
pub const Z95: f64 = 1.96;

/// How many of a number of pictures were hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Pictures that show what was asked about.
    pub hits: usize,
    /// Pictures judged.
    pub n: usize,
}

impl Rate {
    /// One more picture.
    pub fn add(&mut self, hit: bool) {
        self.hits += usize::from(hit);
        self.n += 1;
    }

    /// Hits over pictures; not a number where there are none.
    pub fn fraction(self) -> f64 {
        self.hits as f64 / self.n as f64
    }

    /// Wilson's score interval (1927), (low, high) in [0, 1]; `z` is a quantile such as [`Z95`].
    ///
    /// Unlike the normal approximation it is of use where the rate is 0 or 1, which is what erasure
    /// aims at.
    pub fn wilson(self, z: f64) -> (f64, f64) {
        if self.n == 0 {
            return (0.0, 1.0);
        }
        wilson(self.fraction(), self.n as f64, z)
    }
}

/// Wilson's score interval (1927) of a share `p` of `n > 0` pictures, which need not be whole.
pub(crate) fn wilson(p: f64, n: f64, z: f64) -> (f64, f64) {
    let scale = 1.0 + z * z / n;
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // Of none and of all one end is exactly 0 or 1; rounding must not take it outside or short of
    // that.
    let low = if p <= 0.0 {
        0.0
    } else {
        ((middle - half) / scale).max(0.0)
    };
    let high = if p >= 1.0 {
        1.0
    } else {
        ((middle + half) / scale).min(1.0)
    };
    (low, high)
}

/// What the judges counted for one concept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Pictures of the concept's own prompts that show it.
    pub target: Rate,
    /// Pictures of other prompts that show what they should.
    pub others: Rate,
    /// Of the other pictures, those that show the right object.
    #[serde(default)]
    pub other_objects: Rate,
    /// Of the other pictures, those in the right style.
    #[serde(default)]
    pub other_styles: Rate,
    /// For a style: pictures of its own prompts that show the right object, whatever the style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_objects: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_the_formula_in_python() {
        // for k, n in [(0, 48), (1, 48), (24, 48), (47, 48), (48, 48), (177, 186), (0, 1)]:
        //     z, p = 1.96, k / n; d = 1 + z*z/n; m = p + z*z/(2*n); h = z * (p*(1-p)/n + z*z/(4*n*n))**.5; print((m-h)/d, (m+h)/d)
        // (what statsmodels' proportion_confint(k, n, method="wilson") computes, there with
        // 1.959964)
        for (hits, n, low, high) in [
            (0, 48, 0.0000000000, 0.0741026512),
            (1, 48, 0.0036870160, 0.1089946914),
            (24, 48, 0.3638909893, 0.6361090107),
            (47, 48, 0.8910053086, 0.9963129840),
            (48, 48, 0.9258973488, 1.0000000000),
            (177, 186, 0.9106105157, 0.9743377780),
            (0, 1, 0.0000000000, 0.7934567085),
        ] {
            let found = Rate { hits, n }.wilson(Z95);
            assert!(
                (found.0 - low).abs() < 1e-9 && (found.1 - high).abs() < 1e-9,
                "{hits}/{n}: {found:?}"
            );
        }
        assert_eq!(Rate::default().wilson(Z95), (0.0, 1.0));
        assert_eq!(Rate { hits: 0, n: 48 }.wilson(Z95).0, 0.0);
        assert_eq!(Rate { hits: 48, n: 48 }.wilson(Z95).1, 1.0);
    }

    #[test]
    fn counts() {
        let mut rate = Rate::default();
        [true, false, true, true]
            .into_iter()
            .for_each(|hit| rate.add(hit));
        assert_eq!(rate, Rate { hits: 3, n: 4 });
        assert_eq!(rate.fraction(), 0.75);
        assert!(Rate::default().fraction().is_nan());
    }

    #[test]
    fn an_object_has_no_third_number() {
        let rates = Rates {
            target: Rate { hits: 1, n: 48 },
            others: Rate { hits: 180, n: 186 },
            ..Rates::default()
        };
        let text = serde_json::to_string(&rates).unwrap();
        assert!(
            text.starts_with(r#"{"target":{"hits":1,"n":48},"others":{"hits":180,"n":186}"#),
            "{text}"
        );
        assert!(!text.contains("target_objects"), "{text}");
        assert_eq!(serde_json::from_str::<Rates>(&text).unwrap(), rates);
    }
}
