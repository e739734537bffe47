//! Ridge regression towards what the model itself makes of other rows.
//!
//! Every target is `v = W0 g` for some row `g`, so the solution of
//!
//! ```text
//! min_W  sum s |W c - W0 g|^2 + lambda |W - W0|^2
//! ```
//!
//! is `W = W0 M` with one matrix `M = (lambda I + sum s g c^T) (lambda I + sum s c c^T)^-1` for all
//! layers. With `A` what is inverted, `M = I + sum s (g - c) (A^-1 c)^T`: rows that stay add nothing
//! to the sum, so a few rows that move are a change of low rank, and a layer costs as many rows and
//! no product with a square matrix.

use faer::{
    Accum, Mat, MatMut, MatRef, Par, Side,
    linalg::{
        matmul::matmul,
        solvers::{Llt, Solve},
    },
};
use rayon::prelude::*;

use scumble_nn::files::HostTensor;

use super::subspace::stacked;
use crate::{
    error::{Error, Result},
    job::Job,
};

/// Eigenvalues this far apart are rounding: rows are f32, of relative precision 6e-8, and enter
/// squared.
const SINGULAR: f64 = 1e-11;

/// Sums over pairs of rows: where each is to go, and how much that weighs.
#[derive(Clone, Debug)]
pub(crate) struct Regression {
    lambda: f64,
    /// As many rows may move for their steps to stand for the whole map.
    few: usize,
    moved: Mat<f64>,
    seen: Mat<f64>,
    /// The rows that are to move, and by how much times their weight, `[n, width]` each.
    steps: Vec<(Mat<f64>, Mat<f64>)>,
    /// The rows whose products `seen` is the sum of, each times the root of its weight; `None` where
    /// it also holds something else.
    rows: Option<Vec<Mat<f64>>>,
}

/// What a regression found.
#[derive(Debug)]
pub(crate) struct Solution {
    map: Map,
    /// Largest over smallest eigenvalue of what was inverted.
    pub(crate) condition: f64,
}

/// What every matrix is multiplied by from the right.
#[derive(Debug)]
enum Map {
    /// `[width, width]`
    Whole(Mat<f64>),
    /// `I + by^T seen`, `[rows, width]` each.
    Steps { by: Mat<f64>, seen: Mat<f64> },
}

/// Rows of a matrix that are multiplied at a time.
const ROWS: usize = 64;
/// Where fewer rows than this share of the width move, they are cheaper than the whole map.
const FEW: usize = 8;
/// As many rows may move in a full model: what they add to its matrices is smaller as factors.
const FEW_OF_A_FULL_MODEL: usize = 256;
/// Where fewer rows than this share of the width are there at all, their own products say how large
/// eigenvalues are.
const FEW_OF_ALL: usize = 2;

impl Solution {
    /// The map, `[width, width]`.
    pub(crate) fn map(&self) -> Mat<f64> {
        match &self.map {
            Map::Whole(map) => map.clone(),
            Map::Steps { by, seen } => {
                let width = by.ncols();
                Mat::<f64>::identity(width, width) + by.transpose() * seen
            }
        }
    }

    /// What it adds to matrices as factors, where few rows move.
    pub(crate) fn factors(&self) -> Option<Factors> {
        match &self.map {
            Map::Whole(_) => None,
            Map::Steps { by, seen } => Factors::new(by, seen),
        }
    }

    /// This map, and behind it what another found in rows that matrices see after this one.
    pub(crate) fn then(self, next: Self) -> Self {
        let map = match (&self.map, &next.map) {
            (
                Map::Steps { by, seen },
                Map::Steps {
                    by: next_by,
                    seen: next_seen,
                },
            ) => {
                let width = by.ncols();
                // (I + b1^T s1)(I + b2^T s2) = I + b1^T s1 + ((I + b1^T s1) b2^T) s2
                let moved = next_by + (next_by * seen.transpose()) * by;
                Map::Steps {
                    by: stacked(&[by.clone(), moved], width),
                    seen: stacked(&[seen.clone(), next_seen.clone()], width),
                }
            }
            _ => Map::Whole(self.map() * next.map()),
        };
        Self {
            map,
            condition: next.condition,
        }
    }

