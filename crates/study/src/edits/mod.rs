//! Edits that were read, and a model with them.

mod embeddings;
mod gate;
mod loaded;
mod open;
mod unread;
mod whole;

pub(crate) use self::{embeddings::add_embeddings, gate::gate_metadata};
pub use self::{
    gate::{describe_gate, described_gate},
    loaded::{Loaded, applied, combined},
    open::{expect_change, file_of, open, open_all, short, split_strength},
};
