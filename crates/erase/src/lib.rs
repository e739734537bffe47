//! Concept erasure: concepts, edits, trajectories and one file per method.

pub mod world;

pub use world::{Known, World};
