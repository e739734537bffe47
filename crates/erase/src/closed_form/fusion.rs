//! Several changes of the same matrices as one change that does to each concept's rows what its own
//! does (MACE, equation 7).
//!
//! With `D_i` what concept i adds to a matrix `W0`, and `c_ij` its rows, the solution of
//!
//! ```text
//! min_W  sum_i sum_j |W c_ij - (W0 + D_i) c_ij|^2 + sum_k |W k - W0 k|^2 + lambda |W - W0|^2
//! ```
//!
//! is `W0 + (sum_i D_i S_i) (sum_i S_i + sum k k^T + lambda I)^-1` with `S_i = sum_j c_ij c_ij^T`:
//! one factorisation for all matrices.

use faer::{Mat, MatRef, linalg::solvers::Solve};

use super::{
    layers::Layer,
    regression::{add_products, factor, ridge},
};
use crate::error::Result;

/// The sums of such a system.
pub(crate) struct Fusion {
    lambda: f64,
    seen: Mat<f64>,
    /// `sum_i D_i S_i` of each matrix, `[out, width]`.
    moved: Vec<Mat<f64>>,
}

impl Fusion {
    /// For these matrices.
    pub(crate) fn new(layers: &[Layer], width: usize, lambda: f64) -> Self {
        let moved = layers
            .iter()
            .map(|layer| Mat::zeros(layer.matrix.nrows(), width))
            .collect();
        Self {
            lambda,
            seen: Mat::zeros(width, width),
            moved,
        }
    }

    /// Rows `[n, width]` are to be seen as with `changes`, one for each matrix in its shape.
    pub(crate) fn add(&mut self, rows: MatRef<'_, f64>, changes: &[Mat<f64>]) {
        let mut own = Mat::zeros(self.seen.nrows(), self.seen.ncols());
        add_products(&mut own, rows, rows, 1.0);
        for (moved, change) in self.moved.iter_mut().zip(changes) {
            *moved += change * &own;
        }
        self.seen += own;
    }

    /// As [`add`](Self::add) for rows of which the sum of `k k^T` is known, `[width, width]`, each
    /// with that weight.
    pub(crate) fn add_sum(&mut self, sum: MatRef<'_, f64>, weight: f64, changes: &[Mat<f64>]) {
        for (moved, change) in self.moved.iter_mut().zip(changes) {
            *moved += faer::Scale(weight) * (change * sum);
        }
        self.seen += faer::Scale(weight) * sum;
    }

    /// Rows whose sum of `k k^T` this is are to be seen as before.
    pub(crate) fn keep_sum(&mut self, sum: MatRef<'_, f64>, weight: f64) {
        self.seen += faer::Scale(weight) * sum;
    }

    /// The new matrices, and the condition number.
    ///
    /// # Errors
    /// If the sums cannot be inverted.
    pub(crate) fn solve(&self, layers: &[Layer]) -> Result<(Vec<Mat<f64>>, f64)> {
        let (factor, condition) = factor(&ridge(&self.seen, self.lambda), self.lambda)?;
        // X A = M with A symmetric: A X^T = M^T.
        let one = |(layer, moved): (&Layer, &Mat<f64>)| {
            &layer.matrix + factor.solve(moved.transpose()).transpose()
        };
        Ok((layers.iter().zip(&self.moved).map(one).collect(), condition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
        let numbers = scumble_diffusion::TorchRng::new(seed).normal(16 * rows * columns);
        Mat::from_fn(rows, columns, |i, j| f64::from(numbers[i * columns + j]))
    }

    #[test]
    fn each_concept_is_changed_as_by_its_own_and_kept_rows_stay() {
        let layers: Vec<Layer> = (0..2)
            .map(|k| Layer {
                name: format!("{k}"),
                matrix: numbers(3 + k, 8, k as u64),
            })
            .collect();
        let (rows, kept) = ([numbers(2, 8, 10), numbers(2, 8, 11)], numbers(4, 8, 12));
        let changes: Vec<Vec<Mat<f64>>> = (0..2)
            .map(|i| {
                layers
                    .iter()
                    .map(|l| numbers(l.matrix.nrows(), 8, 20 + i))
                    .collect()
            })
            .collect();
        let mut fusion = Fusion::new(&layers, 8, 1e-9);
        for (rows, changes) in rows.iter().zip(&changes) {
            fusion.add(rows.as_ref(), changes);
        }
        fusion.keep_sum((kept.transpose() * &kept).as_ref(), 1.0);
        let (new, condition) = fusion.solve(&layers).unwrap();
        assert!(condition > 1.0);
        for (k, (layer, new)) in layers.iter().zip(&new).enumerate() {
            // Eight independent rows of width eight: everything can be had at once.
            for (rows, changes) in rows.iter().zip(&changes) {
                let wanted = (&layer.matrix + &changes[k]) * rows.transpose();
                assert!((new * rows.transpose() - wanted).norm_l2() < 1e-5);
            }
            assert!(((new - &layer.matrix) * kept.transpose()).norm_l2() < 1e-5);
            assert!((new - &layer.matrix).norm_l2() > 0.1);
        }
    }
}
