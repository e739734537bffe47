//! 3x3 convolution over channels-last maps, as a product of gathered rows, with or without
//! enlargement before it.

use super::{
    area::{Area, written},
    conv_sizes::Sizes,
    gathered::{Gathered, product},
    numbers::Numbers,
    outer::{Outer, outer},
    panels::{Layout, Packed, Plain, Store, Way, Weights, laid_out},
    winograd,
};

/// - x: `[n, height, width, input]`, weight: `[output, input, 3, 3]`; result: `[n, h, w, output]`
pub(crate) fn forward(
    x: &[f32],
    weight: Numbers<'_>,
    room: Option<&Store>,
    bias: &[f32],
    s: Sizes,
) -> Vec<f32> {
    if winograd::pays(&s, room.is_some()) {
        let make = || vec![Packed::new(Plain::Winograd(weight), winograd::layout(&s))];
        return winograd::forward(x, &Store::get(room, Way::Winograd, make)[0], Some(bias), s);
    }
    let [h, w] = s.result();
    let size = s.n * h * w * s.output;
    if s.doubled() && (room.is_some() || h * w >= MANY) {
        return written(size, s.output, |y| doubled(y, x, weight, room, bias, s));
    }
    let (plain, layout) = (Plain::Kernel(weight), Layout::new(9, s.input, s.output));
    laid_out(plain, layout, room, Way::Forward, |weights| {
        let p = Gathered {
            x,
            sources: &s.sources(),
            weights,
            bias: Some(bias),
            shared: true,
        };
        written(size, s.output, |y| product(y, p))
    })
}

/// Places of one picture's result for which it is worth adding up the taps of a kernel that is not
/// kept.
const MANY: usize = 1024;

/// Over a doubled input each place of the result sees only 2x2 places: four convolutions of four
/// taps, one for each parity of row and column, give the same sums with 4/9 of the multiplications.
fn doubled(
    y: Area<'_>,
    x: &[f32],
    weight: Numbers<'_>,
    room: Option<&Store>,
    bias: &[f32],
    s: Sizes,
) {
    let layout = Layout::new(4, s.input, s.output);
    let make = || {
        PARITIES
            .map(|parity| {
                Packed::new(
                    Plain::Kernel(added_up(weight, parity).as_slice().into()),
                    layout,
                )
            })
            .into()
    };
    let kernels = Store::get(room, Way::Doubled, make);
    let tables = PARITIES.map(|parity| s.of_parity(parity));
    let parts = y.scattered(tables.each_ref().map(|(_, places)| places.as_slice()));
    for ((y, (sources, _)), kernel) in parts.into_iter().zip(&tables).zip(kernels.iter()) {
        product(
            y,
            Gathered {
                x,
                sources,
                weights: Weights::Packed(kernel),
                bias: Some(bias),
                shared: true,
            },
        );
    }
}

/// Parities of row and column.
const PARITIES: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// The kernel `[n, k, 2, 2]` that places of that parity see: taps that fall on the same place are
/// added up.
fn added_up(weight: Numbers<'_>, [bottom, right]: [usize; 2]) -> Vec<f32> {
    // Above and at an even place, one tap and two; at and below an odd place, two taps and one.
    let side = |parity: usize, tap: usize| usize::from(tap > parity);
    let weight = weight.widened();
    let mut sums = vec![0.0; weight.len() / 9 * 4];
    for (sums, kernel) in sums.chunks_exact_mut(4).zip(weight.chunks_exact(9)) {
        for (tap, &value) in kernel.iter().enumerate() {
            sums[side(bottom, tap / 3) * 2 + side(right, tap % 3)] += value;
        }
    }
    sums
}

/// The gradient of `x`.
pub(crate) fn grad_x(dy: &[f32], weight: Numbers<'_>, room: Option<&Store>, s: Sizes) -> Vec<f32> {
    let dx = grad_seen(dy, weight, room, s);
    if s.enlarged.is_some() {
        reduce(&dx, s)
    } else {
        dx
    }
}

