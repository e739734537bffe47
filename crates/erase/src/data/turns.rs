//! Whose turn it is, counted over the examples of a whole run. What goes by the place in a batch
//! never comes up where a batch is one example: STEREO's words, what is kept beside the empty
//! prompt, the share of examples that is attacked.

use burn::tensor::{Int, Tensor, TensorData};

/// Which of `kinds` things example `i` of a step takes: one after the other, so that all come up
/// within as many examples.
pub(crate) fn taken(step: usize, batch: usize, i: usize, kinds: usize) -> usize {
    (step * batch + i) % kinds.max(1)
}

/// How many of a step's examples belong to a `share` (0 to 1) of all, so that the total stays
/// within one of its share: of single examples and a half every second.
pub(crate) fn part(step: usize, batch: usize, share: f64) -> usize {
    let until = |examples: usize| (examples as f64 * share + 1e-9).floor() as usize;
    until((step + 1) * batch) - until(step * batch)
}

/// Rows of a batch, in the order in which they are named; `[n, tokens, width]`.
pub(crate) fn select(rows_of: &Tensor<3>, rows: &[usize]) -> Tensor<3> {
    let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
    rows_of.clone().select(
        0,
        Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &rows_of.device()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_up_at_every_batch() {
        for (batch, kinds) in [(1, 2), (1, 5), (2, 5), (3, 3), (8, 2), (3, 7)] {
            let steps = usize::div_ceil(kinds, batch);
            let mut seen: Vec<usize> = (0..steps)
                .flat_map(|s| (0..batch).map(move |i| taken(s, batch, i, kinds)))
                .collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(
                seen,
                (0..kinds).collect::<Vec<_>>(),
                "batch {batch}, {kinds} kinds"
            );
        }
    }

    #[test]
    fn a_share_is_kept_at_every_batch() {
        for batch in 1..9 {
            for share in [0.0, 0.1, 1.0 / 3.0, 0.5, 0.75, 1.0] {
                let mut total = 0;
                for step in 0..60 {
                    let n = part(step, batch, share);
                    assert!(n <= batch);
                    total += n;
                    let wanted = share * ((step + 1) * batch) as f64;
                    assert!(
                        (total as f64 - wanted).abs() < 1.0,
                        "batch {batch}, share {share}, step {step}"
                    );
                }
            }
        }
        // As before where the batch divides.
        assert!((0..20).all(|step| part(step, 8, 0.5) == 4));
    }
}
