//! Inception v3 (Szegedy et al. 2015, arXiv 1512.00567) in the form that FID is computed with,
//! under the names of pytorch-fid.
//!
//! It is TensorFlow's network of 2015-12-05. From torchvision's it differs in three ways: average
//! pools do not count their padding, the last block pools by the largest where the others take the
//! mean, and it has 1008 classes, whose layer no feature needs.

use burn::tensor::Tensor;

use super::cnn::{Conv, ConvShape, average, average_around, channels_last, max_pool};
use crate::weights::{Manifest, Params, Weights};

/// Batch norm's epsilon.
const EPS: f64 = 0.001;

/// The network up to its last average pool.
#[derive(Debug)]
pub struct FidInception {
    stem: [Conv; 5],
    mixed_5: [BlockA; 3],
    mixed_6a: BlockB,
    mixed_6: [BlockC; 4],
    mixed_7a: BlockD,
    mixed_7: [BlockE; 2],
}

impl FidInception {
    /// Features of a picture.
    pub const WIDTH: usize = 2048;

    /// Height and width of its input, in pixels.
    pub const SIDE: usize = 299;

    /// The network over its tensors.
    pub fn new(weights: &Weights) -> Self {
        Self::build(&Params::new(weights))
    }

    /// The names and shapes it asks for.
    pub fn manifest() -> Manifest {
        Params::manifest(|p| Self::build(&p))
    }

    fn build(p: &Params<'_>) -> Self {
        Self {
            stem: [
                unit(&p.at("Conv2d_1a_3x3"), ConvShape::square(3, 32, 3, 2, 0)),
                unit(&p.at("Conv2d_2a_3x3"), ConvShape::square(32, 32, 3, 1, 0)),
                unit(&p.at("Conv2d_2b_3x3"), ConvShape::square(32, 64, 3, 1, 1)),
                unit(&p.at("Conv2d_3b_1x1"), ConvShape::square(64, 80, 1, 1, 0)),
                unit(&p.at("Conv2d_4a_3x3"), ConvShape::square(80, 192, 3, 1, 0)),
            ],
            mixed_5: [
                BlockA::new(&p.at("Mixed_5b"), 192, 32),
                BlockA::new(&p.at("Mixed_5c"), 256, 64),
                BlockA::new(&p.at("Mixed_5d"), 288, 64),
            ],
            mixed_6a: BlockB::new(&p.at("Mixed_6a"), 288),
            mixed_6: [
                BlockC::new(&p.at("Mixed_6b"), 128),
                BlockC::new(&p.at("Mixed_6c"), 160),
                BlockC::new(&p.at("Mixed_6d"), 160),
                BlockC::new(&p.at("Mixed_6e"), 192),
            ],
            mixed_7a: BlockD::new(&p.at("Mixed_7a"), 768),
            mixed_7: [
                BlockE::new(&p.at("Mixed_7b"), 1280, average_around),
                BlockE::new(&p.at("Mixed_7c"), 2048, largest_around),
            ],
        }
    }

    /// The features of the last pool, `pool3`.
    ///
    /// # Shapes
    /// - pictures: `[n, 3, h, w]` about in [-1, 1], at least 75 wide and high; [`SIDE`](Self::SIDE)
    ///   for published numbers
    /// - result: `[n, 2048]`
    pub fn features(&self, pictures: Tensor<4>) -> Tensor<2> {
        let [a, b, c, d, e] = &self.stem;
        let x = [a, b, c]
            .into_iter()
            .fold(channels_last(pictures), |x, conv| conv.forward_relu(x));
        let x = [d, e]
            .into_iter()
            .fold(max_pool(x, 3, 2, 0), |x, conv| conv.forward_relu(x));
        let x = self
            .mixed_5
            .iter()
            .fold(max_pool(x, 3, 2, 0), |x, block| block.forward(x));
        let x = self
            .mixed_6
            .iter()
            .fold(self.mixed_6a.forward(x), |x, block| block.forward(x));
        let x = self
            .mixed_7
            .iter()
            .fold(self.mixed_7a.forward(x), |x, block| block.forward(x));
        average(x)
    }
}

