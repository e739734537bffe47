//! Single files in the LDM layout: round trips, the published families by their shapes, and what
//! must be refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, io::Read as _, path::Path};

use common::{assert_same, miniature, miniature_path};
use scumble_nn::files::{
    Checkpoint, Dtype, Family, HostTensor, Kind, OpenOptions, Pad, Precision, Prediction,
    TensorFile, Tensors, TokenizerFiles, identify, write, write_folder, write_single,
};
use serde_json::json;

fn open(path: &Path) -> Result<Checkpoint, String> {
    Checkpoint::open(path, &OpenOptions::default()).map_err(|e| e.to_string())
}

#[test]
fn the_miniature_goes_through_a_single_file_and_back() {
    let model = miniature();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("emoji.safetensors");
    write_single(
        &model,
        &path,
        Precision::Keep,
        &BTreeMap::from([("licence".into(), "MIT".into())]),
    )
    .unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata["licence"], "MIT");
    assert_eq!(file.tensors.len(), 286 + 156 + 68);
    assert_eq!(
        file.tensors["first_stage_model.decoder.mid.attn_1.q.weight"].shape(),
        [96, 96, 1, 1]
    );
    // Each name of the U-Net once: two levels of one layer, attention everywhere.
    for key in [
        "input_blocks.2.0.op.bias",
        "input_blocks.3.1.norm.bias",
        "output_blocks.1.2.conv.bias",
        "output_blocks.3.1.norm.bias",
    ] {
        assert!(
            file.tensors
                .contains_key(&format!("model.diffusion_model.{key}")),
            "{key}"
        );
    }

    let again = open(&path).unwrap();
    for part in model.component_names() {
        assert_same(
            &model.component(part).unwrap().tensors,
            &again.component(part).unwrap().tensors,
        );
    }
    assert_eq!(again.hash(), model.hash());
    assert_eq!(
        again.tokenizers["tokenizer"].get("vocab.json"),
        model.tokenizers["tokenizer"].get("vocab.json")
    );
    let identity = identify(&path).unwrap();
    assert_eq!(identity.kind, Kind::SingleFile(Family::Custom));
    assert_eq!(
        identity
            .parts
            .iter()
            .map(|p| (p.name.as_str(), p.tensors))
            .collect::<Vec<_>>(),
        [("unet", 286), ("vae", 156), ("text_encoder", 68)]
    );
    // And out into a folder again.
    let out = folder.path().join("out");
    write_folder(&again, &out, Precision::Keep, None).unwrap();
    assert_eq!(open(&out).unwrap().hash(), model.hash());

    // Without our metadata its sizes are nobody's, and a folder must say them.
    write(&path, file.tensors.clone(), &BTreeMap::new()).unwrap();
    let error = Checkpoint::open(&path, &OpenOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("neither that of SD 1.x")
            && error.hint().unwrap().contains("--config"),
        "{error}"
    );
    let options = OpenOptions {
        config: Some(miniature_path()),
        ..OpenOptions::default()
    };
    assert_eq!(
        Checkpoint::open(&path, &options).unwrap().hash(),
        model.hash()
    );
}

/// Small models in the shapes of SD 1.x and 2.x: levels without attention, linear projections, four
/// levels.
#[test]
fn other_shapes_go_through_a_single_file_and_back() {
    let target = tempfile::tempdir().unwrap();
    for name in ["sd1", "sd2"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/networks")
            .join(name)
            .join("model");
        let model = open(&folder).unwrap();
        let path = target.path().join(format!("{name}.safetensors"));
        write_single(&model, &path, Precision::Keep, &BTreeMap::new()).unwrap();
        let again = open(&path).unwrap();
        for part in model.component_names() {
            assert_same(
                &model.component(part).unwrap().tensors,
                &again.component(part).unwrap().tensors,
            );
        }
        assert_eq!(again.hash(), model.hash(), "{name}");
    }
}

