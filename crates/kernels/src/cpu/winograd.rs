//! 3x3 convolution with fewer multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray 2016, arXiv 1509.09308, section 4.2).
//!
//! Sixteen places of the result come from a tile of 6x6 places of the input. Transformed, a tile is 36 numbers for each
//! channel, and the convolution is 36 products over channels: a quarter of the multiplications. Rounding is a few times that
//! of the direct sum, 1e-6 relative to the largest number where the direct sum has 3e-7.

#![expect(
    clippy::needless_range_loop,
    reason = "indices into fixed arrays become registers; adapters that are not inlined lose the instructions"
)]

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    conv::Sizes,
    gathered::{Gathered, Output, product, written},
    panels::{Layout, Packed, Weights},
    pieces,
    scratch::Scratch,
};

/// Numbers in a transformed tile, by channel.
pub(crate) const TRANSFORMED: usize = 36;

/// Channels that are transformed together.
const WIDE: usize = 16;

/// Numbers of transformed tiles at a time: they stay in a usual last-level cache.
const TILES: usize = 1 << 21;

type Wide = [f32; WIDE];

/// Whether it is the faster way. `kept`: the transformed kernel is there already. The number of pictures has no say, so that
/// a picture comes out the same, to the bit, alone and among others.
pub(crate) fn pays(s: &Sizes, kept: bool) -> bool {
    let tiles = Tiles::of(&Sizes { n: 1, ..*s }).count();
    let plain = s.stride == 1 && s.before == 1 && s.enlarged.is_none();
    let wide = s.input.is_multiple_of(WIDE) && s.output.is_multiple_of(WIDE);
    // A tile at the edge is computed whole; and few tiles are not worth reading, let alone transforming, the kernel for.
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
        Self { n: s.n, down: s.height.div_ceil(4), across: s.width.div_ceil(4) }
    }

    fn count(self) -> usize {
        self.n * self.down * self.across
    }

    /// The picture, and the top left place of a tile's result.
    fn place(self, tile: usize) -> [usize; 3] {
        let within = tile % (self.down * self.across);
        [tile / (self.down * self.across), within / self.across * 4, within % self.across * 4]
    }
}

/// - x: `[n, height, width, input]`; result: `[n, height, width, output]`
pub(crate) fn forward(x: &[f32], packed: &Packed, bias: Option<&[f32]>, s: Sizes) -> Vec<f32> {
    let tiles = Tiles::of(&s);
    let at_once = (TILES / (TRANSFORMED * s.input.max(s.output))).clamp(24, tiles.count().max(24)).next_multiple_of(24);
    written(s.n * s.height * s.width * s.output, |y| {
        for first in (0..tiles.count()).step_by(at_once) {
            let count = at_once.min(tiles.count() - first);
            let sources: Vec<u32> = (0..count as u32).collect();
            let mut seen = Scratch::of(TRANSFORMED * count * s.input);
            let mut given = Scratch::of(TRANSFORMED * count * s.output);
            to_tiles(&mut seen, x, first, count, tiles, &s);
            // One product for each number of a tile; with very many threads each is shared in turn.
            let shared = rayon::current_num_threads() > TRANSFORMED / 2;
            given.par_chunks_mut(count * s.output).zip(seen.par_chunks(count * s.input)).enumerate().for_each(
                |(i, (given, seen))| {
                    let weights = Weights::Tap(packed, i);
                    product(given.into(), Gathered { x: seen, sources: &sources, places: None, weights, bias: None, shared });
                },
            );
            from_tiles(y, &given, bias, first, count, tiles, &s);
        }
    })
}

