//! AlexNet's convolutions in the form of torchvision (Krizhevsky 2014, arXiv 1404.5997), one of
//! LPIPS' two backbones.

use burn::tensor::Tensor;

use super::cnn::{Conv, ConvShape, channels_last, max_pool};
use crate::weights::{Manifest, Params, Weights};

/// The layers `features.*` of torchvision's `alexnet`.
#[derive(Debug)]
pub struct AlexNet {
    convolutions: [Conv; 5],
}

impl AlexNet {
    /// Channels after each of its five convolutions.
    pub const CHANNELS: [usize; 5] = [64, 192, 384, 256, 256];

    /// Height and width below which nothing is left for its last convolution.
    pub const SMALLEST: usize = 31;

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
        let conv = |at: usize, shape| Conv::new(&p.at(at), shape);
        Self {
            convolutions: [
                conv(0, ConvShape::square(3, 64, 11, 4, 2)),
                conv(3, ConvShape::square(64, 192, 5, 1, 2)),
                conv(6, ConvShape::square(192, 384, 3, 1, 1)),
                conv(8, ConvShape::square(384, 256, 3, 1, 1)),
                conv(10, ConvShape::square(256, 256, 3, 1, 1)),
            ],
        }
    }

    /// What the five convolutions see, each after its ReLU.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]`, normalised, at least [`SMALLEST`](Self::SMALLEST) wide and high
    /// - result: `[n, h', w', c]` each, with c of [`CHANNELS`](Self::CHANNELS)
    pub fn features(&self, pictures: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = channels_last(pictures);
        let mut seen = Vec::with_capacity(5);
        for (at, conv) in self.convolutions.iter().enumerate() {
            if at == 1 || at == 2 {
                x = max_pool(x, 3, 2, 0);
            }
            x = conv.forward_relu(x);
            seen.push(x.clone());
        }
        seen
    }
}
