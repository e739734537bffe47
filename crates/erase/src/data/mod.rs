//! What methods learn from: the frozen model's trajectories and pictures, noised examples of them, and
//! what they are pulled to.

pub mod anchors;
pub mod augment;
pub mod bank;
pub mod forget;
pub mod masks;
pub mod noised;
pub mod pictures;
pub(crate) mod pull;
pub mod retain;
pub(crate) mod start;
pub mod trajectories;
pub(crate) mod turns;
