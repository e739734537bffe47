//! ResNet as an image classifier (He et al. 2016, arXiv 1512.03385), under the names of torchvision
//! and under those of transformers, `ResNetForImageClassification`.

use burn::tensor::{Tensor, activation};

use super::{
    batch_norm::{ConvNorm, Moments},
    cnn::{ConvShape, average, channels_last, max_pool},
    layers::Linear,
};
use crate::{
    config::ResNetConfig,
    weights::{Manifest, Params, Weights},
};

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

    /// Its sizes, with this many classes.
    pub fn shape(self, classes: usize) -> ResNetShape {
        let bottleneck = self == Self::ResNet50;
        ResNetShape {
            stem: 64,
            inner: vec![64, 128, 256, 512],
            depths: match self {
                Self::ResNet18 => vec![2, 2, 2, 2],
                Self::ResNet34 | Self::ResNet50 => vec![3, 4, 6, 3],
            },
            bottleneck,
            classes,
            names: Names::Torchvision,
        }
    }
}

/// By whose names the tensors are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Torchvision,
    Transformers,
}

/// Sizes of a ResNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetShape {
    /// Channels after the first convolution.
    stem: usize,
    /// Channels inside the blocks of each stage; a bottleneck's result has four times as many.
    inner: Vec<usize>,
    /// Blocks in each stage.
    depths: Vec<usize>,
    bottleneck: bool,
    classes: usize,
    names: Names,
}

impl From<&ResNetConfig> for ResNetShape {
    fn from(c: &ResNetConfig) -> Self {
        let outer = if c.bottleneck { 4 } else { 1 };
        Self {
            stem: c.embedding_size,
            inner: c.hidden_sizes.iter().map(|width| width / outer).collect(),
            depths: c.depths.clone(),
            bottleneck: c.bottleneck,
            classes: c.labels.len(),
            names: Names::Transformers,
        }
    }
}

/// A ResNet classifier.
#[derive(Debug)]
pub struct ResNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
    classifier: Linear,
}

impl ResNet {
    /// The classifier over its tensors; batch norms go by the statistics that they hold.
    pub fn new(shape: &ResNetShape, weights: &Weights) -> Self {
        Self::build(shape, &Params::new(weights), ConvNorm::folded)
    }

    /// The same in training: batch norms go by the statistics of the batch.
    pub fn training(shape: &ResNetShape, weights: &Weights) -> Self {
        Self::build(shape, &Params::new(weights), ConvNorm::by_batch)
    }

    /// The names and shapes it asks for.
    pub fn manifest(shape: &ResNetShape) -> Manifest {
        Params::manifest(|p| Self::build(shape, &p, ConvNorm::folded))
    }

    fn build(shape: &ResNetShape, root: &Params<'_>, make: Make) -> Self {
        let mut blocks = Vec::new();
        let mut input = shape.stem;
        let stages = shape.inner.iter().zip(&shape.depths).enumerate();
        for (stage, (&inner, &count)) in stages {
            for at in 0..count {
                let stride = if stage > 0 && at == 0 { 2 } else { 1 };
                let place = match shape.names {
                    Names::Torchvision => root.at(format!("layer{}", stage + 1)).at(at),
                    Names::Transformers => root
                        .at("resnet.encoder.stages")
                        .at(stage)
                        .at("layers")
                        .at(at),
                };
                let block = Block::new(&place, shape, input, inner, stride, make);
                input = block.output;
                blocks.push(block);
            }
        }
        let (conv, norm, classifier) = match shape.names {
            Names::Torchvision => (root.at("conv1"), root.at("bn1"), root.at("fc")),
            Names::Transformers => {
                let embedder = root.at("resnet.embedder.embedder");
                let [conv, norm] = ["convolution", "normalization"].map(|part| embedder.at(part));
                (conv, norm, root.at("classifier.1"))
            }
        };
        Self {
            stem: make(&conv, &norm, ConvShape::square(3, shape.stem, 7, 2, 3)),
            blocks,
            classifier: Linear::new(&classifier, input, shape.classes),
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]`, normalised
    /// - result: `[n, classes]`
    pub fn logits(&self, pictures: Tensor<4>) -> Tensor<2> {
        self.observed(pictures, &mut Moments::default())
    }

    /// The same; of a network in training, what its batch norms see of this batch goes to `moments`.
    pub fn observed(&self, pictures: Tensor<4>, moments: &mut Moments) -> Tensor<2> {
        let x = activation::relu(self.stem.forward(channels_last(pictures), moments));
        let x = max_pool(x, 3, 2, 1);
        let x = self
            .blocks
            .iter()
            .fold(x, |x, block| block.forward(x, moments));
        self.classifier.forward_rows(average(x))
    }
}

/// Makes a convolution with the batch norm that follows it.
type Make = fn(&Params<'_>, &Params<'_>, ConvShape) -> ConvNorm;

/// Two or three convolutions beside a shortcut.
#[derive(Debug)]
struct Block {
    convolutions: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
    output: usize,
}

impl Block {
    /// A bottleneck's stride is in the middle, where both libraries have it; the paper has it in the
    /// first.
    fn new(
        p: &Params<'_>,
        shape: &ResNetShape,
        input: usize,
        inner: usize,
        stride: usize,
        make: Make,
    ) -> Self {
        let square = ConvShape::square;
        let (shapes, output) = if shape.bottleneck {
            let shapes = vec![
                square(input, inner, 1, 1, 0),
                square(inner, inner, 3, stride, 1),
                square(inner, 4 * inner, 1, 1, 0),
            ];
            (shapes, 4 * inner)
        } else {
            let shapes = vec![
                square(input, inner, 3, stride, 1),
                square(inner, inner, 3, 1, 1),
            ];
            (shapes, inner)
        };
        let conv = |(at, &of): (usize, &ConvShape)| {
            let (conv, norm) = match shape.names {
                Names::Torchvision => (
                    p.at(format!("conv{}", at + 1)),
                    p.at(format!("bn{}", at + 1)),
                ),
                Names::Transformers => {
                    let layer = p.at("layer").at(at);
                    (layer.at("convolution"), layer.at("normalization"))
                }
            };
            make(&conv, &norm, of)
        };
        let shortcut = || {
            let (conv, norm) = match shape.names {
                Names::Torchvision => (p.at("downsample").at(0), p.at("downsample").at(1)),
                Names::Transformers => {
                    let shortcut = p.at("shortcut");
                    (shortcut.at("convolution"), shortcut.at("normalization"))
                }
            };
            make(&conv, &norm, square(input, output, 1, stride, 0))
        };
        Self {
            convolutions: shapes.iter().enumerate().map(conv).collect(),
            shortcut: (stride != 1 || input != output).then(shortcut),
            output,
        }
    }

    fn forward(&self, x: Tensor<4>, moments: &mut Moments) -> Tensor<4> {
        let mut y = x.clone();
        for (at, conv) in self.convolutions.iter().enumerate() {
            y = conv.forward(y, moments);
            if at + 1 < self.convolutions.len() {
                y = activation::relu(y);
            }
        }
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, moments),
            None => x,
        };
        activation::relu(x + y)
    }
}
