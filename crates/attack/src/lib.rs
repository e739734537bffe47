//! Bringing erased concepts back: what an attack gets, how it is counted, and one file for each
//! ([`attacks`]).
//!
//! An attack is a function from a [`Job`] to a [`Found`]: words, vectors or weights that make the
//! edited model draw the concept again. [`protocol`] counts, the same way for all of them. Knows
//! prompts and gradients. Does not know where files lie, and never prints.

pub mod attacks;
pub mod capped;
pub mod closest;
pub mod draw;
pub mod found;
pub mod genetic;
pub mod groups;
pub mod job;
pub mod latent_classifier;
pub mod lessons;
pub mod lockstep;
pub mod nearest;
pub mod noisy_ddim;
pub mod placed;
pub mod predict;
pub mod probe;
pub mod prompts;
pub mod protocol;
pub mod reused;
pub mod search;
pub mod sentences;
pub mod simplex;
pub mod soft;
pub mod trial;

pub use attacks::{Attack, Threat};
pub use found::Found;
pub use job::{Case, Checkpoint, Clip, Drawing, Job};
pub use protocol::{Looks, Report};
pub use scumble_erase::{Error, Event, Result, Variant};
