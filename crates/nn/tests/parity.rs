//! The networks against diffusers and transformers, from the same weights, in f32.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use burn::tensor::{Device, Tensor};
use common::{
    miniature,
    tensors::{
        Parts, assert_near, golden, host, models, numbers, read, rows_of_ids, small, tensor,
    },
};
use scumble_nn::{
    Clip, Vit, Weights,
    config::{ClipConfig, VitConfig},
    files::{Checkpoint, Source, Tensors, read_network},
};

/// f32 itself leaves 6e-6 open (golden/networks/README.md).
const TOLERANCE: f64 = 1e-5;

fn agrees(name: &str, checkpoint: &Checkpoint, reference: &Tensors) {
    let parts = Parts::of(checkpoint);
    let near = |what: &str, found: Vec<f32>| {
        assert_near(
            &format!("{name} {what}"),
            &found,
            &reference[what].to_f32().unwrap(),
            TOLERANCE,
        );
    };
    near(
        "text_hidden",
        host(&parts.text().forward(&rows_of_ids(&reference["input_ids"]))),
    );
    let timesteps: Vec<f32> = match reference["unet_timestep"].to_i64() {
        Some(labels) => labels.iter().map(|&t| t as f32).collect(),
        None => reference["unet_timestep"].to_f32().unwrap(),
    };
    let sample: Tensor<4> = tensor(&reference["unet_sample"]);
    let timesteps = if timesteps.len() == 1 {
        vec![timesteps[0]; sample.dims()[0]]
    } else {
        timesteps
    };
    near(
        "unet_out",
        host(&parts.unet().forward(
            sample,
            &timesteps,
            &tensor(&reference["unet_context"]).into(),
        )),
    );
    near(
        "vae_latents",
        host(&parts.vae().encode(tensor(&reference["vae_image"]))),
    );
    near(
        "vae_decoded",
        host(&parts.vae().decode(tensor(&reference["vae_latents"]))),
    );
}

#[test]
fn the_miniature_computes_what_diffusers_computes() {
    agrees(
        "emoji-sd",
        &miniature(),
        &read(models("emoji-sd.reference.safetensors")),
    );
}

#[test]
fn sd1_computes_what_diffusers_computes() {
    agrees(
        "sd1",
        &small("sd1"),
        &read(golden("networks/sd1/reference.safetensors")),
    );
}

#[test]
fn sd2_computes_what_diffusers_computes() {
    agrees(
        "sd2",
        &small("sd2"),
        &read(golden("networks/sd2/reference.safetensors")),
    );
}

#[test]
fn an_odd_model_computes_what_diffusers_computes() {
    agrees(
        "odd",
        &small("odd"),
        &read(golden("networks/odd/reference.safetensors")),
    );
}

fn clip() -> Clip {
    let component = read_network(&Source::dir(models("emoji-clip")), "", "model").unwrap();
    let config = ClipConfig::read("clip".as_ref(), &component.config).unwrap();
    let weights = Weights::load(
        "clip",
        &component.tensors,
        &Clip::manifest(&config),
        &Device::flex(),
    )
    .unwrap();
    Clip::new(&config, &weights)
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

#[test]
fn clip_computes_what_transformers_computes() {
    let expected = read(golden("clip.safetensors"));
    let ids = [
        vec![724, 320, 500, 271, 600, 725, 725, 725],
        vec![724, 5, 6, 725, 725, 725, 725, 725],
    ];
    let clip = clip();
    assert_near(
        "text",
        &host(&clip.text_features(&ids)),
        &expected["text_features"].to_f32().unwrap(),
        TOLERANCE,
    );
    let pictures = numbers([2, 3, 64, 64], 6) * 2.0;
    assert_near(
        "image",
        &host(&clip.image_features(pictures)),
        &expected["image_features"].to_f32().unwrap(),
        TOLERANCE,
    );
}

#[test]
fn vit_computes_what_transformers_computes() {
    let expected = read(golden("gradients.safetensors"));
    let logits = vit().logits(numbers([1, 3, 32, 32], 5));
    assert_near(
        "logits",
        &host(&logits),
        &expected["vit.logits"].to_f32().unwrap(),
        TOLERANCE,
    );
}

/// A batch of three and each of the three alone.
#[test]
fn pictures_of_a_batch_do_not_see_each_other() {
    let near = |what: &str, together: Vec<f32>, alone: [Vec<f32>; 3]| {
        assert_near(what, &together, &alone.concat(), 1e-5)
    };
    for (name, checkpoint) in [
        ("odd", small("odd")),
        ("sd1", small("sd1")),
        ("emoji-sd", miniature()),
    ] {
        let parts = Parts::of(&checkpoint);
        let ids = [vec![3, 17, 300, 20], vec![724, 1, 2, 725], vec![9, 9, 9, 9]];
        let text = parts.text();
        near(
            name,
            host(&text.forward(&ids)),
            [0, 1, 2].map(|i| host(&text.forward(&ids[i..=i]))),
        );

        let unet = parts.unet();
        let (z, t) = (numbers([3, 4, 6, 8], 1), [3.0, 500.0, 999.0]);
        let c = numbers([3, 5, parts.unet.0.cross_attention_dim], 2);
        let one = |i: usize| {
            unet.forward(
                z.clone().narrow(0, i, 1),
                &t[i..=i],
                &c.clone().narrow(0, i, 1).into(),
            )
        };
        near(
            name,
            host(&unet.forward(z.clone(), &t, &(&c).into())),
            [0, 1, 2].map(|i| host(&one(i))),
        );

        let vae = parts.vae();
        let x = numbers([3, 3, 16, 24], 3);
        near(
            name,
            host(&vae.encode(x.clone())),
            [0, 1, 2].map(|i| host(&vae.encode(x.clone().narrow(0, i, 1)))),
        );
        let z = numbers([3, 4, 4, 6], 4);
        near(
            name,
            host(&vae.decode(z.clone())),
            [0, 1, 2].map(|i| host(&vae.decode(z.clone().narrow(0, i, 1)))),
        );
    }
    let (clip, x) = (clip(), numbers([3, 3, 64, 64], 5));
    near(
        "clip",
        host(&clip.image_features(x.clone())),
        [0, 1, 2].map(|i| host(&clip.image_features(x.clone().narrow(0, i, 1)))),
    );
    let (vit, x) = (vit(), numbers([3, 3, 32, 32], 6));
    near(
        "vit",
        host(&vit.logits(x.clone())),
        [0, 1, 2].map(|i| host(&vit.logits(x.clone().narrow(0, i, 1)))),
    );
}

/// Later tokens leave earlier hidden states alone, and earlier ones do not.
#[test]
fn text_attention_is_causal() {
    let text = Parts::of(&small("sd1")).text();
    let first = |ids: &[u32], n: usize| host(&text.forward(&[ids.to_vec()]).narrow(1, 0, n));
    assert_near(
        "before",
        &first(&[724, 10, 20, 725], 2),
        &first(&[724, 10, 30, 31], 2),
        1e-6,
    );
    assert_ne!(first(&[724, 10, 20, 725], 3), first(&[724, 11, 20, 725], 3));
}
