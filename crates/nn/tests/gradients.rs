//! Gradients: against PyTorch, against finite differences, and who gets one at all.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use common::{
    miniature,
    tensors::{Parts, assert_near, golden, host, models, numbers, read, small},
};
use scumble_nn::{
    Clip, ClipText, UNet, Vit, Weights,
    config::{ClipConfig, VitConfig},
    files::{Source, Tensors, read_network},
};

/// Tracks the tensors that `pick` names and returns them.
fn track(weights: &mut Weights, pick: impl Fn(&str) -> bool) -> BTreeMap<String, Tensor<1>> {
    let picked = weights.iter().filter(|(name, _)| pick(name));
    let leaves: BTreeMap<_, _> = picked
        .map(|(name, w)| (name.clone(), w.flat().autodiff().require_grad()))
        .collect();
    for (name, leaf) in &leaves {
        weights.replace(name, leaf.clone()).unwrap();
    }
    leaves
}

fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.autodiff().require_grad()
}

/// The inputs of golden/gradients.py.
const LABELS: [f32; 2] = [17.0, 803.0];

/// Four levels need some room: attention over a single place has no gradient.
fn latents(name: &str) -> Tensor<4> {
    numbers(
        if name == "odd" {
            [2, 4, 6, 5]
        } else {
            [2, 4, 12, 9]
        },
        1,
    )
}

fn context(parts: &Parts) -> Tensor<3> {
    numbers([2, 7, parts.unet.0.cross_attention_dim], 2)
}

fn target(z: &Tensor<4>) -> Tensor<4> {
    numbers(z.dims(), 3)
}

fn loss(net: &UNet, z: Tensor<4>, c: &Tensor<3>) -> Tensor<1> {
    let target = target(&z);
    (net.forward(z, &LABELS, &c.into()) - target)
        .powi_scalar(2)
        .mean()
}

fn expected(file: &Tensors, key: &str) -> Vec<f32> {
    file[key].to_f32().unwrap()
}

#[test]
fn the_unet_has_the_gradients_of_pytorch() {
    let golden = read(golden("gradients.safetensors"));
    // Kept as a whole; and part by part, computed again, the pictures one by one or together.
    let kept = [None, Some(1), Some(1 << 20)];
    for (name, again) in ["odd", "sd2"]
        .into_iter()
        .flat_map(|n| kept.map(|a| (n, a)))
    {
        let mut parts = Parts::of(&small(name));
        parts.unet.1.set_recomputing(again);
        let leaves = track(&mut parts.unet.1, |_| true);
        let (z, c) = (leaf(latents(name)), leaf(context(&parts)));
        let loss = loss(&parts.unet(), z.clone(), &c);
        assert_near(
            name,
            &host(&loss),
            &expected(&golden, &format!("{name}.loss")),
            1e-5,
        );
        let gradients = loss.backward();
        assert_near(
            &format!("{name} z"),
            &host(&z.grad(&gradients).unwrap()),
            &expected(&golden, &format!("{name}.z")),
            1e-4,
        );
        assert_near(
            &format!("{name} c"),
            &host(&c.grad(&gradients).unwrap()),
            &expected(&golden, &format!("{name}.c")),
            1e-4,
        );
        let mut compared = 0;
        for (key, tensor) in &golden {
            if let Some(weight) = key.strip_prefix(&format!("{name}.unet.")) {
                let found = leaves[weight]
                    .grad(&gradients)
                    .unwrap_or_else(|| panic!("{key} has no gradient"));
                assert_near(key, &host(&found), &tensor.to_f32().unwrap(), 1e-4);
                compared += 1;
            }
        }
        assert!(compared > 50, "{name}: {compared}");
    }
}

#[test]
fn the_text_encoder_has_the_gradients_of_pytorch() {
    let golden = read(golden("gradients.safetensors"));
    let mut parts = Parts::of(&small("odd"));
    let leaves = track(&mut parts.text.1, |_| true);
    let ids = [
        vec![724, 300, 41, 300, 725, 725, 725],
        vec![724, 5, 6, 7, 8, 9, 725],
    ];
    let hidden = parts.text().forward(&ids);
    let weights = numbers(hidden.dims(), 4);
    let gradients = (hidden * weights).sum().backward();
    for (name, leaf) in &leaves {
        let found = host(
            &leaf
                .grad(&gradients)
                .unwrap_or_else(|| panic!("{name} has no gradient")),
        );
        if name.contains("token_embedding") {
            // A token that occurs often gets the sum; a row of no prompt gets exactly nothing.
            let width = parts.text.0.hidden_size;
            let rows: Vec<usize> = golden["text.rows"]
                .to_i64()
                .unwrap()
                .iter()
                .map(|&r| r as usize)
                .collect();
            let of_rows: Vec<f32> = rows
                .iter()
                .flat_map(|r| found[r * width..(r + 1) * width].to_vec())
                .collect();
            assert_near(
                name,
                &of_rows,
                &expected(&golden, "text.rows.gradient"),
                1e-4,
            );
            let others = found
                .chunks(width)
                .enumerate()
                .filter(|(r, _)| !rows.contains(r));
            assert!(others.flat_map(|(_, row)| row).all(|&g| g == 0.0));
        } else if name.ends_with("k_proj.bias") {
            // Softmax does not see a number added to all keys: this gradient is nothing but
            // rounding.
            assert!(found.iter().all(|g| g.abs() < 1e-5), "{name}: {found:?}");
        } else {
            assert_near(
                name,
                &found,
                &expected(&golden, &format!("text.{name}")),
                1e-4,
            );
        }
    }
}

