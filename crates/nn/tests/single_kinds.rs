//! Single files of other programs and of other models: what is read, and under which name the rest
//! is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, path::Path};

use common::{copy_folder, miniature, miniature_path};
use scumble_nn::files::{
    Checkpoint, HostTensor, Kind, OpenOptions, Precision, TensorFile, Tensors, identify, write,
    write_folder, write_single,
};
use serde_json::json;

fn open(path: &Path) -> Result<Checkpoint, scumble_nn::Error> {
    Checkpoint::open(
        path,
        &OpenOptions {
            config: Some(miniature_path()),
            ..OpenOptions::default()
        },
    )
}

/// The miniature's tensors in the LDM layout, and the path that a changed copy goes to.
fn single(folder: &Path) -> (std::path::PathBuf, Tensors) {
    let path = folder.join("model.safetensors");
    write_single(&miniature(), &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let tensors = TensorFile::open(&path).unwrap().tensors;
    (path, tensors)
}

/// ComfyUI marks v models and schedules without signal at their end by empty tensors.
#[test]
fn comfyuis_marks_say_what_the_model_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut tensors) = single(folder.path());
    // With the configurations of a folder they are marks and nothing more: the folder says it.
    tensors.insert("v_pred".into(), HostTensor::from_f32([0], &[]));
    write(&path, tensors.clone(), &BTreeMap::new()).unwrap();
    let model = open(&path).unwrap();
    assert_eq!(model.hash(), miniature().hash());
    tensors.insert("ztsnr".into(), HostTensor::from_f32([0], &[]));
    write(&path, tensors, &BTreeMap::new()).unwrap();
    let model = open(&path).unwrap();
    assert_eq!(model.scheduler["rescale_betas_zero_snr"], true);
    assert!(
        model.notes.iter().any(|note| note.contains("ztsnr")),
        "{:?}",
        model.notes
    );
}

/// Stability's later layout, in which SD-Turbo is published: the text encoder is the first of the
/// conditioner's embedders.
#[test]
fn the_layout_of_sgm_is_read_and_sdxl_told_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, tensors) = single(folder.path());
    let moved = |name: &str| name.replace("cond_stage_model.", "conditioner.embedders.0.");
    let sgm: Tensors = tensors
        .iter()
        .map(|(name, t)| (moved(name), t.clone()))
        .collect();
    write(&path, sgm.clone(), &BTreeMap::new()).unwrap();
    assert!(matches!(identify(&path).unwrap().kind, Kind::SingleFile(_)));
    assert_eq!(open(&path).unwrap().hash(), miniature().hash());
    let parts: Vec<String> = identify(&path)
        .unwrap()
        .parts
        .into_iter()
        .map(|part| part.name)
        .collect();
    assert_eq!(parts, ["unet", "vae", "text_encoder"]);
    for other in [
        "conditioner.embedders.1.model.token_embedding.weight",
        "model.diffusion_model.label_emb.0.0.weight",
    ] {
        let mut sdxl = sgm.clone();
        sdxl.insert(other.into(), HostTensor::from_f32([1], &[0.0]));
        write(&path, sdxl, &BTreeMap::new()).unwrap();
        assert!(
            open(&path).unwrap_err().to_string().contains("SDXL"),
            "{other}"
        );
    }
    let mut both = tensors;
    both.extend(
        sgm.into_iter()
            .filter(|(name, _)| name.starts_with("conditioner.")),
    );
    write(&path, both, &BTreeMap::new()).unwrap();
    assert!(
        open(&path)
            .unwrap_err()
            .to_string()
            .contains("there twice: conditioner.embedders.0.transformer.")
    );
}

#[test]
fn a_unet_of_other_channels_is_called_by_its_task() {
    let folder = tempfile::tempdir().unwrap();
    let (path, tensors) = single(folder.path());
    let key = "model.diffusion_model.input_blocks.0.0.weight";
    for (channels, name) in [
        (9, "an inpainting model"),
        (8, "InstructPix2Pix"),
        (5, "a depth model"),
        (7, "an upscaler"),
        (6, "6 channels"),
    ] {
        let mut other = tensors.clone();
        other.insert(
            key.into(),
            HostTensor::from_f32([96, channels, 3, 3], &vec![0.0; 96 * channels * 9]),
        );
        write(&path, other, &BTreeMap::new()).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("not supported"),
            "{channels}: {error}"
        );
    }
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&miniature_path(), copy.path());
    let config = copy.path().join("unet/config.json");
    let text = fs_err::read_to_string(&config)
        .unwrap()
        .replace("\"in_channels\": 4", "\"in_channels\": 9");
    fs_err::write(&config, text).unwrap();
    let error = Checkpoint::open(copy.path(), &OpenOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("an inpainting model"), "{error}");
}

#[test]
fn half_a_checkpoint_is_told_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, tensors) = single(folder.path());
    let only = |prefix: &str| -> Tensors {
        tensors
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, t)| (name.clone(), t.clone()))
            .collect()
    };
    write(&path, only("model.diffusion_model."), &BTreeMap::new()).unwrap();
    assert_eq!(identify(&path).unwrap().kind, Kind::LdmUNet);
    let error = open(&path).unwrap_err();
    assert!(
        error.to_string().contains("a U-Net alone") && error.hint().unwrap().contains("--edit"),
        "{error}"
    );
    let ema = only("model.diffusion_model.").into_iter();
    let ema = ema.map(|(name, t)| {
        (
            format!("model_ema.{}", name.replace("model.", "").replace('.', "")),
            t,
        )
    });
    write(&path, ema, &BTreeMap::new()).unwrap();
    let error = open(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("EMA copies only (286 of 286 tensors"),
        "{error}"
    );
    let two = only("model.diffusion_model.")
        .into_iter()
        .chain(only("cond_stage_model."));
    write(&path, two, &BTreeMap::new()).unwrap();
    assert!(
        open(&path)
            .unwrap_err()
            .to_string()
            .contains("found no autoencoder")
    );
}

