//! The fused operations against the same formulas composed of Burn's own operations: results and
//! every gradient, over shapes that are not round. Burn's operations are tested against PyTorch by
//! Burn, and by our networks' parity tests.

use burn::tensor::{
    DType, Device, Tensor, activation,
    module::{conv2d, interpolate},
    ops::{ConvOptions, InterpolateMode, InterpolateOptions},
};
use scumble_kernels as kernels;

/// A tracked random tensor, the same for the same seed and shape.
fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let n: usize = shape.iter().product();
    // A small linear congruential generator: Burn's own is global, and tests run side by side.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values: Vec<f32> = (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.0
        })
        .collect();
    Tensor::from_data(
        burn::tensor::TensorData::new(values, shape),
        &Device::flex(),
    )
    .autodiff()
    .require_grad()
}

/// max |a - b| / max |b|
fn distance<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let most: f32 = b.clone().abs().max().into_scalar();
    let off: f32 = (a - b).abs().max().into_scalar();
    off / most.max(1e-20)
}

/// Compares two functions of the same leaves, and the gradients of a weighted sum of their results.
macro_rules! agree {
    ($name:expr, [$($leaf:ident),*], $fused:expr, $composed:expr) => {{
        let (a, b) = ($fused, $composed);
        let weights = random(a.dims(), 99).inner();
        assert!(distance(a.clone().inner(), b.clone().inner()) < 2e-5, "{}: result off by {}", $name, distance(a.inner(), b.inner()));
        let ga = (a * weights.clone()).sum().backward();
        let gb = (b * weights).sum().backward();
        $(
            let d = distance($leaf.grad(&ga).expect("a gradient"), $leaf.grad(&gb).expect("a gradient"));
            assert!(d < 1e-4, "{}: gradient of {} off by {d}", $name, stringify!($leaf));
        )*
    }};
}

#[test]
fn linear() {
    for (n, tokens, input, output) in [
        (1, 1, 1, 1),
        (2, 7, 5, 3),
        (1, 64, 96, 768),
        (3, 33, 17, 130),
    ] {
        let (x, w, b) = (
            random([n, tokens, input], 1),
            random([output, input], 2),
            random([output], 3),
        );
        let composed = |x: &Tensor<3>, w: &Tensor<2>| {
            x.clone()
                .reshape([n * tokens, input])
                .matmul(w.clone().transpose())
                .reshape([n, tokens, output])
        };
        let name = format!("linear {n} {tokens} {input} {output}");
        agree!(
            name,
            [x, w],
            kernels::linear(x.clone(), w.clone(), None),
            composed(&x, &w)
        );
        let with_bias = || composed(&x, &w) + b.clone().reshape([1, 1, output]);
        agree!(
            name,
            [x, w, b],
            kernels::linear(x.clone(), w.clone(), Some(b.clone())),
            with_bias()
        );
        let frozen = kernels::Weight {
            tensor: w.clone().inner(),
            layouts: kernels::Layouts::kept(),
        };
        agree!(
            name,
            [x, b],
            kernels::linear(x.clone(), frozen, Some(b.clone())),
            with_bias()
        );
    }
}

#[test]
fn group_norm() {
    for (n, h, w, c, groups) in [
        (1, 1, 1, 4, 2),
        (2, 3, 5, 12, 1),
        (1, 9, 7, 15, 3),
        (3, 8, 8, 96, 32),
        (1, 33, 31, 8, 8),
    ] {
        for silu in [false, true] {
            // A mean far from zero shows a variance computed as a difference of squares.
            let (x, g, b) = (random([n, h, w, c], 1), random([c], 2), random([c], 3));
            let shifted = || x.clone() + 5.0;
            let eps = 1e-5;
            let grouped = shifted().reshape([n, h * w, groups, c / groups]);
            let mean = grouped.clone().mean_dim(1).mean_dim(3);
            let centred = grouped - mean;
            let variance = centred.clone().powi_scalar(2).mean_dim(1).mean_dim(3);
            let y = (centred / (variance + eps).sqrt()).reshape([n, h, w, c]);
            let y = y * g.clone().reshape([1, 1, 1, c]) + b.clone().reshape([1, 1, 1, c]);
            let y = if silu { activation::silu(y) } else { y };
            let name = format!("group norm {n} {h} {w} {c} / {groups}, silu {silu}");
            let fused = kernels::group_norm(shifted(), groups, g.clone(), b.clone(), eps, silu);
            // With one number in a group the result does not depend on x at all, and its gradient
            // is rounding.
            if h * w * (c / groups) > 2 {
                agree!(name, [x, g, b], fused, y);
            } else {
                agree!(name, [g, b], fused, y);
            }
        }
    }
}

