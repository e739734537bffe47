//! Pictures in rows and columns, with names, as one picture.

use image::{Rgb, RgbImage, imageops};

use crate::{
    error::{Error, Result},
    text::{BODY, TITLE},
};

/// The paper, a very light warm white, so that white pictures still have an edge.
const PAPER: Rgb<u8> = Rgb([251, 250, 247]);
/// Titles and names.
const INK: Rgb<u8> = Rgb([43, 41, 38]);
/// What only helps to read the rest.
const MUTED: Rgb<u8> = Rgb([138, 132, 122]);
/// Rules and frames.
const HAIRLINE: Rgb<u8> = Rgb([222, 217, 208]);
/// Where a picture is missing.
const VACANT: Rgb<u8> = Rgb([244, 241, 235]);

/// Around everything.
const MARGIN: u32 = 28;
/// Below the title, and between names and pictures.
const GUTTER: u32 = 20;
/// Between the pictures of one column: close, as they are to be compared.
const PART_GAP: u32 = 5;
/// Between columns of several pictures each.
const COLUMN_GAP: u32 = 26;
/// Between columns of one picture each, and between rows.
const GAP: u32 = 10;
/// Widest name of a row before it is broken into lines.
const WIDEST_LABEL: u32 = 190;
/// Small pictures are enlarged as long as their longer side stays within this.
const ENLARGE_TO: u32 = 128;
/// Large pictures are reduced to this.
const REDUCE_TO: u32 = 256;
/// Largest factor of enlargement that can be asked for.
const MOST_SCALE: u32 = 32;

/// A picture to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    width: u32,
    height: u32,
    rgb: &'a [u8],
}

impl<'a> Image<'a> {
    /// A picture of `3 * width * height` bytes, row by row.
    ///
    /// # Errors
    /// If there are more or fewer bytes, or none.
    pub fn new(width: usize, height: usize, rgb: &'a [u8]) -> Result<Self> {
        let expected = width.saturating_mul(height).saturating_mul(3);
        match (u32::try_from(width), u32::try_from(height)) {
            (Ok(w), Ok(h)) if rgb.len() == expected && expected > 0 => Ok(Self {
                width: w,
                height: h,
                rgb,
            }),
            _ => Err(Error::Pixels {
                width,
                height,
                expected,
                found: rgb.len(),
            }),
        }
    }

    /// The size it is shown in.
    fn shown(&self, scale: Option<u32>) -> (u32, u32) {
        let longer = self.width.max(self.height);
        match scale {
            Some(factor) => {
                let factor = factor.clamp(1, MOST_SCALE);
                (
                    self.width.saturating_mul(factor),
                    self.height.saturating_mul(factor),
                )
            }
            None if longer > REDUCE_TO => {
                let reduced = |side: u32| {
                    (u64::from(side) * u64::from(REDUCE_TO)).div_ceil(u64::from(longer)) as u32
                };
                (reduced(self.width), reduced(self.height))
            }
            None => {
                let factor = (ENLARGE_TO / longer).max(1);
                (self.width * factor, self.height * factor)
            }
        }
    }

    fn at_size(&self, width: u32, height: u32) -> Option<RgbImage> {
        let whole = RgbImage::from_raw(self.width, self.height, self.rgb.to_vec())?;
        let filter = if width < self.width {
            imageops::FilterType::Lanczos3
        } else {
            imageops::FilterType::Nearest
        };
        Some(if (width, height) == whole.dimensions() {
            whole
        } else {
            imageops::resize(&whole, width, height, filter)
        })
    }
}

/// One row of pictures.
#[derive(Clone, Debug, Default)]
pub struct Row<'a> {
    /// Its name, such as the prompt.
    pub label: String,
    /// Its pictures from left to right, every part of a column before the next column; `None` where
    /// there is no picture.
    pub cells: Vec<Option<Image<'a>>>,
}

/// A table of pictures.
#[derive(Clone, Debug, Default)]
pub struct Grid<'a> {
    /// What it shows.
    pub title: Option<String>,
    /// The names of the columns, such as seeds; empty for none.
    pub columns: Vec<String>,
    /// The names of a column's pictures, such as `before` and `after`, which stand close together;
    /// empty if it has only one.
    pub parts: Vec<String>,
    /// The rows.
    pub rows: Vec<Row<'a>>,
    /// How many times to enlarge the pictures, 1 to 32; `None` shows small ones 96 to 128 pixels
    /// large, unsmoothed, and reduces those above 256.
    pub scale: Option<u32>,
}

