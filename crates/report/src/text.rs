//! Text on a picture, in one typeface and two sizes, antialiased. Widths are known before anything
//! is drawn.

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// What a line is cut with.
const ELLIPSIS: char = '\u{2026}';

/// A weight and a size.
#[derive(Clone, Copy)]
pub(crate) struct Font {
    weight: FontWeight,
    size: RasterHeight,
}

/// For titles.
pub(crate) const TITLE: Font = Font {
    weight: FontWeight::Bold,
    size: RasterHeight::Size20,
};
/// For everything else.
pub(crate) const BODY: Font = Font {
    weight: FontWeight::Regular,
    size: RasterHeight::Size16,
};

impl Font {
    /// Width of every character in pixels.
    const fn advance(self) -> u32 {
        get_raster_width(self.weight, self.size) as u32
    }

    /// Height of a line in pixels, with the space to the next.
    pub(crate) const fn line(self) -> u32 {
        self.size.val() as u32 + 3
    }

    /// Width of a line of text in pixels.
    pub(crate) fn width(self, text: &str) -> u32 {
        self.advance() * count(text)
    }

    /// The text itself if it fits into `width` pixels, otherwise its beginning and an ellipsis.
    pub(crate) fn fit(self, text: &str, width: u32) -> String {
        let room = width / self.advance();
        if count(text) <= room {
            return text.to_owned();
        }
        let kept: String = text.chars().take(room.saturating_sub(1) as usize).collect();
        if room == 0 {
            kept
        } else {
            format!("{}{ELLIPSIS}", kept.trim_end())
        }
    }

    /// The text in at most `most` lines of `width` pixels, broken between words; what is too long
    /// ends in an ellipsis.
    pub(crate) fn wrap(self, text: &str, width: u32, most: usize) -> Vec<String> {
        let mut words = text.split_whitespace().peekable();
        let mut lines = Vec::new();
        while lines.len() < most {
            let Some(first) = words.next() else { break };
            let mut line = first.to_owned();
            let last = lines.len() + 1 == most;
            while let Some(next) = words.peek() {
                let longer = format!("{line} {next}");
                if !last && self.width(&longer) > width {
                    break;
                }
                line = longer;
                words.next();
            }
            lines.push(self.fit(&line, width));
        }
        lines
    }

    /// Draws one line with its top left corner at (x, y); what lies outside the picture is not
    /// drawn.
    pub(crate) fn draw(self, canvas: &mut RgbImage, x: u32, y: u32, text: &str, colour: Rgb<u8>) {
        for (i, c) in (0..).zip(text.chars()) {
            self.glyph(canvas, x + i * self.advance(), y, plain(c), colour);
        }
    }

    fn glyph(self, canvas: &mut RgbImage, x: u32, y: u32, c: char, colour: Rgb<u8>) {
        if let Some(raster) = get_raster(c, self.weight, self.size) {
            for (row, values) in (0..).zip(raster.rows()) {
                for (column, &alpha) in (0..).zip(values) {
                    blend(canvas, x + column, y + row, colour, alpha);
                }
            }
            return;
        }
        let (advance, height) = (self.advance(), self.size.val() as u32);
        let base = y + height * 3 / 4;
        if c == ELLIPSIS {
            // Three dots in the room of one letter; the typeface's table has none.
            for dot in 0..3 {
                for up in 0..2 {
                    blend(
                        canvas,
                        x + (2 * dot + 1) * advance / 7,
                        base - up,
                        colour,
                        210,
                    );
                }
            }
            return;
        }
        // A character that the typeface does not have: an empty frame, so that it is seen to be
        // there.
        let (left, right, top) = (x + 1, x + advance - 2, y + height / 4);
        for column in left..=right {
            blend(canvas, column, top, colour, 120);
            blend(canvas, column, base, colour, 120);
        }
        for row in top + 1..base {
            blend(canvas, left, row, colour, 120);
            blend(canvas, right, row, colour, 120);
        }
    }
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX >> 8)
}

/// Typographic signs as the typeface has them.
fn plain(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' | '\u{2032}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        c if c.is_whitespace() || c.is_control() => ' ',
        c => c,
    }
}

fn blend(canvas: &mut RgbImage, x: u32, y: u32, colour: Rgb<u8>, alpha: u8) {
    let Some(pixel) = canvas.get_pixel_mut_checked(x, y) else {
        return;
    };
    let a = u32::from(alpha);
    for (under, over) in pixel.0.iter_mut().zip(colour.0) {
        *under = ((u32::from(*under) * (255 - a) + u32::from(over) * a + 127) / 255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_or_broken_and_never_too_wide() {
        let w = BODY.advance();
        assert_eq!(BODY.fit("a church", 8 * w), "a church");
        assert_eq!(BODY.fit("a church in", 8 * w), "a churc\u{2026}");
        assert_eq!(BODY.fit("a church in", 10 * w), "a church\u{2026}");
        assert_eq!(BODY.fit("a", 0), "");
        assert_eq!(
            BODY.wrap("a church in ink style", 10 * w, 3),
            ["a church", "in ink", "style"]
        );
        assert_eq!(
            BODY.wrap("a church in ink style", 10 * w, 2),
            ["a church", "in ink st\u{2026}"]
        );
        assert_eq!(
            BODY.wrap("supercalifragilistic church", 10 * w, 2),
            ["supercali\u{2026}", "church"]
        );
        assert_eq!(BODY.wrap("", 10 * w, 2), Vec::<String>::new());
        for width in 0..200 {
            for line in BODY.wrap("a strawberry on a blue background", width, 2) {
                assert!(BODY.width(&line) <= width);
            }
        }
    }

    #[test]
    fn every_character_leaves_ink_inside_its_own_room() {
        let white = Rgb([255; 3]);
        for font in [TITLE, BODY] {
            for c in [
                'a', 'W', 'g', '\u{e9}', '\u{159}', ELLIPSIS, '\u{6559}', '\u{201c}', '\u{2014}',
            ] {
                let mut canvas = RgbImage::from_pixel(60, 40, white);
                font.draw(&mut canvas, 20, 10, &c.to_string(), Rgb([0; 3]));
                let inked: Vec<_> = canvas
                    .enumerate_pixels()
                    .filter(|(_, _, p)| **p != white)
                    .map(|(x, y, _)| (x, y))
                    .collect();
                assert!(inked.len() > 4, "{c}");
                assert!(
                    inked.iter().all(|&(x, y)| x >= 20
                        && x < 20 + font.advance()
                        && y >= 10
                        && y < 10 + font.line()),
                    "{c}"
                );
            }
        }
        // Beyond the edge there is nothing to draw on.
        TITLE.draw(&mut RgbImage::new(3, 3), 1, 1, "far too wide", white);
    }
}