#[test]
fn idle_keys_are_counted_and_unknown_ones_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write_single(&miniature(), &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let TensorFile {
        mut tensors,
        metadata,
        ..
    } = TensorFile::open(&path).unwrap();
    let one = HostTensor::from_f32([1], &[0.0]);
    for idle in [
        "model_ema.diffusion_modelinput_blocks00weight",
        "betas",
        "alphas_cumprod_prev",
        "sqrt_recipm1_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "posterior_mean_coef2",
        "logvar",
        "lvlb_weights",
        "first_stage_model.loss.logvar",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "cond_stage_model.logit_scale",
    ] {
        tensors.insert(idle.into(), one.clone());
    }
    write(&path, tensors.clone(), &metadata).unwrap();
    let model = open(&path).unwrap();
    assert!(
        model.notes[0].starts_with("11 tensor(s) known to carry no weight"),
        "{:?}",
        model.notes
    );
    assert_eq!(model.hash(), miniature().hash());

    for (key, family) in [
        ("conditioner.embedders.0.x", "other conditions than text"),
        ("model.diffusion_model.double_blocks.0.x", "Flux"),
    ] {
        let mut tensors = tensors.clone();
        tensors.insert(key.into(), one.clone());
        write(&path, tensors, &metadata).unwrap();
        assert!(open(&path).unwrap_err().contains(family), "{key}");
    }
    let strange = [
        "model.diffusion_model.input_blocks.9.0.op.weight",
        "first_stage_model.quant.weight",
        "strange",
        "cond_stage_model.x",
    ];
    for key in strange {
        tensors.insert(key.into(), one.clone());
    }
    write(&path, tensors.clone(), &metadata).unwrap();
    let error = open(&path).unwrap_err();
    for key in strange {
        assert!(
            error.contains(&format!("left over: {key}")),
            "{key} in {error}"
        );
    }
    tensors.retain(|key, _| !key.starts_with("cond_stage_model."));
    write(&path, tensors, &metadata).unwrap();
    assert!(
        open(&path)
            .unwrap_err()
            .contains("expected one text encoder")
    );
}

#[test]
fn metadata_that_is_no_configuration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write_single(&miniature(), &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    for bad in [
        "",
        "[]",
        "{",
        "{}",
        r#"{"block_out_channels": [0]}"#,
        &"[".repeat(100_000),
    ] {
        let mut metadata = file.metadata.clone();
        metadata.insert("scumble.unet_config".into(), bad.into());
        write(&path, file.tensors.clone(), &metadata).unwrap();
        open(&path).unwrap_err();
    }
    let mut metadata = file.metadata.clone();
    metadata.remove("scumble.vae_config");
    write(&path, file.tensors, &metadata).unwrap();
    assert!(open(&path).unwrap_err().contains("scumble.vae_config"));
}

/// A folder made from a file without a vocabulary gets CLIP's, and it is read back as that.
#[test]
fn a_folder_is_given_clips_vocabulary_where_the_checkpoint_brings_none() {
    use scumble_nn::tokenizer::{Tokenizer, TokenizerData};
    let target = tempfile::tempdir().unwrap();
    let mut model = miniature();
    for (pad, pads) in [(Pad::EndOfText, 49407), (Pad::Zero, 0)] {
        let tokenizer = TokenizerFiles {
            pad,
            ..TokenizerFiles::default()
        };
        model.tokenizers.insert("tokenizer".into(), tokenizer);
        let out = target.path().join(pads.to_string());
        write_folder(&model, &out, Precision::Keep, None).unwrap();
        let again = open(&out).unwrap();
        assert!(again.tokenizers["tokenizer"].is_clip());
        assert_eq!(again.hash(), model.hash());
        let data = TokenizerData {
            vocab_json: again.tokenizers["tokenizer"].get("vocab.json"),
            merges: again.tokenizers["tokenizer"].get("merges.txt"),
            tokenizer_config: again.tokenizers["tokenizer"].get("tokenizer_config.json"),
            special_tokens_map: again.tokenizers["tokenizer"].get("special_tokens_map.json"),
            ..TokenizerData::default()
        };
        let ids = Tokenizer::new(&out, &data, 9)
            .unwrap()
            .encode("a photo of a cat")
            .ids;
        // CLIPTokenizer of openai/clip-vit-large-patch14.
        assert_eq!(ids, [49406, 320, 1125, 539, 320, 2368, 49407, pads, pads]);
    }
    // A vocabulary that is CLIP's is left out of a single file, any other is put in.
    let path = target.path().join("x.safetensors");
    let model = open(&target.path().join("0")).unwrap();
    write_single(&model, &path, Precision::Keep, &BTreeMap::new()).unwrap();
    assert!(
        !TensorFile::open(&path)
            .unwrap()
            .metadata
            .keys()
            .any(|key| key.contains("tokenizer"))
    );
}

