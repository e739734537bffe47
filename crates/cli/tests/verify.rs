//! `scumble verify` on models whose numbers were computed by diffusers and transformers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{collections::BTreeMap, path::Path};

use scumble_nn::files::{HostTensor, TensorFile, Tensors, write};
use support::{Ended, folder, golden, root, scumble};

fn verify(folder: &Path, model: Option<&Path>, reference: &Path, words: &[&str]) -> Ended {
    let mut args: Vec<String> = vec![
        "verify".into(),
        "--reference".into(),
        reference.display().to_string(),
    ];
    args.extend(model.map(|m| m.display().to_string()));
    args.extend(words.iter().map(|w| (*w).to_owned()));
    scumble(folder, args)
}

#[test]
fn every_tensor_agrees_with_python() {
    let here = folder();
    let mut cases = vec![(None, root().join("models/emoji-sd.reference.safetensors"))];
    cases.extend(["sd1", "sd2", "odd"].map(|name| {
        (
            Some(golden(name).join("model")),
            golden(name).join("reference.safetensors"),
        )
    }));
    for (model, reference) in cases {
        let found = verify(here.path(), model.as_deref(), &reference, &["--json"]).json();
        assert_eq!(found["passed"], true);
        let keys: Vec<&str> = found["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["key"].as_str().unwrap())
            .collect();
        assert_eq!(
            keys,
            [
                "text_hidden",
                "unet_out",
                "vae_latents",
                "vae_decoded",
                "ddim_latents",
                "ddim_image"
            ]
        );
        for tensor in found["tensors"].as_array().unwrap() {
            let (absolute, relative) = (
                tensor["max_abs"].as_f64().unwrap(),
                tensor["max_rel"].as_f64().unwrap(),
            );
            assert!(absolute > 0.0 && relative < 3e-5, "{reference:?}: {tensor}");
        }
    }
}

#[test]
fn a_changed_weight_is_noticed() {
    let here = folder();
    let model = here.path().join("model");
    support::copy(&golden("odd").join("model"), &model);
    let file = model.join("unet/diffusion_pytorch_model.safetensors");
    let mut tensors = TensorFile::open(&file).unwrap().tensors;
    let (name, old) = tensors
        .iter()
        .find(|(name, _)| name.ends_with("attn2.to_k.weight"))
        .unwrap();
    let (name, mut values) = (name.clone(), old.to_f32().unwrap());
    values[0] += 0.5;
    let new = HostTensor::from_f32(old.shape(), &values);
    tensors.insert(name, new);
    write(&file, tensors, &BTreeMap::new()).unwrap();

    let reference = golden("odd").join("reference.safetensors");
    let found = verify(here.path(), Some(&model), &reference, &[]);
    assert_eq!(found.status, Some(1), "{found:?}");
    let verdict = |key: &str| {
        found
            .stdout
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap()
            .to_owned()
    };
    assert!(
        verdict("unet_out").ends_with("TOO FAR") && verdict("ddim_image").ends_with("TOO FAR"),
        "{found:?}"
    );
    assert!(
        verdict("text_hidden").ends_with("ok") && verdict("vae_decoded").ends_with("ok"),
        "{found:?}"
    );
    // The same through --model, and a tolerance that lets it pass.
    let flag = format!("--model={}", model.display());
    assert_eq!(
        verify(here.path(), None, &reference, &[&flag, "--json"]).status,
        Some(1)
    );
    assert_eq!(
        verify(
            here.path(),
            None,
            &reference,
            &[&flag, "--tolerance", "100"]
        )
        .status,
        Some(0)
    );
}

/// A reference file with some tensors of the golden one, some of them changed.
fn altered(
    path: &Path,
    keys: &[&str],
    change: impl Fn(&mut Tensors, &mut BTreeMap<String, String>),
) {
    let file = TensorFile::open(golden("odd").join("reference.safetensors")).unwrap();
    let mut metadata = file.metadata;
    let mut tensors: Tensors = file
        .tensors
        .into_iter()
        .filter(|(name, _)| keys.contains(&name.as_str()))
        .collect();
    change(&mut tensors, &mut metadata);
    write(path, tensors, &metadata).unwrap();
}

#[test]
fn subsets_are_verified_and_the_rest_is_said() {
    let here = folder();
    let (path, model) = (
        here.path().join("r.safetensors"),
        golden("odd").join("model"),
    );
    altered(
        &path,
        &["vae_latents", "vae_decoded", "unet_out"],
        |tensors, _| {
            tensors.insert("logit_scale".into(), HostTensor::from_f32([1], &[1.0]));
        },
    );
    let found = verify(here.path(), Some(&model), &path, &["--json"]).json();
    let keys: Vec<&str> = found["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["vae_decoded"]);
    assert_eq!(
        (&found["others"][0], &found["skipped"][0]["key"]),
        (&"logit_scale".into(), &"unet_out".into())
    );
    assert!(
        verify(here.path(), Some(&model), &path, &[])
            .done()
            .stdout
            .contains("other keys: logit_scale")
    );

    // A number that is none is no agreement.
    altered(&path, &["vae_latents", "vae_decoded"], |tensors, _| {
        let mut values = tensors["vae_decoded"].to_f32().unwrap();
        values[7] = f32::NAN;
        let tensor = HostTensor::from_f32(tensors["vae_decoded"].shape(), &values);
        tensors.insert("vae_decoded".into(), tensor);
    });
    assert_eq!(
        verify(here.path(), Some(&model), &path, &[]).status,
        Some(1)
    );
}

#[test]
fn references_that_do_not_fit_are_refused() {
    let here = folder();
    let (path, model) = (
        here.path().join("r.safetensors"),
        golden("odd").join("model"),
    );
    let refused =
        |words: &[&str]| drop(verify(here.path(), Some(&model), &path, &[]).refused(words));
    let text = ["input_ids", "text_hidden"];
    let ids = |tensors: &mut Tensors, id: i64| {
        let mut ids = tensors["input_ids"].to_i64().unwrap();
        ids[3] = id;
        let shape = tensors["input_ids"].shape().to_vec();
        tensors.insert("input_ids".into(), HostTensor::from_i64(shape, &ids));
    };
    altered(&path, &text, |tensors, _| ids(tensors, 1 << 40));
    refused(&["input_ids", "no token"]);
    altered(&path, &text, |tensors, _| ids(tensors, -1));
    refused(&["input_ids", "-1"]);
    altered(&path, &text, |tensors, _| {
        drop(tensors.insert("input_ids".into(), HostTensor::from_f32([0, 7], &[])))
    });
    refused(&["input_ids"]);
    altered(&path, &["ddim_init", "ddim_latents"], |_, metadata| {
        drop(metadata.insert("steps".into(), "many".into()))
    });
    refused(&["steps", "many"]);
    altered(&path, &["ddim_init", "ddim_latents"], |_, metadata| {
        drop(metadata.insert("steps".into(), "5000".into()))
    });
    refused(&["5000"]);
    altered(&path, &["vae_latents", "vae_decoded"], |tensors, _| {
        tensors.insert(
            "vae_decoded".into(),
            HostTensor::from_f32([1, 3, 1, 1], &[0.0; 3]),
        );
    });
    refused(&["vae_decoded", "expected shape"]);
    altered(
        &path,
        &["unet_sample", "unet_timestep", "unet_context", "unet_out"],
        |tensors, _| {
            tensors.insert(
                "unet_timestep".into(),
                HostTensor::from_f32([2], &[f32::NAN, 1.0]),
            );
        },
    );
    refused(&["unet_timestep"]);
    altered(&path, &["unet_sample"], |_, _| {});
    refused(&["nothing to compare"]);
    altered(&path, &[], |tensors, _| {
        drop(tensors.insert("a".into(), HostTensor::from_f32([1], &[1.0])))
    });
    refused(&["holds none of the reference tensors", "unet_out"]);
    let whole = fs_err::read(golden("odd").join("reference.safetensors")).unwrap();
    fs_err::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused(&["r.safetensors"]);
    fs_err::write(&path, "not one").unwrap();
    refused(&["r.safetensors"]);
    // Another model's reference.
    verify(
        here.path(),
        None,
        &golden("odd").join("reference.safetensors"),
        &[],
    )
    .refused(&["text_hidden"]);
    for tolerance in ["nan", "-1"] {
        verify(here.path(), None, &path, &["--tolerance", tolerance]).refused(&["--tolerance"]);
    }
    verify(here.path(), Some(&model), &path, &["--model", "elsewhere"]).refused(&["twice"]);
}
