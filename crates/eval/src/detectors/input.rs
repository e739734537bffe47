//! From a picture to what a detector's network takes.

use scumble_diffusion::Picture;

use super::manifest::{Channels, Interpolation, Preprocessing, Resize};
use crate::resize::{Filter, opencv_linear, pil};

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

    fn sized(&self, picture: &Picture) -> Picture {
        let (w, h, size) = (picture.width, picture.height, self.size);
        if w == 0 || h == 0 || picture.rgb.len() != 3 * w * h {
            return Picture {
                width: size,
                height: size,
                rgb: vec![0; 3 * size * size],
            };
        }
        match self.resize {
            Resize::Stretch => self.interpolated(picture, size, size),
            Resize::PadSquare => {
                let side = w.max(h);
                self.interpolated(&cut(picture, 0, 0, side), size, size)
            }
            Resize::CenterCrop => {
                let shortest = self.shortest.unwrap_or(size);
                // As torchvision: the longer side is rounded down, the corner to the nearest, ties
                // to even.
                let longer =
                    |side: usize| (shortest as u128 * side as u128 / w.min(h) as u128) as usize;
                let (wide, high) = if w <= h {
                    (shortest, longer(h))
                } else {
                    (longer(w), shortest)
                };
                let corner = |side: usize| ((side - size) as f64 / 2.0).round_ties_even() as usize;
                cut(
                    &self.interpolated(picture, wide, high),
                    corner(wide),
                    corner(high),
                    size,
                )
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

/// A square with its corner at (x, y); what lies outside of the picture is black.
fn cut(picture: &Picture, x: usize, y: usize, side: usize) -> Picture {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