    /// Multiplies a matrix by the map where it stands, its rows of the map's width one behind the
    /// other. How far it went, relative to its size.
    pub(crate) fn apply(&self, numbers: &mut [f32]) -> f64 {
        let width = match &self.map {
            Map::Whole(map) => map.nrows(),
            Map::Steps { by, .. } => by.ncols(),
        };
        // A few rows at a time stay in the processor's own memory from the first product to the
        // last number. The sums are added up in order, so threads change nothing.
        let sums: Vec<[f64; 2]> = numbers
            .par_chunks_mut(ROWS * width.max(1))
            .map(|numbers| {
                let rows = numbers.len() / width;
                let old: Vec<f64> = numbers.iter().map(|&x| f64::from(x)).collect();
                let old = MatRef::from_row_major_slice(&old, rows, width);
                let mut new = vec![0.0; numbers.len()];
                let mut moved = MatMut::from_row_major_slice_mut(&mut new, rows, width);
                match &self.map {
                    Map::Whole(map) => {
                        matmul(&mut moved, Accum::Replace, old, map, 1.0, Par::Seq);
                        moved -= old;
                    }
                    Map::Steps { by, seen } => {
                        let mut along = Mat::zeros(rows, by.nrows());
                        matmul(
                            &mut along,
                            Accum::Replace,
                            old,
                            by.transpose(),
                            1.0,
                            Par::Seq,
                        );
                        matmul(&mut moved, Accum::Replace, &along, seen, 1.0, Par::Seq);
                    }
                }
                let mut sums = [0.0; 2];
                for (x, step) in numbers.iter_mut().zip(&new) {
                    let old = f64::from(*x);
                    sums[0] += step * step;
                    sums[1] += old * old;
                    *x = (old + step) as f32;
                }
                sums
            })
            .collect();
        let sum = |i: usize| sums.iter().map(|sums| sums[i]).sum::<f64>();
        (sum(0) / sum(1).max(f64::MIN_POSITIVE)).sqrt()
    }

    /// A matrix `[out, width]` times the map.
    pub(crate) fn applied(&self, matrix: &Mat<f64>) -> Mat<f64> {
        match &self.map {
            Map::Whole(map) => matrix * map,
            Map::Steps { by, seen } => matrix + (matrix * by.transpose()) * seen,
        }
    }
}

/// What few rows that move add to a matrix `W`: `W by^T` times orthonormal rows.
pub(crate) struct Factors {
    /// `[rank, width]`, the strongest first.
    by: Mat<f64>,
    /// The right factor, `[rank, width]`, the same for every matrix.
    pub(crate) down: HostTensor,
}

/// A direction this much weaker than the strongest adds nothing that f32 holds.
const NEGLIGIBLE: f64 = 1e-9;

impl Factors {
    /// The singular vectors of `by^T seen`: as they are, the rows of both may be large and cancel
    /// each other, which f32 would not survive.
    fn new(by: &Mat<f64>, seen: &Mat<f64>) -> Option<Self> {
        let qr = seen.transpose().qr();
        let (q, r) = (qr.compute_thin_Q(), qr.thin_R());
        let core = r * by;
        let svd = core.thin_svd().ok()?;
        let sizes: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        let most = sizes.first().copied().unwrap_or(0.0);
        let strong = |size: &&f64| **size > most * NEGLIGIBLE;
        let (rank, width) = (sizes.iter().filter(strong).count(), by.ncols());
        let down = q * svd.U();
        let numbers = (0..rank * width).map(|i| down[(i % width, i / width)] as f32);
        Some(Self {
            by: Mat::from_fn(rank, width, |i, j| sizes[i] * svd.V()[(j, i)]),
            down: HostTensor::of_f32([rank, width], numbers.collect()),
        })
    }