#[test]
fn vit_has_the_gradients_of_pytorch() {
    let golden = read(golden("gradients.safetensors"));
    let x = leaf(numbers([1, 3, 32, 32], 5));
    let gradients = surprise(vit().logits(x.clone())).backward();
    assert_near(
        "x",
        &host(&x.grad(&gradients).unwrap()),
        &expected(&golden, "vit.x"),
        1e-4,
    );
}

/// Cross-entropy of class 2.
fn surprise(logits: Tensor<2>) -> Tensor<1> {
    burn::tensor::activation::log_softmax(logits, 1)
        .narrow(1, 2, 1)
        .reshape([1])
        .neg()
}

fn vit() -> Vit {
    let component = read_network(&Source::dir(models("emoji-judges/style")), "", "model").unwrap();
    let config = VitConfig::read("vit".as_ref(), &component.config).unwrap();
    let weights = Weights::load(
        "vit",
        &component.tensors,
        &Vit::manifest(&config),
        &Device::flex(),
    )
    .unwrap();
    Vit::new(&config, &weights)
}

/// What moves gets a gradient that is not zero, whatever moves beside it; what does not move gets
/// none.
#[test]
fn exactly_the_tracked_tensors_get_gradients() {
    type Rule = fn(&str) -> bool;
    let rules: [(&str, Rule); 7] = [
        ("cross-attention", |n| n.contains("attn2")),
        ("keys and values", |n| {
            n.contains("attn2.to_k") || n.contains("attn2.to_v")
        }),
        ("self-attention", |n| n.contains("attn1")),
        ("outside the cross-attention", |n| !n.contains("attn2")),
        ("norms", |n| n.contains("norm")),
        ("the first layer", |n| {
            n.starts_with("conv_in") || n.starts_with("time_embedding")
        }),
        ("everything", |_| true),
    ];
    for name in ["odd", "sd2"] {
        for (what, rule) in rules {
            let mut parts = Parts::of(&small(name));
            // Known to the graph, but not asked for.
            let idle: BTreeMap<String, Tensor<1>> = parts
                .unet
                .1
                .iter()
                .map(|(n, w)| (n.clone(), w.flat().autodiff()))
                .collect();
            for (name, tensor) in &idle {
                parts.unet.1.replace(name, tensor.clone()).unwrap();
            }
            let leaves = track(&mut parts.unet.1, rule);
            let gradients = loss(&parts.unet(), latents(name), &context(&parts)).backward();
            assert!(!leaves.is_empty());
            for (tensor, leaf) in &leaves {
                let gradient = leaf
                    .grad(&gradients)
                    .unwrap_or_else(|| panic!("{name}, {what}: {tensor} has none"));
                let gradient = host(&gradient);
                assert!(
                    gradient.iter().all(|g| g.is_finite()),
                    "{name}, {what}: {tensor} is not finite"
                );
                assert!(
                    gradient.iter().any(|g| *g != 0.0),
                    "{name}, {what}: {tensor} is zero"
                );
            }
            for (tensor, leaf) in idle.iter().filter(|(n, _)| !leaves.contains_key(*n)) {
                assert!(
                    leaf.grad(&gradients).is_none(),
                    "{name}, {what}: {tensor} was not tracked"
                );
            }
        }
    }
}

/// The same gradient whether a tensor moves alone or among all. (Rounding differs, and this network
/// amplifies it.)
#[test]
fn a_gradient_does_not_depend_on_what_else_moves() {
    let gradients_of = |pick: fn(&str) -> bool| {
        let mut parts = Parts::of(&small("odd"));
        let leaves = track(&mut parts.unet.1, pick);
        let gradients = loss(&parts.unet(), latents("odd"), &context(&parts)).backward();
        leaves
            .into_iter()
            .map(|(name, leaf)| (name, host(&leaf.grad(&gradients).unwrap())))
            .collect::<BTreeMap<_, _>>()
    };
    let (some, all) = (
        gradients_of(|n| n.contains("attn2")),
        gradients_of(|_| true),
    );
    for (name, gradient) in some {
        assert_near(&name, &gradient, &all[&name], 1e-3);
    }
}

