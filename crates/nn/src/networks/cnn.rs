//! What classic convolutional networks are made of: convolutions of any kernel, with batch norm
//! folded in, and pooling.

use burn::tensor::{
    DType, Tensor, activation,
    module::{avg_pool2d, conv2d, max_pool2d},
    ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions},
};
use scumble_kernels as kernels;

use crate::weights::Params;

/// Channels, kernel (height, width), stride and padding (above and below, left and right) of a
/// convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: [usize; 2],
}

impl ConvShape {
    /// A square kernel, with as much padding on every side.
    pub(crate) fn square(
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Self {
        Self {
            input,
            output,
            kernel: [kernel; 2],
            stride,
            padding: [padding; 2],
        }
    }

    fn weight(&self) -> [usize; 4] {
        [self.output, self.input, self.kernel[0], self.kernel[1]]
    }
}

/// A convolution over channels-last maps.
#[derive(Debug)]
pub(crate) struct Conv {
    weight: kernels::Weight<4>,
    bias: Tensor<1>,
    shape: ConvShape,
}

impl Conv {
    /// With `weight` and `bias` at `p`.
    pub(crate) fn new(p: &Params<'_>, shape: ConvShape) -> Self {
        Self {
            weight: p.weight("weight", shape.weight()),
            bias: p.get("bias", [shape.output]),
            shape,
        }
    }

    /// Without a bias, and with the batch norm that follows it: `y = gamma (W x - mean) /
    /// sqrt(variance + eps) + beta`, folded into one weight and one bias.
    pub(crate) fn normalised(
        conv: &Params<'_>,
        norm: &Params<'_>,
        shape: ConvShape,
        eps: f64,
    ) -> Self {
        let weight = conv.weight("weight", shape.weight());
        let [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|name| norm.get::<1>(name, [shape.output]));
        if conv.shape("weight").is_none() {
            // A walk for the manifest: there are no numbers to fold.
            return Self {
                weight,
                bias: beta,
                shape,
            };
        }
        let scale = gamma / (variance + eps).sqrt();
        let folded =
            weight.tensor.cast(DType::F32) * scale.clone().reshape([shape.output, 1, 1, 1]);
        let weight = kernels::Weight {
            tensor: folded,
            layouts: kernels::Layouts::kept(),
        };
        Self {
            weight,
            bias: beta - mean * scale,
            shape,
        }
    }

    /// With `weight` at `p`, and no bias.
    pub(crate) fn without_bias(p: &Params<'_>, shape: ConvShape) -> Self {
        let weight = p.weight("weight", shape.weight());
        let device = weight.tensor.device().without_autodiff();
        Self {
            weight,
            bias: Tensor::zeros([shape.output], &device),
            shape,
        }
    }

    /// `[n, h, w, in]` to `[n, h', w', out]`.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (s, weight, bias) = (&self.shape, self.weight.clone(), self.bias.clone());
        let [n, h, w, c] = x.dims();
        match (s.kernel, s.stride, s.padding) {
            ([1, 1], 1, [0, 0]) => {
                let matrix = kernels::Weight {
                    tensor: weight.tensor.reshape([s.output, c]),
                    layouts: weight.layouts,
                };
                kernels::linear(x.reshape([n, h * w, c]), matrix, Some(bias))
                    .reshape([n, h, w, s.output])
            }
            ([3, 3], stride, [1, 1]) => {
                kernels::conv3x3(x, weight, bias, stride, kernels::Padding::Around)
            }
            // Without padding: what the padding below and to the right adds is cut off.
            ([3, 3], stride, [0, 0]) => {
                let y = kernels::conv3x3(x, weight, bias, stride, kernels::Padding::BelowRight);
                y.narrow(1, 0, (h - 3) / stride + 1)
                    .narrow(2, 0, (w - 3) / stride + 1)
            }
            _ => {
                let options = ConvOptions::new([s.stride; 2], s.padding, [1, 1], 1);
                let weight = weight.tensor.cast(DType::F32);
                conv2d(x.permute([0, 3, 1, 2]), weight, Some(bias), options).permute([0, 2, 3, 1])
            }
        }
    }

    /// The same, then `max(x, 0)`.
    pub(crate) fn forward_relu(&self, x: Tensor<4>) -> Tensor<4> {
        activation::relu(self.forward(x))
    }
}

/// The largest of each window of `size` by `size`, channels last; padding is never the largest.
pub(crate) fn max_pool(x: Tensor<4>, size: usize, stride: usize, padding: usize) -> Tensor<4> {
    let options = MaxPoolOptions::new([size; 2])
        .with_stride([stride; 2])
        .with_padding([padding; 2]);
    max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// The mean of the places around each that lie on the map, 3 by 3, channels last.
pub(crate) fn average_around(x: Tensor<4>) -> Tensor<4> {
    let options = AvgPoolOptions::new([3; 2])
        .with_stride([1; 2])
        .with_padding([1; 2])
        .with_count_include_pad(false);
    avg_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// The mean of a map, `[n, h, w, c]` to `[n, c]`.
pub(crate) fn average(x: Tensor<4>) -> Tensor<2> {
    let [n, h, w, c] = x.dims();
    x.reshape([n, h * w, c]).mean_dim(1).reshape([n, c])
}

/// Pictures as they come, `[n, 3, h, w]`, to channels last.
pub(crate) fn channels_last(pictures: Tensor<4>) -> Tensor<4> {
    pictures.permute([0, 2, 3, 1])
}
