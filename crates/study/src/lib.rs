//! What is to be done with a model, as requests; what was done, as records; and evaluations: any number
//! of models, edits, guards and attacks, judged on the same pictures.
//!
//! Knows plans, runs and their folders, pictures and who looks at them. Does not know terminals or
//! arguments: where things lie is given to it, and who calls it hears how far it is.

mod album;
pub mod content;
mod drawn;
pub mod edits;
mod failure;
pub mod folder;
mod gallery;
mod gather;
mod impact;
mod inception;
mod kit;
mod listener;
mod machine;
mod parquet;
pub mod photos;
pub mod plan;
pub mod prompts;
pub mod record;
pub mod request;
pub mod runs;
mod shard;
mod study;
pub mod subjects;

pub use album::{Album, Shot};
pub use drawn::Drawn;
pub use failure::{End, Failure, Result};
pub use gallery::Gallery;
pub use impact::{Impact, Rates};
pub use kit::{Home, Kit};
pub use listener::Listener;
pub use shard::Shard;
pub use study::{Study, refuse_foreign};