/// Merges carry the learned words of textual inversion's own code along. Nothing is skipped that is
/// not known to carry no weight, so the file is refused, with what to do.
#[test]
fn words_left_in_a_checkpoint_are_said_to_be_words() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut tensors) = single(folder.path());
    for (key, width) in [
        ("string_to_param_dict.*", 128),
        ("initial_embeddings.*", 128),
    ] {
        let vector = HostTensor::from_f32([1, width], &vec![0.5; width]);
        tensors.insert(format!("embedding_manager.{key}"), vector);
    }
    write(&path, tensors, &BTreeMap::new()).unwrap();
    let error = open(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("left over: embedding_manager.string_to_param_dict.* [1, 128]"),
        "{error}"
    );
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("textual inversion") && hint.contains("--embedding"),
        "{hint}"
    );
}

/// The variants of a folder's weights have a flag of their own; `--variant` is a method's.
#[test]
fn two_variants_are_chosen_with_the_flag_that_exists() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&miniature_path(), folder.path());
    let unet = folder.path().join("unet");
    let file = unet.join("diffusion_pytorch_model.safetensors");
    fs_err::copy(&file, unet.join("diffusion_pytorch_model.fp16.safetensors")).unwrap();
    fs_err::rename(
        &file,
        unet.join("diffusion_pytorch_model.non_ema.safetensors"),
    )
    .unwrap();
    let error = Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap_err();
    assert!(error.hint().unwrap().contains("--variant-files"), "{error}");
}

#[test]
fn numbers_that_are_none_are_found_while_a_model_is_hashed() {
    let mut model = miniature();
    assert_eq!(model.checked_hash().unwrap(), model.hash());
    let name = "conv_out.weight";
    let old = model.components["unet"].tensors[name].clone();
    let mut values = old.to_f32().unwrap();
    (values[7], values[9]) = (f32::NAN, f32::INFINITY);
    model
        .component_mut("unet")
        .unwrap()
        .tensors
        .insert(name.into(), HostTensor::from_f32(old.shape(), &values));
    let error = model.checked_hash().unwrap_err().to_string();
    let count = values.len();
    assert!(
        error.contains(&format!("not finite: unet {name}: 2 of {count} numbers are NaN or infinite, the first at [0, 0, 2, 1]")),
        "{error}"
    );
}

#[test]
fn what_f16_cannot_hold_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = miniature();
    let name = "conv_out.bias";
    let mut values = model.components["unet"].tensors[name].to_f32().unwrap();
    values[1] = 70000.0;
    model
        .component_mut("unet")
        .unwrap()
        .tensors
        .insert(name.into(), HostTensor::from_f32([values.len()], &values));
    for (precision, fine) in [
        (Precision::F16, false),
        (Precision::BF16, true),
        (Precision::Keep, true),
    ] {
        let (file, out) = (
            folder.path().join("x.safetensors"),
            folder.path().join("out"),
        );
        for answer in [
            write_single(&model, &file, precision, &BTreeMap::new()),
            write_folder(&model, &out, precision, None),
        ] {
            match answer {
                Ok(()) => assert!(fine, "{precision:?}"),
                Err(error) => {
                    assert!(
                        !fine
                            && error
                                .to_string()
                                .contains("beyond what F16 can hold: 1 of 4"),
                        "{error}"
                    );
                    assert!(
                        error.to_string().contains("bias")
                            && error.hint().unwrap().contains("bf16"),
                        "{error}"
                    );
                }
            }
        }
        assert_eq!(
            (file.exists(), out.exists()),
            (fine, fine),
            "nothing is left of what failed"
        );
        let _ = (fs_err::remove_file(&file), fs_err::remove_dir_all(&out));
    }
}

/// diffusers writes `-Infinity` with every DPM-Solver, which is Python's JSON and no other's.
#[test]
fn pythons_infinity_goes_through_a_folder_and_back() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&miniature_path(), &folder.path().join("in"));
    let config = folder.path().join("in/scheduler/scheduler_config.json");
    let text = fs_err::read_to_string(&config).unwrap().replacen(
        '{',
        "{\n  \"lambda_min_clipped\": -Infinity,",
        1,
    );
    fs_err::write(&config, text).unwrap();
    let model = Checkpoint::open(folder.path().join("in"), &OpenOptions::default()).unwrap();
    assert_eq!(model.scheduler["lambda_min_clipped"], json!("-Infinity"));
    write_folder(&model, &folder.path().join("out"), Precision::Keep, None).unwrap();
    let text =
        fs_err::read_to_string(folder.path().join("out/scheduler/scheduler_config.json")).unwrap();
    assert!(text.contains("\"lambda_min_clipped\": -Infinity"), "{text}");
    let again = Checkpoint::open(folder.path().join("out"), &OpenOptions::default()).unwrap();
    assert_eq!(
        (again.scheduler.clone(), again.hash()),
        (model.scheduler.clone(), model.hash())
    );
    let path = folder.path().join("x.safetensors");
    write_single(&model, &path, Precision::Keep, &BTreeMap::new()).unwrap();
    assert_eq!(
        Checkpoint::open(&path, &OpenOptions::default())
            .unwrap()
            .hash(),
        model.hash()
    );
}