#[test]
fn layer_norm() {
    for (n, tokens, c) in [
        (1, 1, 2),
        (2, 5, 7),
        (1, 77, 128),
        (3, 64, 96),
        (2, 130, 33),
    ] {
        let (x, g, b) = (random([n, tokens, c], 1), random([c], 2), random([c], 3));
        let mean = x.clone().mean_dim(2);
        let centred = x.clone() - mean;
        let variance = centred.clone().powi_scalar(2).mean_dim(2);
        let y = centred / (variance + 1e-5).sqrt() * g.clone().reshape([1, 1, c])
            + b.clone().reshape([1, 1, c]);
        let fused = kernels::layer_norm(x.clone(), g.clone(), b.clone(), 1e-5);
        if c > 2 {
            agree!(format!("layer norm {n} {tokens} {c}"), [x, g, b], fused, y);
        } else {
            agree!(format!("layer norm {n} {tokens} {c}"), [g, b], fused, y);
        }
    }
}

#[test]
fn geglu() {
    for (n, tokens, c) in [(1, 1, 1), (2, 5, 7), (1, 64, 384), (3, 70, 33)] {
        let x = random([n, tokens, 2 * c], 1) * 4.0;
        let x = x.detach().require_grad();
        let (value, gate) = (x.clone().narrow(2, 0, c), x.clone().narrow(2, c, c));
        agree!(
            format!("geglu {n} {tokens} {c}"),
            [x],
            kernels::geglu(x.clone()),
            value * activation::gelu(gate)
        );
    }
}

/// x Phi(x) has the slope Phi(x) + x phi(x); that of the approximation by tanh is another one.
#[test]
fn gelu_has_the_exact_slope() {
    // x, Phi(x), phi(x)
    let known = [
        (-2.0, 0.022_750_132, 0.053_990_967),
        (-0.5, 0.308_537_54, 0.352_065_33),
        (0.0, 0.5, 0.398_942_28),
        (1.0, 0.841_344_75, 0.241_970_72),
        (2.5, 0.993_790_33, 0.017_528_3),
    ];
    let x = Tensor::<1>::from_data(known.map(|(x, ..)| x as f32), &Device::flex())
        .autodiff()
        .require_grad();
    let gradients = kernels::gelu(x.clone()).sum().backward();
    let slopes: Vec<f32> = x
        .grad(&gradients)
        .unwrap()
        .into_data()
        .iter::<f32>()
        .collect();
    for ((x, below, density), slope) in known.into_iter().zip(slopes) {
        let expected: f64 = below + x * density;
        assert!(
            (f64::from(slope) - expected).abs() < 1e-6,
            "at {x}: {slope}, expected {expected}"
        );
    }
}

#[test]
fn attention() {
    for (n, queries, keys, heads, d, causal) in [
        (1, 1, 1, 1, 1, false),
        (2, 7, 5, 2, 3, false),
        (1, 33, 33, 4, 8, true),
        (2, 64, 32, 4, 24, false),
        (1, 700, 300, 1, 5, false),
    ] {
        let c = heads * d;
        let (q, k, v) = (
            random([n, queries, c], 1) * 2.0,
            random([n, keys, c], 2) * 2.0,
            random([n, keys, c], 3),
        );
        let [q, k] = [q, k].map(|t| t.detach().require_grad());
        let split = |x: &Tensor<3>, l: usize| x.clone().reshape([n, l, heads, d]).swap_dims(1, 2);
        let scores = split(&q, queries).matmul(split(&k, keys).transpose()) / (d as f64).sqrt();
        let scores = if causal {
            let rows: Vec<f32> = (0..queries)
                .flat_map(|i| (0..keys).map(move |j| if j > i { -1e9 } else { 0.0 }))
                .collect();
            let mask = Tensor::<4>::from_data(
                burn::tensor::TensorData::new(rows, [1, 1, queries, keys]),
                &Device::flex(),
            );
            scores + mask
        } else {
            scores
        };
        let y = activation::softmax(scores, 3)
            .matmul(split(&v, keys))
            .swap_dims(1, 2)
            .reshape([n, queries, c]);
        let name = format!("attention {n} {queries} {keys} {heads} {d}");
        let fused = kernels::attention(q.clone(), k.clone(), v.clone(), heads, causal);
        // With one key the probabilities are 1 whatever q and k are.
        if keys > 1 {
            agree!(name, [q, k, v], fused, y);
        } else {
            agree!(name, [v], fused, y);
        }
    }
}