/// Where everything goes, in pixels.
struct Layout {
    width: u32,
    height: u32,
    title: Vec<String>,
    /// Left edge of the pictures.
    left: u32,
    /// Top of the columns' names, of the parts' names, of the first row.
    columns_top: u32,
    parts_top: u32,
    rows_top: u32,
    /// The room of one picture.
    cell: (u32, u32),
    columns: u32,
    parts: u32,
    /// Lines of each row's name.
    labels: Vec<Vec<String>>,
}

impl Layout {
    fn new(grid: &Grid<'_>) -> Self {
        let pictures = || grid.rows.iter().flat_map(|row| row.cells.iter().flatten());
        let sizes = pictures().map(|picture| picture.shown(grid.scale));
        let cell = sizes.fold(None, |most: Option<(u32, u32)>, (w, h)| {
            Some(most.map_or((w, h), |m| (m.0.max(w), m.1.max(h))))
        });
        let cell = cell.unwrap_or((ENLARGE_TO, ENLARGE_TO));
        let parts = grid.parts.len().max(1);
        let cells = grid
            .rows
            .iter()
            .map(|row| row.cells.len())
            .max()
            .unwrap_or(0);
        let columns = cells.div_ceil(parts).max(grid.columns.len()).max(1);
        let (columns, parts) = (columns as u32, parts as u32);

        let most_lines = (cell.1 / BODY.line()).clamp(1, 4) as usize;
        let labels: Vec<Vec<String>> = grid
            .rows
            .iter()
            .map(|row| BODY.wrap(&row.label, WIDEST_LABEL, most_lines))
            .collect();
        let label_width = labels
            .iter()
            .flatten()
            .map(|line| BODY.width(line))
            .max()
            .unwrap_or(0);
        let left = MARGIN
            + if label_width > 0 {
                label_width + GUTTER
            } else {
                0
            };
        let mut layout = Self {
            width: 0,
            height: 0,
            title: Vec::new(),
            left,
            columns_top: 0,
            parts_top: 0,
            rows_top: 0,
            cell,
            columns,
            parts,
            labels,
        };
        let right = layout.x(columns - 1, parts - 1) + cell.0;
        layout.width =
            right.max(MARGIN + BODY.width("a narrow grid has room for a title")) + MARGIN;
        layout.title = grid
            .title
            .as_deref()
            .map(|title| TITLE.wrap(title, layout.width - 2 * MARGIN, 3))
            .unwrap_or_default();
        let title_height = layout.title.len() as u32 * TITLE.line();
        layout.columns_top = MARGIN + title_height + if title_height > 0 { GUTTER } else { 0 };
        // A rule of one pixel joins the parts of a column under its name.
        layout.parts_top = layout.columns_top
            + if grid.columns.is_empty() {
                0
            } else {
                BODY.line() + 6
            };
        layout.rows_top = layout.parts_top
            + if grid.parts.is_empty() {
                0
            } else {
                BODY.line() + 5
            };
        let rows = grid.rows.len() as u32;
        layout.height = layout.rows_top + rows * cell.1 + rows.saturating_sub(1) * GAP + MARGIN;
        layout
    }

    /// Left edge of a picture.
    fn x(&self, column: u32, part: u32) -> u32 {
        let gap = if self.parts > 1 { COLUMN_GAP } else { GAP };
        self.left + column * (self.column_width() + gap) + part * (self.cell.0 + PART_GAP)
    }

    /// Top edge of a row.
    fn y(&self, row: u32) -> u32 {
        self.rows_top + row * (self.cell.1 + GAP)
    }

    fn column_width(&self) -> u32 {
        self.parts * self.cell.0 + (self.parts - 1) * PART_GAP
    }
}

