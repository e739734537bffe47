//! Noise schedules, samplers, guidance and the text-to-image pipeline.

pub mod error;
pub mod samplers;
pub mod schedule;
pub mod time;

pub use error::{Error, Result};
pub use schedule::{Prediction, Schedule};
pub use time::{StepIndex, Timestep};
