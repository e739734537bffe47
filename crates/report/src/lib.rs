//! Picture grids, PNG files that say how they were made, and the report of an evaluation.
//!
//! Knows results: pixels, labels, numbers. Does not know models, samplers, or how a number was
//! measured.

pub mod a1111;
pub mod error;
pub mod evaluation;
mod export;
mod folder;
mod format;
pub mod grid;
mod outcome;
mod page;
mod plot;
pub mod png;
pub mod rating;
pub mod report;
mod summary;
mod svg;
mod text;
mod thumbs;

pub use a1111::Parameters;
pub use error::{Error, Result};
pub use evaluation::Evaluation;
pub use folder::{EVALUATION, RESULTS, jsonl};
pub use format::slug_or;
pub use grid::{Grid, Image, Row};
pub use report::{Blur, Options, Written, write};
