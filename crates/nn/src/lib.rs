//! CLIP, AutoencoderKL, UNet2DConditionModel and ViT under their Hugging Face names, and the files they come in.
//!
//! Knows Hugging Face names, shapes and file formats. Does not know diffusion: no schedule, no sampler, no concept.

pub mod config;
pub mod error;
pub mod files;
pub mod networks;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
pub use networks::{Clip, ClipText, Context, UNet, Vae, Vit};
pub use weights::{Manifest, Weight, Weights};
