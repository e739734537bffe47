//! 3x3 convolution over channels-last maps, as products of gathered patches with the kernel.
//!
//! A block of output places gathers its nine neighbours into rows of `9 * input` numbers, small enough to stay in the
//! cache, and multiplies them with the kernel laid out `[9 * input, output]`. Blocks are the unit of parallel work.

use rayon::prelude::*;

use super::product::{Shape, Threads, product};

/// Numbers in one gathered block, at most.
const GATHERED: usize = 1 << 17;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) n: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) stride: usize,
    /// Rows and columns of zeros above and to the left; below and to the right there is one.
    pub(crate) before: usize,
}

impl Sizes {
    /// Height and width of the result.
    pub(crate) fn result(&self) -> (usize, usize) {
        let side = |n: usize| (n + self.before + 1).saturating_sub(3) / self.stride + usize::from(n + self.before + 1 >= 3);
        (side(self.height), side(self.width))
    }

    fn places(&self) -> usize {
        let (h, w) = self.result();
        self.n * h * w
    }

    /// Places in one block; depends on sizes alone, so that sums come out the same whatever the number of threads.
    fn block(&self) -> usize {
        (GATHERED / (9 * self.input)).clamp(8, 512)
    }

    /// The convolution that gives the input's gradient from the result's, for stride 1.
    fn reversed(&self) -> Self {
        Self { input: self.output, output: self.input, ..*self }
    }
}

/// The kernel `[output, input, 3, 3]` laid out `[3, 3, input, output]`.
fn by_tap(weight: &[f32], s: Sizes) -> Vec<f32> {
    let mut packed = vec![0.0; weight.len()];
    for o in 0..s.output {
        for c in 0..s.input {
            for tap in 0..9 {
                packed[(tap * s.input + c) * s.output + o] = weight[(o * s.input + c) * 9 + tap];
            }
        }
    }
    packed
}

/// The kernel turned by half a turn, inputs and outputs exchanged, laid out `[3, 3, output, input]`.
fn by_tap_reversed(weight: &[f32], s: Sizes) -> Vec<f32> {
    let mut packed = vec![0.0; weight.len()];
    for o in 0..s.output {
        for c in 0..s.input {
            for tap in 0..9 {
                packed[((8 - tap) * s.output + o) * s.input + c] = weight[(o * s.input + c) * 9 + tap];
            }
        }
    }
    packed
}

/// - x: `[n, height, width, input]`, weight: `[output, input, 3, 3]`; result: `[n, h, w, output]`
pub(crate) fn forward(x: &[f32], weight: &[f32], bias: Option<&[f32]>, s: Sizes) -> Vec<f32> {
    convolve(x, &by_tap(weight, s), bias, s)
}

fn convolve(x: &[f32], packed: &[f32], bias: Option<&[f32]>, s: Sizes) -> Vec<f32> {
    let block = s.block();
    let mut y = match bias {
        Some(bias) => bias.repeat(s.places()),
        None => vec![0.0; s.places() * s.output],
    };
    y.par_chunks_mut(block * s.output).enumerate().for_each_init(Vec::new, |gathered, (i, y)| {
        let rows = y.len() / s.output;
        gather(gathered, x, i * block, rows, s);
        let (a, b) = (Shape::rows(rows, 9 * s.input), Shape::rows(9 * s.input, s.output));
        product(y, Shape::rows(rows, s.output), bias.is_some(), gathered, a, packed, b, 1.0, Threads::One);
    });
    y
}

/// Rows of nine neighbours for `rows` places of the result, counted from `first`.
fn gather(gathered: &mut Vec<f32>, x: &[f32], first: usize, rows: usize, s: Sizes) {
    let (h, w) = s.result();
    let c = s.input;
    gathered.clear();
    gathered.resize(rows * 9 * c, 0.0);
    for (place, row) in (first..first + rows).zip(gathered.chunks_exact_mut(9 * c)) {
        let (n, top, left) = (place / (h * w), place / w % h * s.stride, place % w * s.stride);
        for ky in 0..3 {
            let Some(iy) = (top + ky).checked_sub(s.before).filter(|iy| *iy < s.height) else {
                row[ky * 3 * c..(ky + 1) * 3 * c].fill(0.0);
                continue;
            };
            for kx in 0..3 {
                let to = &mut row[(ky * 3 + kx) * c..][..c];
                match (left + kx).checked_sub(s.before).filter(|ix| *ix < s.width) {
                    Some(ix) => to.copy_from_slice(&x[((n * s.height + iy) * s.width + ix) * c..][..c]),
                    None => to.fill(0.0),
                }
            }
        }
    }
}

