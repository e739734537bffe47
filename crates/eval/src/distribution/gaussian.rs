//! The Fréchet distance of two Gaussians (Dowson and Landau 1982), which over Inception's features
//! is the FID (Heusel et al. 2017, arXiv 1706.08500).

use faer::{Mat, MatRef, Side};

use super::features::width_of;
use crate::error::{Error, Result};

/// Mean and covariance of a set's features.
#[derive(Clone, Debug)]
pub struct Gaussian {
    /// The mean, one number for each feature.
    pub mean: Vec<f64>,
    /// The covariance, `[width, width]`, divided by n - 1 as `np.cov` does.
    pub covariance: Mat<f64>,
    /// How many pictures it is of, where that is known: a file of statistics does not say.
    pub n: Option<usize>,
}

/// A distance, and what has to be said with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frechet {
    /// `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`, at least 0.
    pub distance: f64,
    /// Whether a set has no more pictures than features, so that its covariance cannot have full
    /// rank and the distance is biased upwards; compare it with distances of as many pictures only.
    pub singular: bool,
}

impl Gaussian {
    /// The Gaussian of features, one row for each picture.
    ///
    /// # Errors
    /// If there are fewer than 2 pictures, or rows differ in width or are not finite.
    pub fn of(features: &[Vec<f32>]) -> Result<Self> {
        let width = width_of(features, "a covariance", 2)?;
        let n = features.len();
        let mut mean = vec![0.0; width];
        for row in features {
            mean.iter_mut()
                .zip(row)
                .for_each(|(sum, &v)| *sum += f64::from(v));
        }
        mean.iter_mut().for_each(|sum| *sum /= n as f64);
        let centred = Mat::from_fn(n, width, |i, j| f64::from(features[i][j]) - mean[j]);
        let covariance = faer::Scale(1.0 / (n - 1) as f64) * (centred.transpose() * &centred);
        Ok(Self {
            mean,
            covariance,
            n: Some(n),
        })
    }

    /// How many features it is of.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    fn is_singular(&self) -> bool {
        self.n.is_some_and(|n| n <= self.width())
    }
}

/// The Fréchet distance of two Gaussians.
///
/// pytorch-fid takes `scipy.linalg.sqrtm(S1 S2)`, which for covariances without full rank is
/// complex or not finite. The trace of the same root is the sum of the roots of the eigenvalues of
/// `S1^(1/2) S2 S1^(1/2)`, a symmetric matrix: what rounding makes negative there is 0.
///
/// # Errors
/// If the two are of different widths, a covariance is not square, or holds what is not finite.
pub fn frechet(a: &Gaussian, b: &Gaussian) -> Result<Frechet> {
    let width = a.width();
    if width != b.width() {
        return Err(Error::input(format!(
            "statistics of one network are needed, found {width} and {} features",
            b.width()
        ))
        .with_hint("a file of statistics must have been made with the same features"));
    }
    for gaussian in [a, b] {
        let s = &gaussian.covariance;
        if (s.nrows(), s.ncols()) != (width, width) {
            return Err(Error::input(format!(
                "expected a covariance of {width} by {width}, found {} by {}",
                s.nrows(),
                s.ncols()
            )));
        }
        let finite = (0..width).all(|j| s.col(j).iter().all(|v| v.is_finite()))
            && gaussian.mean.iter().all(|v| v.is_finite());
        if !finite {
            return Err(Error::input(
                "the statistics hold numbers that are not finite",
            ));
        }
    }
    let apart: f64 = a
        .mean
        .iter()
        .zip(&b.mean)
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    let traces = trace(a.covariance.as_ref()) + trace(b.covariance.as_ref());
    let distance =
        apart + traces - 2.0 * trace_of_root(a.covariance.as_ref(), b.covariance.as_ref())?;
    Ok(Frechet {
        distance: distance.max(0.0),
        singular: a.is_singular() || b.is_singular(),
    })
}

