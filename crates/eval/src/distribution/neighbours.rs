//! Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019, arXiv 1904.06991).

use faer::Mat;

use super::features::common_width;
use crate::error::{Error, Result};

/// The neighbour whose distance is a picture's radius, the paper's choice.
pub const NEIGHBOURS: usize = 3;

/// How much of what was drawn looks real, and how much of what is real was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// The fraction of the second set that lies within a radius of the first's.
    pub precision: f64,
    /// The fraction of the first set that lies within a radius of the second's.
    pub recall: f64,
}

/// Precision and recall of `drawn` pictures against `real` ones.
///
/// A set's manifold is the union of balls around its pictures, each as wide as the distance to its
/// `k`-th nearest neighbour in the set, not counting itself; the border belongs to the ball.
///
/// # Errors
/// If `k` is 0, a set has no more than `k` pictures, or rows differ in width or are not finite.
pub fn precision_recall(
    real: &[Vec<f32>],
    drawn: &[Vec<f32>],
    k: usize,
) -> Result<PrecisionRecall> {
    if k == 0 {
        return Err(Error::input(
            "precision and recall need at least 1 neighbour, found 0",
        ));
    }
    let width = common_width(real, drawn, "precision and recall", k + 1)?;
    let (real, drawn) = (Set::new(real, width), Set::new(drawn, width));
    let (of_real, of_drawn) = (real.radii(k), drawn.radii(k));
    Ok(PrecisionRecall {
        precision: drawn.covered_by(&real, &of_real),
        recall: real.covered_by(&drawn, &of_drawn),
    })
}

/// Rows whose distances are looked at together: one block of them against 50,000 has 200 MB.
const BLOCK: usize = 512;

/// Squared distances come from products, and are off by so much of the squared lengths: a picture
/// must not lie outside of the ball around its copy for that. What f32 can tell apart is further
/// apart.
const SLACK: f64 = 1e-11;

/// Features with their squared lengths.
struct Set {
    rows: Mat<f64>,
    squares: Vec<f64>,
}

