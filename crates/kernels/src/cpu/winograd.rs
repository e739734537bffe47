//! 3x3 convolution with fewer multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray 2016, arXiv
//! 1509.09308, section 4.2).
//!
//! Sixteen places of the result come from a tile of 6x6 places of the input. Transformed, a tile is
//! 36 numbers for each channel, and the convolution is 36 products over channels: a quarter of the
//! multiplications. Rounding is a few times that of the direct sum, 1e-6 relative to the largest
//! number where the direct sum has 3e-7.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    area::{Area, Cells, Cut, Order, written},
    conv_sizes::Sizes,
    gathered::{Gathered, product},
    panels::{Layout, Packed, Weights},
    pieces,
    scratch::Scratch,
    winograd_transforms::{WIDE, input_transform, output_transform},
};

/// Numbers in a transformed tile, by channel.
pub(crate) const TRANSFORMED: usize = 36;

/// Numbers of transformed tiles at a time: they stay in a usual last-level cache.
const TILES: usize = 1 << 21;

/// Whether it is the faster way. `kept`: the transformed kernel is there already. The number of
/// pictures has no say, so that a picture comes out the same, to the bit, alone and among others.
pub(crate) fn pays(s: &Sizes, kept: bool) -> bool {
    let tiles = Tiles::of(&Sizes { n: 1, ..*s }).count();
    let plain = s.stride == 1 && s.before == 1 && s.enlarged.is_none();
    let wide = s.input.is_multiple_of(WIDE) && s.output.is_multiple_of(WIDE);
    // A tile at the edge is computed whole; and few tiles are not worth reading, let alone
    // transforming, the kernel for.
    let full = tiles * 16 * 2 <= s.height * s.width * 3;
    plain && wide && full && tiles >= if kept { 4 } else { 128 }
}

/// How the transformed kernel is laid out: one matrix for each number of a transformed tile.
pub(crate) fn layout(s: &Sizes) -> Layout {
    Layout::new(TRANSFORMED, s.input, s.output)
}

/// The tiles that cover the result.
#[derive(Clone, Copy)]
struct Tiles {
    n: usize,
    down: usize,
    across: usize,
}

impl Tiles {
    fn of(s: &Sizes) -> Self {
        Self {
            n: s.n,
            down: s.height.div_ceil(4),
            across: s.width.div_ceil(4),
        }
    }

    fn count(self) -> usize {
        self.n * self.down * self.across
    }

    /// The picture, and the top left place of a tile's result.
    fn place(self, tile: usize) -> [usize; 3] {
        let within = tile % (self.down * self.across);
        [
            tile / (self.down * self.across),
            within / self.across * 4,
            within % self.across * 4,
        ]
    }
}

/// - x: `[n, height, width, input]`; result: `[n, height, width, output]`
pub(crate) fn forward(x: &[f32], packed: &Packed, bias: Option<&[f32]>, s: Sizes) -> Vec<f32> {
    let tiles = Tiles::of(&s);
    let at_once = (TILES / (TRANSFORMED * s.input.max(s.output)))
        .clamp(24, tiles.count().max(24))
        .next_multiple_of(24);
    written(
        s.n * s.height * s.width * s.output,
        s.width * s.output,
        |y| {
            // A cell for each tile, four rows of four places; fewer below and to the right.
            let mut y = y.cells(
                Cut::within(s.height, 4),
                Cut::every(4 * s.output),
                Order::Rows,
            );
            for first in (0..tiles.count()).step_by(at_once) {
                let count = at_once.min(tiles.count() - first);
                let sources: Vec<u32> = (0..count as u32).collect();
                let mut seen = Scratch::of(TRANSFORMED * count * s.input);
                let mut given = Scratch::of(TRANSFORMED * count * s.output);
                to_tiles(&mut seen, x, first, count, tiles, &s);
                // One product for each number of a tile; with very many threads each is shared in
                // turn.
                let shared = rayon::current_num_threads() > TRANSFORMED / 2;
                given
                    .par_chunks_mut(count * s.output)
                    .zip(seen.par_chunks(count * s.input))
                    .enumerate()
                    .for_each(|(i, (given, seen))| {
                        let weights = Weights::Tap(packed, i);
                        let p = Gathered {
                            x: seen,
                            sources: &sources,
                            weights,
                            bias: None,
                            shared,
                        };
                        product(Area::of(given, s.output), p);
                    });
                from_tiles(&mut y, &given, bias, count, &s);
            }
        },
    )
}