/// The distance of a Gaussian and that of some features, the same number as [`frechet`]'s.
///
/// With fewer pictures n than features, `S2 = Y^T Y / (n - 1)` of the centred features Y, and `S1
/// S2` has the eigenvalues of `Y S1 Y^T / (n - 1)`, which is n by n: of Inception's 2,048 features
/// of 200 pictures a thousandth of the work.
///
/// # Errors
/// As [`frechet`].
pub fn frechet_to(a: &Gaussian, features: &[Vec<f32>]) -> Result<Frechet> {
    let n = features.len();
    let width = width_of(features, "a distance", 2)?;
    let known =
        a.width() == width && (a.covariance.nrows(), a.covariance.ncols()) == (width, width);
    if n >= width || !known {
        return frechet(a, &Gaussian::of(features)?);
    }
    let mean: Vec<f64> = (0..width)
        .map(|j| features.iter().map(|row| f64::from(row[j])).sum::<f64>() / n as f64)
        .collect();
    let centred = Mat::from_fn(n, width, |i, j| {
        (f64::from(features[i][j]) - mean[j]) / ((n - 1) as f64).sqrt()
    });
    let inner = &centred * &a.covariance * centred.transpose();
    let symmetric = Mat::from_fn(n, n, |i, j| (inner[(i, j)] + inner[(j, i)]) / 2.0);
    let finite = (0..n).all(|j| symmetric.col(j).iter().all(|v| v.is_finite()))
        && a.mean.iter().all(|v| v.is_finite());
    if !finite {
        return Err(Error::input(
            "the statistics hold numbers that are not finite",
        ));
    }
    let eigenvalues = symmetric
        .self_adjoint_eigenvalues(Side::Lower)
        .map_err(|_| Error::input("the eigenvalues of a covariance were not found"))?;
    let root: f64 = eigenvalues.into_iter().map(|l| l.max(0.0).sqrt()).sum();
    let apart: f64 = a
        .mean
        .iter()
        .zip(&mean)
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    let own: f64 = (0..n)
        .map(|i| centred.row(i).iter().map(|v| v * v).sum::<f64>())
        .sum();
    Ok(Frechet {
        distance: (apart + trace(a.covariance.as_ref()) + own - 2.0 * root).max(0.0),
        singular: true,
    })
}

/// `tr((S1 S2)^(1/2))` of two positive semidefinite matrices.
fn trace_of_root(s1: MatRef<'_, f64>, s2: MatRef<'_, f64>) -> Result<f64> {
    let broken = |_| Error::input("the eigenvalues of a covariance were not found");
    let eigen = s1.self_adjoint_eigen(Side::Lower).map_err(broken)?;
    // With S1 = V L V^T, the matrix L^(1/2) V^T S2 V L^(1/2) has the eigenvalues of S1^(1/2) S2
    // S1^(1/2).
    let width = s1.nrows();
    let turned = eigen.U().transpose() * s2 * eigen.U();
    let roots: Vec<f64> = eigen
        .S()
        .column_vector()
        .iter()
        .map(|&l| l.max(0.0).sqrt())
        .collect();
    let inner = Mat::from_fn(width, width, |i, j| {
        roots[i] * roots[j] * (turned[(i, j)] + turned[(j, i)]) / 2.0
    });
    let eigenvalues = inner
        .self_adjoint_eigenvalues(Side::Lower)
        .map_err(broken)?;
    Ok(eigenvalues.into_iter().map(|l| l.max(0.0).sqrt()).sum())
}

