//! ResNet as an image classifier (He et al. 2016, arXiv 1512.03385), in the form and under the
//! names of torchvision.

use burn::tensor::{Tensor, activation};

use super::{
    cnn::{Conv, ConvShape, average, channels_last, max_pool},
    layers::Linear,
};
use crate::weights::{Manifest, Params, Weights};

/// Batch norm's epsilon.
const EPS: f64 = 1e-5;

/// Which of torchvision's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResNetKind {
    /// `resnet18`.
    ResNet18,
    /// `resnet34`.
    ResNet34,
    /// `resnet50`.
    ResNet50,
}

impl ResNetKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ResNet18, Self::ResNet34, Self::ResNet50];

    /// Blocks in each of the four stages.
    fn blocks(self) -> [usize; 4] {
        match self {
            Self::ResNet18 => [2, 2, 2, 2],
            Self::ResNet34 | Self::ResNet50 => [3, 4, 6, 3],
        }
    }

    fn is_bottleneck(self) -> bool {
        self == Self::ResNet50
    }
}

/// A ResNet classifier.
#[derive(Debug)]
pub struct ResNet {
    conv1: Conv,
    blocks: Vec<Block>,
    fc: Linear,
}

impl ResNet {
    /// The classifier over its tensors.
    pub fn new(kind: ResNetKind, classes: usize, weights: &Weights) -> Self {
        Self::build(kind, classes, &Params::new(weights))
    }

    /// The names and shapes it asks for.
    pub fn manifest(kind: ResNetKind, classes: usize) -> Manifest {
        Params::manifest(|p| Self::build(kind, classes, &p))
    }

    fn build(kind: ResNetKind, classes: usize, p: &Params<'_>) -> Self {
        let mut blocks = Vec::new();
        let mut input = 64;
        for (stage, count) in kind.blocks().into_iter().enumerate() {
            let inner = 64 << stage;
            for at in 0..count {
                let stride = if stage > 0 && at == 0 { 2 } else { 1 };
                let place = p.at(format!("layer{}", stage + 1)).at(at);
                let block = if kind.is_bottleneck() {
                    Block::bottleneck(&place, input, inner, stride)
                } else {
                    Block::basic(&place, input, inner, stride)
                };
                input = block.output;
                blocks.push(block);
            }
        }
        Self {
            conv1: Conv::normalised(
                &p.at("conv1"),
                &p.at("bn1"),
                ConvShape::square(3, 64, 7, 2, 3),
                EPS,
            ),
            blocks,
            fc: Linear::new(&p.at("fc"), input, classes),
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]`, normalised
    /// - result: `[n, classes]`
    pub fn logits(&self, pictures: Tensor<4>) -> Tensor<2> {
        let x = max_pool(self.conv1.forward_relu(channels_last(pictures)), 3, 2, 1);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.fc.forward_rows(average(x))
    }
}

/// Two or three convolutions beside a shortcut.
#[derive(Debug)]
struct Block {
    convolutions: Vec<Conv>,
    shortcut: Option<Conv>,
    output: usize,
}

impl Block {
    fn basic(p: &Params<'_>, input: usize, inner: usize, stride: usize) -> Self {
        let shapes = [
            ConvShape::square(input, inner, 3, stride, 1),
            ConvShape::square(inner, inner, 3, 1, 1),
        ];
        Self::new(p, &shapes, input, inner, stride)
    }

    /// The stride is in the middle, where torchvision has it; the paper has it in the first.
    fn bottleneck(p: &Params<'_>, input: usize, inner: usize, stride: usize) -> Self {
        let shapes = [
            ConvShape::square(input, inner, 1, 1, 0),
            ConvShape::square(inner, inner, 3, stride, 1),
            ConvShape::square(inner, 4 * inner, 1, 1, 0),
        ];
        Self::new(p, &shapes, input, 4 * inner, stride)
    }

    fn new(
        p: &Params<'_>,
        shapes: &[ConvShape],
        input: usize,
        output: usize,
        stride: usize,
    ) -> Self {
        let conv = |(at, &shape): (usize, &ConvShape)| {
            Conv::normalised(
                &p.at(format!("conv{}", at + 1)),
                &p.at(format!("bn{}", at + 1)),
                shape,
                EPS,
            )
        };
        let shortcut = || {
            let p = p.at("downsample");
            Conv::normalised(
                &p.at(0),
                &p.at(1),
                ConvShape::square(input, output, 1, stride, 0),
                EPS,
            )
        };
        Self {
            convolutions: shapes.iter().enumerate().map(conv).collect(),
            shortcut: (stride != 1 || input != output).then(shortcut),
            output,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut y = x.clone();
        for (at, conv) in self.convolutions.iter().enumerate() {
            y = if at + 1 < self.convolutions.len() {
                conv.forward_relu(y)
            } else {
                conv.forward(y)
            };
        }
        let x = self
            .shortcut
            .as_ref()
            .map_or_else(|| x.clone(), |shortcut| shortcut.forward(x.clone()));
        activation::relu(x + y)
    }
}
