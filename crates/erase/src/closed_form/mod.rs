//! What closed-form methods share: the keys and values of the cross-attention as matrices in f64,
//! prompts as rows of hidden states, and the ridge regression that moves some rows while others
//! stay.

pub(crate) mod align;
pub(crate) mod debias;
pub(crate) mod editing;
mod encoded;
pub(crate) mod fusion;
mod job;
pub(crate) mod layers;
pub(crate) mod regression;
pub(crate) mod rows;
mod sentences;
pub(crate) mod subspace;

pub(crate) use align::{Part, align, align_all};
pub(crate) use encoded::Encoded;
pub use encoded::Encodings;
pub(crate) use fusion::Fusion;
pub(crate) use job::{EncodedPair, encode_pairs, keep_empty, keep_preserved, recorded};
pub(crate) use layers::{
    KEYS_AND_VALUES, Layer, VALUES, finish, finish_each, finish_mapped, layers, multiplied,
    one_by_one,
};
pub(crate) use regression::Regression;
pub(crate) use rows::{Positions, Statistics, caption_rows, encode, statistics};
pub use sentences::Expand;
pub(crate) use sentences::{
    Kind, PromptPair, contrasts, expanded, in_sentences, prompt_pairs, sentences,
};
