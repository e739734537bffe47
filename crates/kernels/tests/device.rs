//! Every operation on a GPU against the CPU's fused one: results and all gradients.
//!
//! Needs a device, so the tests run only when asked for: `cargo test --workspace --features vulkan
//! --test device -- --ignored`.

#![cfg(any(
    feature = "cuda",
    feature = "vulkan",
    feature = "metal",
    feature = "rocm"
))]

use burn::tensor::{Device, Tensor, TensorData};
use scumble_kernels as kernels;

/// The first device of every kind that was built in.
fn devices() -> Vec<Device> {
    let devices: Vec<Device> = kernels::DEVICE_KINDS
        .iter()
        .filter_map(|kind| kernels::devices(kind).into_iter().next())
        .collect();
    assert!(
        !devices.is_empty(),
        "this machine has none of the devices that were built in"
    );
    devices
}

/// Numbers between -1 and 1, the same for the same seed.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn host(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The result of `f`, and the gradients of a weighted sum of it for every leaf.
fn run<F: Fn(&[Tensor<1>]) -> Tensor<1>>(
    device: &Device,
    leaves: &[usize],
    f: &F,
) -> Vec<Vec<f32>> {
    let leaf = |(seed, &count): (usize, &usize)| {
        let data = TensorData::new(numbers(count, seed as u64 + 1), [count]);
        Tensor::<1>::from_data(data, device)
            .autodiff()
            .require_grad()
    };
    let leaves: Vec<Tensor<1>> = leaves.iter().enumerate().map(leaf).collect();
    let result = f(&leaves);
    let count = result.dims()[0];
    let weights = Tensor::<1>::from_data(TensorData::new(numbers(count, 99), [count]), device);
    let gradients = (result.clone() * weights).sum().backward();
    let mut all = vec![host(result.inner())];
    all.extend(
        leaves
            .iter()
            .map(|leaf| host(leaf.grad(&gradients).expect("a gradient"))),
    );
    all
}

/// Compares `f` of some flat leaves on every device with the CPU, relative to the largest number.
fn agree<F: Fn(&[Tensor<1>]) -> Tensor<1>>(name: &str, leaves: &[usize], f: F) {
    let expected = run(&Device::flex(), leaves, &f);
    for device in devices() {
        let found = run(&device, leaves, &f);
        for (k, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(a.len(), b.len());
            let most = b.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
            let off = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / most;
            assert!(
                off < 1e-4,
                "{name} on {device:?}: {} off by {off}",
                if k == 0 {
                    "result".into()
                } else {
                    format!("gradient {k}")
                }
            );
        }
    }
}

