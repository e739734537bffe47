//! Weights and pictures that a formula determines, the same here and in golden/networks.py.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use burn::tensor::Device;
use scumble_diffusion::Picture;
use scumble_nn::{
    Manifest, Weights,
    files::{HostTensor, Tensors},
};

/// The tensors with one number that is none.
pub(crate) fn spoilt(mut tensors: Tensors, name: &str) -> Tensors {
    let shape = tensors[name].shape().to_vec();
    let mut values = tensors[name].to_f32().unwrap();
    values[1] = f32::NAN;
    tensors.insert(name.into(), HostTensor::from_f32(shape, &values));
    tensors
}

/// What is said of such a tensor.
#[track_caller]
pub(crate) fn says_spoilt(message: &str, file: &str, name: &str) {
    assert!(
        message.contains(file) && message.contains(&format!("not finite: {name}: 1 of ")),
        "{message}"
    );
}

/// The numbers of bench/golden/formula.py: uniform in [-1, 1) by a hash of the name and the
/// position.
pub(crate) fn uniform(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (0..count as u32).map(move |i| {
        let x = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
        let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        ((x ^ (x >> 16)) >> 8) as f32 * 2f32.powi(-23) - 1.0
    })
}

/// A weight by its name: `r scale + offset`, scaled so that activations keep their size through
/// ReLUs.
pub(crate) fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let is_head = name.starts_with("lin");
    let (scale, offset) = match shape {
        [_] if name.ends_with("running_var") => (0.5, 1.0),
        [_] if name.ends_with("weight") => (0.1, 1.0),
        [_] => (0.1, 0.0),
        _ if is_head => (0.5, 0.5),
        [_, rest @ ..] => (
            (6.0 / rest.iter().product::<usize>() as f64).sqrt() as f32,
            0.0,
        ),
        [] => (0.0, 0.0),
    };
    uniform(name, shape.iter().product())
        .map(|r| r * scale + offset)
        .collect()
}

pub(crate) fn weights(manifest: &Manifest) -> Weights {
    Weights::generate(manifest, &Device::flex(), weight)
}

pub(crate) fn tensors(manifest: &Manifest) -> Tensors {
    manifest
        .iter()
        .map(|(name, shape)| {
            (
                name.clone(),
                HostTensor::from_f32(shape.clone(), &weight(name, shape)),
            )
        })
        .collect()
}

/// A picture of curves and slopes: smooth in some places, rough in others.
pub(crate) fn picture(k: usize, width: usize, height: usize) -> Picture {
    let byte = |x: usize, y: usize, c: usize| {
        ((x * x * (k + 1) / 8 + y * (13 - k) / 3 + x * y / 16 + c * 101 + k * 37) % 256) as u8
    };
    let rgb = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| byte(x, y, c))))
        .collect();
    Picture { width, height, rgb }
}

#[track_caller]
pub(crate) fn near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    // Written so that NaN fails.
    assert!(
        worst <= tolerance * largest,
        "{worst} apart of {largest}: {found:?}, expected {expected:?}"
    );
}

/// A piece of artwork on white, `scale` times as large, cut to `size` from its upper left corner.
pub(crate) fn art(name: &str, scale: usize, size: Option<(usize, usize)>) -> Picture {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets/emoji-world")
        .join(name.to_owned() + ".png");
    let icon = image::open(file).unwrap().into_rgba8();
    let (width, height) = size.unwrap_or((
        scale * icon.width() as usize,
        scale * icon.height() as usize,
    ));
    let mut rgb = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let [r, g, b, a] = icon
                .get_pixel((x / scale) as u32, (y / scale) as u32)
                .0
                .map(u32::from);
            rgb.extend([r, g, b].map(|v| ((v * a + 255 * (255 - a) + 127) / 255) as u8));
        }
    }
    Picture { width, height, rgb }
}
