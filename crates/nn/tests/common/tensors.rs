//! Tensors for tests of networks: golden files, inputs from a formula, and comparisons.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use scumble_nn::{
    ClipText, UNet, Vae, Weights,
    config::{ClipTextConfig, UNetConfig, VaeConfig},
    files::{Checkpoint, HostTensor, OpenOptions, TensorFile, Tensors},
};

pub(crate) fn golden(rel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(rel)
}

pub(crate) fn models(rel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models")
        .join(rel)
}

pub(crate) fn read(path: PathBuf) -> Tensors {
    TensorFile::open(path).unwrap().tensors
}

/// The small model `golden/networks/NAME`.
pub(crate) fn small(name: &str) -> Checkpoint {
    Checkpoint::open(
        golden(&format!("networks/{name}/model")),
        &OpenOptions::default(),
    )
    .unwrap()
}

/// The numbers of golden/gradients.py: in [-1, 1], as if random.
pub(crate) fn numbers<const D: usize>(shape: [usize; D], stream: i64) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(values(shape.iter().product(), stream), shape),
        &Device::flex(),
    )
}

/// The same without a shape.
pub(crate) fn values(count: usize, stream: i64) -> Vec<f32> {
    (0..count as i64)
        .map(|i| (((i * i + i * 7919 + stream * 104_729) % 1009) as f64 / 504.0 - 1.0) as f32)
        .collect()
}

pub(crate) fn tensor<const D: usize>(host: &HostTensor) -> Tensor<D> {
    let shape: [usize; D] = host.shape().try_into().unwrap();
    Tensor::from_data(
        TensorData::new(host.to_f32().unwrap(), shape),
        &Device::flex(),
    )
}

pub(crate) fn rows_of_ids(host: &HostTensor) -> Vec<Vec<u32>> {
    let ids = host.to_i64().unwrap();
    ids.chunks(host.shape()[1])
        .map(|row| row.iter().map(|&id| id as u32).collect())
        .collect()
}

pub(crate) fn host<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    let x = if x.is_autodiff() {
        x.clone().inner()
    } else {
        x.clone()
    };
    x.into_data().iter::<f32>().collect()
}

/// `max |a - b| / max |b|`; infinite if a number of `a` is none.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "another number of numbers");
    let largest = b.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    let apart = a.iter().zip(b).fold(0f64, |m, (&a, &b)| {
        let d = (f64::from(a) - f64::from(b)).abs();
        if d.is_nan() { f64::INFINITY } else { m.max(d) }
    });
    if apart == 0.0 { 0.0 } else { apart / largest }
}

#[track_caller]
pub(crate) fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    let d = distance(found, expected);
    assert!(
        d <= tolerance,
        "{what}: {d:.1e} apart, expected {tolerance:.0e} at most"
    );
}

/// The configurations and weights of a checkpoint on the CPU.
pub(crate) struct Parts {
    pub(crate) text: (ClipTextConfig, Weights),
    pub(crate) unet: (UNetConfig, Weights),
    pub(crate) vae: (VaeConfig, Weights),
}

impl Parts {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        let device = Device::flex();
        let text = ClipTextConfig::read(
            "text".as_ref(),
            &checkpoint.components["text_encoder"].config,
        )
        .unwrap();
        let unet =
            UNetConfig::read("unet".as_ref(), &checkpoint.components["unet"].config).unwrap();
        let vae = VaeConfig::read("vae".as_ref(), &checkpoint.components["vae"].config).unwrap();
        let load = |name: &str, manifest| {
            Weights::load(
                name,
                &checkpoint.component(name).unwrap().tensors,
                &manifest,
                &device,
            )
            .unwrap()
        };
        Self {
            text: (
                text.clone(),
                load("text_encoder", ClipText::manifest(&text)),
            ),
            unet: (unet.clone(), load("unet", UNet::manifest(&unet))),
            vae: (vae.clone(), load("vae", Vae::manifest(&vae))),
        }
    }

    pub(crate) fn text(&self) -> ClipText {
        ClipText::new(&self.text.0, &self.text.1)
    }

    pub(crate) fn unet(&self) -> UNet {
        UNet::new(&self.unet.0, &self.unet.1)
    }

    pub(crate) fn vae(&self) -> Vae {
        Vae::new(&self.vae.0, &self.vae.1)
    }
}
