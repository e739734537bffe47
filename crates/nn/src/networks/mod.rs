//! The networks, each a plain struct of tensors under their Hugging Face names.

mod adapters;
mod alexnet;
mod clip;
mod cnn;
mod context;
mod image_resnet;
mod inception;
mod layers;
mod removal;
mod resnet;
mod spatial;
mod transformer;
mod unet;
mod vae;
mod vgg;
mod vit;
mod watch;

pub use adapters::{BOTTLENECK, LORA_DOWN, LORA_UP};
pub use alexnet::AlexNet;
pub use clip::{Clip, ClipText};
pub use context::Context;
pub use image_resnet::{ResNet, ResNetKind};
pub use inception::FidInception;
pub use removal::{Removal, orthonormal};
pub use unet::UNet;
pub use vae::Vae;
pub use vgg::Vgg16;
pub use vit::Vit;
pub use watch::Watch;
