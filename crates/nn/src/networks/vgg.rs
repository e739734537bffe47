//! VGG-16's convolutions in the form of torchvision (Simonyan and Zisserman 2015, arXiv 1409.1556),
//! one of LPIPS' two backbones.

use burn::tensor::Tensor;

use super::cnn::{Conv, ConvShape, channels_last, max_pool};
use crate::weights::{Manifest, Params, Weights};

/// The layers `features.*` of torchvision's `vgg16`, in the five stages between its poolings.
#[derive(Debug)]
pub struct Vgg16 {
    stages: Vec<Vec<Conv>>,
}

/// The positions of each stage's convolutions in `features`.
const STAGES: [&[usize]; 5] = [
    &[0, 2],
    &[5, 7],
    &[10, 12, 14],
    &[17, 19, 21],
    &[24, 26, 28],
];

impl Vgg16 {
    /// Channels of each stage.
    pub const CHANNELS: [usize; 5] = [64, 128, 256, 512, 512];

    /// Height and width below which nothing is left for its last stage.
    pub const SMALLEST: usize = 16;

    /// The network over its tensors.
    pub fn new(weights: &Weights) -> Self {
        Self::build(&Params::new(weights))
    }

    /// The names and shapes it asks for.
    pub fn manifest() -> Manifest {
        Params::manifest(|p| Self::build(&p))
    }

    fn build(root: &Params<'_>) -> Self {
        let p = root.at("features");
        let mut input = 3;
        let mut stage = |(places, output): (&[usize], usize)| -> Vec<Conv> {
            let conv = |&at: &usize| {
                Conv::new(
                    &p.at(at),
                    ConvShape::square(std::mem::replace(&mut input, output), output, 3, 1, 1),
                )
            };
            places.iter().map(conv).collect()
        };
        Self {
            stages: STAGES
                .into_iter()
                .zip(Self::CHANNELS)
                .map(&mut stage)
                .collect(),
        }
    }

    /// What the last convolution of each stage sees, after its ReLU.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]`, normalised, at least [`SMALLEST`](Self::SMALLEST) wide and high
    /// - result: `[n, h', w', c]` each, with c of [`CHANNELS`](Self::CHANNELS)
    pub fn features(&self, pictures: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = channels_last(pictures);
        let mut seen = Vec::with_capacity(STAGES.len());
        for (at, stage) in self.stages.iter().enumerate() {
            if at > 0 {
                x = max_pool(x, 2, 2, 0);
            }
            x = stage.iter().fold(x, |x, conv| conv.forward_relu(x));
            seen.push(x.clone());
        }
        seen
    }
}
