//! SDXL as a folder and as a single file: round trips, stock configurations, and what is refused
//! by name.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, io::Read as _, path::Path};

use common::{
    Lcg, assert_same, copy_folder, miniature, miniature_path, raw,
    tiny_sdxl::{configs, folder, manifest, rewrite, tiny},
};
use scumble_nn::files::{
    Checkpoint, Dtype, Family, HostTensor, Kind, OpenOptions, Pad, Precision, Prediction,
    TensorFile, Tensors, identify, read_partial, write, write_folder, write_single,
};
use serde_json::{Value, json};

fn open(path: &Path) -> Result<Checkpoint, String> {
    Checkpoint::open(path, &OpenOptions::default()).map_err(|e| e.to_string())
}

fn with_config(path: &Path, config: &Path) -> Result<Checkpoint, String> {
    let options = OpenOptions {
        config: Some(config.into()),
        ..OpenOptions::default()
    };
    Checkpoint::open(path, &options).map_err(|e| e.to_string())
}

fn assert_same_model(found: &Checkpoint, wanted: &Checkpoint) {
    assert_eq!(found.component_names(), wanted.component_names());
    for id in wanted.component_names() {
        assert_same(
            &found.component(id).unwrap().tensors,
            &wanted.component(id).unwrap().tensors,
        );
    }
    assert_eq!(found.hash(), wanted.hash());
    assert_eq!(found.family, Family::Sdxl);
}

#[test]
fn a_folder_is_written_and_read_to_the_bit() {
    let target = tempfile::tempdir().unwrap();
    let model = tiny();
    let path = folder(target.path());
    let again = open(&path).unwrap();
    assert_same_model(&again, &model);
    assert_eq!(
        again.component_names(),
        ["text_encoder", "text_encoder_2", "unet", "vae"]
    );
    assert!(again.notes.is_empty(), "{:?}", again.notes);
    for id in ["tokenizer", "tokenizer_2"] {
        assert_eq!(
            again
                .tokenizer(id)
                .unwrap()
                .files
                .keys()
                .collect::<Vec<_>>(),
            model
                .tokenizer(id)
                .unwrap()
                .files
                .keys()
                .collect::<Vec<_>>()
        );
    }
    assert_eq!(
        again
            .tokenizer("tokenizer_2")
            .unwrap()
            .get("special_tokens_map.json"),
        model
            .tokenizer("tokenizer_2")
            .unwrap()
            .get("special_tokens_map.json")
    );
    for file in [
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer_2/vocab.json",
    ] {
        assert!(path.join(file).is_file(), "{file}");
    }
    let index: Value =
        serde_json::from_str(&fs_err::read_to_string(path.join("model_index.json")).unwrap())
            .unwrap();
    for (key, value) in [
        ("_class_name", json!("StableDiffusionXLPipeline")),
        ("force_zeros_for_empty_prompt", json!(false)),
        ("add_watermarker", json!(null)),
        ("feature_extractor", json!([null, null])),
        ("image_encoder", json!([null, null])),
        (
            "text_encoder_2",
            json!(["transformers", "CLIPTextModelWithProjection"]),
        ),
        ("tokenizer_2", json!(["transformers", "CLIPTokenizer"])),
        ("unet", json!(["diffusers", "UNet2DConditionModel"])),
        ("scheduler", json!(["diffusers", "EulerDiscreteScheduler"])),
    ] {
        assert_eq!(index[key], value, "{key}");
    }
    // Which diffusers' pipeline of SDXL does not know.
    assert!(
        index.get("safety_checker").is_none() && index.get("requires_safety_checker").is_none()
    );
    assert!(!again.zeros_for_empty_prompt());
    let identity = identify(&path).unwrap();
    assert_eq!(identity.kind, Kind::DiffusersFolder);
    assert_eq!(identity.parts.len(), 4);

    // A folder without an index is known by what is there.
    fs_err::remove_file(path.join("model_index.json")).unwrap();
    let bare = open(&path).unwrap();
    assert_eq!(bare.family, Family::Sdxl);
    assert!(bare.zeros_for_empty_prompt());
    assert_eq!(bare.model_index["_class_name"], "StableDiffusionXLPipeline");
}

