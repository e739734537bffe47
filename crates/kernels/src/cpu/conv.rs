//! 3x3 convolution over channels-last maps, as a product of gathered rows, with or without enlargement before it.

use super::{
    gathered::{Gathered, NOWHERE, Output, product, written},
    outer::{Outer, outer},
    panels::{Layout, Packed, Plain, Store, Way, Weights, laid_out},
    winograd,
};

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) n: usize,
    /// Height and width of the input.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) stride: usize,
    /// Rows and columns of zeros above and to the left; below and to the right there is one.
    pub(crate) before: usize,
    /// Height and width to which nearest neighbours enlarge the input before it is convolved.
    pub(crate) enlarged: Option<[usize; 2]>,
}

impl Sizes {
    /// Height and width of what the kernel runs over.
    fn seen(&self) -> [usize; 2] {
        self.enlarged.unwrap_or([self.height, self.width])
    }

    /// Height and width of the result.
    pub(crate) fn result(&self) -> [usize; 2] {
        self.seen().map(|n| (n + self.before + 1).checked_sub(3).map_or(0, |room| room / self.stride + 1))
    }

    /// Where a place of what the kernel runs over comes from.
    fn origin(&self, n: usize, y: usize, x: usize) -> u32 {
        let [h, w] = self.seen();
        ((n * self.height + y * self.height / h) * self.width + x * self.width / w) as u32
    }

    /// For every place of the result and every tap, the place of the input.
    fn sources(&self) -> Vec<u32> {
        let ([h, w], [height, width]) = (self.result(), self.seen());
        let mut sources = Vec::with_capacity(self.n * h * w * 9);
        for n in 0..self.n {
            for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                for tap in 0..9 {
                    let iy = (y * self.stride + tap / 3).checked_sub(self.before).filter(|&iy| iy < height);
                    let ix = (x * self.stride + tap % 3).checked_sub(self.before).filter(|&ix| ix < width);
                    sources.push(iy.zip(ix).map_or(NOWHERE, |(iy, ix)| self.origin(n, iy, ix)));
                }
            }
        }
        sources
    }

    /// The way back: for every place that the kernel ran over and every tap of the turned kernel, the place of the result
    /// that it gave to; and those places in an order that brings the ones with the same taps together.
    fn givers(&self) -> (Vec<u32>, Vec<u32>) {
        let ([h, w], [height, width]) = (self.result(), self.seen());
        let (mut givers, mut places) = (Vec::new(), Vec::new());
        let stride = self.stride;
        for (top, left) in (0..stride).flat_map(|top| (0..stride).map(move |left| (top, left))) {
            for n in 0..self.n {
                for (y, x) in (top..height).step_by(stride).flat_map(|y| (left..width).step_by(stride).map(move |x| (y, x))) {
                    places.push(((n * height + y) * width + x) as u32);
                    for tap in (0..9).rev() {
                        let given = |at: usize, tap: usize, end: usize| {
                            let from = (at + self.before).checked_sub(tap)?;
                            (from % stride == 0 && from / stride < end).then_some(from / stride)
                        };
                        let from = given(y, tap / 3, h).zip(given(x, tap % 3, w));
                        givers.push(from.map_or(NOWHERE, |(oy, ox)| ((n * h + oy) * w + ox) as u32));
                    }
                }
            }
        }
        (givers, places)
    }

    /// The convolution that takes the result's gradient back to what the kernel ran over, for stride 1.
    fn reversed(&self) -> Self {
        let [height, width] = self.seen();
        Self { height, width, input: self.output, output: self.input, enlarged: None, ..*self }
    }

    /// Whether the input is enlarged to exactly twice its size.
    fn doubled(&self) -> bool {
        self.enlarged == Some([2 * self.height, 2 * self.width])
    }
}

/// - x: `[n, height, width, input]`, weight: `[output, input, 3, 3]`; result: `[n, h, w, output]`
pub(crate) fn forward(x: &[f32], weight: &[f32], room: Option<&Store>, bias: &[f32], s: Sizes) -> Vec<f32> {
    if winograd::pays(&s, room.is_some()) {
        let make = || vec![Packed::new(Plain::Winograd(weight), winograd::layout(&s))];
        return winograd::forward(x, &Store::get(room, Way::Winograd, make)[0], Some(bias), s);
    }
    let [h, w] = s.result();
    let size = s.n * h * w * s.output;
    if s.doubled() && (room.is_some() || s.n * h * w >= MANY) {
        return written(size, |y| doubled(y, x, weight, room, bias, s));
    }
    let (plain, layout) = (Plain::Kernel(weight), Layout::new(9, s.input, s.output));
    laid_out(plain, layout, room, Way::Forward, |weights| {
        let p = Gathered { x, sources: &s.sources(), places: None, weights, bias: Some(bias), shared: true };
        written(size, |y| product(y, p))
    })
}

