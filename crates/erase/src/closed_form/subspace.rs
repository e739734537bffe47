//! Subspaces: what rows span, and the projectors on it.

use faer::{Mat, MatRef, Side, linalg::solvers::Svd};

use crate::error::{Error, Result};

/// Directions whose singular value is this much smaller than the largest are not there: rows come
/// from f32.
const ABSENT: f64 = 1e-6;

/// The thin singular value decomposition.
///
/// # Errors
/// If it does not converge, which it does for finite numbers.
pub(crate) fn svd(matrix: &Mat<f64>) -> Result<Svd<f64>> {
    matrix.thin_svd().map_err(|_| {
        Error::input("a singular value decomposition does not converge: the rows are not finite")
    })
}

/// Eigenvalues in rising order, and their eigenvectors as columns.
///
/// # Errors
/// If it does not converge.
pub(crate) fn eigen(matrix: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let found = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| {
        Error::input("an eigenvalue decomposition does not converge: the rows are not finite")
    })?;
    let values = (0..matrix.nrows())
        .map(|i| found.S().column_vector()[i])
        .collect();
    Ok((values, found.U().to_owned()))
}

/// An orthonormal basis, `[width, rank]`, of what rows `[n, width]` span.
///
/// # Errors
/// If the decomposition fails.
pub(crate) fn span(rows: &Mat<f64>) -> Result<Mat<f64>> {
    let found = svd(rows)?;
    let values = found.S().column_vector();
    let most = (0..values.nrows()).map(|i| values[i]).fold(0.0, f64::max);
    let rank = (0..values.nrows())
        .filter(|&i| values[i] > ABSENT * most)
        .count();
    Ok(found.V().get(.., 0..rank).to_owned())
}

/// The projector on what an orthonormal basis spans.
pub(crate) fn projector(basis: MatRef<'_, f64>) -> Mat<f64> {
    basis * basis.transpose()
}

/// Matrices of the same width, one below the other.
pub(crate) fn stacked(parts: &[Mat<f64>], width: usize) -> Mat<f64> {
    let mut all = Mat::zeros(parts.iter().map(Mat::nrows).sum(), width);
    let mut at = 0;
    for part in parts {
        all.get_mut(at..at + part.nrows(), ..).copy_from(part);
        at += part.nrows();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, width: usize, seed: u64) -> Mat<f64> {
        let numbers = scumble_diffusion::TorchRng::new(seed).normal(16 * n * width);
        Mat::from_fn(n, width, |i, j| f64::from(numbers[i * width + j]))
    }

    #[test]
    fn a_span_has_the_rows_in_it_and_their_rank() {
        let few = rows(3, 8, 1);
        // Five rows, of which two are sums of the others.
        let all = stacked(&[few.clone(), rows(2, 3, 2) * &few], 8);
        let basis = span(&all).unwrap();
        assert_eq!((basis.nrows(), basis.ncols()), (8, 3));
        let p = projector(basis.as_ref());
        assert!((&p * &p - &p).norm_l2() < 1e-13, "idempotent");
        assert!((&all * &p - &all).norm_l2() < 1e-12);
        assert_eq!(span(&Mat::zeros(2, 8)).unwrap().ncols(), 0);
    }

    #[test]
    fn eigenvalues_rise_and_rebuild_the_matrix() {
        let x = rows(9, 6, 3);
        let gram = x.transpose() * &x;
        let (values, vectors) = eigen(&gram).unwrap();
        assert!(values.is_sorted());
        let scaled = Mat::from_fn(6, 6, |i, j| vectors[(i, j)] * values[j]);
        assert!((scaled * vectors.transpose() - gram).norm_l2() < 1e-11);
    }
}
