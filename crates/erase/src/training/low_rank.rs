//! An edit as a LoRA: the edit's own factors where it has them, elsewhere the best approximation of
//! each changed matrix by one of low rank (Eckart and Young 1936).

use faer::Mat;
use scumble_families::{self as families, Role};
use scumble_nn::files::{Checkpoint, HostTensor, lora::LowRank};

use crate::{
    edit::{Change, Edit},
    error::{Error, Result},
};

/// Low-rank factors of an edit and what they leave out.
#[derive(Clone, Debug)]
pub struct Approximation {
    /// One pair of factors for each changed matrix.
    pub low_rank: Vec<LowRank>,
    /// Norm of what the factors miss within the matrices, over the norm of the whole change.
    pub error: f64,
    /// Changed tensors that a LoRA cannot carry (biases, norms, embeddings), each with its share of
    /// the squared change.
    pub left_out: Vec<(String, f64)>,
}

impl Approximation {
    /// The share of the squared change in tensors that a LoRA cannot carry.
    pub fn left_out_share(&self) -> f64 {
        self.left_out.iter().map(|(_, share)| share).sum()
    }
}

impl Edit {
    /// Factors of rank `rank` (less where a matrix is smaller) for every changed weight of a linear
    /// layer or convolution.
    ///
    /// A change that is low-rank already, and not of a higher rank, keeps its own factors;
    /// `strength` goes into the second.
    ///
    /// A kernel `[out, in, kh, kw]` becomes `down [rank, in, kh, kw]` and `up [out, rank, 1, 1]`,
    /// as kohya's scripts lay it out.
    ///
    /// # Errors
    /// If the rank is 0, the edit does not fit the checkpoint, or a decomposition fails.
    pub fn low_rank(&self, base: &Checkpoint, rank: usize, strength: f64) -> Result<Approximation> {
        Ok(self.low_rank_within(base, rank, rank, 0.0, strength)?.1)
    }

    /// The lowest of the ranks `from`, `2 from`, `4 from`, ... up to `most` that misses at most the
    /// share `missed` of the squared change within the matrices, or else `most`; with the factors
    /// of that rank. Each matrix is decomposed once.
    ///
    /// # Errors
    /// As [`low_rank`](Self::low_rank).
    pub fn low_rank_within(
        &self,
        base: &Checkpoint,
        from: usize,
        most: usize,
        missed: f64,
        strength: f64,
    ) -> Result<(usize, Approximation)> {
        if from == 0 || most < from {
            return Err(Error::input(format!(
                "--rank is {from}, expected at least 1"
            )));
        }
        let family = families::of_files(base.family);
        let mut own = Vec::new();
        let mut found = Vec::new();
        let mut others = Vec::new();
        let mut total = 0.0f64;
        for moved in self.new_values(base, strength) {
            let (component, name, old, new) = moved?;
            let (old, new_values) = (
                old.to_f32().unwrap_or_default(),
                new.to_f32().unwrap_or_default(),
            );
            let delta: Vec<f64> = new_values
                .iter()
                .zip(&old)
                .map(|(n, o)| f64::from(*n) - f64::from(*o))
                .collect();
            let size: f64 = delta.iter().map(|d| d * d).sum();
            total += size;
            if let Some(factors) = self.own_factors(&component, &name, most, strength) {
                own.push(factors);
                continue;
            }
            match name.strip_suffix(".weight") {
                Some(module) if is_matrix(family.role(&component, &name), new.shape()) => {
                    found.push(Decomposed::of(
                        &component,
                        module,
                        &delta,
                        new.shape(),
                        most,
                    )?);
                }
                _ if size > 0.0 => others.push((format!("{component} {name}"), size)),
                _ => {}
            }
        }
        let whole = total.max(f64::MIN_POSITIVE);
        let beyond =
            |rank: usize| found.iter().map(|matrix| matrix.beyond(rank)).sum::<f64>() / whole;
        // Factors of the edit's own need their own rank.
        let least = own.iter().map(LowRank::rank).max().unwrap_or(0);
        let mut rank = from;
        while rank < most && (beyond(rank) > missed || rank < least) {
            rank = (2 * rank).min(most);
        }
        if found.is_empty() && least > 0 {
            rank = least;
        }
        let mut low_rank = own;
        low_rank.extend(found.iter().map(|matrix| matrix.factors(rank)));
        low_rank.sort_by(|a, b| (&a.component, &a.module).cmp(&(&b.component, &b.module)));
        let left_out = others
            .into_iter()
            .map(|(name, size)| (name, size / whole))
            .collect();
        // The sum of nothing is -0.
        Ok((
            rank,
            Approximation {
                low_rank,
                error: (beyond(rank) + 0.0).sqrt(),
                left_out,
            },
        ))
    }

