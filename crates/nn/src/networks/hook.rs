//! What a caller may do on the way from a prompt into a U-Net.

use std::fmt::Debug;

use burn::tensor::Tensor;

/// A rule on what the cross-attentions of a U-Net have made of a prompt, asked of each of them
/// before any place of the picture looks. What it is good for is the caller's matter.
pub trait ContextHook: Debug + Send + Sync {
    /// What stands in the place of a layer's keys.
    ///
    /// # Shapes
    /// - keys and result: `[n, tokens, c]`
    fn keys(&self, keys: Tensor<3>) -> Tensor<3> {
        keys
    }

    /// What stands in the place of a layer's values.
    ///
    /// # Shapes
    /// - values and result: `[n, tokens, c]`
    /// - project: the layer itself, without adapters: what it makes of hidden states, `[k, width]`
    ///   to `[k, c]`
    fn values(&self, values: Tensor<3>, _project: &dyn Fn(Tensor<2>) -> Tensor<2>) -> Tensor<3> {
        values
    }
}