/// Transformed tiles `[36, count, input]` of the input.
fn to_tiles(seen: &mut [f32], x: &[f32], first: usize, count: usize, tiles: Tiles, s: &Sizes) {
    assert_eq!(seen.len(), TRANSFORMED * count * s.input);
    let mut cells =
        Area::of(seen, count * s.input).cells(Cut::WHOLE, Cut::every(s.input), Order::Rows);
    cells
        .shared(count)
        .enumerate()
        .with_min_len(pieces(TRANSFORMED * s.input))
        .for_each(|(tile, mut to)| {
            to_tile(&mut to.lines(), x, tiles.place(first + tile), s);
        });
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn to_tile(out: &mut [&mut [f32]; TRANSFORMED], x: &[f32], [n, top, left]: [usize; 3], s: &Sizes) {
    for channel in (0..s.input).step_by(WIDE) {
        let mut rows = [[[0.0; WIDE]; 6]; 6];
        for (i, row) in rows.iter_mut().enumerate() {
            // Counted from the row and column of zeros above and to the left.
            let down = top + i;
            if down == 0 || down > s.height {
                continue;
            }
            for (j, to) in row.iter_mut().enumerate() {
                let right = left + j;
                if right == 0 || right > s.width {
                    continue;
                }
                let at = ((n * s.height + down - 1) * s.width + right - 1) * s.input + channel;
                to.copy_from_slice(&x[at..at + WIDE]);
            }
            *row = input_transform(row);
        }
        for j in 0..6 {
            let column = input_transform(&[
                rows[0][j], rows[1][j], rows[2][j], rows[3][j], rows[4][j], rows[5][j],
            ]);
            for (i, numbers) in column.iter().enumerate() {
                out[i * 6 + j][channel..channel + WIDE].copy_from_slice(numbers);
            }
        }
    }
}

/// The next places of the result from transformed tiles `[36, count, output]`.
fn from_tiles(out: &mut Cells<'_>, given: &[f32], bias: Option<&[f32]>, count: usize, s: &Sizes) {
    let least = pieces(TRANSFORMED * s.output);
    let line = || Scratch::of(16 * s.output);
    out.shared(count)
        .enumerate()
        .with_min_len(least)
        .for_each_init(line, |sums, (tile, mut out)| {
            let size = [out.height(), out.width() / s.output];
            from_tile(sums, given, bias, size, tile, count, s);
            for row in sums.chunks_exact(4 * s.output).take(size[0]) {
                out.append(&row[..size[1] * s.output]);
            }
        });
}

/// The first rows and columns of a tile's `[4, 4, output]` places.
#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn from_tile(
    out: &mut [f32],
    given: &[f32],
    bias: Option<&[f32]>,
    [height, width]: [usize; 2],
    tile: usize,
    count: usize,
    s: &Sizes,
) {
    for channel in (0..s.output).step_by(WIDE) {
        let mut start = [0.0; WIDE];
        if let Some(bias) = bias {
            start.copy_from_slice(&bias[channel..channel + WIDE]);
        }
        let mut rows = [[[0.0; WIDE]; 4]; 6];
        for (i, row) in rows.iter_mut().enumerate() {
            let mut numbers = [[0.0; WIDE]; 6];
            for (j, numbers) in numbers.iter_mut().enumerate() {
                let at = ((i * 6 + j) * count + tile) * s.output + channel;
                numbers.copy_from_slice(&given[at..at + WIDE]);
            }
            *row = output_transform(&numbers);
        }
        for j in 0..width {
            let column = output_transform(&[
                rows[0][j], rows[1][j], rows[2][j], rows[3][j], rows[4][j], rows[5][j],
            ]);
            for (i, numbers) in column.iter().enumerate().take(height) {
                let mut sums = start;
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    *sum += number;
                }
                out[(4 * i + j) * s.output + channel..][..WIDE].copy_from_slice(&sums);
            }
        }
    }
}
