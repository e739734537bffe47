//! From a picture to what a detector's network takes.

use burn::tensor::Tensor;
use scumble_diffusion::Picture;

use super::manifest::{Channels, Interpolation, Preprocessing, Resize};
use crate::{
    fit::{Fit, normalised},
    resize::{Filter, opencv_linear, opencv_windows, pil},
};

impl Preprocessing {
    /// torchvision's for its ImageNet classifiers.
    pub(super) fn torchvision() -> Self {
        Self {
            size: 224,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            channels: Channels::Rgb,
            resize: Resize::CenterCrop,
            shortest: Some(256),
            interpolation: Interpolation::Bilinear,
        }
    }

    /// NudeNet 3.4's. It turns the channels around twice, so that the network sees blue first.
    pub(super) fn nudenet() -> Self {
        Self {
            size: 320,
            mean: [0.0; 3],
            std: [1.0; 3],
            channels: Channels::Bgr,
            resize: Resize::PadSquare,
            shortest: None,
            interpolation: Interpolation::Opencv,
        }
    }

    /// The network's input, `[3, size, size]`, row-major; a picture without pixels is as good as a
    /// black one.
    pub(super) fn input(&self, picture: &Picture) -> Vec<f32> {
        let sized = self.sized(picture);
        let plane = |c: usize| {
            sized
                .rgb
                .iter()
                .skip(c)
                .step_by(3)
                .map(move |&v| (f32::from(v) * (1.0 / 255.0) - self.mean[c]) / self.std[c])
        };
        let order = match self.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        order.into_iter().flat_map(plane).collect()
    }

    /// The same of pictures `[n, 3, h, w]` in [-1, 1], with gradients.
    pub(super) fn of_tensor(&self, pictures: Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = pictures.dims();
        let windows = |old: usize, new: usize| match self.interpolation {
            Interpolation::Bilinear => Filter::Bilinear.windows(old, new),
            Interpolation::Bicubic => Filter::Bicubic.windows(old, new),
            Interpolation::Opencv => opencv_windows(old, new),
        };
        let sized = self
            .fit([w, h])
            .of_tensor((pictures + 1.0) / 2.0, self.size, windows);
        let input = normalised(sized, self.mean, self.std);
        match self.channels {
            Channels::Rgb => input,
            Channels::Bgr => input.flip([1]),
        }
    }

    fn sized(&self, picture: &Picture) -> Picture {
        let (w, h, size) = (picture.width, picture.height, self.size);
        if w == 0 || h == 0 || picture.rgb.len() != 3 * w * h {
            return Picture {
                width: size,
                height: size,
                rgb: vec![0; 3 * size * size],
            };
        }
        self.fit([w, h])
            .of_picture(picture, size, |picture, [width, height]| {
                self.interpolated(picture, width, height)
            })
    }

    fn fit(&self, sides: [usize; 2]) -> Fit {
        match self.resize {
            Resize::Stretch => Fit::stretched(sides, self.size),
            Resize::PadSquare => Fit::padded(sides, self.size),
            // As torchvision: the corner to the nearest, ties to even.
            Resize::CenterCrop => {
                let shortest = self.shortest.unwrap_or(self.size);
                Fit::cut(sides, shortest, self.size, |more| {
                    (more as f64 / 2.0).round_ties_even() as usize
                })
            }
        }
    }

