//! What works against the erasure while it is learned: soft tokens, hidden states, learned words, steered
//! latents, a discriminator.

pub(crate) mod discriminator;
pub(crate) mod hidden_rows;
pub(crate) mod inversion;
pub mod soft_token;
pub(crate) mod steering;
