//! Windows of a scene, as who looks for the objects of a pair looks through them.

use image::{Rgb, Rgb32FImage, imageops};
use scumble_diffusion::Picture;

use super::{dice::Dice, placed::Placed};

/// A window's side, and how far its middle lies from that of what it shows at most, along either
/// axis: half the distance of the windows that are looked through.
const SIDE: f32 = 0.5;
const APART: f32 = 1.0 / 12.0;
/// How much of an object a window shows at most that shows nothing.
const GLIMPSE: f32 = 0.2;

/// A square part of a picture; lengths are shares of its side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    left: f32,
    top: f32,
}

impl Window {
    /// One that shows an object nearly whole.
    pub(super) fn of(placed: &Placed, dice: &mut Dice) -> Self {
        let mut along = |from: f32| {
            let middle = from + placed.side / 2.0 + dice.between(-APART, APART);
            (middle - SIDE / 2.0).clamp(0.0, 1.0 - SIDE)
        };
        let left = along(placed.left);
        Self {
            left,
            top: along(placed.top),
        }
    }

    /// One that shows no object, or a glimpse; `None` where chance found no such place.
    pub(super) fn beside(all: &[Placed], dice: &mut Dice) -> Option<Self> {
        let tried = (0..20).map(|_| Self {
            left: dice.between(0.0, 1.0 - SIDE),
            top: dice.between(0.0, 1.0 - SIDE),
        });
        tried
            .into_iter()
            .find(|window| all.iter().all(|placed| window.share(placed) < GLIMPSE))
    }

    /// How much of an object's square lies within.
    fn share(&self, placed: &Placed) -> f32 {
        let along = |from: f32, own: f32| {
            let (begin, end) = (from.max(own), (from + placed.side).min(own + SIDE));
            (end - begin).max(0.0) / placed.side
        };
        along(placed.left, self.left) * along(placed.top, self.top)
    }

    /// What it shows of a picture, as large as the picture.
    pub(crate) fn through(&self, picture: &Picture) -> Picture {
        let side = picture.width;
        let own = ((side as f32 * SIDE) as u32).max(1);
        let at = |from: f32| ((from * side as f32).round() as u32).min(side as u32 - own);
        let (left, top) = (at(self.left), at(self.top));
        let part = Rgb32FImage::from_fn(own, own, |x, y| {
            let at = 3 * ((top + y) as usize * side + (left + x) as usize);
            Rgb([0, 1, 2].map(|c| f32::from(picture.rgb[at + c]) / 255.0))
        });
        // As the judges' own preparation enlarges.
        let whole = imageops::resize(&part, side as u32, side as u32, imageops::Triangle);
        Picture {
            width: side,
            height: side,
            rgb: whole.iter().map(|v| (255.0 * v).round() as u8).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scumble_diffusion::TorchRng;

    fn placed(left: f32, top: f32) -> Placed {
        Placed {
            object: 0,
            side: 0.45,
            left,
            top,
            mirrored: false,
        }
    }

    #[test]
    fn a_window_shows_what_it_is_of_and_one_beside_does_not() {
        let mut dice = Dice::new(TorchRng::new(0));
        let all = [placed(0.02, 0.5), placed(0.53, 0.1)];
        for _ in 0..200 {
            for one in &all {
                assert!(Window::of(one, &mut dice).share(one) > 0.65);
            }
            if let Some(window) = Window::beside(&all, &mut dice) {
                assert!(all.iter().all(|one| window.share(one) < GLIMPSE));
            }
        }
    }

    #[test]
    fn a_window_enlarges_its_part() {
        let rgb = (0..64u8).flat_map(|i| [i, 2 * i, 255 - i]).collect();
        let picture = Picture {
            width: 8,
            height: 8,
            rgb,
        };
        let seen = Window {
            left: 0.5,
            top: 0.25,
        }
        .through(&picture);
        assert_eq!((seen.width, seen.height), (8, 8));
        // Its corners are those of the part.
        assert_eq!(seen.rgb[..3], picture.rgb[3 * (2 * 8 + 4)..][..3]);
        assert_eq!(seen.rgb[3 * 63..], picture.rgb[3 * (5 * 8 + 7)..][..3]);
    }
}