    /// The factors that a tensor's change consists of, if it does and they are of at most this
    /// rank.
    fn own_factors(
        &self,
        component: &str,
        name: &str,
        rank: usize,
        strength: f64,
    ) -> Option<LowRank> {
        match self.changes.get(&(component.to_owned(), name.to_owned()))? {
            Change::LowRank(low) if low.rank() <= rank && strength == 1.0 => Some(low.clone()),
            Change::LowRank(low) if low.rank() <= rank => {
                let up: Vec<f32> = low
                    .up
                    .to_f32()?
                    .iter()
                    .map(|u| (f64::from(*u) * strength) as f32)
                    .collect();
                Some(LowRank {
                    up: HostTensor::from_f32(low.up.shape(), &up),
                    ..low.clone()
                })
            }
            _ => None,
        }
    }
}

/// A weight of a linear layer or a convolution; embedding tables have a weight too, but no LoRA
/// reaches them.
fn is_matrix(role: Option<Role>, shape: &[usize]) -> bool {
    matches!(shape.len(), 2 | 4) && !role.is_some_and(Role::is_table)
}

/// A matrix taken apart: its strongest directions, and the squares of all singular values.
struct Decomposed {
    component: String,
    module: String,
    shape: Vec<usize>,
    /// The left directions, `[rank, out]`, each with the root of its singular value in it.
    up: Vec<f32>,
    /// The right directions, `[rank, in ...]`, the same.
    down: Vec<f32>,
    squares: Vec<f64>,
}

impl Decomposed {
    /// Decomposes a change, keeping `most` directions.
    fn of(
        component: &str,
        module: &str,
        delta: &[f64],
        shape: &[usize],
        most: usize,
    ) -> Result<Self> {
        let (rows, columns) = (shape[0], delta.len() / shape[0].max(1));
        let matrix = Mat::from_fn(rows, columns, |i, j| delta[i * columns + j]);
        let svd = matrix.thin_svd().map_err(|_| {
            Error::input(format!(
                "the change of {component} {module} has no decomposition"
            ))
        })?;
        let (u, s, v) = (svd.U(), svd.S().column_vector(), svd.V());
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for k in 0..most.min(s.nrows()) {
            // Each factor gets the root of the singular values, so that neither is lost in f16.
            let root = s[k].max(0.0).sqrt();
            up.extend((0..rows).map(|i| (u[(i, k)] * root) as f32));
            down.extend((0..columns).map(|j| (v[(j, k)] * root) as f32));
        }
        let squares = (0..s.nrows()).map(|k| s[k] * s[k]).collect();
        Ok(Self {
            component: component.into(),
            module: module.into(),
            shape: shape.to_vec(),
            up,
            down,
            squares,
        })
    }

    /// The squared norm of what a rank misses.
    fn beyond(&self, rank: usize) -> f64 {
        self.squares.iter().skip(rank).sum()
    }

    /// The factors of a rank, or of the matrix's own if that is smaller.
    fn factors(&self, rank: usize) -> LowRank {
        let (rows, columns) = (self.shape[0], self.shape[1..].iter().product::<usize>());
        let kept = rank.min(self.squares.len());
        let mut up = vec![0f32; rows * kept];
        for (k, direction) in self.up.chunks_exact(rows.max(1)).take(kept).enumerate() {
            direction
                .iter()
                .enumerate()
                .for_each(|(i, value)| up[i * kept + k] = *value);
        }
        let (mut up_shape, mut down_shape) = (vec![rows, kept], vec![kept]);
        down_shape.extend(&self.shape[1..]);
        up_shape.extend(self.shape[2..].iter().map(|_| 1));
        LowRank {
            component: self.component.clone(),
            module: self.module.clone(),
            down: HostTensor::from_f32(down_shape, &self.down[..kept * columns]),
            up: HostTensor::from_f32(up_shape, &up),
            alpha: kept as f32,
        }
    }
}