#[test]
fn conv3x3() {
    use kernels::Padding::{Around, BelowRight};
    for (n, h, w, input, output, stride, padding) in [
        (1, 1, 1, 1, 1, 1, Around),
        (2, 5, 3, 4, 6, 1, Around),
        (1, 9, 17, 3, 8, 1, Around),
        (3, 8, 8, 96, 33, 1, Around),
        (2, 7, 5, 6, 4, 2, Around),
        (1, 8, 8, 16, 16, 2, Around),
        (2, 8, 6, 5, 7, 2, BelowRight),
        (1, 2, 2, 3, 3, 2, BelowRight),
        (1, 40, 40, 32, 8, 1, Around),
        // Large enough for Winograd's way, with whole tiles and with tiles that reach past the
        // edge.
        (6, 8, 8, 16, 48, 1, Around),
        (9, 11, 14, 32, 16, 1, Around),
        (1, 43, 39, 16, 16, 1, Around),
        (1, 47, 48, 16, 32, 1, Around),
    ] {
        let (x, k, b) = (
            random([n, h, w, input], 1),
            random([output, input, 3, 3], 2),
            random([output], 3),
        );
        let y = || {
            let (padded, pad) = match padding {
                Around => (x.clone().permute([0, 3, 1, 2]), 1),
                BelowRight => (x.clone().permute([0, 3, 1, 2]).pad((0, 1, 0, 1), 0.0), 0),
            };
            let options = ConvOptions::new([stride, stride], [pad, pad], [1, 1], 1);
            conv2d(padded, k.clone(), Some(b.clone()), options).permute([0, 2, 3, 1])
        };
        let name = format!("conv3x3 {n} {h}x{w} {input} -> {output} stride {stride} {padding:?}");
        agree!(
            name,
            [x, k, b],
            kernels::conv3x3(x.clone(), k.clone(), b.clone(), stride, padding),
            y()
        );
        // A frozen kernel, whose layouts are kept.
        let frozen = kernels::Weight {
            tensor: k.clone().inner(),
            layouts: kernels::Layouts::kept(),
        };
        for _ in 0..2 {
            agree!(
                name,
                [x],
                kernels::conv3x3(x.clone(), frozen.clone(), b.clone(), stride, padding),
                y()
            );
        }
    }
}

#[test]
fn upsample_conv3x3() {
    for (n, [h, w], size, input, output) in [
        (2, [3, 2], [6, 4], 4, 5),
        (1, [3, 4], [5, 7], 3, 6),
        (1, [1, 1], [2, 2], 2, 2),
        (1, [24, 24], [48, 48], 16, 17),
        (2, [5, 6], [10, 11], 16, 16),
    ] {
        let (x, k, b) = (
            random([n, h, w, input], 1),
            random([output, input, 3, 3], 2),
            random([output], 3),
        );
        let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size);
        let y = || {
            let large = interpolate(x.clone().permute([0, 3, 1, 2]), options.clone());
            conv2d(
                large,
                k.clone(),
                Some(b.clone()),
                ConvOptions::new([1, 1], [1, 1], [1, 1], 1),
            )
            .permute([0, 2, 3, 1])
        };
        let name = format!("upsample_conv3x3 {n} {h}x{w} to {size:?} {input} -> {output}");
        agree!(
            name,
            [x, k, b],
            kernels::upsample_conv3x3(x.clone(), k.clone(), b.clone(), size),
            y()
        );
        let frozen = kernels::Weight {
            tensor: k.clone().inner(),
            layouts: kernels::Layouts::kept(),
        };
        agree!(
            name,
            [x],
            kernels::upsample_conv3x3(x.clone(), frozen, b.clone(), size),
            y()
        );
    }
}

