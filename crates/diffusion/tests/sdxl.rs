//! SDXL as a whole against diffusers: `golden/sdxl`, which `bench/golden/sdxl_tiny.py` makes.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{ops::ControlFlow, path::Path};

use burn::tensor::{Device, Tensor};
use scumble_diffusion::{Noise, Request, Sampler};
use scumble_families as families;
use scumble_nn::files::{Checkpoint, OpenOptions, TensorFile, Tensors};
use serde_json::json;

const PROMPT: &str = "a church in ink style";

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sdxl")
}

fn checkpoint() -> Checkpoint {
    Checkpoint::open(folder().join("model"), &OpenOptions::default()).unwrap()
}

fn references() -> Tensors {
    TensorFile::open(folder().join("reference.safetensors"))
        .unwrap()
        .tensors
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// The largest difference, as a share of the largest number.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn prompts_pass_both_text_encoders_as_in_diffusers() {
    let model = families::load(&checkpoint(), &Device::flex()).unwrap();
    let references = references();
    let found = model.encode(&[PROMPT.to_owned()]);
    let expected = |name: &str| references[name].to_f32().unwrap();
    assert!(apart(&host(found.tokens), &expected("tokens")) < 1e-5);
    assert!(apart(&host(found.pooled.unwrap()), &expected("pooled")) < 1e-5);
    // The empty prompt is zeros, alone and among others.
    let both = model.encode(&[PROMPT.to_owned(), String::new()]);
    assert_eq!(both.len(), 2);
    let empty = both.narrow(1, 1);
    assert!(host(empty.tokens).iter().all(|&x| x == 0.0));
    assert!(host(empty.pooled.unwrap()).iter().all(|&x| x == 0.0));
    assert!(apart(&host(both.narrow(0, 1).tokens), &expected("tokens")) < 1e-5);
}

/// diffusers' pipeline of SDXL takes zeros where the index says nothing.
#[test]
fn the_empty_prompt_is_zeros_unless_the_index_says_otherwise() {
    for (said, zeros) in [(None, true), (Some(true), true), (Some(false), false)] {
        let mut checkpoint = checkpoint();
        let index = checkpoint.model_index.as_object_mut().unwrap();
        index.remove("force_zeros_for_empty_prompt");
        index.extend(said.map(|said| ("force_zeros_for_empty_prompt".to_owned(), json!(said))));
        let model = families::load(&checkpoint, &Device::flex()).unwrap();
        let read = model.reading_empty_prompts().encode(&[String::new()]);
        assert!(host(read.tokens).iter().any(|&x| x != 0.0));
        let empty = host(model.encode(&[String::new()]).tokens);
        assert_eq!(empty.iter().all(|&x| x == 0.0), zeros, "{said:?}");
    }
}

/// The drawings of the script: what is asked for, and the scheduler's options that differ.
#[test]
fn pictures_are_those_of_diffusers() {
    let references = references();
    let ask = |sampler: Sampler, guidance: f64| Request {
        noise: Noise::seeds(&[7]),
        sampler: Some(sampler),
        ..Request::new(vec![PROMPT.to_owned()], 7, 5, guidance)
    };
    let trailing = json!({"timestep_spacing": "trailing"});
    let zero_snr = json!({"timestep_spacing": "trailing", "prediction_type": "v_prediction", "rescale_betas_zero_snr": true});
    let negative = Request {
        negative_prompt: "a dog".into(),
        ..ask(Sampler::Ddim, 4.0)
    };
    let tall = Request {
        height: Some(24),
        width: Some(16),
        ..ask(Sampler::UniPc, 5.0)
    };
    let sized = Some(([40, 24], [3, 5]));
    for (name, request, changes, size) in [
        ("plain", ask(Sampler::Euler, 5.0), json!({}), None),
        ("negative", negative, json!({}), None),
        ("sized", ask(Sampler::DpmPp2m, 3.0), json!({}), sized),
        (
            "unguided",
            ask(Sampler::EulerAncestral, 0.0),
            trailing,
            None,
        ),
        ("tall", tall, json!({}), None),
        ("v", ask(Sampler::Euler, 3.0), zero_snr, None),
    ] {
        let mut checkpoint = checkpoint();
        let config = checkpoint.scheduler.as_object_mut().unwrap();
        config.extend(changes.as_object().unwrap().clone());
        let mut model = families::load(&checkpoint, &Device::flex()).unwrap();
        if let Some((original, crop)) = size {
            model.set_size_condition(Some(original), crop).unwrap();
        }
        let latents = model
            .sample(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        let expected = |what: &str| references[&format!("{name}.{what}")].to_f32().unwrap();
        let picture = host(model.decode(latents.clone()));
        let found = apart(&host(latents), &expected("latents"));
        assert!(found < 1e-4, "{name}: latents are {found} apart");
        // Pictures go from -1 to 1 and are cut off there.
        let cut = |x: Vec<f32>| -> Vec<f32> { x.iter().map(|x| x.clamp(-1.0, 1.0)).collect() };
        let found = apart(&cut(picture), &cut(expected("picture")));
        assert!(found < 2.0 / 255.0, "{name}: pictures are {found} apart");
    }
}

#[test]
fn a_size_condition_is_for_models_that_take_one() {
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/golden/networks/odd/model");
    let small = Checkpoint::open(small, &OpenOptions::default()).unwrap();
    let mut small = families::load(&small, &Device::flex()).unwrap();
    let error = small.set_size_condition(None, [1, 2]).unwrap_err();
    assert!(
        error.hint().unwrap().contains("--size-condition"),
        "{error}"
    );
}

/// A word in both encoders: what it does is what its vectors do.
#[test]
fn a_learned_word_has_a_vector_in_each_encoder() {
    let mut model = families::load(&checkpoint(), &Device::flex()).unwrap();
    let dog = model.tokenizer.tokens("dog");
    let vector = host(model.text_network().vectors(&dog));
    assert_eq!(vector.len(), model.token_width());
    let expected = model.encode(&["a dog".to_owned()]);
    assert!(model.add_word("zzz", &[vector[..12].to_vec()]).is_err());
    model.add_word("zzz", &[vector]).unwrap();
    let found = model.encode(&["a zzz".to_owned()]);
    assert_eq!(host(found.tokens), host(expected.tokens));
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let refused = |change: &dyn Fn(&mut Checkpoint), what: &str| {
        let mut broken = checkpoint();
        change(&mut broken);
        let error = families::load(&broken, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
    };
    refused(
        &|c| drop(c.components.remove("text_encoder_2")),
        "there is no text_encoder_2",
    );
    refused(
        &|c| c.components.get_mut("unet").unwrap().config["addition_time_embed_dim"] = json!(6),
        "projection_class_embeddings_input_dim",
    );
    refused(
        &|c| {
            let files = &mut c.tokenizers.get_mut("tokenizer_2").unwrap().files;
            let words = br#"{"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}"#;
            files.insert(
                "vocab.json".into(),
                scumble_nn::files::Bytes::Owned(words.to_vec().into()),
            );
            files.insert(
                "merges.txt".into(),
                scumble_nn::files::Bytes::Owned(b"#version: 0.2\n".to_vec().into()),
            );
        },
        "tokenizer",
    );
}
