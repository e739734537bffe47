//! The operations that diffusion networks spend their time in.
//!
//! Pictures and latents are kept **channels last** (`[n, h, w, c]`), which is the layout of tokens
//! (`[n, h * w, c]`): going from a convolution to a transformer and back is a reshape, never a
//! copy. Weights keep PyTorch's layout (linear `[out, in]`, convolution `[out, in, kh, kw]`), so a
//! tensor is the same here, in a file and in an edit.
//!
//! Each operation has two bodies: a fused one for the CPU, with a backward pass of its own
//! (`ops`), and one composed of Burn's operations for every other device.
//!
//! Knows shapes and gradients. Does not know names, files or networks.

mod activation;
mod attention;
mod conv;
mod cpu;
mod device;
mod layouts;
mod linear;
mod memory;
mod norm;
mod ops;
mod recompute;

use burn::{
    backend::DispatchDevice,
    tensor::{DType, Device, Tensor},
};

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv::{Padding, conv3x3, patches, upsample_conv3x3, upsample_nearest};
pub use device::{DEVICE_KINDS, device_name, devices, is_built, trial};
pub use layouts::{Layouts, Weight};
pub use linear::linear;
pub use memory::keep_freed_memory;
pub use norm::{group_norm, layer_norm};
pub use recompute::recomputed;

/// Whether the fused operations run on a device, with or without gradients, for tensors of these
/// kinds of numbers. They compute in f32; other kinds go through the composed operations.
fn fuses<const N: usize>(device: &Device, dtypes: [DType; N]) -> bool {
    let cpu = match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::Flex(_)),
        #[allow(
            unreachable_patterns,
            reason = "other devices are there with their features only"
        )]
        _ => false,
    };
    cpu && dtypes.iter().all(|dtype| *dtype == DType::F32)
}

/// The same of an operation with a weight, which may also be halves there: each becomes an f32 where
/// it is used.
fn fuses_weight<const N: usize>(device: &Device, weight: DType, others: [DType; N]) -> bool {
    let known = matches!(weight, DType::F32 | DType::F16 | DType::BF16);
    known && fuses(device, others)
}

/// A weight as the numbers that it is to be used with, where nothing fuses.
fn like<const D: usize>(weight: Tensor<D>, dtype: DType) -> Tensor<D> {
    if weight.dtype() == dtype {
        weight
    } else {
        weight.cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with gradients is another device to Burn; the fused operations have gradients of
    /// their own.
    #[test]
    fn the_cpu_fuses_with_and_without_gradients() {
        let f32s = [DType::F32; 2];
        assert!(fuses(&Device::flex(), f32s) && fuses(&Device::flex().autodiff(), f32s));
        assert!(!fuses(&Device::flex(), [DType::F32, DType::F16]));
        assert!(fuses_weight(&Device::flex(), DType::F16, f32s));
        assert!(!fuses_weight(&Device::flex(), DType::F16, [DType::F16]));
    }
}
