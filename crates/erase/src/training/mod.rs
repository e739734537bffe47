//! How tensors move: which may, the loop and its optimiser, gradients and masks, adapters, and the state
//! that a stopped run continues from.

pub mod adam;
pub mod bottleneck;
pub mod gradients;
pub mod lora;
pub mod low_rank;
pub(crate) mod negative_guidance;
pub mod passes;
pub mod snapshot;
pub(crate) mod suppression;
pub mod train;
pub mod trainable;
pub(crate) mod width;
