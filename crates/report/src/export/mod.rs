//! What other programs read: Markdown with its plots, CSV, TensorBoard's events, a model card's
//! results.

pub(crate) mod csv;
pub(crate) mod events;
pub(crate) mod markdown;
pub(crate) mod model_index;
pub(crate) mod plots;
