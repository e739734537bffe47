//! What is to be erased and what is to be kept, as words: concepts, the world that a checkpoint knows,
//! captions, and other ways to say them.

pub mod captions;
pub mod concept;
pub mod kind;
pub mod prompt;
pub(crate) mod rewording;
pub(crate) mod templates;
pub mod world;