/// The gradient of `x`.
pub(crate) fn grad_x(dy: &[f32], weight: &[f32], s: Sizes) -> Vec<f32> {
    if s.stride == 1 && s.before == 1 {
        return convolve(dy, &by_tap_reversed(weight, s), None, s.reversed());
    }
    // Strided: each place of the result gives to its nine neighbours; a picture is one task, so nobody else writes there.
    let packed = by_tap(weight, s);
    let (h, w) = s.result();
    let picture = s.height * s.width * s.input;
    let mut dx = vec![0.0; s.n * picture];
    let block = s.block();
    dx.par_chunks_mut(picture.max(1)).zip(dy.par_chunks((h * w * s.output).max(1))).for_each(|(dx, dy)| {
        let mut given = vec![0.0; block * 9 * s.input];
        for (i, dy) in dy.chunks(block * s.output).enumerate() {
            let rows = dy.len() / s.output;
            let given = &mut given[..rows * 9 * s.input];
            let (a, b) = (Shape::rows(rows, s.output), Shape::rows(9 * s.input, s.output).transposed());
            product(given, Shape::rows(rows, 9 * s.input), false, dy, a, &packed, b, 1.0, Threads::One);
            scatter(dx, given, i * block, s);
        }
    });
    dx
}

/// Adds rows of nine neighbours back to the places of one picture they came from.
fn scatter(dx: &mut [f32], given: &[f32], first: usize, s: Sizes) {
    let (_, w) = s.result();
    let c = s.input;
    for (place, row) in (first..).zip(given.chunks_exact(9 * c)) {
        let (top, left) = (place / w * s.stride, place % w * s.stride);
        for tap in 0..9 {
            let iy = (top + tap / 3).checked_sub(s.before).filter(|iy| *iy < s.height);
            let ix = (left + tap % 3).checked_sub(s.before).filter(|ix| *ix < s.width);
            if let (Some(iy), Some(ix)) = (iy, ix) {
                let to = &mut dx[(iy * s.width + ix) * c..][..c];
                to.iter_mut().zip(&row[tap * c..][..c]).for_each(|(t, g)| *t += g);
            }
        }
    }
}

/// The gradient of the weight, `[output, input, 3, 3]`.
pub(crate) fn grad_weight(x: &[f32], dy: &[f32], s: Sizes) -> Vec<f32> {
    let block = s.block();
    let tasks = 16; // A fixed number of partial sums, added up in order.
    let per_task = s.places().div_ceil(block).div_ceil(tasks).max(1) * block;
    let parts: Vec<Vec<f32>> = dy
        .par_chunks(per_task * s.output)
        .enumerate()
        .map_init(Vec::new, |gathered, (task, dy)| {
            let mut sums = vec![0.0; 9 * s.input * s.output];
            for (i, dy) in dy.chunks(block * s.output).enumerate() {
                let rows = dy.len() / s.output;
                gather(gathered, x, task * per_task + i * block, rows, s);
                let (a, b) = (Shape::rows(rows, 9 * s.input).transposed(), Shape::rows(rows, s.output));
                product(&mut sums, Shape::rows(9 * s.input, s.output), true, gathered, a, dy, b, 1.0, Threads::One);
            }
            sums
        })
        .collect();
    let mut packed = vec![0.0f32; 9 * s.input * s.output];
    for part in &parts {
        packed.iter_mut().zip(part).for_each(|(a, b)| *a += b);
    }
    let mut dw = vec![0.0; packed.len()];
    for o in 0..s.output {
        for c in 0..s.input {
            for tap in 0..9 {
                dw[(o * s.input + c) * 9 + tap] = packed[(tap * s.input + c) * s.output + o];
            }
        }
    }
    dw
}
