//! The names of single SDXL files, held against those that diffusers pairs
//! (`golden/sdxl_names.py`).

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeSet, io::Read as _, path::Path};

use scumble_nn::{
    config::{UNetConfig, VaeConfig},
    files::{Dtype, HostTensor, SdxlNames, Tensors, sdxl_names::Components},
};
use serde_json::{Value, json};

/// (component, diffusers name, single-file name, shape in diffusers) as diffusers itself pairs
/// them: tests/golden/sdxl_names.py. A single-file name may end in the third of it that is meant
/// (`[0]`), or in `^T` where it is transposed.
fn golden() -> Vec<[String; 4]> {
    let mut text = String::new();
    let packed: &[u8] = include_bytes!("golden/sdxl_names.txt.gz");
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .map(|line| {
            line.split('\t')
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .try_into()
                .expect("four columns")
        })
        .collect()
}

fn names() -> SdxlNames {
    let unet: Value = json!({
        "block_out_channels": [320, 640, 1280], "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 2048,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
        "use_linear_projection": true
    });
    let vae: Value = json!({
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "scaling_factor": 0.13025,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
    });
    let place = Path::new("sdxl");
    SdxlNames::new(
        &UNetConfig::read(place, &unet).unwrap(),
        &VaeConfig::read(place, &vae).unwrap(),
        32,
    )
}

/// Every tensor of SDXL in small, its shape of the right rank, and no number twice.
fn small() -> Components {
    let mut components = Components::new();
    let mut next = 0u32;
    for [component, name, _, shape] in golden() {
        let component = ["text_encoder", "text_encoder_2", "unet", "vae"]
            .into_iter()
            .find(|c| *c == component)
            .unwrap();
        let rank = serde_json::from_str::<Vec<usize>>(&shape).unwrap().len();
        // Not square, so that a transpose shows; 1x1 as the autoencoder's attention may be stored.
        let shape = [2, 3, 1, 1][..rank].to_vec();
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|i| (next + i as u32) as f32)
            .collect();
        next += 6;
        components
            .entry(component)
            .or_default()
            .insert(name, HostTensor::from_f32(shape, &values));
    }
    components
}

#[test]
fn names_are_those_that_diffusers_pairs() {
    let new = small();
    let counts: Vec<_> = new
        .iter()
        .map(|(name, tensors)| (*name, tensors.len()))
        .collect();
    assert_eq!(
        counts,
        [
            ("text_encoder", 196),
            ("text_encoder_2", 517),
            ("unet", 1680),
            ("vae", 248)
        ]
    );
    let old = names().to_single("small", &new).unwrap();
    let mut seen = BTreeSet::new();
    for [component, name, single, _] in golden() {
        let tensor = &new[component.as_str()][&name];
        if let Some(key) = single.strip_suffix("^T") {
            assert_eq!(old[key].shape(), [3, 2]);
            let (a, b) = (old[key].to_f32().unwrap(), tensor.to_f32().unwrap());
            assert_eq!(a, [b[0], b[3], b[1], b[4], b[2], b[5]], "{name}");
            seen.insert(key.to_owned());
            continue;
        }
        let (key, third) = single
            .strip_suffix(']')
            .map_or((single.as_str(), None), |l| {
                let (key, part) = l.split_once('[').unwrap();
                (key, Some(part.parse::<usize>().unwrap()))
            });
        let rows = tensor.shape()[0];
        let found = third.map_or(old[key].clone(), |t| {
            old[key].rows(t * rows..(t + 1) * rows).unwrap()
        });
        assert_eq!(found.bytes(), tensor.bytes(), "{name} as {key}");
        seen.insert(key.to_owned());
    }
    assert_eq!(seen.len(), old.len());
}

#[test]
fn a_single_file_and_back() {
    let (names, new) = (names(), small());
    let mut old = names.to_single("small", &new).unwrap();
    for idle in [
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.logit_scale",
    ] {
        old.insert(idle.into(), HostTensor::from_f32([1], &[0.0]));
    }
    let back = names.from_single("small.safetensors", old).unwrap();
    assert_eq!(
        back.keys().collect::<Vec<_>>(),
        new.keys().collect::<Vec<_>>()
    );
    for (component, tensors) in &new {
        assert_eq!(back[component].len(), tensors.len());
        for (name, tensor) in tensors {
            let found = &back[component][name];
            assert_eq!(
                (found.shape(), found.bytes()),
                (tensor.shape(), tensor.bytes()),
                "{component} {name}"
            );
        }
    }
}

#[test]
fn what_has_no_place_is_listed() {
    let (names, new) = (names(), small());
    let mut old = names.to_single("small", &new).unwrap();
    let strange = [
        "model.diffusion_model.input_blocks.1.1.norm.weight", // no transformer in the first level
        "model.diffusion_model.label_emb.1.0.weight",
        "model.diffusion_model.output_blocks.9.0.op.weight",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
        "conditioner.embedders.2.weight",
        "conditioner.embedders.1.model.transformer.resblocks.33.ln_1.weight",
        "conditioner.embedders.1.model.visual.proj",
    ];
    for name in strange {
        old.insert(name.into(), HostTensor::from_f32([1], &[0.0]));
    }
    old.insert(
        "conditioner.embedders.1.model.transformer.resblocks.32.ln_1.weight".into(),
        HostTensor::from_f32([1], &[0.0]),
    );
    old.insert(
        "conditioner.embedders.1.model.text_projection".into(),
        HostTensor::from_f32([1], &[0.0]),
    );
    let error = names
        .from_single("odd.safetensors", old)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("odd.safetensors: "), "{error}");
    for name in strange.into_iter().chain([
        "1 tensors of conditioner.embedders.1.model.transformer.resblocks.32",
        "expected a matrix, found [1]",
    ]) {
        assert!(error.contains(name), "{name}: {error}");
    }

    for (component, name) in [
        ("unet", "class_embedding.weight"),
        ("vae", "encoder.down_blocks.9.x"),
        ("text_encoder_2", "visual.proj"),
    ] {
        let mut more = new.clone();
        more.get_mut(component)
            .unwrap()
            .insert(name.into(), HostTensor::from_f32([1], &[0.0]));
        let error = names.to_single("odd", &more).unwrap_err().to_string();
        assert!(
            error.contains(&format!("no place in a single file: {component} {name}")),
            "{error}"
        );
    }
}

#[test]
fn a_projection_is_transposed_in_its_own_dtype() {
    const KEY: &str = "conditioner.embedders.1.model.text_projection";
    let matrix = HostTensor::from_f32([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let with = |tensor: HostTensor| {
        Components::from([(
            "text_encoder_2",
            Tensors::from([("text_projection.weight".to_owned(), tensor)]),
        )])
    };
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let old = names()
            .to_single("small", &with(matrix.cast(dtype).unwrap()))
            .unwrap();
        assert_eq!((old[KEY].dtype(), old[KEY].shape()), (dtype, &[3, 2][..]));
        assert_eq!(old[KEY].to_f32().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
    let error = names()
        .to_single("small", &with(HostTensor::from_f32([6], &[0.0; 6])))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no place in a single file: text_encoder_2 text_projection.weight [6]"),
        "{error}"
    );
}