/// Places of a result for which it is worth adding up the taps of a kernel that is not kept.
const MANY: usize = 2048;

/// Over a doubled input each place of the result sees only 2x2 places: four convolutions of four taps, one for each parity
/// of row and column, give the same sums with 4/9 of the multiplications.
fn doubled(y: Output<'_>, x: &[f32], weight: &[f32], room: Option<&Store>, bias: &[f32], s: Sizes) {
    let layout = Layout::new(4, s.input, s.output);
    let make = || PARITIES.map(|parity| Packed::new(Plain::Kernel(&added_up(weight, parity)), layout)).into();
    let kernels = Store::get(room, Way::Doubled, make);
    let (h, w) = (s.height, s.width);
    for ([bottom, right], kernel) in PARITIES.into_iter().zip(kernels.iter()) {
        let (mut sources, mut places) = (Vec::new(), Vec::new());
        for n in 0..s.n {
            for (row, column) in (0..h).flat_map(|row| (0..w).map(move |column| (row, column))) {
                places.push(((n * 2 * h + 2 * row + bottom) * 2 * w + 2 * column + right) as u32);
                for tap in 0..4 {
                    let from = |at: usize, parity: usize, tap: usize, end: usize| {
                        (at + parity + tap).checked_sub(1).filter(|&from| from < end)
                    };
                    let from = from(row, bottom, tap / 2, h).zip(from(column, right, tap % 2, w));
                    sources.push(from.map_or(NOWHERE, |(row, column)| ((n * h + row) * w + column) as u32));
                }
            }
        }
        let (weights, places) = (Weights::Packed(kernel), Some(places.as_slice()));
        product(y, Gathered { x, sources: &sources, places, weights, bias: Some(bias), shared: true });
    }
}

/// Parities of row and column.
const PARITIES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// The kernel `[n, k, 2, 2]` that places of that parity see: taps that fall on the same place are added up.
fn added_up(weight: &[f32], [bottom, right]: [usize; 2]) -> Vec<f32> {
    // Above and at an even place, one tap and two; at and below an odd place, two taps and one.
    let side = |parity: usize, tap: usize| usize::from(tap > parity);
    let mut sums = vec![0.0; weight.len() / 9 * 4];
    for (sums, kernel) in sums.chunks_exact_mut(4).zip(weight.chunks_exact(9)) {
        for (tap, &value) in kernel.iter().enumerate() {
            sums[side(bottom, tap / 3) * 2 + side(right, tap % 3)] += value;
        }
    }
    sums
}

/// The gradient of `x`.
pub(crate) fn grad_x(dy: &[f32], weight: &[f32], room: Option<&Store>, s: Sizes) -> Vec<f32> {
    let dx = grad_seen(dy, weight, room, s);
    if s.enlarged.is_some() { reduce(&dx, s) } else { dx }
}

/// The gradient of what the kernel ran over.
fn grad_seen(dy: &[f32], weight: &[f32], room: Option<&Store>, s: Sizes) -> Vec<f32> {
    let back = s.reversed();
    if winograd::pays(&back, room.is_some()) {
        let make = || vec![Packed::new(Plain::WinogradReversed(weight), winograd::layout(&back))];
        return winograd::forward(dy, &Store::get(room, Way::WinogradBackward, make)[0], None, back);
    }
    let [height, width] = s.seen();
    let (plain, layout) = (Plain::Reversed(weight), Layout::new(9, s.output, s.input));
    let (givers, places) = s.givers();
    laid_out(plain, layout, room, Way::Backward, |weights| {
        let p = Gathered { x: dy, sources: &givers, places: Some(&places), weights, bias: None, shared: true };
        written(s.n * height * width * s.input, |dx| product(dx, p))
    })
}

/// Adds up what places that came from the same one have received.
fn reduce(dx: &[f32], s: Sizes) -> Vec<f32> {
    let [height, width] = s.seen();
    let mut reduced = vec![0.0; s.n * s.height * s.width * s.input];
    let mut from = dx.chunks_exact(s.input);
    for n in 0..s.n {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let to = &mut reduced[s.origin(n, y, x) as usize * s.input..][..s.input];
            to.iter_mut().zip(from.next().unwrap_or_default()).for_each(|(to, from)| *to += from);
        }
    }
    reduced
}

/// The gradient of the weight, `[output, input, 3, 3]`.
pub(crate) fn grad_weight(x: &[f32], dy: &[f32], s: Sizes) -> Vec<f32> {
    outer(Outer { x, dy, sources: &s.sources(), taps: 9, k: s.input, n: s.output })
}
