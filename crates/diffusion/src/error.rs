//! What can go wrong between a model's files and a picture: the errors of the files themselves, and
//! requests that cannot be met.

pub use scumble_nn::{Error, Result};