/// Compares a gradient with what `f`, a scalar in f64, does when every other number moves along it.
///
/// Along the gradient, because f32 leaves about 1e-6 of `f` open, which is much of a small slope.
fn agrees_with_differences(what: &str, at: &[f32], gradient: &[f32], f: impl Fn(Vec<f32>) -> f64) {
    let scale = at.iter().fold(0f32, |m, v| m.max(v.abs()));
    for half in 0..2 {
        let mut way: Vec<f64> = gradient
            .iter()
            .enumerate()
            .map(|(i, &g)| if i % 2 == half { f64::from(g) } else { 0.0 })
            .collect();
        let expected = way.iter().map(|w| w * w).sum::<f64>().sqrt();
        assert!(expected > 0.0 && scale > 0.0, "{what}");
        way.iter_mut().for_each(|w| *w /= expected);
        let moved = |by: f64| {
            f(at.iter()
                .zip(&way)
                .map(|(&v, w)| (f64::from(v) + by * w) as f32)
                .collect())
        };
        let slope = |by: f64| (moved(by) - moved(-by)) / (2.0 * by);
        // Too long a step sees curvature and too short a one rounding: among some, take the one
        // that its neighbours confirm. Richardson: the error of h^2 cancels.
        let slopes: Vec<f64> = (0..10)
            .map(|k| slope(f64::from(scale) * 0.04 * 0.5f64.powi(k)))
            .collect();
        let finer: Vec<f64> = slopes
            .windows(2)
            .map(|pair| (4.0 * pair[1] - pair[0]) / 3.0)
            .collect();
        let spread = |w: &[f64]| {
            w.iter().fold(f64::MIN, |m, &v| m.max(v)) - w.iter().fold(f64::MAX, |m, &v| m.min(v))
        };
        let found = finer
            .windows(3)
            .min_by(|a, b| spread(a).total_cmp(&spread(b)))
            .unwrap()[1];
        assert!(
            (found - expected).abs() <= 1e-2 * expected,
            "{what}: slope {found:e}, gradient {expected:e}"
        );
    }
}

/// Sum of squared distances in f64.
fn far<const D: usize>(x: &Tensor<D>, target: &Tensor<D>) -> f64 {
    host(x)
        .iter()
        .zip(host(target))
        .map(|(a, b)| (f64::from(*a) - f64::from(b)).powi(2))
        .sum()
}

fn again<const D: usize>(values: Vec<f32>, like: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, like.dims()), &Device::flex())
}

#[test]
fn unet_gradients_are_slopes() {
    let plain = Parts::of(&small("odd"));
    let mut parts = Parts::of(&small("odd"));
    let leaves = track(&mut parts.unet.1, |_| true);
    let (z, c) = (leaf(latents("odd")), leaf(context(&parts)));
    let gradients = (parts.unet().forward(z.clone(), &LABELS, &(&c).into())
        - target(&latents("odd")))
    .powi_scalar(2)
    .sum()
    .backward();
    for name in [
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "time_embedding.linear_2.bias",
        "down_blocks.0.resnets.0.norm1.weight",
        "down_blocks.0.resnets.1.time_emb_proj.weight",
        "down_blocks.0.attentions.0.norm.bias",
        "down_blocks.0.attentions.0.proj_in.weight",
        "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.weight",
        "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight",
        "mid_block.attentions.0.transformer_blocks.0.norm2.weight",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight",
        "up_blocks.0.resnets.0.conv_shortcut.weight",
        "up_blocks.0.upsamplers.0.conv.weight",
        "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0.weight",
        "up_blocks.1.attentions.0.proj_out.bias",
        "conv_norm_out.weight",
        "conv_out.weight",
    ] {
        let at = host(&leaves[name]);
        agrees_with_differences(
            name,
            &at,
            &host(&leaves[name].grad(&gradients).unwrap()),
            |values| {
                let mut weights = plain.unet.1.clone();
                let count = values.len();
                weights
                    .replace(
                        name,
                        Tensor::from_data(TensorData::new(values, [count]), &Device::flex()),
                    )
                    .unwrap();
                far(
                    &UNet::new(&plain.unet.0, &weights).forward(
                        latents("odd"),
                        &LABELS,
                        &context(&plain).into(),
                    ),
                    &target(&latents("odd")),
                )
            },
        );
    }
    let net = plain.unet();
    agrees_with_differences(
        "z",
        &host(&z),
        &host(&z.grad(&gradients).unwrap()),
        |values| {
            far(
                &net.forward(again(values, &z), &LABELS, &context(&plain).into()),
                &target(&latents("odd")),
            )
        },
    );
    agrees_with_differences(
        "c",
        &host(&c),
        &host(&c.grad(&gradients).unwrap()),
        |values| {
            far(
                &net.forward(latents("odd"), &LABELS, &again(values, &c).into()),
                &target(&latents("odd")),
            )
        },
    );
}