impl Grid<'_> {
    /// Draws the table. Its size follows from its content; no name is clipped, too long ones end in
    /// an ellipsis.
    pub fn draw(&self) -> RgbImage {
        let layout = Layout::new(self);
        let mut canvas = RgbImage::from_pixel(layout.width, layout.height, PAPER);
        for (line, y) in layout
            .title
            .iter()
            .zip((MARGIN..).step_by(TITLE.line() as usize))
        {
            TITLE.draw(&mut canvas, MARGIN, y, line, INK);
        }
        self.draw_header(&mut canvas, &layout);
        for (row, y) in self.rows.iter().zip((0..).map(|i| layout.y(i))) {
            for (picture, i) in row.cells.iter().zip(0..) {
                let x = layout.x(i / layout.parts, i % layout.parts);
                draw_cell(
                    &mut canvas,
                    (x, y),
                    layout.cell,
                    picture
                        .as_ref()
                        .map(|picture| (picture, picture.shown(self.scale))),
                );
            }
        }
        for (lines, y) in layout.labels.iter().zip((0..).map(|i| layout.y(i))) {
            let top = y + layout
                .cell
                .1
                .saturating_sub(lines.len() as u32 * BODY.line())
                / 2;
            for (line, y) in lines.iter().zip((top..).step_by(BODY.line() as usize)) {
                BODY.draw(&mut canvas, MARGIN, y, line, INK);
            }
        }
        canvas
    }

    fn draw_header(&self, canvas: &mut RgbImage, layout: &Layout) {
        for (name, column) in self.columns.iter().zip(0..) {
            let x = layout.x(column, 0);
            BODY.draw(
                canvas,
                x,
                layout.columns_top,
                &BODY.fit(name, layout.column_width()),
                INK,
            );
            if !self.parts.is_empty() {
                fill(
                    canvas,
                    (x - 1, layout.parts_top - 4),
                    (layout.column_width() + 2, 1),
                    HAIRLINE,
                );
            }
        }
        for column in 0..layout.columns {
            for (name, part) in self.parts.iter().zip(0..) {
                let x = layout.x(column, part);
                BODY.draw(
                    canvas,
                    x,
                    layout.parts_top,
                    &BODY.fit(name, layout.cell.0),
                    MUTED,
                );
            }
        }
    }
}

