//! Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019, arXiv 1904.06991).

use super::common_width;
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
/// A set's manifold is the union of balls around its pictures, each as wide as the distance to its `k`-th nearest neighbour in the set, not
/// counting itself; the border belongs to the ball.
///
/// # Errors
/// If `k` is 0, a set has no more than `k` pictures, or rows differ in width or are not finite.
pub fn precision_recall(real: &[Vec<f32>], drawn: &[Vec<f32>], k: usize) -> Result<PrecisionRecall> {
    if k == 0 {
        return Err(Error::input("precision and recall need at least 1 neighbour, found 0"));
    }
    common_width(real, drawn, "precision and recall", k + 1)?;
    Ok(PrecisionRecall { precision: covered(drawn, real, &radii(real, k)), recall: covered(real, drawn, &radii(drawn, k)) })
}

/// The squared distance to the `k`-th nearest other of each.
fn radii(set: &[Vec<f32>], k: usize) -> Vec<f64> {
    let of = |(i, one): (usize, &Vec<f32>)| {
        let mut distances: Vec<f64> =
            set.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| apart(one, other)).collect();
        let (_, radius, _) = distances.select_nth_unstable_by(k - 1, f64::total_cmp);
        *radius
    };
    set.iter().enumerate().map(of).collect()
}

/// The fraction of `pictures` within a ball.
fn covered(pictures: &[Vec<f32>], centres: &[Vec<f32>], radii: &[f64]) -> f64 {
    let inside = |one: &Vec<f32>| centres.iter().zip(radii).any(|(centre, radius)| apart(one, centre) <= *radius);
    pictures.iter().filter(|one| inside(one)).count() as f64 / pictures.len() as f64
}

/// The squared distance, from the differences: from products, a picture would not be at 0 from its copy.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    // Sixteen sums side by side, which the compiler turns into vectors; a single one it may not reorder.
    let mut sums = [0.0f64; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            let difference = f64::from(a - b);
            *sum += difference * difference;
        }
    }
    sums.iter().sum()
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
        // Radii of the drawn set: 0.5, 16, 0.5, 10; balls [-6.5, -5.5], [4, 36], [-7, -6], [-6, 14].
        let drawn = line(&[-6.0, 20.0, -6.5, 4.0]);
        let found = precision_recall(&real, &drawn, 1).unwrap();
        assert_eq!((found.precision, found.recall), (0.25, 1.0));
        let found = precision_recall(&drawn, &real, 1).unwrap();
        assert_eq!((found.precision, found.recall), (1.0, 0.25));
    }

    #[test]
    fn sets_cover_themselves_and_nothing_far_away() {
        let x = waves(40, 6, 0.37, 0.5, 0.0);
        assert_eq!(precision_recall(&x, &x, 3).unwrap(), PrecisionRecall { precision: 1.0, recall: 1.0 });
        let far: Vec<Vec<f32>> = x.iter().map(|row| row.iter().map(|v| v + 100.0).collect()).collect();
        assert_eq!(precision_recall(&x, &far, 3).unwrap(), PrecisionRecall { precision: 0.0, recall: 0.0 });
        // Copies of one picture: radius 0, and yet it covers itself.
        let same = vec![vec![0.1f32, 0.7]; 5];
        assert_eq!(precision_recall(&same, &same, 3).unwrap(), PrecisionRecall { precision: 1.0, recall: 1.0 });
    }

    // from scipy.spatial.distance import cdist; x, y as in gaussian.rs, in f64
    // r = lambda s: np.sort(cdist(s, s), 1)[:, 3]; print((cdist(y, x) <= r(x)).any(1).mean(), (cdist(x, y) <= r(y)).any(1).mean())
    #[test]
    fn agrees_with_sorted_distances_in_numpy() {
        let found = precision_recall(&waves(40, 6, 0.37, 0.5, 0.0), &waves(30, 6, 0.53, 0.2, 0.1), NEIGHBOURS).unwrap();
        assert_eq!((found.precision, found.recall), (0.9, 1.0));
    }

    #[test]
    fn says_how_many_it_needs() {
        let x = waves(3, 2, 0.1, 0.1, 0.0);
        let error = precision_recall(&x, &x, 3).unwrap_err();
        assert_eq!(error.to_string(), "precision and recall: expected at least 4 pictures in a set, found 3");
        assert!(precision_recall(&x, &x, 0).is_err());
    }
}
