//! Training of whole models: tokenizer, CLIP, autoencoder, denoiser and judges, from pictures with
//! captions; and of the denoiser of a model that there is already, whose result is an edit.
//!
//! Knows recipes, losses and the order of the parts. Does not know terminals, runs, or who looks at
//! what a model draws: a [`Watcher`] is told.

mod calibration;
mod examples;
mod fit;
mod folder;
mod init;
mod job;
mod layout;
mod part;
mod parts;
mod recipe;
mod train;
mod tune;
mod watcher;
pub mod world;

pub use calibration::Bin;
pub use examples::{EmojiWorld, Examples, Question};
pub use folder::PictureFolder;
pub use job::Job;
pub use part::Part;
pub use parts::HELD_OUT;
pub use recipe::{Recipe, Training};
pub use train::{Trained, enough, train};
pub use tune::{Moves, Tuning, tune};
pub use watcher::Watcher;
