//! An edit as a LoRA: the edit's own factors where it has them, elsewhere the best approximation of each changed matrix by one of
//! low rank (Eckart and Young 1936).

use faer::Mat;
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
    /// Changed tensors that a LoRA cannot carry (biases, norms, embeddings), each with its share of the squared change.
    pub left_out: Vec<(String, f64)>,
}

impl Approximation {
    /// The share of the squared change in tensors that a LoRA cannot carry.
    pub fn left_out_share(&self) -> f64 {
        self.left_out.iter().map(|(_, share)| share).sum()
    }
}

impl Edit {
    /// Factors of rank `rank` (less where a matrix is smaller) for every changed weight of a linear layer or convolution.
    ///
    /// A change that is low-rank already, and not of a higher rank, keeps its own factors; `strength` goes into the second.
    ///
    /// A kernel `[out, in, kh, kw]` becomes `down [rank, in, kh, kw]` and `up [out, rank, 1, 1]`, as kohya's scripts lay it out.
    ///
    /// # Errors
    /// If the rank is 0, the edit does not fit the checkpoint, or a decomposition fails.
    pub fn low_rank(&self, base: &Checkpoint, rank: usize, strength: f64) -> Result<Approximation> {
        if rank == 0 {
            return Err(Error::input("--rank is 0, expected at least 1"));
        }
        let mut low_rank = Vec::new();
        let mut others = Vec::new();
        let (mut missed, mut total) = (0.0f64, 0.0f64);
        for (component, name, old, new) in self.new_values(base, strength)? {
            let (old, new_values) = (old.to_f32().unwrap_or_default(), new.to_f32().unwrap_or_default());
            let delta: Vec<f64> = new_values.iter().zip(&old).map(|(n, o)| f64::from(*n) - f64::from(*o)).collect();
            let size: f64 = delta.iter().map(|d| d * d).sum();
            total += size;
            if let Some(own) = self.own_factors(&component, &name, rank, strength) {
                low_rank.push(own);
                continue;
            }
            match name.strip_suffix(".weight") {
                Some(module) if is_matrix(&name, new.shape()) => {
                    let (factors, error) = factor(&component, module, &delta, new.shape(), rank)?;
                    missed += error;
                    low_rank.push(factors);
                }
                _ if size > 0.0 => others.push((format!("{component} {name}"), size)),
                _ => {}
            }
        }
        let whole = total.max(f64::MIN_POSITIVE);
        Ok(Approximation {
            low_rank,
            error: (missed / whole).sqrt(),
            left_out: others.into_iter().map(|(name, size)| (name, size / whole)).collect(),
        })
    }

    /// The factors that a tensor's change consists of, if it does and they are of at most this rank.
    fn own_factors(&self, component: &str, name: &str, rank: usize, strength: f64) -> Option<LowRank> {
        match self.changes.get(&(component.to_owned(), name.to_owned()))? {
            Change::LowRank(low) if low.rank() <= rank && strength == 1.0 => Some(low.clone()),
            Change::LowRank(low) if low.rank() <= rank => {
                let up: Vec<f32> = low.up.to_f32()?.iter().map(|u| (f64::from(*u) * strength) as f32).collect();
                Some(LowRank { up: HostTensor::from_f32(low.up.shape(), &up), ..low.clone() })
            }
            _ => None,
        }
    }
}

/// A weight of a linear layer or a convolution; embedding tables have a weight too, but no LoRA reaches them.
fn is_matrix(name: &str, shape: &[usize]) -> bool {
    matches!(shape.len(), 2 | 4) && !name.contains("token_embedding") && !name.contains("position_embedding")
}

/// The factors of one matrix, and the squared norm of what they miss.
fn factor(component: &str, module: &str, delta: &[f64], shape: &[usize], rank: usize) -> Result<(LowRank, f64)> {
    let (rows, columns) = (shape[0], delta.len() / shape[0].max(1));
    let matrix = Mat::from_fn(rows, columns, |i, j| delta[i * columns + j]);
    let svd = matrix.thin_svd().map_err(|_| Error::input(format!("the change of {component} {module} has no decomposition")))?;
    let (u, s, v) = (svd.U(), svd.S().column_vector(), svd.V());
    let kept = rank.min(s.nrows());
    let missed: f64 = (kept..s.nrows()).map(|k| s[k] * s[k]).sum();
    // Each factor gets the root of the singular values, so that neither is lost in f16.
    let mut up = vec![0f32; rows * kept];
    let mut down = vec![0f32; kept * columns];
    for k in 0..kept {
        let root = s[k].max(0.0).sqrt();
        for i in 0..rows {
            up[i * kept + k] = (u[(i, k)] * root) as f32;
        }
        for j in 0..columns {
            down[k * columns + j] = (v[(j, k)] * root) as f32;
        }
    }
    let (mut up_shape, mut down_shape) = (vec![rows, kept], vec![kept]);
    down_shape.extend(&shape[1..]);
    up_shape.extend(shape[2..].iter().map(|_| 1));
    let low = LowRank {
        component: component.into(),
        module: module.into(),
        down: HostTensor::from_f32(down_shape, &down),
        up: HostTensor::from_f32(up_shape, &up),
        alpha: kept as f32,
    };
    Ok((low, missed))
}
