//! A scene as pixels.

use image::Rgba;
use scumble_diffusion::Picture;

use super::{artwork::Artwork, placed::Placed, scene::Scene};

/// The colours of `World::emoji`'s backgrounds, in its order.
const BACKGROUNDS: [[u8; 3]; 6] = [
    [255, 255, 255],
    [255, 236, 170],
    [178, 212, 255],
    [255, 200, 214],
    [190, 234, 190],
    [205, 205, 210],
];

/// A picture of `side` pixels whose numbers are still fractions.
pub(super) struct Canvas {
    side: usize,
    rgb: Vec<f32>,
}

impl Canvas {
    pub(super) fn filled(side: usize, background: usize) -> Self {
        let colour = BACKGROUNDS[background].map(|v| f32::from(v) / 255.0);
        let rgb = std::iter::repeat_n(colour, side * side).flatten();
        Self {
            side,
            rgb: rgb.collect(),
        }
    }

    /// Puts a piece of artwork where it stands in the scene.
    pub(super) fn put(&mut self, artwork: &Artwork, style: usize, placed: &Placed) {
        let side = self.side as f32;
        let size = ((placed.side * side).round() as u32).max(4);
        let piece = artwork.sized(style, placed.object, size, placed.mirrored);
        let (left, top) = (
            (placed.left * side).round() as i64,
            (placed.top * side).round() as i64,
        );
        for (x, y, Rgba([r, g, b, a])) in piece.enumerate_pixels() {
            let (x, y) = (left + i64::from(x), top + i64::from(y));
            let inside = 0..self.side as i64;
            if !inside.contains(&x) || !inside.contains(&y) {
                continue;
            }
            let at = 3 * (y as usize * self.side + x as usize);
            for (under, over) in self.rgb[at..at + 3].iter_mut().zip([r, g, b]) {
                *under = *under * (1.0 - a.clamp(0.0, 1.0)) + over;
            }
        }
    }

    pub(super) fn picture(&self) -> Picture {
        let byte = |v: &f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        Picture {
            width: self.side,
            height: self.side,
            rgb: self.rgb.iter().map(byte).collect(),
        }
    }
}

impl Scene {
    /// The scene at `side` pixels.
    pub fn draw(&self, artwork: &Artwork, side: usize) -> Picture {
        let mut canvas = Canvas::filled(side, self.background);
        for placed in &self.placed {
            canvas.put(artwork, self.style, placed);
        }
        canvas.picture()
    }
}