fn trace(s: MatRef<'_, f64>) -> f64 {
    (0..s.nrows()).map(|i| s[(i, i)]).sum()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::waves, *};
    use crate::near::close;

    // from pytorch_fid.fid_score import calculate_frechet_distance as f; w = waves as in mod.rs s =
    // lambda x: (x.astype(np.float64).mean(0), np.cov(x.astype(np.float64), rowvar=False)) x, y =
    // w(40, 6, .37, .5, 0), w(30, 6, .53, .2, .1); print(f(*s(x), *s(y)), s(x)[1][0, 3],
    // s(y)[0][5])
    #[test]
    fn distances_are_pytorch_fids() {
        let x = Gaussian::of(&waves(40, 6, 0.37, 0.5, 0.0)).unwrap();
        let y = Gaussian::of(&waves(30, 6, 0.53, 0.2, 0.1)).unwrap();
        close(x.covariance[(0, 3)], COVARIANCE, 1e-9);
        close(y.mean[5], MEAN, 1e-9);
        let found = frechet(&x, &y).unwrap();
        close(found.distance, DISTANCE, 1e-6);
        assert!(!found.singular);
        close(frechet(&y, &x).unwrap().distance, found.distance, 1e-10);
    }
    const COVARIANCE: f64 = -0.010894478145379024;
    const MEAN: f64 = 0.4773533253620068;
    const DISTANCE: f64 = 0.8558142625883018;

    #[test]
    fn few_pictures_are_compared_through_the_smaller_matrix() {
        let (x, y) = (waves(40, 12, 0.37, 0.5, 0.0), waves(7, 12, 0.53, 0.2, 0.1));
        let x = Gaussian::of(&x).unwrap();
        let (short, long) = (
            frechet_to(&x, &y).unwrap(),
            frechet(&x, &Gaussian::of(&y).unwrap()).unwrap(),
        );
        close(short.distance, long.distance, 1e-6);
        assert!(short.singular && long.singular && long.distance > 0.1);
        let many = waves(20, 12, 0.53, 0.2, 0.1);
        assert_eq!(
            frechet_to(&x, &many).unwrap(),
            frechet(&x, &Gaussian::of(&many).unwrap()).unwrap()
        );
        assert!(
            frechet_to(&x, &waves(7, 11, 0.5, 0.2, 0.1))
                .unwrap_err()
                .to_string()
                .contains("11")
        );
    }

    #[test]
    fn a_set_is_at_no_distance_from_itself() {
        for n in [3, 8, 50] {
            let x = Gaussian::of(&waves(n, 8, 0.71, 0.1, 0.2)).unwrap();
            let found = frechet(&x, &x).unwrap();
            // The root of an eigenvalue that should be 0 is off by 1e-8.
            assert!(
                found.distance < 1e-6 && found.singular == (n <= 8),
                "{n}: {found:?}"
            );
        }
    }

    #[test]
    fn diagonal_gaussians_have_a_closed_form() {
        // |m1 - m2|^2 + sum of (sqrt(s1) - sqrt(s2))^2
        let diagonal = |mean: [f64; 3], s: [f64; 3]| Gaussian {
            mean: mean.to_vec(),
            covariance: Mat::from_fn(3, 3, |i, j| if i == j { s[i] } else { 0.0 }),
            n: None,
        };
        let a = diagonal([1.0, 0.0, -2.0], [4.0, 1.0, 0.0]);
        let b = diagonal([0.0, 0.5, -2.0], [9.0, 1.0, 16.0]);
        let found = frechet(&a, &b).unwrap();
        close(found.distance, 1.0 + 0.25 + 1.0 + 0.0 + 16.0, 1e-12);
        assert!(!found.singular);
    }

    // Fewer pictures than features: sqrtm of the product is not finite or complex; the eigenvalues
    // of A^T A, A = X_c^T Y_c, say what the trace is: np.linalg.svd(xc @ yc.T,
    // compute_uv=False).sum() / sqrt((n - 1) * (m - 1)), xc and yc the centred features.
    #[test]
    fn few_pictures_give_a_number_and_a_flag() {
        let x = Gaussian::of(&waves(5, 12, 0.37, 0.5, 0.0)).unwrap();
        let y = Gaussian::of(&waves(4, 12, 0.53, 0.2, 0.1)).unwrap();
        let found = frechet(&x, &y).unwrap();
        assert!(found.singular);
        close(found.distance, SINGULAR, 1e-6);
    }
    const SINGULAR: f64 = 11.40097738836819;

    #[test]
    fn refuses_what_does_not_fit() {
        let x = Gaussian::of(&waves(5, 3, 0.37, 0.5, 0.0)).unwrap();
        let y = Gaussian::of(&waves(5, 4, 0.37, 0.5, 0.0)).unwrap();
        assert!(frechet(&x, &y).unwrap_err().to_string().contains("3 and 4"));
        let one = Gaussian::of(&waves(1, 3, 0.37, 0.5, 0.0)).unwrap_err();
        assert_eq!(
            one.to_string(),
            "a covariance: expected at least 2 pictures in a set, found 1"
        );
        assert!(Gaussian::of(&[vec![1.0], vec![f32::NAN]]).is_err());
        assert!(Gaussian::of(&[vec![1.0], vec![1.0, 2.0]]).is_err());
        assert!(Gaussian::of(&[vec![], vec![]]).is_err());
        let bad = Gaussian {
            covariance: Mat::from_fn(3, 3, |_, _| f64::NAN),
            ..x.clone()
        };
        assert!(frechet(&x, &bad).is_err());
        let bad = Gaussian {
            covariance: Mat::zeros(2, 3),
            ..x.clone()
        };
        assert!(frechet(&bad, &x).is_err());
    }
}
