//! Which devices beside the CPU this build and this machine have.

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Padding, attention, conv3x3, group_norm, layer_norm, linear};

/// What a device can be beside the CPU: each the name of a cargo feature.
pub const DEVICE_KINDS: [&str; 4] = ["cuda", "vulkan", "metal", "rocm"];

/// Whether the feature of that kind is compiled in.
pub fn is_built(kind: &str) -> bool {
    match kind {
        "cuda" => cfg!(feature = "cuda"),
        "vulkan" => cfg!(feature = "vulkan"),
        "metal" => cfg!(feature = "metal"),
        "rocm" => cfg!(feature = "rocm"),
        _ => false,
    }
}

/// The machine's devices of a kind, discrete cards before integrated ones before software; none of
/// a kind that is not built in.
///
/// No device is opened.
///
/// # Panics
/// If a driver does.
pub fn devices(kind: &str) -> Vec<Device> {
    match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
        #[cfg(feature = "vulkan")]
        "vulkan" => vulkan(),
        #[cfg(feature = "metal")]
        "metal" => Device::enumerate(burn::tensor::DeviceType::Metal).into_vec(),
        #[cfg(feature = "rocm")]
        "rocm" => Device::enumerate(burn::tensor::DeviceType::Rocm).into_vec(),
        _ => Vec::new(),
    }
}

/// Burn's own list of Vulkan devices comes with its SPIR-V compiler only; this is the same for
/// WGSL.
#[cfg(feature = "vulkan")]
fn vulkan() -> Vec<Device> {
    use burn::backend::{CubeDevice, WgpuBackend, WgpuDevice, WgpuDeviceKind::*};

    let kinds = [
        DiscreteGpu(0),
        IntegratedGpu(0),
        VirtualGpu(0),
        Cpu,
        Other(0),
    ];
    let on_vulkan = |kind| CubeDevice::Wgpu(WgpuDevice::new(kind).on(WgpuBackend::Vulkan));
    let ids = kinds
        .into_iter()
        .flat_map(|kind| CubeDevice::enumerate(on_vulkan(kind).to_id()));
    ids.map(|id| Device::new(CubeDevice::from_id(id))).collect()
}

/// The part's own name, for a device that is not the CPU. Opens it.
///
/// # Panics
/// If its driver does.
pub fn device_name(device: &Device) -> Option<String> {
    #[cfg(any(
        feature = "cuda",
        feature = "vulkan",
        feature = "metal",
        feature = "rocm"
    ))]
    return device.identity().map(|identity| identity.name);
    #[cfg(not(any(
        feature = "cuda",
        feature = "vulkan",
        feature = "metal",
        feature = "rocm"
    )))]
    {
        let _ = device;
        None
    }
}

/// How far a few operations on a device are from the CPU's: max |a - b| / max |b|; infinite where
/// it gives no numbers.
///
/// Drivers exist that accept kernels they cannot run, and compute something else.
///
/// # Panics
/// If its driver does.
pub fn trial(device: &Device) -> f32 {
    let (found, expected) = (tried_on(device), tried_on(&Device::flex()));
    let most = expected
        .iter()
        .fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let off = found.iter().zip(&expected).fold(0f32, |m, (a, b)| {
        if (a - b).is_finite() {
            m.max((a - b).abs())
        } else {
            f32::INFINITY
        }
    });
    if found.len() == expected.len() {
        off / most
    } else {
        f32::INFINITY
    }
}

/// A convolution, both norms, attention and a product, one after the other.
fn tried_on(device: &Device) -> Vec<f32> {
    // Fractions of the golden ratio's multiples: without a pattern, and the same everywhere.
    fn numbers<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|i| ((i as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32)
            .collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }
    let wide = |n| numbers([n], device) + 1.0;
    let x = conv3x3(
        numbers([2, 6, 5, 12], device),
        numbers([16, 12, 3, 3], device),
        wide(16),
        1,
        Padding::Around,
    );
    let x = group_norm(x, 4, wide(16), wide(16), 1e-5, true).reshape([2, 30, 16]);
    let x = layer_norm(x, wide(16), wide(16), 1e-5);
    let x = attention(x.clone(), x.clone(), x, 2, false);
    linear(x, numbers([24, 16], device), Some(wide(24)))
        .into_data()
        .iter::<f32>()
        .collect()
}