#[test]
fn what_decides_a_picture_is_in_the_hash() {
    let model = tiny();
    let mut other = model.clone();
    other.model_index["force_zeros_for_empty_prompt"] = json!(true);
    assert_ne!(other.hash(), model.hash());
    let mut same = model.clone();
    same.model_index["add_watermarker"] = json!(true);
    assert_eq!(same.hash(), model.hash());
    let mut other = model.clone();
    let tokenizer = other.tokenizers.remove("tokenizer_2").unwrap();
    assert_ne!(other.hash(), model.hash());
    other.tokenizers.insert("tokenizer_2".into(), tokenizer);
    assert_eq!(other.hash(), model.hash());
    let error = other.component_mut("prior").unwrap_err();
    assert!(
        error
            .hint()
            .unwrap()
            .contains("text_encoder, text_encoder_2, unet, vae"),
        "{error}"
    );
}

/// Edits in the hands of users carry the hashes of models with one text encoder: this one is from
/// before there were two.
#[test]
fn the_hash_of_a_model_with_one_text_encoder_stays() {
    assert_eq!(
        miniature().hash(),
        "c66fcae7f3884c73686498e0f9fba77bece142782802f55797db0670f6274e76"
    );
}

#[test]
fn variants_and_shards_are_read() {
    let target = tempfile::tempdir().unwrap();
    let path = folder(target.path());
    for (part, stem) in [
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
        ("vae", "diffusion_pytorch_model"),
    ] {
        let part = path.join(part);
        fs_err::rename(
            part.join(format!("{stem}.safetensors")),
            part.join(format!("{stem}.fp16.safetensors")),
        )
        .unwrap();
    }
    let unet = path.join("unet");
    let file = unet.join("diffusion_pytorch_model.safetensors");
    let tensors = TensorFile::open(&file).unwrap().tensors;
    let mut map = serde_json::Map::new();
    for half in 0..2 {
        let shard = format!(
            "diffusion_pytorch_model-0000{}-of-00002.safetensors",
            half + 1
        );
        let mine: Tensors = tensors
            .iter()
            .enumerate()
            .filter(|(i, _)| i % 2 == half)
            .map(|(_, (name, tensor))| (name.clone(), tensor.clone()))
            .collect();
        map.extend(mine.keys().map(|name| (name.clone(), json!(shard))));
        write(unet.join(shard), mine, &BTreeMap::new()).unwrap();
    }
    fs_err::remove_file(file).unwrap();
    fs_err::write(
        unet.join("diffusion_pytorch_model.safetensors.index.json"),
        json!({"weight_map": map}).to_string(),
    )
    .unwrap();
    let options = OpenOptions {
        variant: Some("fp16".into()),
        ..OpenOptions::default()
    };
    assert_same_model(&Checkpoint::open(&path, &options).unwrap(), &tiny());
}

