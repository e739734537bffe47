//! The operations that diffusion networks spend their time in.
//!
//! Pictures and latents are kept **channels last** (`[n, h, w, c]`), which is the layout of tokens (`[n, h * w, c]`):
//! going from a convolution to a transformer and back is a reshape, never a copy. Weights keep PyTorch's layout
//! (linear `[out, in]`, convolution `[out, in, kh, kw]`), so a tensor is the same here, in a file and in an edit.
//!
//! Each operation has two bodies: a fused one for the CPU, with a backward pass of its own ([`ops`]), and one composed of
//! Burn's operations for every other device.
//!
//! Knows shapes and gradients. Does not know names, files or networks.

mod activation;
mod attention;
mod conv;
mod cpu;
mod device;
mod linear;
mod norm;
pub mod ops;

use burn::{backend::DispatchDevice, tensor::Device};

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv::{Padding, conv3x3, patches, upsample_nearest};
pub use device::{DEVICE_KINDS, device_name, devices, is_built, trial};
pub use linear::linear;
pub use norm::{group_norm, layer_norm};

/// Whether the fused operations run on a device: the CPU, with a graph (a tracked tensor's device says so) or without one.
fn fuses(device: &Device) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Autodiff(inner) => matches!(**inner, DispatchDevice::Flex(_)),
        plain => matches!(plain, DispatchDevice::Flex(_)),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;

    #[test]
    fn tracked_tensors_are_fused_too() {
        let x = Tensor::<1>::zeros([1], &Device::flex());
        assert!(fuses(&x.device()));
        assert!(fuses(&x.autodiff().require_grad().device()));
    }
}