    /// The left factor, `[out, rank]`, of a matrix whose rows stand one behind the other; and how
    /// far that moves it, relative to its size.
    pub(crate) fn up(&self, numbers: &[f32]) -> (HostTensor, f64) {
        let (rank, width) = (self.by.nrows(), self.by.ncols());
        let out = numbers.len() / width.max(1);
        let mut up = vec![0.0f32; out * rank];
        // As in `Solution::apply`: some rows at a time, and sums in order.
        let parts = up.par_chunks_mut(ROWS * rank.max(1));
        let sums: Vec<[f64; 2]> = parts
            .zip(numbers.par_chunks(ROWS * width.max(1)))
            .map(|(up, numbers)| {
                let rows = numbers.len() / width;
                let old: Vec<f64> = numbers.iter().map(|&x| f64::from(x)).collect();
                let old = MatRef::from_row_major_slice(&old, rows, width);
                let mut along = Mat::zeros(rows, rank);
                let by = self.by.transpose();
                matmul(&mut along, Accum::Replace, old, by, 1.0, Par::Seq);
                for (i, up) in up.chunks_exact_mut(rank).enumerate() {
                    (0..rank).for_each(|j| up[j] = along[(i, j)] as f32);
                }
                [along.squared_norm_l2(), old.squared_norm_l2()]
            })
            .collect();
        let sum = |i: usize| sums.iter().map(|sums| sums[i]).sum::<f64>();
        let relative = (sum(0) / sum(1).max(f64::MIN_POSITIVE)).sqrt();
        (HostTensor::of_f32([out, rank], up), relative)
    }
}

impl Regression {
    /// For the rows that a job's matrices see.
    pub(crate) fn of(job: &Job<'_>, lambda: f64) -> Self {
        let regression = Self::new(job.pipeline.context_width(), lambda);
        if job.profile.is_small() {
            return regression;
        }
        Self {
            few: FEW_OF_A_FULL_MODEL,
            ..regression
        }
    }

    /// `lambda` is the weight of staying as it is, for rows of this width.
    pub(crate) fn new(width: usize, lambda: f64) -> Self {
        Self {
            lambda,
            few: width / FEW,
            moved: Mat::zeros(width, width),
            seen: Mat::zeros(width, width),
            steps: Vec::new(),
            rows: Some(Vec::new()),
        }
    }

    /// Rows `from` are to be seen as rows `to`, both `[n, width]`, each with that weight.
    pub(crate) fn pull(&mut self, from: MatRef<'_, f64>, to: MatRef<'_, f64>, weight: f64) {
        // What weighs nothing is often a whole prompt, and costs what the others cost.
        if weight != 0.0 {
            add_products(&mut self.moved, to, from, weight);
            add_products(&mut self.seen, from, from, weight);
            let by = faer::Scale(weight) * (to - from);
            if by.norm_max() != 0.0 {
                self.steps.push((from.to_owned(), by));
            }
            match &mut self.rows {
                Some(rows) if weight > 0.0 => rows.push(faer::Scale(weight.sqrt()) * from),
                other => *other = None,
            }
        }
    }

    /// Rows stay what they are.
    pub(crate) fn keep(&mut self, rows: MatRef<'_, f64>, weight: f64) {
        self.pull(rows, rows, weight);
    }

    /// As [`keep`](Self::keep) for many rows, of which the sum of `k k^T` is known, `[width,
    /// width]`.
    pub(crate) fn keep_sum(&mut self, sum: MatRef<'_, f64>, weight: f64) {
        self.moved += faer::Scale(weight) * sum;
        self.seen += faer::Scale(weight) * sum;
        self.rows = None;
    }

    /// Solves it.
    ///
    /// # Errors
    /// If the sums cannot be inverted: no lambda, and fewer independent rows than the width.
    pub(crate) fn solve(&self) -> Result<Solution> {
        let (factor, condition) = self.factor()?;
        let rows: usize = self.steps.iter().map(|(from, _)| from.nrows()).sum();
        let map = if rows <= self.few {
            let (from, by): (Vec<_>, Vec<_>) = self.steps.iter().cloned().unzip();
            let width = self.seen.ncols();
            let (from, by) = (stacked(&from, width), stacked(&by, width));
            let seen = factor.solve(from.transpose()).transpose().to_owned();
            Map::Steps { by, seen }
        } else {
            // M A = B with A symmetric: A M^T = B^T.
            let map = factor.solve(ridge(&self.moved, self.lambda).transpose());
            Map::Whole(map.transpose().to_owned())
        };
        Ok(Solution { map, condition })
    }

