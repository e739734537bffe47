//! Picture grids, PNG files that say how they were made, and the report of an evaluation.
//!
//! Knows results: pixels, labels, numbers. Does not know models, samplers, or how a number was
//! measured.

mod a1111;
pub mod error;
pub mod evaluation;
mod export;
mod folder;
mod format;
pub mod grid;
mod options;
mod outcome;
mod page;
mod plot;
pub mod png;
pub mod rating;
pub mod report;
mod shell;
mod style;
mod summary;
mod svg;
mod text;
mod thumbs;
mod training;

pub use a1111::Parameters;
pub use error::{Error, Result};
pub use evaluation::Evaluation;
pub use export::events::{Scalar, scalars};
pub use folder::{EVALUATION, RESULTS, jsonl};
pub use format::slug_or;
pub use grid::{Grid, Image, Row};
pub use options::{Blur, Options};
pub use report::{Written, write};
pub use style::style;
pub use training::{Curve, Over, Progress, TrainingPage};