/// `BasicConv2d`: a convolution without bias, batch norm, ReLU.
fn unit(p: &Params<'_>, shape: ConvShape) -> Conv {
    Conv::normalised(&p.at("conv"), &p.at("bn"), shape, EPS)
}

/// A product at each place.
fn one(p: &Params<'_>, input: usize, output: usize) -> Conv {
    unit(p, ConvShape::square(input, output, 1, 1, 0))
}

/// A row of `width` places.
fn row(p: &Params<'_>, input: usize, output: usize, width: usize) -> Conv {
    unit(
        p,
        ConvShape {
            input,
            output,
            kernel: [1, width],
            stride: 1,
            padding: [0, width / 2],
        },
    )
}

/// A column of `height` places.
fn column(p: &Params<'_>, input: usize, output: usize, height: usize) -> Conv {
    unit(
        p,
        ConvShape {
            input,
            output,
            kernel: [height, 1],
            stride: 1,
            padding: [height / 2, 0],
        },
    )
}

fn around(p: &Params<'_>, input: usize, output: usize) -> Conv {
    unit(p, ConvShape::square(input, output, 3, 1, 1))
}

fn halving(p: &Params<'_>, input: usize, output: usize) -> Conv {
    unit(p, ConvShape::square(input, output, 3, 2, 0))
}

fn largest_around(x: Tensor<4>) -> Tensor<4> {
    max_pool(x, 3, 1, 1)
}

fn through(convolutions: &[Conv], x: Tensor<4>) -> Tensor<4> {
    convolutions.iter().fold(x, |x, conv| conv.forward_relu(x))
}

fn joined(branches: Vec<Tensor<4>>) -> Tensor<4> {
    Tensor::cat(branches, 3)
}

/// `FIDInceptionA`.
#[derive(Debug)]
struct BlockA {
    branch1x1: Conv,
    branch5x5: [Conv; 2],
    branch3x3dbl: [Conv; 3],
    branch_pool: Conv,
}

