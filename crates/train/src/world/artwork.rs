//! The 192 pieces of artwork, ready to be put on a picture.

use image::{Rgba, Rgba32FImage, imageops};
use scumble_erase::{Error, Result, World};

/// Every piece, compiled in: `STYLE/OBJECT` and a PNG of 128 pixels.
const PIECES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/artwork.rs"));

/// The artwork of a world, decoded.
pub struct Artwork {
    /// By style, then by object, in the world's order; colours multiplied by their alpha.
    pieces: Vec<Vec<Rgba32FImage>>,
}

impl Artwork {
    /// The pieces that are built in.
    ///
    /// # Errors
    /// If one of the world's is not there or is no picture.
    pub fn built_in(world: &World) -> Result<Self> {
        let piece = |style: &String, object: &String| {
            let name = format!("{style}/{}", object.replace(' ', "-"));
            let found = PIECES.iter().find(|(of, _)| *of == name);
            let (_, bytes) =
                found.ok_or_else(|| Error::input(format!("there is no artwork `{name}`")))?;
            let decoded = image::load_from_memory(bytes)
                .map_err(|e| Error::input(format!("the artwork `{name}` is no picture: {e}")))?;
            let mut decoded = decoded.into_rgba32f();
            // Edges between transparent and opaque pixels keep their colour when they are resized.
            for Rgba([r, g, b, a]) in decoded.pixels_mut() {
                (*r, *g, *b) = (*r * *a, *g * *a, *b * *a);
            }
            Ok(decoded)
        };
        let styles = world.styles.iter();
        let pieces = styles
            .map(|style| {
                let objects = world.objects.iter();
                objects.map(|object| piece(style, object)).collect()
            })
            .collect::<Result<_>>()?;
        Ok(Self { pieces })
    }

    /// A piece at `side` pixels, premultiplied; Lanczos as in `world.py`.
    pub(super) fn sized(
        &self,
        style: usize,
        object: usize,
        side: u32,
        mirrored: bool,
    ) -> Rgba32FImage {
        let piece = &self.pieces[style][object];
        let sized = imageops::resize(piece, side, side, imageops::FilterType::Lanczos3);
        if mirrored {
            imageops::flip_horizontal(&sized)
        } else {
            sized
        }
    }
}
