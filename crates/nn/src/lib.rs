//! CLIP, AutoencoderKL, UNet2DConditionModel and ViT under their Hugging Face names, and the files
//! they come in.
//!
//! Knows Hugging Face names, shapes and file formats. Does not know diffusion: no schedule, no
//! sampler, no concept.

pub mod config;
pub mod error;
mod evaluations;
pub mod files;
mod networks;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
pub use evaluations::{Asked, Evaluations};
pub use networks::{
    Added, AlexNet, BOTTLENECK, Clip, ClipText, ClipTextWithProjection, Context, ContextHook,
    FidInception, LORA_DOWN, LORA_UP, Moments, ResNet, ResNetKind, ResNetShape, SizeCondition,
    UNet, Vae, Vgg16, Vit, Watch,
};
pub use weights::{Manifest, Weight, Weights};
