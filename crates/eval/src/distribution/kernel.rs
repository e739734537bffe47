//! The kernel distance of two sets (Bińkowski et al. 2018, arXiv 1801.01401), which over
//! Inception's features is the KID.

use faer::Mat;

use super::features::common_width;
use crate::{error::Result, statistics::SplitMix};

/// Pictures in a subset, and how many subsets, as torch-fidelity takes them.
const KID_SUBSET: usize = 1000;
/// How many subsets.
const KID_SUBSETS: usize = 100;

/// The generator's seed, torch-fidelity's; its subsets are others all the same, because its
/// generator is NumPy's.
const SEED: u64 = 2020;

/// A kernel distance and how it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kid {
    /// The unbiased estimate of the squared maximum mean discrepancy; it may be negative where the
    /// sets are alike.
    pub value: f64,
    /// The deviation over subsets (of the population, as torch-fidelity's), if there was more than
    /// one.
    pub deviation: Option<f64>,
    /// Subsets that were averaged; 1 means all pictures at once.
    pub subsets: usize,
    /// Pictures of each set in a subset; all of the smaller set's where there was one subset.
    pub subset: usize,
}

/// The kernel distance with `k(x, y) = (x . y / d + 1)^3`, unbiased.
///
/// With at least `KID_SUBSET` pictures in each set it is the mean over `KID_SUBSETS` subsets
/// drawn without replacement, always the same ones; with fewer, one estimate of all pictures, whose
/// expectation is the same.
///
/// # Errors
/// If a set has fewer than 2 pictures, or rows differ in width or are not finite.
pub fn kid(x: &[Vec<f32>], y: &[Vec<f32>]) -> Result<Kid> {
    let width = common_width(x, y, "the kernel distance", 2)?;
    subsets(x, y, width, KID_SUBSETS, KID_SUBSET)
}

fn subsets(x: &[Vec<f32>], y: &[Vec<f32>], width: usize, count: usize, size: usize) -> Result<Kid> {
    let least = x.len().min(y.len());
    if least < size {
        let (x, y) = (matrix(x, 0..x.len(), width), matrix(y, 0..y.len(), width));
        return Ok(Kid {
            value: discrepancy(&x, &y),
            deviation: None,
            subsets: 1,
            subset: least,
        });
    }
    let mut random = SplitMix::new(SEED);
    let values: Vec<f64> = (0..count)
        .map(|_| {
            let (a, b) = (random.choose(x.len(), size), random.choose(y.len(), size));
            discrepancy(
                &matrix(x, a.into_iter(), width),
                &matrix(y, b.into_iter(), width),
            )
        })
        .collect();
    let mean = values.iter().sum::<f64>() / count as f64;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count as f64;
    Ok(Kid {
        value: mean,
        deviation: Some(variance.sqrt()),
        subsets: count,
        subset: size,
    })
}

fn matrix(
    features: &[Vec<f32>],
    rows: impl ExactSizeIterator<Item = usize>,
    width: usize,
) -> Mat<f64> {
    let rows: Vec<&Vec<f32>> = rows.map(|i| &features[i]).collect();
    Mat::from_fn(rows.len(), width, |i, j| f64::from(rows[i][j]))
}

/// The unbiased squared discrepancy: means of the kernel within each set, without the diagonal,
/// minus twice the mean between them.
fn discrepancy(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let (m, n) = (x.nrows() as f64, y.nrows() as f64);
    let within = |a: &Mat<f64>| {
        let k = kernel(a, a);
        let (all, diagonal) = (total(&k), (0..k.nrows()).map(|i| k[(i, i)]).sum::<f64>());
        all - diagonal
    };
    within(x) / (m * (m - 1.0)) + within(y) / (n * (n - 1.0)) - 2.0 * total(&kernel(x, y)) / (m * n)
}

fn kernel(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    let gamma = 1.0 / a.ncols() as f64;
    let mut k = a * b.transpose();
    for column in 0..k.ncols() {
        k.col_mut(column)
            .iter_mut()
            .for_each(|v| *v = (*v * gamma + 1.0).powi(3));
    }
    k
}

fn total(k: &Mat<f64>) -> f64 {
    (0..k.ncols()).map(|j| k.col(j).iter().sum::<f64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::waves, *};
    use crate::near::close;

    // k = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3; x, y as in gaussian.rs, in f64; n, m =
    // len(x), len(y) (k(x,x).sum() - np.trace(k(x,x)))/(n*(n-1)) + (k(y,y).sum() -
    // np.trace(k(y,y)))/(m*(m-1)) - 2*k(x,y).mean()
    #[test]
    fn all_pictures_at_once() {
        let (x, y) = (waves(40, 6, 0.37, 0.5, 0.0), waves(30, 6, 0.53, 0.2, 0.1));
        let found = kid(&x, &y).unwrap();
        close(found.value, VALUE, 1e-9);
        assert_eq!(
            (found.deviation, found.subsets, found.subset),
            (None, 1, 30)
        );
        close(kid(&y, &x).unwrap().value, found.value, 1e-12);
    }
    const VALUE: f64 = 0.23497623220416575;

    #[test]
    fn subsets_average_to_the_whole() {
        let (x, y) = (waves(300, 6, 0.37, 0.5, 0.0), waves(280, 6, 0.53, 0.2, 0.1));
        let whole = kid(&x, &y).unwrap().value;
        let found = subsets(&x, &y, 6, 100, 50).unwrap();
        let deviation = found.deviation.unwrap();
        assert!(
            (found.value - whole).abs() < 3.0 * deviation / 10.0,
            "{found:?} {whole}"
        );
        assert!(deviation > 0.0 && (found.subsets, found.subset) == (100, 50));
        assert_eq!(subsets(&x, &y, 6, 100, 50).unwrap(), found);
    }

    #[test]
    fn the_same_distribution_is_at_about_zero_from_itself() {
        let all = waves(400, 6, 0.37, 0.5, 0.0);
        let order = SplitMix::new(1).choose(400, 400);
        let half = |range: std::ops::Range<usize>| {
            order[range]
                .iter()
                .map(|&i| all[i].clone())
                .collect::<Vec<_>>()
        };
        let found = kid(&half(0..200), &half(200..400)).unwrap().value;
        let far = kid(&half(0..200), &waves(200, 6, 0.53, 0.2, 0.1))
            .unwrap()
            .value;
        assert!(found.abs() < 0.03 && far > 0.2, "{found} {far}");
    }

    #[test]
    fn says_how_many_it_needs() {
        let error = kid(&waves(1, 3, 0.1, 0.1, 0.0), &waves(5, 3, 0.1, 0.1, 0.0)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel distance: expected at least 2 pictures in a set, found 1"
        );
        assert!(kid(&waves(5, 4, 0.1, 0.1, 0.0), &waves(5, 3, 0.1, 0.1, 0.0)).is_err());
    }
}
