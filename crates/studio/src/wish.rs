//! A picture that a page wants.

use std::sync::Arc;

use scumble_study::Failure;
use serde::Deserialize;
use tokio::sync::oneshot;

/// A picture that a page wants.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Wish {
    /// The model's path; the built-in one if empty.
    pub(crate) model: String,
    pub(crate) prompt: String,
    pub(crate) negative: String,
    pub(crate) seed: u64,
    /// The profile's own number if 0.
    pub(crate) steps: usize,
    /// The profile's own if absent.
    pub(crate) guidance: Option<f64>,
    /// Edits with strengths, `NAME:STRENGTH`, `;` between them.
    pub(crate) edits: String,
    /// Guards, `ID=TEXT`, a line each.
    pub(crate) guards: String,
}

/// A wish and whoever waits for it.
pub(crate) struct Order {
    pub(crate) wish: Wish,
    pub(crate) answer: oneshot::Sender<Result<Arc<Vec<u8>>, Failure>>,
}