/// Transformed tiles `[36, count, input]` of the input.
fn to_tiles(seen: &mut [f32], x: &[f32], first: usize, count: usize, tiles: Tiles, s: &Sizes) {
    assert_eq!(seen.len(), TRANSFORMED * count * s.input);
    let out = Output::from(seen);
    (0..count).into_par_iter().with_min_len(pieces(TRANSFORMED * s.input)).for_each(|tile| {
        to_tile(out, x, tiles.place(first + tile), tile, count, s);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn to_tile(out: Output<'_>, x: &[f32], [n, top, left]: [usize; 3], tile: usize, count: usize, s: &Sizes) {
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
            let column = input_transform(&[rows[0][j], rows[1][j], rows[2][j], rows[3][j], rows[4][j], rows[5][j]]);
            for (i, numbers) in column.iter().enumerate() {
                out.put(((i * 6 + j) * count + tile) * s.input + channel, numbers);
            }
        }
    }
}

/// The places of the result from transformed tiles `[36, count, output]`.
fn from_tiles(out: Output<'_>, given: &[f32], bias: Option<&[f32]>, first: usize, count: usize, tiles: Tiles, s: &Sizes) {
    (0..count).into_par_iter().with_min_len(pieces(TRANSFORMED * s.output)).for_each(|tile| {
        from_tile(out, given, bias, tiles.place(first + tile), tile, count, s);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn from_tile(
    out: Output<'_>,
    given: &[f32],
    bias: Option<&[f32]>,
    [n, top, left]: [usize; 3],
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
        for j in 0..4.min(s.width - left) {
            let column = output_transform(&[rows[0][j], rows[1][j], rows[2][j], rows[3][j], rows[4][j], rows[5][j]]);
            for (i, numbers) in column.iter().enumerate().take(4.min(s.height - top)) {
                let at = ((n * s.height + top + i) * s.width + left + j) * s.output + channel;
                let mut sums = start;
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    *sum += number;
                }
                out.put(at, &sums);
            }
        }
    }
}

/// `B^T d`.
#[inline(always)]
fn input_transform(d: &[Wide; 6]) -> [Wide; 6] {
    let mut t = [[0.0; WIDE]; 6];
    for l in 0..WIDE {
        let [d0, d1, d2, d3, d4, d5] = [d[0][l], d[1][l], d[2][l], d[3][l], d[4][l], d[5][l]];
        let (even, odd) = (d4 - 4.0 * d2, d3 - 4.0 * d1);
        let (near, far) = (d4 - d2, 2.0 * (d3 - d1));
        t[0][l] = 4.0 * d0 - 5.0 * d2 + d4;
        t[1][l] = even + odd;
        t[2][l] = even - odd;
        t[3][l] = near + far;
        t[4][l] = near - far;
        t[5][l] = 4.0 * d1 - 5.0 * d3 + d5;
    }
    t
}

/// `A^T m`.
#[inline(always)]
fn output_transform(m: &[Wide; 6]) -> [Wide; 4] {
    let mut t = [[0.0; WIDE]; 4];
    for l in 0..WIDE {
        let (sum, difference) = (m[1][l] + m[2][l], m[1][l] - m[2][l]);
        let (far, apart) = (m[3][l] + m[4][l], m[3][l] - m[4][l]);
        t[0][l] = m[0][l] + sum + far;
        t[1][l] = difference + 2.0 * apart;
        t[2][l] = sum + 4.0 * far;
        t[3][l] = difference + 8.0 * apart + m[5][l];
    }
    t
}

/// `G g G^T` for kernels side by side: nine rows of `width` numbers, `apart` from each other, to 36 rows, `stride` apart.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn kernel_transform(to: &mut [f32], stride: usize, g: &[f32], apart: usize, width: usize) {
    for column in (0..width).step_by(WIDE) {
        let size = WIDE.min(width - column);
        let mut rows = [[[0.0; WIDE]; 6]; 3];
        for (i, row) in rows.iter_mut().enumerate() {
            let mut three = [[0.0; WIDE]; 3];
            for (j, numbers) in three.iter_mut().enumerate() {
                numbers[..size].copy_from_slice(&g[(3 * i + j) * apart + column..][..size]);
            }
            *row = kernel_row(&three);
        }
        for j in 0..6 {
            let numbers = kernel_row(&[rows[0][j], rows[1][j], rows[2][j]]);
            for (i, numbers) in numbers.iter().enumerate() {
                to[(i * 6 + j) * stride + column..][..size].copy_from_slice(&numbers[..size]);
            }
        }
    }
}

/// `G g`.
#[inline(always)]
fn kernel_row(g: &[Wide; 3]) -> [Wide; 6] {
    let mut t = [[0.0; WIDE]; 6];
    for l in 0..WIDE {
        let [g0, g1, g2] = [g[0][l], g[1][l], g[2][l]];
        let ends = g0 + g2;
        let (quarter, half) = (g0 * (1.0 / 24.0) + g2 * (1.0 / 6.0), g1 * (1.0 / 12.0));
        t[0][l] = g0 * 0.25;
        t[1][l] = (ends + g1) * (-1.0 / 6.0);
        t[2][l] = (ends - g1) * (-1.0 / 6.0);
        t[3][l] = quarter + half;
        t[4][l] = quarter - half;
        t[5][l] = g2;
    }
    t
}