    /// What is inverted, as a factor, and its condition number.
    ///
    /// Few rows leave most eigenvalues at lambda, and the others are lambda more than those of the
    /// rows' own products, a small matrix. SDXL's rows are 2048 wide: all eigenvalues of such a
    /// square take longer than the whole rest of UCE.
    fn factor(&self) -> Result<(Llt<f64>, f64)> {
        let (sums, width) = (ridge(&self.seen, self.lambda), self.seen.ncols());
        let few = |rows: &&Vec<Mat<f64>>| {
            rows.iter().map(Mat::nrows).sum::<usize>() * FEW_OF_ALL <= width
        };
        let Some(rows) = self.rows.as_ref().filter(few).filter(|_| self.lambda > 0.0) else {
            return factor(&sums, self.lambda);
        };
        let rows = stacked(rows, width);
        let products = &rows * rows.transpose();
        let most = largest(&products).ok_or_else(|| singular(self.lambda))? + self.lambda;
        if self.lambda <= most * SINGULAR || !most.is_finite() {
            return Err(singular(self.lambda));
        }
        let factor = sums.llt(Side::Lower).map_err(|_| singular(self.lambda))?;
        Ok((factor, most / self.lambda))
    }
}

/// The largest eigenvalue of a symmetric matrix, 0 of an empty one.
fn largest(matrix: &Mat<f64>) -> Option<f64> {
    if matrix.nrows() == 0 {
        return Some(0.0);
    }
    let values = matrix.self_adjoint_eigenvalues(Side::Lower).ok()?;
    values.last().copied()
}

fn singular(lambda: f64) -> Error {
    Error::input(format!("the regression is singular at lambda {lambda}"))
        .with_hint("give lambda a larger value: it is what keeps directions that no prompt shows")
}

/// `sums += weight a^T b` in place: a few rows change a matrix that is much larger than they are.
///
/// # Shapes
/// - sums: `[width, width]`
/// - a, b: `[n, width]`
pub(crate) fn add_products(
    sums: &mut Mat<f64>,
    a: MatRef<'_, f64>,
    b: MatRef<'_, f64>,
    weight: f64,
) {
    matmul(
        sums,
        Accum::Add,
        a.transpose(),
        b,
        weight,
        faer::get_global_parallelism(),
    );
}

/// `A + lambda I`.
pub(crate) fn ridge(sums: &Mat<f64>, lambda: f64) -> Mat<f64> {
    Mat::from_fn(sums.nrows(), sums.ncols(), |i, j| {
        sums[(i, j)] + if i == j { lambda } else { 0.0 }
    })
}