/// What an attack on the prompt moves: the looked-up vectors.
#[test]
fn gradients_of_embedded_tokens_are_slopes() {
    for name in ["odd", "sd1"] {
        let text: ClipText = Parts::of(&small(name)).text();
        let embedded = leaf(text.embed(&[vec![724, 300, 41, 725, 725], vec![724, 5, 6, 7, 725]]));
        let hidden = text.encode(embedded.clone());
        let target = numbers(hidden.dims(), 7);
        let gradients = (hidden - target.clone()).powi_scalar(2).sum().backward();
        let gradient = host(&embedded.grad(&gradients).unwrap());
        agrees_with_differences(name, &host(&embedded), &gradient, |values| {
            far(&text.encode(again(values, &embedded)), &target)
        });
    }
}

/// What an attack on pictures or latents goes through.
#[test]
fn gradients_through_the_autoencoder_are_slopes() {
    let vae = Parts::of(&small("odd")).vae();
    let z = leaf(numbers([1, 4, 3, 4], 1));
    let pictures = vae.decode(z.clone());
    let target = numbers(pictures.dims(), 8);
    let gradients = (pictures - target.clone()).powi_scalar(2).sum().backward();
    agrees_with_differences(
        "z",
        &host(&z),
        &host(&z.grad(&gradients).unwrap()),
        |values| far(&vae.decode(again(values, &z)), &target),
    );
    let x = leaf(numbers([1, 3, 12, 8], 2));
    let latents = vae.encode(x.clone());
    let target = numbers(latents.dims(), 9);
    let gradients = (latents - target.clone()).powi_scalar(2).sum().backward();
    agrees_with_differences(
        "x",
        &host(&x),
        &host(&x.grad(&gradients).unwrap()),
        |values| far(&vae.encode(again(values, &x)), &target),
    );
}

#[test]
fn gradients_of_judged_pictures_are_slopes() {
    let vit = vit();
    let x = leaf(numbers([1, 3, 32, 32], 5));
    let gradients = surprise(vit.logits(x.clone())).backward();
    agrees_with_differences(
        "vit",
        &host(&x),
        &host(&x.grad(&gradients).unwrap()),
        |values| {
            let logits: Vec<f64> = host(&vit.logits(again(values, &x)))
                .into_iter()
                .map(f64::from)
                .collect();
            logits
                .iter()
                .map(|l| (l - logits[2]).exp())
                .sum::<f64>()
                .ln()
        },
    );

    let component = read_network(&Source::dir(models("emoji-clip")), "", "model").unwrap();
    let config = ClipConfig::read("clip".as_ref(), &component.config).unwrap();
    let weights = Weights::load(
        "clip",
        &component.tensors,
        &Clip::manifest(&config),
        &Device::flex(),
    )
    .unwrap();
    let clip = Clip::new(&config, &weights);
    let x = leaf(numbers([1, 3, 64, 64], 6));
    let target = numbers([1, 64], 10);
    let gradients = (clip.image_features(x.clone()) - target.clone())
        .powi_scalar(2)
        .sum()
        .backward();
    agrees_with_differences(
        "clip",
        &host(&x),
        &host(&x.grad(&gradients).unwrap()),
        |values| far(&clip.image_features(again(values, &x)), &target),
    );
}

/// A network whose weights were tracked and then untracked computes the same numbers, off the
/// graph.
#[test]
fn untracked_weights_leave_the_graph() {
    let mut parts = Parts::of(&miniature());
    let before = parts.unet().forward(
        numbers([1, 4, 8, 8], 1),
        &[5.0],
        &context(&parts).narrow(0, 0, 1).into(),
    );
    track(&mut parts.unet.1, |n| n.contains("attn2"));
    let tracked = parts.unet().forward(
        numbers([1, 4, 8, 8], 1),
        &[5.0],
        &context(&parts).narrow(0, 0, 1).into(),
    );
    assert!(tracked.is_autodiff());
    assert_near("tracked", &host(&tracked), &host(&before), 1e-6);
    parts.unet.1.untrack();
    let after = parts.unet().forward(
        numbers([1, 4, 8, 8], 1),
        &[5.0],
        &context(&parts).narrow(0, 0, 1).into(),
    );
    assert!(!after.is_autodiff());
    assert_eq!(host(&after), host(&before));
}
