//! Concept erasure: concepts, edits, trajectories, and one file for each method ([`methods`]).
//!
//! Knows prompts and gradients. Does not know where files lie (a [`Store`](job::Store) does), and
//! never prints.

pub mod adversary;
pub mod catalogue;
mod checks;
mod closed_form;
pub mod concepts;
pub mod data;
pub mod drift;
pub mod edit;
pub mod error;
pub mod guards;
mod host;
pub mod job;
mod method;
pub mod methods;
pub mod profile;
pub mod seeds;
pub mod training;

pub use closed_form::{Encodings, Expand};
pub use concepts::{
    captions::Captions,
    concept::{Concept, Wording},
    kind::ConceptKind,
    prompt::ConceptPrompt,
    world::{Known, NONE_OF_THESE, Relation, World},
};
pub use edit::{About, Change, Edit};
pub use error::{Error, Result};
pub use job::{Event, Halfway, Job, Store};
pub use method::Method;
pub use profile::Profile;
pub use scumble_diffusion::{Scale, Variant};
pub use training::trainable::Trainable;
