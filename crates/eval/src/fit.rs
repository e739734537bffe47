//! How a picture comes into a network's square input: padded, resized, cut; of bytes, and of a
//! tensor with gradients.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use scumble_diffusion::Picture;

use crate::resize::Windows;

/// The most that the longer side is of the shorter one before the middle is cut out; what is longer
/// is squeezed to that, so that a picture of one pixel's height does not fill the memory.
const LONGEST: usize = 16;

/// Where a picture's pixels come to lie. All sides are width, height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// The sides after black is added to the right and below.
    pub(crate) padded: [usize; 2],
    /// The sides that these become.
    pub(crate) resized: [usize; 2],
    /// Where the square begins that is cut out of it.
    pub(crate) corner: [usize; 2],
}

impl Fit {
    /// Whatever the sides, they become `size`.
    pub(crate) fn stretched(sides: [usize; 2], size: usize) -> Self {
        Self {
            padded: sides,
            resized: [size; 2],
            corner: [0; 2],
        }
    }

    /// A square first, by black on the right or below.
    pub(crate) fn padded(sides: [usize; 2], size: usize) -> Self {
        Self::stretched([sides[0].max(sides[1]); 2], size)
    }

    /// The shorter side becomes `shortest`, the longer one is rounded down, and the middle is cut
    /// out; `begins` says where, given how many pixels are too many.
    pub(crate) fn cut(
        sides: [usize; 2],
        shortest: usize,
        size: usize,
        begins: fn(usize) -> usize,
    ) -> Self {
        let least = sides[0].min(sides[1]).max(1);
        // The shorter side itself comes out exactly.
        let resized = sides.map(|side| {
            let exact = shortest as u128 * side as u128 / least as u128;
            (exact as usize).min(LONGEST * shortest)
        });
        Self {
            padded: sides,
            resized,
            corner: resized.map(|side| begins(side.saturating_sub(size))),
        }
    }

    /// A picture of bytes, resized by `interpolated` to the sides it is asked for.
    pub(crate) fn of_picture(
        self,
        picture: &Picture,
        size: usize,
        interpolated: impl Fn(&Picture, [usize; 2]) -> Picture,
    ) -> Picture {
        let padded;
        let picture = if self.padded == [picture.width, picture.height] {
            picture
        } else {
            padded = square(picture, [0; 2], self.padded[0]);
            &padded
        };
        let resized = interpolated(picture, self.resized);
        if self.resized == [size; 2] {
            resized
        } else {
            square(&resized, self.corner, size)
        }
    }

    /// Pictures `[n, 3, h, w]` in which black is 0, as `[n, 3, size, size]`, with gradients: each of
    /// both passes is a product with the matrix of its filter's weights. So nothing is rounded to
    /// bytes, and what a bicubic overshoots is not cut off.
    pub(crate) fn of_tensor(
        self,
        pictures: Tensor<4>,
        size: usize,
        windows: impl Fn(usize, usize) -> Windows,
    ) -> Tensor<4> {
        let [n, channels, h, w] = pictures.dims();
        let device = pictures.device();
        let matrix = |side: usize, old: usize| {
            let (padded, resized, corner) =
                (self.padded[side], self.resized[side], self.corner[side]);
            (old != size || padded != old || resized != size).then(|| {
                rows(
                    &windows(padded, resized),
                    corner..corner + size,
                    old,
                    &device,
                )
            })
        };
        let mut pictures = pictures;
        if let Some(columns) = matrix(0, w) {
            pictures = pictures
                .reshape([n * channels * h, w])
                .matmul(columns.transpose())
                .reshape([n, channels, h, size]);
        }
        if let Some(lines) = matrix(1, h) {
            pictures = lines.unsqueeze::<4>().matmul(pictures);
        }
        pictures
    }
}

/// Some of a filter's places as rows of a matrix `[places, old]`; old places that are padding are
/// black and left out.
fn rows(windows: &Windows, places: Range<usize>, old: usize, device: &Device) -> Tensor<2> {
    let shape = [places.len(), old];
    let mut values = vec![0.0; shape[0] * old];
    for (row, (first, weights)) in values.chunks_exact_mut(old.max(1)).zip(&windows[places]) {
        for (value, weight) in row.iter_mut().skip(*first).zip(weights) {
            *value += *weight as f32;
        }
    }
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A square with its corner there; what lies outside of the picture is black.
fn square(picture: &Picture, [x, y]: [usize; 2], side: usize) -> Picture {
    let mut rgb = vec![0; 3 * side * side];
    let (wide, high) = (
        side.min(picture.width.saturating_sub(x)),
        side.min(picture.height.saturating_sub(y)),
    );
    for row in 0..high {
        let from = 3 * ((y + row) * picture.width + x);
        rgb[3 * row * side..][..3 * wide].copy_from_slice(&picture.rgb[from..][..3 * wide]);
    }
    Picture {
        width: side,
        height: side,
        rgb,
    }
}

/// Values in [0, 1] as a network takes them: less the mean, divided by the deviation of each
/// channel.
pub(crate) fn normalised(pictures: Tensor<4>, mean: [f32; 3], std: [f32; 3]) -> Tensor<4> {
    let three = |values: [f32; 3]| {
        Tensor::<1>::from_floats(values, &pictures.device()).reshape([1, 3, 1, 1])
    };
    (pictures.clone() - three(mean)) / three(std)
}