impl Set {
    fn new(features: &[Vec<f32>], width: usize) -> Self {
        let rows = Mat::from_fn(features.len(), width, |i, j| f64::from(features[i][j]));
        let square = |row: &Vec<f32>| row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        Self {
            rows,
            squares: features.iter().map(square).collect(),
        }
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    /// Gives each row's squared distances to all rows of another set to `each`, in order.
    fn distances(&self, other: &Self, mut each: impl FnMut(usize, &[f64])) {
        for start in (0..self.len()).step_by(BLOCK) {
            let count = BLOCK.min(self.len() - start);
            // Transposed, so that one row's distances lie side by side.
            let products = &other.rows * self.rows.subrows(start, count).transpose();
            let mut distances = vec![0.0; other.len()];
            for i in 0..count {
                let all = products.col(i).iter().zip(&other.squares);
                for (distance, (product, square)) in distances.iter_mut().zip(all) {
                    *distance = (self.squares[start + i] + square - 2.0 * product).max(0.0);
                }
                each(start + i, &distances);
            }
        }
    }

    /// The squared distance to the `k`-th nearest other of each row.
    fn radii(&self, k: usize) -> Vec<f64> {
        let mut radii = Vec::with_capacity(self.len());
        self.distances(self, |at, distances| {
            let mut others = [&distances[..at], &distances[at + 1..]].concat();
            let (_, radius, _) = others.select_nth_unstable_by(k - 1, f64::total_cmp);
            radii.push(*radius);
        });
        radii
    }

    /// The fraction of its rows within a ball around another set's.
    fn covered_by(&self, other: &Self, radii: &[f64]) -> f64 {
        let mut covered = 0;
        self.distances(other, |at, distances| {
            let within =
                |i: usize| distances[i] <= radii[i] + SLACK * (self.squares[at] + other.squares[i]);
            covered += usize::from((0..distances.len()).any(within));
        });
        covered as f64 / self.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::waves, *};

    fn line(points: &[f32]) -> Vec<Vec<f32>> {
        points.iter().map(|&x| vec![x, 0.0]).collect()
    }

    #[test]
    fn by_hand_on_a_line() {
        // Radii of the real set with k = 1: 1, 1, 2, 5; balls [-1, 1], [0, 2], [1, 5], [3, 13].
        let real = line(&[0.0, 1.0, 3.0, 8.0]);
        // Radii of the drawn set: 0.5, 16, 0.5, 10; balls [-6.5, -5.5], [4, 36], [-7, -6], [-6,
        // 14].
        let drawn = line(&[-6.0, 20.0, -6.5, 4.0]);
        let found = precision_recall(&real, &drawn, 1).unwrap();
        assert_eq!((found.precision, found.recall), (0.25, 1.0));
        let found = precision_recall(&drawn, &real, 1).unwrap();
        assert_eq!((found.precision, found.recall), (1.0, 0.25));
    }

    #[test]
    fn sets_cover_themselves_and_nothing_far_away() {
        let x = waves(40, 6, 0.37, 0.5, 0.0);
        assert_eq!(
            precision_recall(&x, &x, 3).unwrap(),
            PrecisionRecall {
                precision: 1.0,
                recall: 1.0
            }
        );
        let far: Vec<Vec<f32>> = x
            .iter()
            .map(|row| row.iter().map(|v| v + 100.0).collect())
            .collect();
        assert_eq!(
            precision_recall(&x, &far, 3).unwrap(),
            PrecisionRecall {
                precision: 0.0,
                recall: 0.0
            }
        );
        // Copies of one picture: radius 0, and yet it covers itself.
        let same = vec![vec![0.1f32, 0.7]; 5];
        assert_eq!(
            precision_recall(&same, &same, 3).unwrap(),
            PrecisionRecall {
                precision: 1.0,
                recall: 1.0
            }
        );
    }

    #[test]
    fn blocks_make_no_difference() {
        let (x, y) = (
            waves(BLOCK + 40, 5, 0.37, 0.5, 0.0),
            waves(700, 5, 0.53, 0.2, 0.15),
        );
        let found = precision_recall(&x, &y, 3).unwrap();
        // The same from the definition, one pair at a time.
        let apart = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum::<f64>()
        };
        let covered = |a: &[Vec<f32>], b: &[Vec<f32>]| {
            let radius = |c: &Vec<f32>| {
                let mut all: Vec<f64> = b.iter().map(|other| apart(c, other)).collect();
                all.sort_by(f64::total_cmp);
                all[3]
            };
            let radii: Vec<f64> = b.iter().map(radius).collect();
            let inside = |one: &&Vec<f32>| b.iter().zip(&radii).any(|(c, r)| apart(one, c) <= *r);
            a.iter().filter(inside).count() as f64 / a.len() as f64
        };
        assert_eq!(
            (found.precision, found.recall),
            (covered(&y, &x), covered(&x, &y))
        );
        assert!(found.precision > 0.0 && found.precision < 1.0, "{found:?}");
    }

    // from scipy.spatial.distance import cdist; x, y as in gaussian.rs, in f64 r = lambda s:
    // np.sort(cdist(s, s), 1)[:, 3]; print((cdist(y, x) <= r(x)).any(1).mean(), (cdist(x, y) <=
    // r(y)).any(1).mean())
    #[test]
    fn agrees_with_sorted_distances_in_numpy() {
        let found = precision_recall(
            &waves(40, 6, 0.37, 0.5, 0.0),
            &waves(30, 6, 0.53, 0.2, 0.1),
            NEIGHBOURS,
        )
        .unwrap();
        assert_eq!((found.precision, found.recall), (0.9, 1.0));
    }

    #[test]
    fn says_how_many_it_needs() {
        let x = waves(3, 2, 0.1, 0.1, 0.0);
        let error = precision_recall(&x, &x, 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "precision and recall: expected at least 4 pictures in a set, found 3"
        );
        assert!(precision_recall(&x, &x, 0).is_err());
    }
}
