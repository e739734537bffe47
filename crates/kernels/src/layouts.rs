//! Weights with what has been laid out for them: a frozen matrix is laid out once, not at every
//! product.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::cpu::panels::Store;

/// Weights larger than this, in numbers, are laid out while they are used: beside such a product
/// that costs little, and a large model is then in memory once.
const LARGEST: usize = 1 << 20;

/// Room for the layouts of one tensor's numbers. Clones share it; other numbers need another.
#[derive(Clone, Debug, Default)]
pub struct Layouts(Option<Arc<Store>>);

impl Layouts {
    /// Room that will be filled at first use.
    pub fn kept() -> Self {
        Self(Some(Arc::default()))
    }

    /// No room: for tensors that change.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether a tensor of so many numbers will have room.
    pub fn fit(&self, numbers: usize) -> bool {
        self.room(numbers).is_some()
    }

    /// The room that a tensor of so many numbers has.
    pub(crate) fn room(&self, numbers: usize) -> Option<&Store> {
        self.0.as_deref().filter(|_| numbers <= LARGEST)
    }
}

/// A matrix or kernel, and the layouts that are kept of it.
#[derive(Clone, Debug)]
pub struct Weight<const D: usize> {
    /// The numbers; on the CPU also halves, which are widened where they are used.
    pub tensor: Tensor<D>,
    /// What has been laid out of them; read on the CPU only, and never where the tensor is tracked.
    pub layouts: Layouts,
}

impl<const D: usize> From<Tensor<D>> for Weight<D> {
    fn from(tensor: Tensor<D>) -> Self {
        Self {
            tensor,
            layouts: Layouts::none(),
        }
    }
}
