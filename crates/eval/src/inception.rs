//! Features of the Inception network that FID and KID are computed with, under either of the two
//! conventions in use.
//!
//! The weights are the user's: the published `pt_inception-2015-12-05-6726825d.pth` as safetensors
//! ([docs/metrics.md](../../../docs/metrics.md) says how to convert it). FIDs of different
//! conventions cannot be compared: between them lie several points.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use scumble_diffusion::Picture;
use scumble_nn::{FidInception, Weights, files::TensorFile};

use crate::{
    error::{Error, Result},
    resize::{pil_bicubic, torch_bilinear},
    weights::loaded,
};

/// Pictures that go through the network at once: a map of its first layers has 3 MB.
const CHUNK: usize = 8;

/// How a picture becomes the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// pytorch-fid's: torch's bilinear without antialiasing to 299 by 299, `2 v / 255 - 1`.
    LegacyPt,
    /// clean-fid's (Parmar et al. 2022, arXiv 2104.11222): PIL's antialiased bicubic in floating
    /// point, clipped to what a byte holds, `(v - 128) / 128`.
    Clean,
}

impl Convention {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::LegacyPt, Self::Clean];

    /// What follows `fid-` and `kid-` in a metric's name.
    pub fn id(self) -> &'static str {
        match self {
            Self::LegacyPt => "legacy-pt",
            Self::Clean => "clean",
        }
    }

    /// The network's input for a picture of any size, `[3, 299, 299]`, row-major.
    pub fn input(self, picture: &Picture) -> Vec<f32> {
        let side = FidInception::SIDE;
        match self {
            Self::LegacyPt => torch_bilinear(picture, side, side)
                .into_iter()
                .map(|v| 2.0 * (v / 255.0) - 1.0)
                .collect(),
            Self::Clean => pil_bicubic(picture, side, side)
                .into_iter()
                .map(|v| (v.clamp(0.0, 255.0) - 128.0) / 128.0)
                .collect(),
        }
    }
}

/// The network over the user's weights.
#[derive(Debug)]
pub struct Inception {
    network: FidInception,
    device: Device,
}

impl Inception {
    /// Reads a safetensors file of the published state dict.
    ///
    /// # Errors
    /// If the file cannot be read, or is not exactly FID's Inception: torchvision's has the same layers and other numbers, and is refused.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let mut tensors = file.tensors;
        let classes = tensors
            .get("fc.weight")
            .and_then(|fc| fc.shape().first().copied());
        if classes.is_some_and(|classes| classes != 1008)
            || tensors.keys().any(|name| name.starts_with("AuxLogits."))
        {
            return Err(Error::file(
                path,
                "expected FID's Inception with 1008 classes, found torchvision's",
            )
            .with_hint("convert pytorch-fid's pt_inception-2015-12-05-6726825d.pth"));
        }
        // The classifier after the features, and how often batch norms were trained: no feature
        // depends on either.
        tensors
            .retain(|name, _| !name.starts_with("fc.") && !name.ends_with(".num_batches_tracked"));
        let weights = loaded(
            &path.display().to_string(),
            &tensors,
            &FidInception::manifest(),
            device,
        )?;
        Ok(Self::new(&weights))
    }

    /// The network over weights that fit [`FidInception::manifest`].
    pub fn new(weights: &Weights) -> Self {
        Self {
            network: FidInception::new(weights),
            device: weights.device().clone(),
        }
    }

    /// The 2048 features of each picture. Pictures may differ in size; how many are asked about at
    /// once makes no difference.
    pub fn features(&self, pictures: &[Picture], convention: Convention) -> Vec<Vec<f32>> {
        let side = FidInception::SIDE;
        let mut rows = Vec::with_capacity(pictures.len());
        for chunk in pictures.chunks(CHUNK) {
            let input: Vec<f32> = chunk
                .iter()
                .flat_map(|picture| convention.input(picture))
                .collect();
            let input: Tensor<4> = Tensor::from_data(
                TensorData::new(input, [chunk.len(), 3, side, side]),
                &self.device,
            );
            let values: Vec<f32> = self
                .network
                .features(input)
                .into_data()
                .iter::<f32>()
                .collect();
            rows.extend(
                values
                    .chunks_exact(FidInception::WIDTH)
                    .map(<[f32]>::to_vec),
            );
        }
        rows
    }
}
