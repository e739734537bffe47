//! How far two sets of pictures are from each other, by features that a network makes of them.
//!
//! A set is a slice of features, one row for each picture; which network made them names the number
//! ([docs/metrics.md](../../../../docs/metrics.md)). All sums are in f64.

mod features;
mod gaussian;
mod kernel;
mod neighbours;
pub mod npz;

pub use gaussian::{Frechet, Gaussian, frechet, frechet_to};
pub use kernel::{Kid, kid};
pub use neighbours::{NEIGHBOURS, PrecisionRecall, precision_recall};

#[cfg(test)]
mod tests {
    /// Features that Python makes again: `np.array([[np.sin(a*(i+1)*(j+2) + b*(j+1)) + c*j for j in
    /// range(d)] for i in range(n)], np.float32)`.
    pub(super) fn waves(n: usize, d: usize, a: f64, b: f64, c: f64) -> Vec<Vec<f32>> {
        let one = |i: usize, j: usize| {
            (a * ((i + 1) * (j + 2)) as f64 + b * (j + 1) as f64).sin() + c * j as f64
        };
        (0..n)
            .map(|i| (0..d).map(|j| one(i, j) as f32).collect())
            .collect()
    }
}
