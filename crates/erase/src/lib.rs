//! Concept erasure: concepts, edits, trajectories, and one file for each method ([`methods`]).
//!
//! Knows prompts and gradients. Does not know where files lie (a [`Store`](job::Store) does), and
//! never prints.

pub mod adam;
pub mod anchors;
pub mod augment;
pub mod bank;
pub mod bottleneck;
pub mod captions;
pub mod catalogue;
pub mod checks;
mod closed_form;
pub mod concept;
pub mod discriminator;
pub mod drift;
pub mod edit;
pub mod error;
pub mod forget;
pub mod gradients;
pub mod guards;
pub mod hidden_rows;
pub mod host;
mod inversion;
pub mod job;
pub mod lora;
pub mod low_rank;
pub mod masks;
pub mod methods;
pub mod noised;
pub mod passes;
pub mod pictures;
pub mod profile;
mod pull;
pub mod retain;
pub mod rewording;
pub mod seeds;
pub mod snapshot;
pub mod soft_token;
pub mod steering;
pub mod suppression;
pub mod train;
pub mod trainable;
mod turns;
pub mod world;

pub use captions::Captions;
pub use closed_form::Expand;
pub use concept::{Concept, ConceptPrompt, Wording};
pub use edit::{About, Change, Edit};
pub use error::{Error, Result};
pub use job::{Event, Job, Store};
pub use methods::Method;
pub use profile::Profile;
pub use scumble_diffusion::{Scale, Variant};
pub use trainable::Trainable;
pub use world::{Known, World};
