//! Bringing erased concepts back: what an attack gets, how it is counted, and one file for each
//! ([`attacks`]).
//!
//! An attack is a function from a [`Job`] to a [`Found`]: words, vectors or weights that make the
//! edited model draw the concept again. [`protocol`] counts, the same way for all of them. Knows
//! prompts and gradients. Does not know where files lie, and never prints.

mod attack;
pub mod attacks;
mod capped;
mod closest;
pub mod draw;
pub mod found;
mod genetic;
mod groups;
pub mod job;
pub mod latent_classifier;
pub mod lessons;
mod lockstep;
mod nearest;
mod noisy_ddim;
pub mod placed;
pub mod predict;
pub mod probe;
pub mod prompts;
pub mod protocol;
mod redraw;
mod reused;
mod search;
pub mod sentences;
mod simplex;
mod soft;
mod trial;
mod wording;

pub use attack::{Attack, Threat};
pub use found::Found;
pub use job::{Case, Checkpoint, Clip, Drawing, Job};
pub use protocol::{Looks, Report};
pub use scumble_erase::{Error, Event, Result, Variant};