impl BlockA {
    fn new(p: &Params<'_>, input: usize, pooled: usize) -> Self {
        Self {
            branch1x1: one(&p.at("branch1x1"), input, 64),
            branch5x5: [
                one(&p.at("branch5x5_1"), input, 48),
                unit(&p.at("branch5x5_2"), ConvShape::square(48, 64, 5, 1, 2)),
            ],
            branch3x3dbl: [
                one(&p.at("branch3x3dbl_1"), input, 64),
                around(&p.at("branch3x3dbl_2"), 64, 96),
                around(&p.at("branch3x3dbl_3"), 96, 96),
            ],
            branch_pool: one(&p.at("branch_pool"), input, pooled),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        joined(vec![
            self.branch1x1.forward_relu(x.clone()),
            through(&self.branch5x5, x.clone()),
            through(&self.branch3x3dbl, x.clone()),
            self.branch_pool.forward_relu(average_around(x)),
        ])
    }
}

/// `InceptionB`, which halves height and width.
#[derive(Debug)]
struct BlockB {
    branch3x3: Conv,
    branch3x3dbl: [Conv; 3],
}

impl BlockB {
    fn new(p: &Params<'_>, input: usize) -> Self {
        Self {
            branch3x3: halving(&p.at("branch3x3"), input, 384),
            branch3x3dbl: [
                one(&p.at("branch3x3dbl_1"), input, 64),
                around(&p.at("branch3x3dbl_2"), 64, 96),
                halving(&p.at("branch3x3dbl_3"), 96, 96),
            ],
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pooled = max_pool(x.clone(), 3, 2, 0);
        joined(vec![
            self.branch3x3.forward_relu(x.clone()),
            through(&self.branch3x3dbl, x),
            pooled,
        ])
    }
}

/// `FIDInceptionC`, rows and columns of seven.
#[derive(Debug)]
struct BlockC {
    branch1x1: Conv,
    branch7x7: [Conv; 3],
    branch7x7dbl: [Conv; 5],
    branch_pool: Conv,
}

impl BlockC {
    fn new(p: &Params<'_>, inner: usize) -> Self {
        let input = 768;
        Self {
            branch1x1: one(&p.at("branch1x1"), input, 192),
            branch7x7: [
                one(&p.at("branch7x7_1"), input, inner),
                row(&p.at("branch7x7_2"), inner, inner, 7),
                column(&p.at("branch7x7_3"), inner, 192, 7),
            ],
            branch7x7dbl: [
                one(&p.at("branch7x7dbl_1"), input, inner),
                column(&p.at("branch7x7dbl_2"), inner, inner, 7),
                row(&p.at("branch7x7dbl_3"), inner, inner, 7),
                column(&p.at("branch7x7dbl_4"), inner, inner, 7),
                row(&p.at("branch7x7dbl_5"), inner, 192, 7),
            ],
            branch_pool: one(&p.at("branch_pool"), input, 192),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        joined(vec![
            self.branch1x1.forward_relu(x.clone()),
            through(&self.branch7x7, x.clone()),
            through(&self.branch7x7dbl, x.clone()),
            self.branch_pool.forward_relu(average_around(x)),
        ])
    }
}

/// `InceptionD`, which halves height and width.
#[derive(Debug)]
struct BlockD {
    branch3x3: [Conv; 2],
    branch7x7x3: [Conv; 4],
}

impl BlockD {
    fn new(p: &Params<'_>, input: usize) -> Self {
        Self {
            branch3x3: [
                one(&p.at("branch3x3_1"), input, 192),
                halving(&p.at("branch3x3_2"), 192, 320),
            ],
            branch7x7x3: [
                one(&p.at("branch7x7x3_1"), input, 192),
                row(&p.at("branch7x7x3_2"), 192, 192, 7),
                column(&p.at("branch7x7x3_3"), 192, 192, 7),
                halving(&p.at("branch7x7x3_4"), 192, 192),
            ],
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pooled = max_pool(x.clone(), 3, 2, 0);
        joined(vec![
            through(&self.branch3x3, x.clone()),
            through(&self.branch7x7x3, x),
            pooled,
        ])
    }
}

/// `FIDInceptionE_1` and `FIDInceptionE_2`, which differ in how they pool.
#[derive(Debug)]
struct BlockE {
    branch1x1: Conv,
    branch3x3: Conv,
    branch3x3_split: [Conv; 2],
    branch3x3dbl: [Conv; 2],
    branch3x3dbl_split: [Conv; 2],
    pool: fn(Tensor<4>) -> Tensor<4>,
    branch_pool: Conv,
}

impl BlockE {
    fn new(p: &Params<'_>, input: usize, pool: fn(Tensor<4>) -> Tensor<4>) -> Self {
        let split = |a: &str, b: &str| [row(&p.at(a), 384, 384, 3), column(&p.at(b), 384, 384, 3)];
        Self {
            branch1x1: one(&p.at("branch1x1"), input, 320),
            branch3x3: one(&p.at("branch3x3_1"), input, 384),
            branch3x3_split: split("branch3x3_2a", "branch3x3_2b"),
            branch3x3dbl: [
                one(&p.at("branch3x3dbl_1"), input, 448),
                around(&p.at("branch3x3dbl_2"), 448, 384),
            ],
            branch3x3dbl_split: split("branch3x3dbl_3a", "branch3x3dbl_3b"),
            pool,
            branch_pool: one(&p.at("branch_pool"), input, 192),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut branches = vec![self.branch1x1.forward_relu(x.clone())];
        let single = self.branch3x3.forward_relu(x.clone());
        branches.extend(
            self.branch3x3_split
                .iter()
                .map(|conv| conv.forward_relu(single.clone())),
        );
        let double = through(&self.branch3x3dbl, x.clone());
        branches.extend(
            self.branch3x3dbl_split
                .iter()
                .map(|conv| conv.forward_relu(double.clone())),
        );
        branches.push(self.branch_pool.forward_relu((self.pool)(x)));
        joined(branches)
    }
}
