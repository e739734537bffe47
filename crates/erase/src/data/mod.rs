//! What methods learn from: the frozen model's trajectories and pictures, noised examples of them, and
//! what they are pulled to.

pub(crate) mod anchors;
pub(crate) mod augment;
pub mod bank;
pub mod forget;
pub(crate) mod masks;
pub mod noised;
pub mod pictures;
pub(crate) mod pull;
pub mod retain;
pub(crate) mod start;
pub(crate) mod trajectories;
pub(crate) mod turns;
