//! Checkpoint files: reading and writing, with every tensor named and counted.
//!
//! Knows names, shapes, dtypes and bytes. Does not know what a network computes, and loads no pickle.

pub mod checkpoint;
mod folder;
mod names;
pub mod safetensors;
pub mod source;
pub mod tensor;

pub use checkpoint::{Checkpoint, Component, Family, OpenOptions, Pad, Passenger, Prediction, TokenizerFiles, expect_names};
pub use safetensors::{TensorFile, write};
pub use source::Source;
pub use tensor::{Bytes, Dtype, HostTensor, Tensors};