/// The gradient of what the kernel ran over.
fn grad_seen(dy: &[f32], weight: Numbers<'_>, room: Option<&Store>, s: Sizes) -> Vec<f32> {
    let back = s.reversed();
    if winograd::pays(&back, room.is_some()) {
        let make = || {
            vec![Packed::new(
                Plain::WinogradReversed(weight),
                winograd::layout(&back),
            )]
        };
        return winograd::forward(
            dy,
            &Store::get(room, Way::WinogradBackward, make)[0],
            None,
            back,
        );
    }
    let [height, width] = s.seen();
    let (plain, layout) = (Plain::Reversed(weight), Layout::new(9, s.output, s.input));
    let (givers, places) = s.givers();
    laid_out(plain, layout, room, Way::Backward, |weights| {
        let p = Gathered {
            x: dy,
            sources: &givers,
            weights,
            bias: None,
            shared: true,
        };
        written(s.n * height * width * s.input, s.input, |dx| {
            let [dx] = dx.scattered([&places]);
            product(dx, p);
        })
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
            to.iter_mut()
                .zip(from.next().unwrap_or_default())
                .for_each(|(to, from)| *to += from);
        }
    }
    reduced
}

/// The gradient of the weight, `[output, input, 3, 3]`.
pub(crate) fn grad_weight(x: &[f32], dy: &[f32], s: Sizes) -> Vec<f32> {
    outer(Outer {
        x,
        dy,
        sources: &s.sources(),
        taps: 9,
        k: s.input,
        n: s.output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::linear;
    use half::{bf16, f16};

    fn some(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    /// What halves give is to the bit what the same numbers give as f32: linear layers of few and many
    /// rows, kept and not, and every way of a convolution, with both gradients of the input.
    #[test]
    fn halves_compute_as_the_same_numbers_widened() {
        let check =
            |name: &str,
             numbers: &[f32],
             compute: &dyn Fn(Numbers<'_>, Option<&Store>) -> Vec<f32>| {
                let f: Vec<f16> = numbers.iter().map(|&x| f16::from_f32(x)).collect();
                let b: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
                let wide: Vec<f32> = f.iter().map(|x| x.to_f32()).collect();
                let broad: Vec<f32> = b.iter().map(|x| x.to_f32()).collect();
                for kept in [false, true] {
                    let room = || kept.then(Store::default);
                    let of = |numbers: Numbers<'_>| compute(numbers, room().as_ref());
                    assert_eq!(
                        of(Numbers::F16(&f)),
                        of(Numbers::F32(&wide)),
                        "{name}, f16, {kept}"
                    );
                    assert_eq!(
                        of(Numbers::BF16(&b)),
                        of(Numbers::F32(&broad)),
                        "{name}, bf16, {kept}"
                    );
                }
            };
        for (rows, input, output) in [(3, 40, 50), (77, 40, 50), (9, 1100, 1000)] {
            let s = linear::Sizes {
                rows,
                input,
                output,
            };
            let (x, dy) = (some(rows * input, 1), some(rows * output, 2));
            let weight = some(input * output, 3);
            check("linear", &weight, &|w, room| {
                linear::forward(&x, w, room, None, s)
            });
            check("back", &weight, &|w, room| linear::grad_x(&dy, w, room, s));
        }
        for (side, stride, enlarged, input, output) in [
            (6, 1, None, 20, 70),
            (7, 2, None, 20, 70),
            (24, 1, None, 24, 130),
            (6, 1, Some([12, 12]), 20, 70),
            (34, 1, Some([68, 68]), 8, 16),
        ] {
            let s = Sizes {
                n: 2,
                height: side,
                width: side,
                input,
                output,
                stride,
                before: 1,
                enlarged,
            };
            let [h, w] = s.result();
            let (x, dy) = (
                some(2 * side * side * input, 4),
                some(2 * h * w * output, 5),
            );
            let (weight, bias) = (some(9 * input * output, 6), some(output, 7));
            check("conv", &weight, &|w, room| forward(&x, w, room, &bias, s));
            check("conv back", &weight, &|w, room| grad_x(&dy, w, room, s));
        }
    }
}
