//! What is to be done with a model, as requests; doing it; and what was done, as records: erasures,
//! pictures, attacks, evaluations.
//!
//! Knows models and their files, plans, runs and their folders, pictures and who looks at them. Does
//! not know terminals or arguments: where things lie and what is built in is given to it
//! ([`Host`]), and who calls it hears how far it is ([`Listener`]).

pub mod attack;
mod built_in;
mod clip;
mod companions;
mod content;
pub mod detectors;
pub mod device;
mod drawing;
mod drawn;
pub mod edits;
pub mod erase;
mod estimate;
pub mod evaluate;
pub mod export;
mod failure;
pub mod folder;
pub mod generate;
mod grid;
pub mod guards;
mod hashed;
mod host;
pub mod hub;
pub mod judging;
mod leco;
mod listener;
mod machine;
mod masks;
pub mod memory;
mod model;
pub mod photos;
pub mod prompts;
pub mod record;
pub mod report;
pub mod request;
mod store;
pub mod submit;
mod taught;
pub mod train;
pub mod words;

pub use built_in::BuiltIn;
pub use companions::Companions;
pub use failure::{End, Failure, Result};
pub use host::{Host, Place};
pub use listener::{Listener, Silently};
pub use model::Model;

#[cfg(test)]
mod readers;