#[test]
fn activations() {
    let leaf = random([3, 5, 7], 1);
    let scaled = || leaf.clone() * 5.0;
    agree!(
        "silu",
        [leaf],
        kernels::silu(scaled()),
        activation::silu(scaled())
    );
    agree!(
        "gelu",
        [leaf],
        kernels::gelu(scaled()),
        activation::gelu(scaled())
    );
    agree!(
        "quick_gelu",
        [leaf],
        kernels::quick_gelu(scaled()),
        scaled() * activation::sigmoid(scaled() * 1.702)
    );
}

/// The fused operations compute in f32; other kinds of numbers are not theirs, and no reason to
/// panic.
#[test]
fn half_precision_goes_through_the_composed_operations() {
    for dtype in [DType::F16, DType::BF16] {
        macro_rules! near {
            ($name:expr, [$($x:ident: $shape:expr),*], $of:expr) => {{
                $(let $x = random($shape, 7 + stringify!($x).len() as u64).inner();)*
                let whole = { let of = |$($x),*| $of; of($($x.clone()),*) };
                let half = { let of = |$($x),*| $of; of($($x.cast(dtype)),*) };
                assert_eq!(half.dtype(), dtype, "{}", $name);
                let off = distance(half.cast(DType::F32), whole);
                assert!(off < 0.03, "{} in {dtype:?}: off by {off}", $name);
            }};
        }
        near!("linear", [x: [1, 4, 6], ww: [5, 6], bbb: [5]], kernels::linear(x, ww, Some(bbb)));
        near!("product", [x: [1, 4, 6], ww: [5, 6]], kernels::linear(x, ww, None));
        near!("group norm", [x: [1, 3, 3, 4], gg: [4], bbb: [4]], kernels::group_norm(x, 2, gg, bbb, 1e-3, true));
        near!("layer norm", [x: [1, 3, 8], gg: [8], bbb: [8]], kernels::layer_norm(x, gg, bbb, 1e-3));
        near!("silu", [x: [2, 9]], kernels::silu(x));
        near!("gelu", [x: [2, 9]], kernels::gelu(x));
        near!("quick gelu", [x: [2, 9]], kernels::quick_gelu(x));
        near!("geglu", [x: [1, 2, 8]], kernels::geglu(x));
        near!("attention", [q: [1, 5, 8], kk: [1, 7, 8], vvv: [1, 7, 8]], kernels::attention(q, kk, vvv, 2, false));
        near!("conv3x3", [x: [1, 5, 4, 3], kk: [2, 3, 3, 3], bbb: [2]], kernels::conv3x3(x, kk, bbb, 1, kernels::Padding::Around));
        near!("upsample", [x: [1, 2, 3, 3], kk: [2, 3, 3, 3], bbb: [2]], kernels::upsample_conv3x3(x, kk, bbb, [4, 6]));
    }
}

#[test]
fn only_what_may_move_gets_a_gradient() {
    let (x, w, b) = (
        random([1, 4, 4, 3], 1),
        random([5, 3, 3, 3], 2).inner(),
        random([5], 3),
    );
    let y = kernels::conv3x3(x.clone(), w.clone(), b.clone(), 1, kernels::Padding::Around);
    let gradients = y.sum().backward();
    assert!(
        x.grad(&gradients).is_some()
            && b.grad(&gradients).is_some()
            && w.grad(&gradients).is_none()
    );
}

#[test]
fn upsampling_repeats() {
    let x = random([1, 3, 2, 4], 1);
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([5, 4]);
    let y = interpolate(x.clone().permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1]);
    agree!(
        "upsample",
        [x],
        kernels::upsample_nearest(x.clone(), [5, 4]),
        y
    );
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let x = random([3, 9, 9, 32], 1);
            let (w, b) = (random([32, 32, 3, 3], 2), random([32], 3));
            let y = kernels::conv3x3(x.clone(), w.clone(), b.clone(), 1, kernels::Padding::Around);
            let y =
                kernels::group_norm(y, 4, b.clone(), b.clone(), 1e-5, true).reshape([3, 81, 32]);
            let y = kernels::attention(y.clone(), y.clone(), y, 4, false);
            let g = y.clone().powi_scalar(2).sum().backward();
            (y.inner(), x.grad(&g).unwrap(), w.grad(&g).unwrap())
        })
    };
    let (one, three) = (run(1), run(3));
    assert!(distance(one.0, three.0) < 1e-5);
    assert!(distance(one.1, three.1) < 1e-5);
    assert!(distance(one.2, three.2) < 1e-5);
}
