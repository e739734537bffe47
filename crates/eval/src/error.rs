//! What can go wrong between pictures and numbers about them: problems of files, their
//! configurations, and pictures, labels or prompts that do not fit together.

pub use scumble_nn::{Error, Result};