/// A file with these f16 tensors whose numbers are a hole: gigabytes long, without taking any room.
fn sparse(path: &Path, tensors: &BTreeMap<String, Vec<usize>>) {
    sparse_with(path, tensors, &BTreeMap::new());
}

fn sparse_with(
    path: &Path,
    tensors: &BTreeMap<String, Vec<usize>>,
    metadata: &BTreeMap<&str, &str>,
) {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut end = 0usize;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let bytes = common::raw(&serde_json::Value::Object(header).to_string(), &[]);
    fs_err::write(path, &bytes).unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((bytes.len() + end) as u64).unwrap();
}

/// The tensors of a published family under its LDM names, from golden/ldm_names.py.
fn published(model: &str) -> BTreeMap<String, Vec<usize>> {
    let mut text = String::new();
    let packed: &[u8] = include_bytes!("golden/ldm_names.txt.gz");
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let [m, component, _, old, shape] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("five columns")
        };
        let mut shape: Vec<usize> = serde_json::from_str(shape).unwrap();
        let name = match component {
            "unet" if m == model => format!("model.diffusion_model.{old}"),
            "vae" => {
                if old.contains("attn_1") && shape.len() == 2 {
                    shape.extend([1, 1]);
                }
                format!("first_stage_model.{old}")
            }
            "text_encoder" if m == model => {
                let (old, third) = old.split_once('[').map_or((old, false), |(o, _)| (o, true));
                shape[0] *= if third { 3 } else { 1 };
                if old.contains(".22.") {
                    all.insert(
                        format!("cond_stage_model.model.{}", old.replace(".22.", ".23.")),
                        shape.clone(),
                    );
                }
                format!("cond_stage_model.model.{old}")
            }
            _ => continue,
        };
        all.insert(name, shape);
    }
    if model == "sd1" {
        for (name, tensor) in &miniature().components["text_encoder"].tensors {
            all.insert(
                format!("cond_stage_model.transformer.{name}"),
                tensor.shape().to_vec(),
            );
        }
    }
    all
}

#[test]
fn a_published_sd1_file_is_known_by_its_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v1-5.safetensors");
    let mut tensors = published("sd1");
    sparse(&path, &tensors);
    assert_eq!(identify(&path).unwrap().kind, Kind::SingleFile(Family::Sd1));
    let model = open(&path).unwrap();
    assert_eq!(
        (
            model.family,
            model.tokenizers["tokenizer"].pad,
            model.tokenizers["tokenizer"].is_clip()
        ),
        (Family::Sd1, Pad::EndOfText, true)
    );
    assert_eq!(
        (
            model.components["unet"].tensors.len(),
            model.components["vae"].tensors.len()
        ),
        (686, 248)
    );
    assert_eq!(model.scheduler["prediction_type"], "epsilon");
    assert_eq!(
        model.components["vae"].tensors["encoder.mid_block.attentions.0.to_q.weight"].shape(),
        [512, 512]
    );
    assert!(model.notes.is_empty(), "{:?}", model.notes);
    *tensors
        .get_mut("model.diffusion_model.input_blocks.0.0.weight")
        .unwrap() = vec![320, 9, 3, 3];
    sparse(&path, &tensors);
    assert!(open(&path).unwrap_err().contains("inpainting"));
}

