//! Whether a classifier is as often right as it is sure (Guo et al. 2017, arXiv 1706.04599): one temperature for all
//! its logits, found on examples that it never learned from, and the reliability curve of what comes out.

/// A classifier's answers to some examples, and the right ones.
pub(crate) struct Answered {
    /// One row of logits for each example.
    pub(crate) logits: Vec<f32>,
    /// The right class of each.
    pub(crate) right: Vec<usize>,
    /// How many classes there are.
    pub(crate) classes: usize,
}

/// Answers of about one confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// How sure they are, on average.
    pub confidence: f64,
    /// The share of them that is right.
    pub right: f64,
    /// How many there are.
    pub count: usize,
}

/// Bins of equal width, as in the paper.
const BINS: usize = 10;
/// Logarithms of the smallest and the largest temperature.
const RANGE: (f64, f64) = (-3.0, 3.0);
/// Halvings, nearly, of that range: to a thousandth.
const STEPS: usize = 20;

impl Answered {
    /// The temperature that makes the right answers most probable, by a golden section over its logarithm, in which
    /// the mean of minus their logarithm has one minimum; 1 where all answers are right, and ever more confidence would
    /// only seem better.
    pub(crate) fn temperature(&self) -> f64 {
        if self.reliability(1.0).iter().all(|bin| bin.right == 1.0) {
            return 1.0;
        }
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        let (mut low, mut high) = RANGE;
        let at = |x: f64| self.surprise(x.exp());
        let inner =
            |low: f64, high: f64| [high - golden * (high - low), low + golden * (high - low)];
        let [mut a, mut b] = inner(low, high);
        let (mut of_a, mut of_b) = (at(a), at(b));
        for _ in 0..STEPS {
            if of_a < of_b {
                high = b;
                [a, b] = inner(low, high);
                (of_a, of_b) = (at(a), of_a);
            } else {
                low = a;
                [a, b] = inner(low, high);
                (of_a, of_b) = (of_b, at(b));
            }
        }
        f64::midpoint(low, high).exp()
    }

    /// The mean of minus the logarithm of the right answer's probability.
    fn surprise(&self, temperature: f64) -> f64 {
        let rows = self.logits.chunks_exact(self.classes).zip(&self.right);
        let sum: f64 = rows
            .map(|(row, &right)| {
                let scaled = |x: f32| f64::from(x) / temperature;
                let most = row
                    .iter()
                    .fold(f64::NEG_INFINITY, |most, &x| most.max(scaled(x)));
                let all: f64 = row.iter().map(|&x| (scaled(x) - most).exp()).sum();
                all.ln() + most - scaled(row[right])
            })
            .sum();
        sum / self.right.len().max(1) as f64
    }

    /// The reliability curve at a temperature; bins that nothing falls into are left out.
    pub(crate) fn reliability(&self, temperature: f64) -> Vec<Bin> {
        let mut bins = [(0.0, 0usize, 0usize); BINS];
        for (row, &right) in self.logits.chunks_exact(self.classes).zip(&self.right) {
            let best = (0..self.classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let best = best.unwrap_or_default();
            let scaled = |x: f32| f64::from(x - row[best]) / temperature;
            let confidence = 1.0 / row.iter().map(|&x| scaled(x).exp()).sum::<f64>();
            let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
            bin.0 += confidence;
            bin.1 += usize::from(best == right);
            bin.2 += 1;
        }
        let filled = bins.into_iter().filter(|(_, _, count)| *count > 0);
        filled
            .map(|(confidence, right, count)| Bin {
                confidence: confidence / count as f64,
                right: right as f64 / count as f64,
                count,
            })
            .collect()
    }
}

/// The expected calibration error: how far confidence and right answers are apart, on average over answers.
pub(crate) fn error(bins: &[Bin]) -> f64 {
    let count: usize = bins.iter().map(|bin| bin.count).sum();
    let apart = |bin: &Bin| bin.count as f64 * (bin.confidence - bin.right).abs();
    bins.iter().map(apart).sum::<f64>() / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes; the first is right as often as a coin that shows it with the probability that the logits say, at
    /// a temperature of 1.
    fn coins(scale: f32) -> Answered {
        let mut answered = Answered {
            logits: Vec::new(),
            right: Vec::new(),
            classes: 2,
        };
        for i in 0..20 {
            let logit = 0.2 * i as f32 - 2.0;
            let share = 1.0 / (1.0 + (-f64::from(logit)).exp());
            for k in 0..200 {
                answered.logits.extend([logit * scale, 0.0]);
                answered
                    .right
                    .push(usize::from((k as f64 + 0.5) / 200.0 > share));
            }
        }
        answered
    }

    #[test]
    fn who_is_always_right_is_left_as_sure_as_he_is() {
        let mut answered = coins(1.0);
        answered.right.fill(0);
        answered
            .logits
            .chunks_exact_mut(2)
            .for_each(|row| row[0] = 2.0);
        assert_eq!(answered.temperature(), 1.0);
    }

    #[test]
    fn a_temperature_takes_back_what_made_it_too_sure() {
        for scale in [0.5, 1.0, 3.0] {
            let answered = coins(scale);
            let found = answered.temperature();
            assert!(
                (found / f64::from(scale) - 1.0).abs() < 0.02,
                "{scale}: {found}"
            );
            let (before, after) = (answered.reliability(1.0), answered.reliability(found));
            assert!(error(&after) < 0.01, "{after:?}");
            assert!(scale == 1.0 || error(&before) > 0.05, "{before:?}");
            let count: usize = after.iter().map(|bin| bin.count).sum();
            assert_eq!(count, 4000);
        }
    }
}