/// All elements in a row.
fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.dims().iter().product::<usize>();
    x.reshape([count])
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn linear() {
    for (n, tokens, input, output) in [
        (1, 1, 1, 1),
        (2, 7, 5, 3),
        (1, 64, 96, 768),
        (3, 33, 17, 130),
    ] {
        agree(
            &format!("linear {n} {tokens} {input} {output}"),
            &[n * tokens * input, output * input, output],
            |l| {
                let (x, w) = (
                    l[0].clone().reshape([n, tokens, input]),
                    l[1].clone().reshape([output, input]),
                );
                flat(
                    kernels::linear(x.clone(), w.clone(), Some(l[2].clone()))
                        + kernels::linear(x, w, None),
                )
            },
        );
    }
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn norms() {
    for (n, h, w, c, groups) in [
        (2, 3, 5, 12, 1),
        (1, 9, 7, 15, 3),
        (3, 8, 8, 96, 32),
        (1, 33, 31, 8, 8),
    ] {
        for silu in [false, true] {
            agree(
                &format!("group norm {n} {h} {w} {c} / {groups}, silu {silu}"),
                &[n * h * w * c, c, c],
                |l| {
                    let x = l[0].clone().reshape([n, h, w, c]) + 5.0;
                    flat(kernels::group_norm(
                        x,
                        groups,
                        l[1].clone(),
                        l[2].clone(),
                        1e-5,
                        silu,
                    ))
                },
            );
        }
    }
    for (n, tokens, c) in [(2, 5, 7), (1, 77, 128), (3, 64, 96), (2, 130, 33)] {
        agree(
            &format!("layer norm {n} {tokens} {c}"),
            &[n * tokens * c, c, c],
            |l| {
                flat(kernels::layer_norm(
                    l[0].clone().reshape([n, tokens, c]),
                    l[1].clone(),
                    l[2].clone(),
                    1e-5,
                ))
            },
        );
    }
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn activations() {
    for (n, tokens, c) in [(1, 1, 2), (2, 5, 14), (1, 64, 384)] {
        let count = n * tokens * c;
        agree(&format!("geglu {n} {tokens} {c}"), &[count], |l| {
            flat(kernels::geglu(l[0].clone().reshape([n, tokens, c]) * 4.0))
        });
        agree("silu", &[count], |l| kernels::silu(l[0].clone() * 8.0));
        agree("gelu", &[count], |l| kernels::gelu(l[0].clone() * 4.0));
        agree("quick gelu", &[count], |l| {
            kernels::quick_gelu(l[0].clone() * 4.0)
        });
    }
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn attention() {
    for (n, queries, keys, heads, d, causal) in [
        (2, 7, 5, 2, 3, false),
        (1, 33, 33, 4, 8, true),
        (2, 64, 32, 4, 24, false),
        (1, 700, 300, 1, 5, false),
        (2, 64, 77, 8, 40, false),
    ] {
        let c = heads * d;
        agree(
            &format!("attention {n} {queries} {keys} {heads} {d}"),
            &[n * queries * c, n * keys * c, n * keys * c],
            |l| {
                let (q, k) = (
                    l[0].clone().reshape([n, queries, c]) * 2.0,
                    l[1].clone().reshape([n, keys, c]) * 2.0,
                );
                flat(kernels::attention(
                    q,
                    k,
                    l[2].clone().reshape([n, keys, c]),
                    heads,
                    causal,
                ))
            },
        );
        // The body without a graph is another one: Burn has attention kernels of its own for that.
        let [q, k, v] = [(queries, 1), (keys, 2), (keys, 3)]
            .map(|(l, seed)| TensorData::new(numbers(n * l * c, seed), [n, l, c]));
        let plain = |device: &Device| {
            let [q, k, v] = [&q, &k, &v].map(|data| Tensor::<3>::from_data(data.clone(), device));
            host(flat(kernels::attention(q, k, v, heads, causal)))
        };
        let expected = plain(&Device::flex());
        for device in devices() {
            let off = plain(&device)
                .iter()
                .zip(&expected)
                .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(
                off < 1e-4,
                "attention {n} {queries} {keys} {heads} {d} without a graph on {device:?}: off by {off}"
            );
        }
    }
}

#[test]
#[ignore = "needs a GPU or a software Vulkan device"]
fn convolutions() {
    use kernels::Padding::{Around, BelowRight};
    for (n, h, w, input, output, stride, padding) in [
        (1, 1, 1, 1, 1, 1, Around),
        (2, 5, 3, 4, 6, 1, Around),
        (3, 8, 8, 96, 33, 1, Around),
        (2, 7, 5, 6, 4, 2, Around),
        (1, 8, 8, 16, 16, 2, Around),
        (2, 8, 6, 5, 7, 2, BelowRight),
        (1, 40, 40, 32, 8, 1, Around),
    ] {
        let name = format!("conv3x3 {n} {h}x{w} {input} -> {output} stride {stride} {padding:?}");
        agree(
            &name,
            &[n * h * w * input, output * input * 9, output],
            |l| {
                let (x, k) = (
                    l[0].clone().reshape([n, h, w, input]),
                    l[1].clone().reshape([output, input, 3, 3]),
                );
                flat(kernels::conv3x3(x, k, l[2].clone(), stride, padding))
            },
        );
    }
    for (n, c, side, p, out) in [(2, 3, 32, 8, 12), (1, 3, 16, 4, 33)] {
        agree(
            &format!("patches {n} {c} {side} / {p} -> {out}"),
            &[n * c * side * side, out * c * p * p, out],
            |l| {
                let (x, k) = (
                    l[0].clone().reshape([n, c, side, side]),
                    l[1].clone().reshape([out, c, p, p]),
                );
                flat(kernels::patches(x, k, Some(l[2].clone())))
            },
        );
    }
    for (h, w, size) in [(3, 2, [5, 4]), (4, 4, [8, 8]), (5, 7, [10, 13])] {
        agree(
            &format!("upsample {h}x{w} to {size:?}"),
            &[2 * h * w * 4],
            |l| {
                flat(kernels::upsample_nearest(
                    l[0].clone().reshape([2, h, w, 4]),
                    size,
                ))
            },
        );
        agree(
            &format!("upsample {h}x{w} to {size:?} and conv3x3"),
            &[2 * h * w * 4, 6 * 4 * 9, 6],
            |l| {
                let (x, k) = (
                    l[0].clone().reshape([2, h, w, 4]),
                    l[1].clone().reshape([6, 4, 3, 3]),
                );
                flat(kernels::upsample_conv3x3(x, k, l[2].clone(), size))
            },
        );
    }
}
