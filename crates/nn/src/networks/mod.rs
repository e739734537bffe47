//! The networks, each a plain struct of tensors under their Hugging Face names.

mod added;
mod alexnet;
mod bottleneck;
mod clip;
mod cnn;
mod context;
mod hook;
mod image_resnet;
mod inception;
mod layers;
mod low_rank;
mod part;
mod resnet;
mod time_embedding;
mod transformer;
mod transformer_2d;
mod unet;
mod vae;
mod vgg;
mod vit;
mod watch;

pub use added::{Added, SizeCondition};
pub use alexnet::AlexNet;
pub use bottleneck::BOTTLENECK;
pub use clip::{Clip, ClipText, ClipTextWithProjection};
pub use context::Context;
pub use hook::ContextHook;
pub use image_resnet::{ResNet, ResNetKind};
pub use inception::FidInception;
pub use low_rank::{LORA_DOWN, LORA_UP};
pub use unet::UNet;
pub use vae::Vae;
pub use vgg::Vgg16;
pub use vit::Vit;
pub use watch::Watch;
