//! Sizes of a 3x3 convolution over channels-last maps, and which places of its input each place of
//! its result is made of.

use super::gathered::NOWHERE;

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
    pub(crate) fn seen(&self) -> [usize; 2] {
        self.enlarged.unwrap_or([self.height, self.width])
    }

    /// Height and width of the result.
    pub(crate) fn result(&self) -> [usize; 2] {
        self.seen().map(|n| {
            (n + self.before + 1)
                .checked_sub(3)
                .map_or(0, |room| room / self.stride + 1)
        })
    }

    /// Where a place of what the kernel runs over comes from.
    pub(crate) fn origin(&self, n: usize, y: usize, x: usize) -> u32 {
        let [h, w] = self.seen();
        ((n * self.height + y * self.height / h) * self.width + x * self.width / w) as u32
    }

    /// For every place of the result and every tap, the place of the input.
    pub(crate) fn sources(&self) -> Vec<u32> {
        let ([h, w], [height, width]) = (self.result(), self.seen());
        let mut sources = Vec::with_capacity(self.n * h * w * 9);
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            for tap in 0..9 {
                let iy = (y * self.stride + tap / 3)
                    .checked_sub(self.before)
                    .filter(|&iy| iy < height);
                let ix = (x * self.stride + tap % 3)
                    .checked_sub(self.before)
                    .filter(|&ix| ix < width);
                sources.push(
                    iy.zip(ix)
                        .map_or(NOWHERE, |(iy, ix)| self.origin(0, iy, ix)),
                );
            }
        }
        again(&mut sources, self.n, self.height * self.width);
        sources
    }

    /// The way back: for every place that the kernel ran over and every tap of the turned kernel,
    /// the place of the result that it gave to; and those places in an order that brings the ones
    /// with the same taps together.
    pub(crate) fn givers(&self) -> (Vec<u32>, Vec<u32>) {
        let ([h, w], [height, width]) = (self.result(), self.seen());
        let (mut givers, mut places) = (Vec::new(), Vec::new());
        let stride = self.stride;
        for (top, left) in (0..stride).flat_map(|top| (0..stride).map(move |left| (top, left))) {
            let (mut own, mut from) = (Vec::new(), Vec::new());
            for (y, x) in (top..height)
                .step_by(stride)
                .flat_map(|y| (left..width).step_by(stride).map(move |x| (y, x)))
            {
                own.push((y * width + x) as u32);
                for tap in (0..9).rev() {
                    let given = |at: usize, tap: usize, end: usize| {
                        let from = (at + self.before).checked_sub(tap)?;
                        (from % stride == 0 && from / stride < end).then_some(from / stride)
                    };
                    let giver = given(y, tap / 3, h).zip(given(x, tap % 3, w));
                    from.push(giver.map_or(NOWHERE, |(oy, ox)| (oy * w + ox) as u32));
                }
            }
            again(&mut own, self.n, height * width);
            again(&mut from, self.n, h * w);
            places.extend(own);
            givers.extend(from);
        }
        (givers, places)
    }

    /// The convolution that takes the result's gradient back to what the kernel ran over, for
    /// stride 1.
    pub(crate) fn reversed(&self) -> Self {
        let [height, width] = self.seen();
        Self {
            height,
            width,
            input: self.output,
            output: self.input,
            enlarged: None,
            ..*self
        }
    }

    /// For every place of a doubled result whose row and column have that parity and each of its
    /// four taps, the place of the input; and the places.
    pub(crate) fn of_parity(&self, [bottom, right]: [usize; 2]) -> (Vec<u32>, Vec<u32>) {
        let (h, w) = (self.height, self.width);
        let (mut sources, mut places) = (Vec::new(), Vec::new());
        for (row, column) in (0..h).flat_map(|row| (0..w).map(move |column| (row, column))) {
            places.push(((2 * row + bottom) * 2 * w + 2 * column + right) as u32);
            for tap in 0..4 {
                let from = |at: usize, parity: usize, tap: usize, end: usize| {
                    (at + parity + tap)
                        .checked_sub(1)
                        .filter(|&from| from < end)
                };
                let from = from(row, bottom, tap / 2, h).zip(from(column, right, tap % 2, w));
                sources.push(from.map_or(NOWHERE, |(row, column)| (row * w + column) as u32));
            }
        }
        again(&mut sources, self.n, h * w);
        again(&mut places, self.n, 4 * h * w);
        (sources, places)
    }

    /// Whether the input is enlarged to exactly twice its size.
    pub(crate) fn doubled(&self) -> bool {
        self.enlarged == Some([2 * self.height, 2 * self.width])
    }
}

/// After the table of the first of `n` pictures those of the others, each `apart` places further.
fn again(table: &mut Vec<u32>, n: usize, apart: usize) {
    let one = if n == 0 { 0 } else { table.len() };
    table.truncate(one);
    for picture in 1..n {
        let by = (picture * apart) as u32;
        for i in 0..one {
            let place = table[i];
            table.push(if place == NOWHERE {
                NOWHERE
            } else {
                place + by
            });
        }
    }
}