#[test]
fn a_published_sd2_file_is_known_by_its_shapes_and_its_prediction_by_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v2-1.safetensors");
    let yaml = folder.path().join("v2-1.yaml");
    let mut tensors = published("sd2");
    tensors.insert(
        "cond_stage_model.model.text_projection".into(),
        vec![1024, 1024],
    );
    tensors.insert("cond_stage_model.model.logit_scale".into(), vec![]);
    sparse(&path, &tensors);
    assert_eq!(identify(&path).unwrap().kind, Kind::SingleFile(Family::Sd2));
    let model = open(&path).unwrap();
    assert_eq!(
        (model.family, model.tokenizers["tokenizer"].pad),
        (Family::Sd2, Pad::Zero)
    );
    assert_eq!(model.components["text_encoder"].tensors.len(), 23 * 16 + 4);
    assert_eq!(
        model.components["text_encoder"].tensors["text_model.encoder.layers.22.self_attn.v_proj.weight"].shape(),
        [1024, 1024]
    );
    assert_eq!(
        (
            &model.components["unet"].config["sample_size"],
            &model.scheduler["prediction_type"]
        ),
        (&json!(96), &json!("v_prediction"))
    );
    assert!(
        model
            .notes
            .iter()
            .any(|n| n.starts_with("13 tensor(s) of OpenCLIP")),
        "{:?}",
        model.notes
    );
    assert!(
        model
            .notes
            .iter()
            .any(|n| n.starts_with("warning:") && n.contains("v_prediction by diffusers' rule"))
    );

    for (text, prediction, side) in [
        (
            "model:\n  params:\n    parameterization: \"v\"  # velocity\n",
            "v_prediction",
            96,
        ),
        ("model:\n  params:\n    timesteps: 1000\n", "epsilon", 64),
    ] {
        fs_err::write(&yaml, text).unwrap();
        let model = open(&path).unwrap();
        assert_eq!(
            (
                &model.scheduler["prediction_type"],
                &model.components["unet"].config["sample_size"]
            ),
            (&json!(prediction), &json!(side))
        );
        assert!(
            !model.notes.iter().any(|n| n.starts_with("warning")),
            "{:?}",
            model.notes
        );
    }
    fs_err::write(&yaml, "parameterization: x0").unwrap();
    assert!(open(&path).unwrap_err().contains("`x0` is not supported"));
    fs_err::remove_file(&yaml).unwrap();
    // What other programs say in the file itself: ComfyUI's empty tensor, and its key beside the
    // specification's.
    for (metadata, mark, prediction) in [
        (("modelspec.predict_key", "epsilon"), false, "epsilon"),
        (("modelspec.predict_key", "v"), false, "v_prediction"),
        (("modelspec.prediction_type", "epsilon"), false, "epsilon"),
        (("modelspec.predict_key", "epsilon"), true, "v_prediction"),
    ] {
        let mut marked = tensors.clone();
        if mark {
            marked.insert("v_pred".into(), vec![0]);
        }
        sparse_with(&path, &marked, &BTreeMap::from([metadata]));
        let model = open(&path).unwrap();
        assert_eq!(
            model.scheduler["prediction_type"], prediction,
            "{metadata:?} {mark}"
        );
        assert!(
            !model.notes.iter().any(|n| n.starts_with("warning")),
            "{:?}",
            model.notes
        );
    }
    sparse(&path, &tensors);
    let asked = OpenOptions {
        prediction_type: Some(Prediction::Epsilon),
        ..OpenOptions::default()
    };
    let model = Checkpoint::open(&path, &asked).unwrap();
    assert_eq!(
        (
            &model.scheduler["prediction_type"],
            &model.components["unet"].config["sample_size"]
        ),
        (&json!("epsilon"), &json!(64))
    );
}

#[test]
fn truncated_and_flipped_single_files_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    // The names and shapes of the miniature over no numbers to speak of, so that a thousand copies
    // are quick.
    let model = miniature();
    let mut tensors = Tensors::new();
    write_single(&model, &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    for name in file.tensors.keys() {
        tensors.insert(
            name.clone(),
            HostTensor::from_f32([0], &[]).cast(Dtype::F16).unwrap(),
        );
    }
    let mut metadata = file.metadata.clone();
    metadata.retain(|key, _| !key.contains("tokenizer"));
    write(&path, tensors, &metadata).unwrap();
    let whole = fs_err::read(&path).unwrap();
    open(&path).unwrap();
    let mut random = common::Lcg(3);
    let mut refused = 0;
    for i in 0..600 {
        let mut copy = whole.clone();
        if i % 3 == 0 {
            copy.truncate(random.below(whole.len()));
        } else {
            for _ in 0..3 {
                let at = random.below(copy.len());
                copy[at] ^= 1 << random.below(7);
            }
        }
        fs_err::write(&path, copy).unwrap();
        refused += usize::from(open(&path).is_err());
        let _ = identify(&path);
    }
    assert!(refused > 300, "{refused}");
}
