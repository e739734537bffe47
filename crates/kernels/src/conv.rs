//! Convolutions over channels-last maps.

use burn::{
    backend::Dispatch,
    tensor::{
        Tensor,
        module::{conv2d, interpolate},
        ops::{ConvOptions, InterpolateMode, InterpolateOptions},
    },
};

use crate::{
    Weight, fuses_weight, like,
    ops::{Convolution, Fused},
};

/// Where a 3x3 convolution pads its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// One row and column on every side.
    Around,
    /// One row below and one column to the right: the AutoencoderKL's downsampling.
    BelowRight,
}

/// A 3x3 convolution.
///
/// # Shapes
/// - x: `[n, h, w, in]`
/// - weight: `[out, in, 3, 3]`
/// - bias: `[out]`
/// - result: `[n, h / stride, w / stride, out]`, rounded up for [`Padding::Around`] and down for
///   [`Padding::BelowRight`]
pub fn conv3x3(
    x: Tensor<4>,
    weight: impl Into<Weight<4>>,
    bias: Tensor<1>,
    stride: usize,
    padding: Padding,
) -> Tensor<4> {
    let Weight {
        tensor: weight,
        layouts,
    } = weight.into();
    if fuses_weight(&x.device(), weight.dtype(), [x.dtype(), bias.dtype()]) {
        let before = usize::from(padding == Padding::Around);
        let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
        let how = Convolution {
            stride,
            before,
            enlarged: None,
            layouts,
        };
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_conv3x3(
            x.into_dispatch(),
            weight,
            bias,
            how,
        ));
    }
    let weight = like(weight, x.dtype());
    let x = x.permute([0, 3, 1, 2]);
    let (x, pad) = match padding {
        Padding::Around => (x, 1),
        Padding::BelowRight => (x.pad((0, 1, 0, 1), 0.0), 0),
    };
    let options = ConvOptions::new([stride, stride], [pad, pad], [1, 1], 1);
    conv2d(x, weight, Some(bias), options).permute([0, 2, 3, 1])
}

/// Nearest-neighbour enlargement to `size` (height, width), then a 3x3 convolution with one row and
/// column around.
///
/// # Shapes
/// - x: `[n, h, w, in]`
/// - weight: `[out, in, 3, 3]`
/// - bias: `[out]`
/// - result: `[n, size[0], size[1], out]`
pub fn upsample_conv3x3(
    x: Tensor<4>,
    weight: impl Into<Weight<4>>,
    bias: Tensor<1>,
    size: [usize; 2],
) -> Tensor<4> {
    let Weight {
        tensor: weight,
        layouts,
    } = weight.into();
    if fuses_weight(&x.device(), weight.dtype(), [x.dtype(), bias.dtype()]) {
        let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
        let how = Convolution {
            stride: 1,
            before: 1,
            enlarged: Some(size),
            layouts,
        };
        return Tensor::from_dispatch(<Dispatch as Fused>::fused_conv3x3(
            x.into_dispatch(),
            weight,
            bias,
            how,
        ));
    }
    conv3x3(upsample_nearest(x, size), weight, bias, 1, Padding::Around)
}

/// Cuts pictures into square patches and projects each: a convolution whose stride is its size.
///
/// # Shapes
/// - x: `[n, c, h, w]`, channels first, as pictures come
/// - weight: `[out, c, p, p]`
/// - bias: `[out]`
/// - result: `[n, (h / p) * (w / p), out]`
pub fn patches(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [out, _, p, _] = weight.dims();
    let y = conv2d(x, weight, bias, ConvOptions::new([p, p], [0, 0], [1, 1], 1));
    let [n, _, h, w] = y.dims();
    y.reshape([n, out, h * w]).swap_dims(1, 2)
}

/// Nearest-neighbour enlargement to `size` (height, width).
///
/// # Shapes
/// - x: `[n, h, w, c]`
/// - result: `[n, size[0], size[1], c]`
pub fn upsample_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size);
    interpolate(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}