/// A picture in the middle of its room, with a hairline around it; an empty room if there is none.
fn draw_cell(
    canvas: &mut RgbImage,
    at: (u32, u32),
    room: (u32, u32),
    picture: Option<(&Image<'_>, (u32, u32))>,
) {
    let (size, drawn) = match picture {
        Some((picture, (w, h))) => ((w, h), picture.at_size(w, h)),
        None => (room, None),
    };
    let (x, y) = (at.0 + (room.0 - size.0) / 2, at.1 + (room.1 - size.1) / 2);
    // The frame lies outside: not a pixel of the picture is covered.
    fill(canvas, (x - 1, y - 1), (size.0 + 2, size.1 + 2), HAIRLINE);
    match drawn {
        Some(drawn) => imageops::replace(canvas, &drawn, i64::from(x), i64::from(y)),
        None => fill(canvas, (x, y), size, VACANT),
    }
}

fn fill(canvas: &mut RgbImage, (x, y): (u32, u32), (width, height): (u32, u32), colour: Rgb<u8>) {
    for row in y..y + height {
        for column in x..x + width {
            if let Some(pixel) = canvas.get_pixel_mut_checked(column, row) {
                *pixel = colour;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(width: usize, height: usize, colour: [u8; 3]) -> Vec<u8> {
        colour.repeat(width * height)
    }

    fn grid<'a>(parts: &[&str], cells: Vec<Option<Image<'a>>>) -> Grid<'a> {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        Grid {
            parts,
            rows: vec![Row {
                label: "a church".into(),
                cells,
            }],
            ..Grid::default()
        }
    }

    /// Where pixels of a colour lie: left, top, right, bottom.
    fn extent(canvas: &RgbImage, colour: [u8; 3]) -> Option<[u32; 4]> {
        let found = canvas.enumerate_pixels().filter(|(_, _, p)| p.0 == colour);
        found.fold(None, |e: Option<[u32; 4]>, (x, y, _)| {
            let [l, t, r, b] = e.unwrap_or([x, y, x, y]);
            Some([l.min(x), t.min(y), r.max(x), b.max(y)])
        })
    }

    #[test]
    fn sizes() {
        for ((w, h), scale, expected) in [
            ((32, 32), None, (128, 128)),
            ((64, 64), None, (128, 128)),
            ((48, 48), None, (96, 96)),
            ((32, 16), None, (128, 64)),
            ((200, 200), None, (200, 200)),
            ((512, 512), None, (256, 256)),
            ((768, 512), None, (256, 171)),
            ((4096, 1), None, (256, 1)),
            ((32, 32), Some(3), (96, 96)),
            ((32, 32), Some(0), (32, 32)),
            ((1, 1), Some(u32::MAX), (32, 32)),
        ] {
            let rgb = flat(w, h, [0; 3]);
            assert_eq!(
                Image::new(w, h, &rgb).unwrap().shown(scale),
                expected,
                "{w} x {h} at {scale:?}"
            );
        }
        assert!(matches!(
            Image::new(2, 2, &[0; 11]),
            Err(Error::Pixels {
                expected: 12,
                found: 11,
                ..
            })
        ));
        assert!(Image::new(0, 0, &[]).is_err() && Image::new(usize::MAX, usize::MAX, &[]).is_err());
    }

    #[test]
    fn small_pictures_are_enlarged_pixel_by_pixel() {
        let rgb: Vec<u8> = (0..32 * 32 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let picture = Image::new(32, 32, &rgb).unwrap();
        let drawn = grid(&[], vec![Some(picture)]).draw();
        let (left, top) = (drawn.width() - MARGIN - 128, MARGIN);
        // A narrow grid is widened for its title, so look where the picture begins.
        let left = (0..=left)
            .find(|&x| drawn.get_pixel(x, top).0 == [rgb[0], rgb[1], rgb[2]])
            .unwrap();
        for (x, y) in (0..128).flat_map(|x| (0..128).map(move |y| (x, y))) {
            let i = 3 * (y / 4 * 32 + x / 4) as usize;
            assert_eq!(
                drawn.get_pixel(left + x, top + y).0,
                rgb[i..i + 3],
                "({x}, {y})"
            );
        }
    }

    #[test]
    fn before_and_after_stand_closer_than_columns() {
        let (red, green, blue) = (
            flat(32, 32, [200, 0, 0]),
            flat(32, 32, [0, 200, 0]),
            flat(32, 32, [0, 0, 200]),
        );
        let cells = [&red, &green, &blue].map(|rgb| Some(Image::new(32, 32, rgb).unwrap()));
        let drawn = grid(&["before", "after"], cells.to_vec()).draw();
        let [red, green, blue] =
            [[200, 0, 0], [0, 200, 0], [0, 0, 200]].map(|colour| extent(&drawn, colour).unwrap());
        assert_eq!(
            (green[0] - red[2], blue[0] - green[2]),
            (PART_GAP + 1, COLUMN_GAP + 1)
        );
        // The fourth picture is missing from the row: the room is there, and so is the margin.
        assert_eq!(drawn.width(), blue[2] + 1 + PART_GAP + 128 + MARGIN);
        assert_eq!(drawn.height(), blue[3] + 1 + MARGIN);
    }

    #[test]
    fn a_missing_picture_leaves_a_quiet_room() {
        let drawn = grid(&[], vec![None]).draw();
        let [l, t, r, b] = extent(&drawn, VACANT.0).unwrap();
        assert_eq!((r - l, b - t), (127, 127));
    }

    #[test]
    fn no_name_touches_a_picture_or_the_edge() {
        let rgb = flat(32, 32, [200, 0, 0]);
        let picture = Some(Image::new(32, 32, &rgb).unwrap());
        let long = "supercalifragilisticexpialidocious church, very detailed ".repeat(20);
        let rows = vec![
            Row {
                label: long.clone(),
                cells: vec![picture, picture],
            },
            Row::default(),
        ];
        let columns = vec![long.clone(), long.clone()];
        let drawn = Grid {
            title: Some(long),
            columns,
            parts: vec!["before".repeat(9)],
            rows,
            scale: None,
        }
        .draw();
        let pictures = extent(&drawn, [200, 0, 0]).unwrap();
        let inside = |x: u32, y: u32| {
            x >= pictures[0] && x <= pictures[2] && y >= pictures[1] && y <= pictures[3]
        };
        let dark = |p: &Rgb<u8>| p.0.iter().all(|&v| v < 190);
        for (x, y, pixel) in drawn.enumerate_pixels().filter(|(_, _, p)| dark(p)) {
            let edge = x < MARGIN
                || y < MARGIN
                || x >= drawn.width() - MARGIN
                || y >= drawn.height() - MARGIN;
            assert!(!edge && !inside(x, y), "{pixel:?} at ({x}, {y})");
        }
    }

    #[test]
    fn nothing_to_show_is_no_reason_to_fail() {
        let empty = Grid::default().draw();
        assert!(empty.width() > 0 && empty.height() > 0);
        Grid {
            title: Some("t".into()),
            columns: vec!["seed 1".into()],
            ..Grid::default()
        }
        .draw();
    }
}
