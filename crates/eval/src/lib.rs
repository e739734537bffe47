//! Prompt sets, detectors and metrics.
//!
//! Knows pictures and text. Does not know how pictures were made, how a model was edited, files to
//! write or terminals.

pub mod attacked;
mod classes;
pub mod clip;
pub mod detections;
pub mod detectors;
pub mod distribution;
pub mod error;
pub mod facts;
mod fit;
pub mod inception;
pub mod instruments;
mod judge;
mod judges;
pub mod judging;
mod lpips;
pub mod metrics;
#[cfg(test)]
mod near;
mod preprocessor;
pub mod protocol;
pub mod rates;
mod resize;
pub mod scene;
mod second;
pub mod seriation;
pub mod statistics;
pub mod structure;
pub mod tally;
mod weights;

pub use clip::ClipModel;
pub use detectors::{Detector, Sighting};
pub use error::{Error, Result};
pub use inception::Inception;
pub use judge::{Judge, Verdict};
pub use judges::Judges;
pub use judging::{Answer, Case, JudgingSet, Kind, Role, requests};
pub use lpips::Lpips;
pub use rates::{Rate, Rates};
