//! Picture grids, and PNG files that say how they were made.
//!
//! Knows results: pixels, labels, numbers. Does not know models, samplers or concepts.

pub mod a1111;
pub mod error;
pub mod evaluation;
pub mod folder;
pub mod grid;
pub mod png;
mod text;

pub use a1111::Parameters;
pub use error::{Error, Result};
pub use evaluation::Evaluation;
pub use grid::{Grid, Image, Row};
