//! Checkpoint files: reading and writing, with every tensor named and counted.

pub mod tensor;