    fn interpolated(&self, picture: &Picture, width: usize, height: usize) -> Picture {
        match self.interpolation {
            Interpolation::Bilinear => pil(picture, width, height, Filter::Bilinear),
            Interpolation::Bicubic => pil(picture, width, height, Filter::Bicubic),
            Interpolation::Opencv => opencv_linear(picture, width, height),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::resize::torch_bilinear;

    fn picture(width: usize, height: usize) -> Picture {
        Picture {
            width,
            height,
            rgb: (0..3 * width * height)
                .map(|i| (i * 37 % 256) as u8)
                .collect(),
        }
    }

    // p = Image.fromarray((np.arange(3*w*h) * 37 % 256).astype(np.uint8).reshape(h, w, 3)); T =
    // torchvision.transforms x = T.Compose([T.Resize(16), T.CenterCrop(14)])(p); a =
    // np.asarray(x).astype(int) a.shape, a.sum(), (a * np.arange(a.size).reshape(a.shape)).sum()
    #[test]
    fn crops_are_torchvisions() {
        let input = Preprocessing {
            size: 14,
            shortest: Some(16),
            ..Preprocessing::torchvision()
        };
        for (w, h, sum, weighted) in CROPS {
            let found = input.sized(&picture(w, h));
            assert_eq!((found.width, found.height), (14, 14));
            let numbers = || found.rgb.iter().map(|&v| u64::from(v));
            let spread: u64 = numbers().enumerate().map(|(i, v)| i as u64 * v).sum();
            assert_eq!(
                (numbers().sum::<u64>(), spread),
                (sum, weighted),
                "{w} x {h}"
            );
        }
    }
    const CROPS: [(usize, usize, u64, u64); 4] = [
        (20, 30, 75006, 22077218),
        (41, 17, 74668, 21906935),
        (16, 16, 75138, 22008394),
        (90, 33, 74810, 21956780),
    ];

    #[test]
    fn padding_is_below_and_to_the_right_and_blue_comes_first() {
        let input = Preprocessing {
            size: 3,
            ..Preprocessing::nudenet()
        };
        let wide = Picture {
            width: 3,
            height: 1,
            rgb: vec![255, 0, 51, 255, 0, 51, 255, 0, 51],
        };
        let found = input.input(&wide);
        let blue = [0.2, 0.2, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert!(
            found[..9]
                .iter()
                .zip(blue)
                .all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6),
            "{found:?}"
        );
        assert!(
            found[9..18].iter().all(|v| *v == 0.0)
                && found[18..21].iter().all(|v| (v - 1.0).abs() < 1e-6),
            "{found:?}"
        );
        for (w, h) in [(0, 0), (1, 1), (2, 900)] {
            assert_eq!(
                Preprocessing::nudenet().input(&picture(w, h)).len(),
                3 * 320 * 320
            );
            assert_eq!(
                Preprocessing::torchvision().input(&picture(w, h)).len(),
                3 * 224 * 224
            );
        }
    }

    /// Enlarged, shrunk, odd and oblong, by whole numbers and not.
    const SIDES: [(usize, usize); 7] = [
        (9, 4),
        (50, 41),
        (64, 64),
        (41, 47),
        (33, 7),
        (23, 23),
        (1, 90),
    ];

    /// Every way of fitting a picture in, into 23 pixels.
    fn every() -> Vec<Preprocessing> {
        let mut all = Vec::new();
        for interpolation in [
            Interpolation::Bilinear,
            Interpolation::Bicubic,
            Interpolation::Opencv,
        ] {
            for (resize, shortest) in [
                (Resize::Stretch, None),
                (Resize::PadSquare, None),
                (Resize::CenterCrop, None),
                (Resize::CenterCrop, Some(26)),
            ] {
                for channels in [Channels::Rgb, Channels::Bgr] {
                    all.push(Preprocessing {
                        size: 23,
                        channels,
                        resize,
                        shortest,
                        interpolation,
                        ..Preprocessing::torchvision()
                    });
                }
            }
        }
        all
    }

    /// The picture, without those darkest and brightest values from which a bicubic would overshoot.
    fn muted(width: usize, height: usize) -> Picture {
        let mut muted = picture(width, height);
        muted.rgb.iter_mut().for_each(|v| *v = 64 + *v / 2);
        muted
    }

    fn tensor(picture: &Picture) -> Tensor<4> {
        let (one, device) = (std::slice::from_ref(picture), Device::flex());
        Picture::to_batch(one, [0.5; 3], [0.5; 3], &device)
    }

    /// The bytes are rounded after each of two passes, by weights that add up to 1.25 in magnitude
    /// at most for these sizes: less than a byte and a half. Beside the black of padding a bicubic
    /// goes below black, and bytes cannot.
    #[test]
    fn a_tensor_comes_out_as_the_bytes_do_but_for_their_rounding() {
        for preprocessing in every() {
            for (w, h) in SIDES {
                let picture = muted(w, h);
                let bytes = preprocessing.input(&picture);
                let found = preprocessing.of_tensor(tensor(&picture)).into_data();
                for (i, (a, b)) in bytes.iter().zip(found.iter::<f32>()).enumerate() {
                    let place = i / (23 * 23);
                    let channel = match preprocessing.channels {
                        Channels::Rgb => place,
                        Channels::Bgr => 2 - place,
                    };
                    let (mean, std) = (preprocessing.mean[channel], preprocessing.std[channel]);
                    let [a, b] = [*a, b].map(|v| (v * std + mean).clamp(0.0, 1.0) * 255.0);
                    assert!(
                        (a - b).abs() < 1.5,
                        "{preprocessing:?} {w} x {h} at {i}: {a} {b}"
                    );
                }
            }
        }
    }

    /// Where nothing is rounded: `image`'s resizing of floating-point pictures has the same
    /// antialiased filters, torch's the same two neighbours as OpenCV, whose weights have 11 bits.
    #[test]
    fn a_tensor_is_resized_as_others_resize_numbers() {
        for (interpolation, tolerance) in [
            (Interpolation::Bilinear, 1e-4),
            (Interpolation::Bicubic, 1e-4),
            (Interpolation::Opencv, 1e-3),
        ] {
            let preprocessing = Preprocessing {
                size: 23,
                mean: [0.0; 3],
                std: [1.0; 3],
                channels: Channels::Rgb,
                resize: Resize::Stretch,
                shortest: None,
                interpolation,
            };
            for (w, h) in SIDES {
                let picture = muted(w, h);
                let expected: Vec<f32> = match interpolation {
                    Interpolation::Opencv => torch_bilinear(&picture, 23, 23)
                        .into_iter()
                        .map(|v| v / 255.0)
                        .collect(),
                    filter => {
                        let numbers = picture.rgb.iter().map(|&v| f32::from(v) / 255.0).collect();
                        let of = image::Rgb32FImage::from_raw(w as u32, h as u32, numbers).unwrap();
                        let filter = match filter {
                            Interpolation::Bicubic => image::imageops::CatmullRom,
                            _ => image::imageops::Triangle,
                        };
                        let resized = image::imageops::resize(&of, 23, 23, filter).into_raw();
                        (0..3)
                            .flat_map(|c| resized.iter().skip(c).step_by(3).copied())
                            .collect()
                    }
                };
                let found = preprocessing.of_tensor(tensor(&picture)).into_data();
                let worst = found
                    .iter::<f32>()
                    .zip(&expected)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                assert!(worst < tolerance, "{interpolation:?} {w} x {h}: {worst:e}");
            }
        }
    }

    /// What a pixel does to a weighted sum of the input is that sum's gradient. The map is linear, so
    /// a difference is the derivative, however long the step.
    #[test]
    fn gradients_are_finite_differences() {
        for preprocessing in every() {
            for (w, h) in SIDES {
                let count = 3 * 23 * 23;
                let weights = (0..count).map(|i| ((i * 29 % 101) as f32 - 50.0) / 50.0);
                let weights = Tensor::<4>::from_data(
                    TensorData::new(weights.collect::<Vec<f32>>(), [1, 3, 23, 23]),
                    &Device::flex(),
                );
                let sum = |x: Tensor<4>| (preprocessing.of_tensor(x) * weights.clone()).sum();
                let leaf = tensor(&muted(w, h)).autodiff().require_grad();
                let gradients = sum(leaf.clone()).backward();
                let gradient: Vec<f32> =
                    leaf.grad(&gradients).unwrap().into_data().iter().collect();
                for at in (0..gradient.len()).step_by(gradient.len() / 5 + 1) {
                    let moved = |by: f32| {
                        let mut one = vec![0.0; gradient.len()];
                        one[at] = by;
                        let one = TensorData::new(one, [1, 3, h, w]);
                        let x = tensor(&muted(w, h)) + Tensor::from_data(one, &Device::flex());
                        sum(x).into_scalar::<f32>()
                    };
                    let difference = (moved(1.0) - moved(-1.0)) / 2.0;
                    let near = 1e-3 * (1.0 + difference.abs());
                    assert!(
                        (difference - gradient[at]).abs() < near,
                        "{preprocessing:?} {w} x {h} at {at}: {difference} {}",
                        gradient[at]
                    );
                }
            }
        }
    }
}