/// The Cholesky factor of a symmetric matrix and its condition number.
///
/// # Errors
/// If it is singular.
pub(crate) fn factor(matrix: &Mat<f64>, lambda: f64) -> Result<(Llt<f64>, f64)> {
    let singular = || singular(lambda);
    let eigenvalues = matrix
        .self_adjoint_eigenvalues(Side::Lower)
        .map_err(|_| singular())?;
    let (least, most) = (
        eigenvalues.first().copied().unwrap_or(0.0),
        eigenvalues.last().copied().unwrap_or(0.0),
    );
    let usable = least > most * SINGULAR && most.is_finite();
    if !usable {
        return Err(singular());
    }
    Ok((
        matrix.llt(Side::Lower).map_err(|_| singular())?,
        most / least,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, width: usize, seed: u64) -> Mat<f64> {
        let numbers = scumble_diffusion::TorchRng::new(seed).normal(16 * n * width);
        Mat::from_fn(n, width, |i, j| f64::from(numbers[i * width + j]))
    }

    fn distance(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        (a - b).norm_l2()
    }

    #[test]
    fn an_infinite_lambda_returns_the_original() {
        let (c, g) = (rows(2, 6, 1), rows(2, 6, 2));
        let error = |lambda: f64| {
            let mut regression = Regression::new(6, lambda);
            regression.pull(c.as_ref(), g.as_ref(), 1.0);
            distance(&regression.solve().unwrap().map(), &Mat::identity(6, 6))
        };
        assert!(error(1e12) < 1e-10 && error(0.5) > 0.1);
        // It falls as 1 / lambda.
        assert!((error(1e6) / error(1e7) - 10.0).abs() < 0.01);
    }

    #[test]
    fn one_concept_without_lambda_is_mapped_exactly() {
        let (c, g, kept) = (rows(1, 6, 1), rows(1, 6, 2), rows(5, 6, 3));
        let mut regression = Regression::new(6, 0.0);
        regression.pull(c.as_ref(), g.as_ref(), 1.0);
        let error = regression.solve().unwrap_err();
        assert!(error.to_string().contains("lambda 0") && error.hint().is_some());
        // With as many rows as the width there is one solution, and it does everything that is
        // asked.
        regression.keep(kept.as_ref(), 1.0);
        let found = regression.solve().unwrap();
        assert!(
            distance(&(&c * found.map().transpose()), &g) < 1e-9,
            "the concept becomes the anchor"
        );
        assert!(
            distance(&(&kept * found.map().transpose()), &kept) < 1e-9,
            "kept rows stay"
        );
        assert!(found.condition > 1.0);
        // With a lambda that goes to zero alone, the same of the concept's row.
        let mut alone = Regression::new(6, 1e-10);
        alone.pull(c.as_ref(), g.as_ref(), 1.0);
        assert!(distance(&(&c * alone.solve().unwrap().map().transpose()), &g) < 1e-6);
    }

    /// Few rows that move, as steps, are what the whole map is.
    #[test]
    fn few_rows_move_as_the_whole_map_does() {
        let width = 40;
        let (c, g, kept) = (rows(3, width, 1), rows(3, width, 2), rows(60, width, 3));
        let mut regression = Regression::new(width, 0.4);
        regression.pull(c.as_ref(), g.as_ref(), 1.5);
        regression.keep(kept.as_ref(), 0.2);
        let found = regression.solve().unwrap();
        assert!(matches!(found.map, Map::Steps { .. }));
        let (factor, _) = factor(&ridge(&regression.seen, 0.4), 0.4).unwrap();
        let whole = factor.solve(ridge(&regression.moved, 0.4).transpose());
        let whole = whole.transpose().to_owned();
        assert!(distance(&found.map(), &whole) < 1e-10);
        let matrix = rows(7, width, 4);
        assert!(distance(&found.applied(&matrix), &(&matrix * &whole)) < 1e-9);
        // Where it stands, in f32, by both kinds of map.
        let whole = Solution {
            map: Map::Whole(whole),
            condition: found.condition,
        };
        for solution in [&found, &whole] {
            let tall = rows(150, width, 6);
            let mut numbers: Vec<f32> = (0..150 * width)
                .map(|i| tall[(i / width, i % width)] as f32)
                .collect();
            let relative = solution.apply(&mut numbers);
            let new = found.applied(&tall);
            let there = Mat::from_fn(150, width, |i, j| f64::from(numbers[i * width + j]));
            assert!(distance(&there, &new) < 1e-6 * new.norm_l2());
            assert!((relative / (distance(&new, &tall) / tall.norm_l2()) - 1.0).abs() < 1e-6);
        }
        // And as factors of what is added.
        let tall = rows(150, width, 6);
        let numbers: Vec<f32> = (0..150 * width)
            .map(|i| tall[(i / width, i % width)] as f32)
            .collect();
        let factors = found.factors().unwrap();
        let (up, relative) = factors.up(&numbers);
        assert_eq!(
            (up.shape(), factors.down.shape()),
            (&[150, 3][..], &[3, width][..])
        );
        let (up, down) = (up.to_f32().unwrap(), factors.down.to_f32().unwrap());
        let added = Mat::from_fn(150, width, |i, j| {
            let terms = (0..3).map(|k| f64::from(up[3 * i + k]) * f64::from(down[k * width + j]));
            terms.sum::<f64>()
        });
        let moved = found.applied(&tall) - &tall;
        assert!((&added - &moved).norm_l2() < 1e-6 * moved.norm_l2());
        assert!((relative / (moved.norm_l2() / tall.norm_l2()) - 1.0).abs() < 1e-6);
        // What is inverted is as far from singular as all of its eigenvalues say.
        let mut alone = Regression::new(width, 0.4);
        alone.pull(c.as_ref(), g.as_ref(), 1.5);
        alone.keep(rows(9, width, 5).as_ref(), 0.2);
        let (_, all) = super::factor(&ridge(&alone.seen, 0.4), 0.4).unwrap();
        assert!((alone.solve().unwrap().condition / all - 1.0).abs() < 1e-9);
        // Nothing moves: every matrix is what it was.
        let mut still = Regression::new(width, 0.4);
        still.keep(kept.as_ref(), 1.0);
        assert_eq!(
            distance(&still.solve().unwrap().applied(&matrix), &matrix),
            0.0
        );
    }

    /// One map behind another, both of few rows or one of them whole.
    #[test]
    fn maps_follow_each_other() {
        let width = 40;
        let solve = |n: usize, seed: u64| {
            let mut regression = Regression::new(width, 0.4);
            let (c, g) = (rows(n, width, seed), rows(n, width, seed + 1));
            regression.pull(c.as_ref(), g.as_ref(), 1.0);
            regression.solve().unwrap()
        };
        for (first, second) in [(2, 3), (2, 20), (20, 2)] {
            let maps = [solve(first, 1).map(), solve(second, 3).map()];
            let both = solve(first, 1).then(solve(second, 3));
            assert!(distance(&both.map(), &(&maps[0] * &maps[1])) < 1e-9);
        }
    }

    /// Rows that hardly differ are seen by large numbers that cancel each other: f32 holds what is
    /// left of them.
    #[test]
    fn factors_of_rows_that_hardly_differ_keep_their_precision() {
        let width = 64;
        let (base, apart) = (rows(1, width, 1), rows(6, width, 2));
        let near = Mat::from_fn(6, width, |i, j| base[(0, j)] + 1e-3 * apart[(i, j)]);
        let mut regression = Regression::new(width, 1e-7);
        regression.pull(near.as_ref(), rows(6, width, 3).as_ref(), 1.0);
        let found = regression.solve().unwrap();
        let matrix = rows(5, width, 4);
        let numbers: Vec<f32> = (0..5 * width)
            .map(|i| matrix[(i / width, i % width)] as f32)
            .collect();
        let factors = found.factors().unwrap();
        let (up, _) = factors.up(&numbers);
        let (up, down) = (up.to_f32().unwrap(), factors.down.to_f32().unwrap());
        let rank = factors.down.shape()[0];
        let added = Mat::from_fn(5, width, |i, j| {
            let terms = (0..rank).map(|k| up[rank * i + k] as f64 * down[k * width + j] as f64);
            terms.sum::<f64>()
        });
        let moved = found.applied(&matrix) - &matrix;
        assert!((&added - &moved).norm_l2() < 3e-6 * moved.norm_l2());
    }

    #[test]
    fn a_known_sum_keeps_like_its_rows() {
        let (c, g, kept) = (rows(2, 6, 1), rows(2, 6, 2), rows(9, 6, 3));
        let mut by_rows = Regression::new(6, 0.3);
        by_rows.pull(c.as_ref(), g.as_ref(), 2.0);
        let mut by_sum = by_rows.clone();
        by_rows.keep(kept.as_ref(), 0.7);
        by_sum.keep_sum((kept.transpose() * &kept).as_ref(), 0.7);
        assert!(
            distance(
                &by_rows.solve().unwrap().map(),
                &by_sum.solve().unwrap().map()
            ) < 1e-12
        );
    }
}
