//! The networks, each a plain struct of tensors under their Hugging Face names.

mod adapters;
mod clip;
mod context;
mod layers;
mod removal;
mod resnet;
mod spatial;
mod transformer;
mod unet;
mod vae;
mod vit;
mod watch;

pub use adapters::{BOTTLENECK, LORA_DOWN, LORA_UP};
pub use clip::{Clip, ClipText};
pub use context::Context;
pub use removal::{Removal, orthonormal};
pub use unet::UNet;
pub use vae::Vae;
pub use vit::Vit;
pub use watch::Watch;