#[test]
fn a_single_file_is_written_and_read_to_the_bit() {
    let target = tempfile::tempdir().unwrap();
    let model = tiny();
    let path = target.path().join("tiny.safetensors");
    write_single(&model, &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let file = TensorFile::open(&path).unwrap();
    for (key, shape) in [
        ("model.diffusion_model.label_emb.0.0.weight", vec![32, 34]),
        (
            "model.diffusion_model.input_blocks.4.1.transformer_blocks.1.attn2.to_k.weight",
            vec![16, 20],
        ),
        (
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
            vec![8],
        ),
        (
            "conditioner.embedders.1.model.transformer.resblocks.2.attn.in_proj_weight",
            vec![36, 12],
        ),
        (
            "conditioner.embedders.1.model.text_projection",
            vec![12, 10],
        ),
        (
            "first_stage_model.decoder.mid.attn_1.q.weight",
            vec![8, 8, 1, 1],
        ),
    ] {
        let found = file.tensors.get(key).map(|t| t.shape().to_vec());
        assert_eq!(found, Some(shape), "{key}");
    }
    let identity = identify(&path).unwrap();
    assert_eq!(identity.kind, Kind::SingleFile(Family::Sdxl));
    assert_eq!(
        identity.kind.describe(),
        "single-file checkpoint (stable-diffusion-xl-v1-base)"
    );
    let parts: Vec<&str> = identity.parts.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(parts, ["unet", "vae", "text_encoder", "text_encoder_2"]);

    let again = open(&path).unwrap();
    assert_same_model(&again, &model);
    assert!(!again.zeros_for_empty_prompt());
    assert_eq!(
        again
            .tokenizer("tokenizer_2")
            .unwrap()
            .get("special_tokens_map.json"),
        model
            .tokenizer("tokenizer_2")
            .unwrap()
            .get("special_tokens_map.json")
    );
    // And out into a folder again.
    let out = target.path().join("out");
    write_folder(&again, &out, Precision::Keep, None).unwrap();
    assert_same_model(&open(&out).unwrap(), &model);

    // Without our metadata its sizes are nobody's, and a folder must say them.
    write(&path, file.tensors.clone(), &BTreeMap::new()).unwrap();
    let error = Checkpoint::open(&path, &OpenOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("not that of SDXL base")
            && error.hint().unwrap().contains("--config"),
        "{error}"
    );
    assert_same_model(&with_config(&path, &out).unwrap(), &model);
    // A folder of one text encoder does not describe it.
    let error = with_config(&path, &miniature_path()).unwrap_err();
    assert!(
        error.contains("has no text_encoder_2/config.json"),
        "{error}"
    );
}

#[test]
fn a_model_that_predicts_v_says_so_in_the_file() {
    let target = tempfile::tempdir().unwrap();
    let mut model = tiny();
    model.scheduler["prediction_type"] = json!("v_prediction");
    model.scheduler["rescale_betas_zero_snr"] = json!(true);
    let path = target.path().join("v.safetensors");
    write_single(&model, &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let tensors = TensorFile::open(&path).unwrap().tensors;
    assert!(tensors["v_pred"].is_empty() && tensors["ztsnr"].is_empty());
    let again = open(&path).unwrap();
    assert_same_model(&again, &model);
    model.scheduler["rescale_betas_zero_snr"] = json!(false);
    write_single(&model, &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let tensors = TensorFile::open(&path).unwrap().tensors;
    assert!(tensors.contains_key("v_pred") && !tensors.contains_key("ztsnr"));
}

/// The tensors of SDXL base under its single-file names, from golden/sdxl_names.py, as f16 numbers
/// that are a hole in the file.
fn published(path: &Path, marks: &[&str], metadata: &Value) {
    let mut text = String::new();
    let packed: &[u8] = include_bytes!("golden/sdxl_names.txt.gz");
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    let mut all: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in text.lines() {
        let [component, _, old, shape] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("four columns")
        };
        let mut shape: Vec<usize> = serde_json::from_str(shape).unwrap();
        let (name, third) = old
            .split_once('[')
            .map_or((old, false), |(name, _)| (name, true));
        let name = name.strip_suffix("^T").unwrap_or(name);
        shape[0] *= if third { 3 } else { 1 };
        if component == "vae" && name.contains("attn_1") && shape.len() == 2 {
            shape.extend([1, 1]);
        }
        all.insert(name.to_owned(), shape);
    }
    for mark in marks {
        all.insert((*mark).to_owned(), vec![0]);
    }
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), metadata.clone());
    let mut end = 0usize;
    for (name, shape) in &all {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let bytes = raw(&Value::Object(header).to_string(), &[]);
    fs_err::write(path, &bytes).unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((bytes.len() + end) as u64).unwrap();
}

#[test]
fn the_published_file_is_known_by_its_shapes_and_has_the_stock_configuration() {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("sd_xl_base_1.0.safetensors");
    published(&path, &[], &json!({}));
    assert_eq!(
        identify(&path).unwrap().kind,
        Kind::SingleFile(Family::Sdxl)
    );
    let model = open(&path).unwrap();
    assert_eq!(model.family, Family::Sdxl);
    let pads = ["tokenizer", "tokenizer_2"].map(|id| {
        let tokenizer = model.tokenizer(id).unwrap();
        (tokenizer.is_clip(), tokenizer.pad)
    });
    assert_eq!(pads, [(true, Pad::EndOfText), (true, Pad::Zero)]);
    let counts: Vec<usize> = model.components.values().map(|c| c.tensors.len()).collect();
    assert_eq!(counts, [196, 517, 1680, 248]);
    // The tensors are those of the configuration, by name and shape: what diffusers has.
    for (id, component) in &model.components {
        let wanted = manifest(id, &component.config);
        scumble_nn::files::expect_names(id, &component.tensors, &wanted).unwrap();
    }
    let unet = &model.components["unet"].config;
    for (key, value) in [
        ("cross_attention_dim", json!(2048)),
        ("transformer_layers_per_block", json!([1, 2, 10])),
        ("attention_head_dim", json!([5, 10, 20])),
        ("projection_class_embeddings_input_dim", json!(2816)),
        ("addition_time_embed_dim", json!(256)),
        ("sample_size", json!(128)),
    ] {
        assert_eq!(unet[key], value, "{key}");
    }
    assert_eq!(
        model.components["vae"].config["scaling_factor"],
        json!(0.13025)
    );
    let scheduler = &model.scheduler;
    assert_eq!(
        (
            &scheduler["_class_name"],
            &scheduler["prediction_type"],
            &scheduler["timestep_spacing"]
        ),
        (
            &json!("EulerDiscreteScheduler"),
            &json!("epsilon"),
            &json!("leading")
        )
    );
    assert!(model.zeros_for_empty_prompt());
}

#[test]
fn the_published_file_says_what_it_predicts() {
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("noob.safetensors");
    published(&path, &["v_pred", "ztsnr"], &json!({}));
    let model = open(&path).unwrap();
    assert_eq!(
        (
            &model.scheduler["prediction_type"],
            &model.scheduler["rescale_betas_zero_snr"],
            &model.scheduler["timestep_spacing"]
        ),
        (&json!("v_prediction"), &json!(true), &json!("trailing"))
    );
    assert!(
        model.notes.iter().any(|n| n.contains("v_pred")),
        "{:?}",
        model.notes
    );
    let options = OpenOptions {
        prediction_type: Some(Prediction::Epsilon),
        ..OpenOptions::default()
    };
    let model = Checkpoint::open(&path, &options).unwrap();
    assert_eq!(model.scheduler["prediction_type"], "epsilon");
    // A few-step model's file does not say what it is.
    let options = OpenOptions {
        timestep_spacing: Some("trailing".into()),
        ..OpenOptions::default()
    };
    published(&path, &[], &json!({}));
    let model = Checkpoint::open(&path, &options).unwrap();
    assert_eq!(model.scheduler["timestep_spacing"], "trailing");
    published(&path, &[], &json!({"modelspec.prediction_type": "v"}));
    let model = open(&path).unwrap();
    assert_eq!(model.scheduler["prediction_type"], "v_prediction");
    assert_eq!(model.scheduler["timestep_spacing"], "leading");
}

fn refused(path: &Path, said: &[&str]) {
    let error = open(path).unwrap_err();
    for what in said {
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[test]
fn folders_of_other_families_are_refused_by_name() {
    let target = tempfile::tempdir().unwrap();
    let whole = folder(target.path());
    let mut next = 0;
    let mut copy = |change: &dyn Fn(&Path)| {
        next += 1;
        let path = target.path().join(format!("copy-{next}"));
        copy_folder(&whole, &path);
        change(&path);
        path
    };
    let index = |path: &Path, change: &dyn Fn(&mut Value)| {
        rewrite(&path.join("model_index.json"), |value| change(value))
    };
    let unet = |path: &Path, key: &'static str, to: Value| {
        rewrite(&path.join("unet/config.json"), |value| value[key] = to)
    };

    let refiner = copy(&|path| {
        index(path, &|value| {
            value["text_encoder"] = json!([null, null]);
            value["tokenizer"] = json!([null, null]);
            value["requires_aesthetics_score"] = json!(true);
        });
    });
    refused(&refiner, &["SDXL's refiner", "requires_aesthetics_score"]);
    let kind = identify(&refiner).unwrap().kind;
    assert!(
        matches!(kind, Kind::OtherFamily(name) if name.contains("refiner")),
        "{kind:?}"
    );
    let alone = copy(&|path| index(path, &|value| value["text_encoder"] = json!([null, null])));
    refused(&alone, &["SDXL's refiner"]);
    let five = copy(&|path| unet(path, "projection_class_embeddings_input_dim", json!(30)));
    refused(
        &five,
        &[
            "unet/config.json",
            "projection_class_embeddings_input_dim",
            "refiner",
            "10 + 6 * 4",
        ],
    );
    let narrow = copy(&|path| unet(path, "cross_attention_dim", json!(12)));
    refused(
        &narrow,
        &["cross_attention_dim", "8 + 12", "found 12", "refiner"],
    );
    let other = copy(&|path| unet(path, "projection_class_embeddings_input_dim", json!(99)));
    refused(
        &other,
        &["projection_class_embeddings_input_dim", "found 99"],
    );
    for plain in [json!(null), json!("text")] {
        let path = copy(&|path| unet(path, "addition_embed_type", plain.clone()));
        refused(
            &path,
            &["addition_embed_type", "text_time", "another family"],
        );
    }
    let inpainting = copy(&|path| unet(path, "in_channels", json!(9)));
    refused(&inpainting, &["9 channels", "inpainting"]);
    let video = copy(&|path| {
        index(path, &|value| {
            value["transformer"] = json!(["diffusers", "X"])
        })
    });
    refused(&video, &["Flux"]);
    // The parts that are listed must be there.
    for (part, said) in [
        ("text_encoder_2", "text_encoder_2/config.json"),
        ("tokenizer_2", "vocab.json"),
        ("vae", "vae/config.json"),
    ] {
        let path = copy(&|path| fs_err::remove_dir_all(path.join(part)).unwrap());
        refused(&path, &[said]);
    }
    // The U-Net of SDXL beside one text encoder, and that of another family beside two.
    let one = copy(&|path| {
        index(path, &|value| value["text_encoder_2"] = json!([null, null]));
    });
    refused(&one, &["text_time", "no text_encoder_2"]);
    let mixed = copy(&|path| {
        fs_err::remove_dir_all(path.join("unet")).unwrap();
        copy_folder(&miniature_path().join("unet"), &path.join("unet"));
    });
    refused(
        &mixed,
        &["addition_embed_type", "two text encoders are SDXL"],
    );
    // A width that is no number is an answer too.
    let odd = copy(&|path| unet(path, "cross_attention_dim", json!(u64::MAX)));
    refused(&odd, &["cross_attention_dim"]);
    let huge = copy(&|path| unet(path, "addition_time_embed_dim", json!(u64::MAX)));
    refused(&huge, &["projection_class_embeddings_input_dim"]);
    assert!(open(&whole).is_ok());
}

#[test]
fn single_files_that_lack_a_part_or_are_others_are_refused_by_name() {
    let target = tempfile::tempdir().unwrap();
    let config = folder(target.path());
    let path = target.path().join("x.safetensors");
    write_single(&tiny(), &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let tensors = TensorFile::open(&path).unwrap().tensors;
    let without = |prefix: &str| -> Tensors {
        tensors
            .iter()
            .filter(|(name, _)| !name.starts_with(prefix))
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect()
    };
    let refused = |tensors: Tensors, said: &[&str]| {
        write(&path, tensors, &BTreeMap::new()).unwrap();
        let error = with_config(&path, &config).unwrap_err();
        for what in said {
            assert!(error.contains(what), "{what}: {error}");
        }
    };
    for prefix in [
        "conditioner.embedders.0.transformer.",
        "conditioner.embedders.1.model.",
        "first_stage_model.",
    ] {
        refused(
            without(prefix),
            &["expected a whole SDXL checkpoint", prefix],
        );
    }
    refused(
        without("conditioner."),
        &["conditioner.embedders.0.transformer."],
    );
    refused(
        without("model.diffusion_model."),
        &["expected a checkpoint in the LDM layout"],
    );

    // The refiner: OpenCLIP's encoder alone, as the first.
    let refiner: Tensors = without("conditioner.embedders.0.")
        .into_iter()
        .map(|(name, t)| (name.replace("embedders.1.", "embedders.0."), t))
        .collect();
    refused(refiner, &["SDXL's refiner"]);
    let one = HostTensor::from_f32([1], &[0.0]);
    let with = |name: &str| {
        let mut more = tensors.clone();
        more.insert(name.into(), one.clone());
        more
    };
    for (name, said) in [
        (
            "conditioner.embedders.3.open_clip.model.x",
            "other conditions than text",
        ),
        (
            "model.diffusion_model.input_blocks.1.0.time_stack.x",
            "video",
        ),
        ("model.diffusion_model.label_emb.weight", "an upscaler"),
        ("model.diffusion_model.joint_blocks.0.x", "SD3"),
        ("strange", "left over: strange"),
        ("edm_mean", "left over: edm_mean"),
        (
            "first_stage_model.quant.weight",
            "left over: first_stage_model.quant.weight",
        ),
        (
            "conditioner.embedders.1.model.transformer.resblocks.3.ln_1.weight",
            "left over: 1 tensors of conditioner.embedders.1.model.transformer.resblocks.3",
        ),
    ] {
        refused(with(name), &[said]);
    }
    let mut inpainting = tensors.clone();
    inpainting.insert(
        "model.diffusion_model.input_blocks.0.0.weight".into(),
        HostTensor::from_f32([8, 9, 3, 3], &[0.0; 8 * 9 * 9]),
    );
    refused(inpainting, &["an inpainting model"]);
    // What is known to carry no weight is not missed.
    let mut idle = tensors.clone();
    for name in [
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.logit_scale",
        "denoiser.sigmas",
        "model_ema.decay",
    ] {
        idle.insert(name.into(), one.clone());
    }
    write(&path, idle, &BTreeMap::new()).unwrap();
    let model = with_config(&path, &config).unwrap();
    assert_eq!(model.hash(), tiny().hash());
    assert!(
        model.notes[0].starts_with("4 tensor(s)"),
        "{:?}",
        model.notes
    );
}

/// Flipped bits in the header and in the configurations: an answer each time.
#[test]
fn broken_files_are_answered() {
    let target = tempfile::tempdir().unwrap();
    let config = folder(target.path());
    let path = target.path().join("x.safetensors");
    write_single(&tiny(), &path, Precision::Keep, &BTreeMap::new()).unwrap();
    let whole = fs_err::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut rng = Lcg(5);
    let mut no = 0;
    for round in 0..600 {
        let mut copy = whole.clone();
        let at = rng.below(header);
        match round % 4 {
            0 => copy[at] ^= 1 << rng.below(7),
            // Numbers of the header are lengths, shapes and places.
            1 => copy[at] = b"0123456789[]{},:\""[rng.below(17)],
            2 => copy.truncate(rng.below(whole.len())),
            _ => {
                let to = rng.below(header);
                let piece = copy[at..(at + 24).min(header)].to_vec();
                copy.splice(to..to, piece);
            }
        }
        fs_err::write(&path, &copy).unwrap();
        no += usize::from(open(&path).is_err());
        let _ = identify(&path);
        let _ = with_config(&path, &config);
    }
    assert!(no > 50, "{no}");
    for key in [
        "cross_attention_dim",
        "addition_time_embed_dim",
        "transformer_layers_per_block",
    ] {
        for value in [json!("x"), json!(-1), json!([]), json!(1e300), json!({})] {
            rewrite(&config.join("unet/config.json"), |unet| {
                unet[key] = value.clone()
            });
            let _ = open(&config);
        }
    }
}

#[test]
fn a_part_of_the_unet_is_an_edit_in_both_layouts() {
    let base = tiny();
    let unet = &base.components["unet"].tensors;
    let names = [
        ("add_embedding.linear_1.weight", "label_emb.0.0.weight"),
        (
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_v.weight",
            "input_blocks.4.1.transformer_blocks.1.attn2.to_v.weight",
        ),
        (
            "up_blocks.0.upsamplers.0.conv.bias",
            "output_blocks.2.2.conv.bias",
        ),
    ];
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("x.safetensors");
    for (prefix, column) in [("", 0), ("unet.", 0), ("model.diffusion_model.", 1)] {
        let tensors: Tensors = names
            .iter()
            .map(|(new, old)| {
                let name = if column == 0 { new } else { old };
                (
                    format!("{prefix}{name}"),
                    unet[*new].cast(Dtype::F32).unwrap(),
                )
            })
            .collect();
        write(&path, tensors, &BTreeMap::new()).unwrap();
        let kind = identify(&path).unwrap().kind;
        let wanted = if column == 0 {
            Kind::PartialUNet
        } else {
            Kind::LdmUNet
        };
        assert_eq!(kind, wanted, "{prefix}");
        let found = read_partial(TensorFile::open(&path).unwrap(), &base).unwrap();
        assert_eq!(
            found.keys().map(String::as_str).collect::<Vec<_>>(),
            names.map(|(new, _)| new)
        );
        // Of another family: named one by one.
        let error = read_partial(TensorFile::open(&path).unwrap(), &miniature()).unwrap_err();
        assert!(error.to_string().contains("is not in the U-Net"), "{error}");
    }
    assert_eq!(configs().len(), 4);
}
