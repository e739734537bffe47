//! The operations on slices: what the CPU really does, forward and backward, without a word about
//! tensors or graphs.
//!
//! Loops are written so that the compiler vectorises them, once for AVX-512, once for AVX2 and once
//! for any machine; which one runs is decided at run time. Sums are taken in an order that does not
//! depend on the number of threads.

pub(crate) mod activation;
pub(crate) mod area;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod conv_sizes;
pub(crate) mod gathered;
pub(crate) mod geglu;
pub(crate) mod group_norm;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod numbers;
pub(crate) mod outer;
pub(crate) mod panels;
pub(crate) mod product;
pub(crate) mod scratch;
pub(crate) mod winograd;
pub(crate) mod winograd_transforms;

/// How many pieces of `size` numbers one task takes at least: waking a thread costs as much as some
/// ten thousand numbers.
fn pieces(size: usize) -> usize {
    ((1 << 15) / size.max(1)).max(1)
}
