//! The networks, each a plain struct of tensors under their Hugging Face names.

mod adapters;
mod added;
mod alexnet;
mod clip;
mod cnn;
mod context;
mod hook;
mod image_resnet;
mod inception;
mod layers;
mod resnet;
mod time_embedding;
mod transformer;
mod transformer_2d;
mod unet;
mod vae;
mod vgg;
mod vit;
mod watch;

pub use adapters::{BOTTLENECK, LORA_DOWN, LORA_UP};
pub use added::{Added, SizeCondition};
pub use alexnet::AlexNet;
pub use clip::{Clip, ClipText, ClipTextWithProjection};
pub use context::Context;
pub use hook::ContextHook;
pub use image_resnet::{ResNet, ResNetKind};
pub use inception::FidInception;
pub use unet::UNet;
pub use vae::Vae;
pub use vgg::Vgg16;
pub use vit::Vit;
pub use watch::Watch;
