//! What a denoiser is told of prompts: the hidden states of the text encoders, and where a family
//! has them the pooled embeddings.

use burn::tensor::{Int, Tensor, TensorData};
use scumble_nn::{Added, Context};

/// Conditioning of n pictures. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Hidden states, `[n, tokens, width]`: what the denoiser's cross-attention reads. With several
    /// text encoders their hidden states lie side by side.
    pub tokens: Tensor<3>,
    /// Pooled prompt embeddings, `[n, c]`, of families that have them (SDXL).
    pub pooled: Option<Tensor<2>>,
}

impl Conditioning {
    /// How many pictures it is for.
    pub fn len(&self) -> usize {
        self.tokens.dims()[0]
    }

    /// Whether it is for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same pooled embeddings with other hidden states.
    #[must_use]
    pub fn with_tokens(&self, tokens: Tensor<3>) -> Self {
        Self {
            tokens,
            pooled: self.pooled.clone(),
        }
    }

    /// Rows in this order; a row may be taken more than once.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::<1, Int>::from_data(
            TensorData::new(index, [rows.len()]),
            &self.tokens.device().without_autodiff(),
        );
        Self {
            tokens: self.tokens.clone().select(0, index.clone()),
            pooled: self.pooled.clone().map(|pooled| pooled.select(0, index)),
        }
    }

    /// `n` rows from `start`.
    #[must_use]
    pub fn narrow(&self, start: usize, n: usize) -> Self {
        Self {
            tokens: self.tokens.clone().narrow(0, start, n),
            pooled: self.pooled.clone().map(|pooled| pooled.narrow(0, start, n)),
        }
    }

    /// All rows `times` times, one copy behind the other.
    #[must_use]
    pub fn repeat(&self, times: usize) -> Self {
        Self {
            tokens: self.tokens.clone().repeat_dim(0, times),
            pooled: self
                .pooled
                .clone()
                .map(|pooled| pooled.repeat_dim(0, times)),
        }
    }

    /// One behind the other, all of one family; at least one.
    pub fn cat(parts: Vec<Self>) -> Self {
        let pooled: Option<Vec<Tensor<2>>> = parts.iter().map(|part| part.pooled.clone()).collect();
        Self {
            tokens: Tensor::cat(parts.into_iter().map(|part| part.tokens).collect(), 0),
            pooled: pooled.map(|pooled| Tensor::cat(pooled, 0)),
        }
    }

    /// The way from here to `other`, `strength` of it: 0 is this one, 1 the other.
    #[must_use]
    pub fn towards(&self, other: &Self, strength: f64) -> Self {
        let pooled = match (&self.pooled, &other.pooled) {
            (Some(from), Some(to)) => Some(from.clone() + (to.clone() - from.clone()) * strength),
            _ => None,
        };
        Self {
            tokens: self.tokens.clone() + (other.tokens.clone() - self.tokens.clone()) * strength,
            pooled,
        }
    }

    /// With zeros in one row.
    pub(crate) fn with_zeros(&self, row: usize) -> Self {
        let n = self.len();
        let kept: Vec<f32> = (0..n).map(|i| f32::from(u8::from(i != row))).collect();
        let kept =
            Tensor::<1>::from_floats(kept.as_slice(), &self.tokens.device().without_autodiff());
        Self {
            tokens: self.tokens.clone() * kept.clone().reshape([n, 1, 1]),
            pooled: self
                .pooled
                .clone()
                .map(|pooled| pooled * kept.reshape([n, 1])),
        }
    }
}

impl From<Tensor<3>> for Conditioning {
    /// Hidden states alone, for families without pooled embeddings.
    fn from(tokens: Tensor<3>) -> Self {
        Self {
            tokens,
            pooled: None,
        }
    }
}

impl From<Conditioning> for Context {
    fn from(conditioning: Conditioning) -> Self {
        Context::from(conditioning.tokens).with_added(conditioning.pooled.map(Added::from))
    }
}

impl From<&Conditioning> for Context {
    fn from(conditioning: &Conditioning) -> Self {
        conditioning.clone().into()
    }
}
