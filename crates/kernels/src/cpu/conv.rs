//! 3x3 convolution over channels-last maps, as a product of gathered rows, with or without
//! enlargement before it.

use super::{
    area::{Area, written},
    conv_sizes::Sizes,
    gathered::{Gathered, product},
    outer::{Outer, outer},
    panels::{Layout, Packed, Plain, Store, Way, Weights, laid_out},
    winograd,
};

/// - x: `[n, height, width, input]`, weight: `[output, input, 3, 3]`; result: `[n, h, w, output]`
pub(crate) fn forward(
    x: &[f32],
    weight: &[f32],
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
fn doubled(y: Area<'_>, x: &[f32], weight: &[f32], room: Option<&Store>, bias: &[f32], s: Sizes) {
    let layout = Layout::new(4, s.input, s.output);
    let make = || {
        PARITIES
            .map(|parity| Packed::new(Plain::Kernel(&added_up(weight, parity)), layout))
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
    if s.enlarged.is_some() {
        reduce(&dx, s)
    } else {
        dx
    }
}

/// The gradient of what the kernel ran over.
fn grad_seen(dy: &[f32], weight: &[f32], room: Option<&Store>, s: Sizes) -> Vec<f32> {
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
