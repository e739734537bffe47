//! Diffusers folders: the miniature, shards, variants, old names, and what must be refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, path::Path};

use common::{assert_same, copy_folder, miniature, miniature_path};
use scumble_nn::files::{
    Checkpoint, Dtype, Family, Kind, OpenOptions, Precision, Prediction, Source, TensorFile,
    Tensors, expect_names, identify, read_network, read_text_encoder, write, write_folder,
};
use serde_json::{Value, json};

const UNET: &str = "unet/diffusion_pytorch_model";
const VAE: &str = "vae/diffusion_pytorch_model";
const TEXT: &str = "text_encoder/model";

/// A copy of the miniature that a test may break.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&miniature_path(), folder.path());
    folder
}

fn open(path: &Path) -> Result<Checkpoint, String> {
    Checkpoint::open(path, &OpenOptions::default()).map_err(|e| e.to_string())
}

fn tensors(folder: &Path, stem: &str) -> Tensors {
    TensorFile::open(folder.join(format!("{stem}.safetensors")))
        .unwrap()
        .tensors
}

fn put(folder: &Path, rel: &str, tensors: Tensors) {
    write(folder.join(rel), tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn reads_the_miniature() {
    let model = miniature();
    assert_eq!(model.components["unet"].tensors.len(), 286);
    assert_eq!(model.components["vae"].tensors.len(), 156);
    assert_eq!(model.components["text_encoder"].tensors.len(), 68);
    assert_eq!(
        model.components["unet"].tensors["conv_in.weight"].shape(),
        [96, 4, 3, 3]
    );
    assert_eq!(
        model.components["unet"].tensors["conv_in.weight"].dtype(),
        Dtype::F16
    );
    assert_eq!(
        model.components["vae"].tensors["quant_conv.weight"].dtype(),
        Dtype::F32
    );
    assert_eq!(model.family, Family::Custom);
    assert!(model.notes.is_empty(), "{:?}", model.notes);
    assert_eq!(model.scheduler["prediction_type"], "epsilon");
    assert!(
        model.tokenizers["tokenizer"].get("vocab.json").is_some()
            && !model.tokenizers["tokenizer"].is_clip()
    );
    let identity = identify(miniature_path()).unwrap();
    assert_eq!(identity.kind, Kind::DiffusersFolder);
    assert_eq!(
        identity.parts.iter().map(|p| p.tensors).collect::<Vec<_>>(),
        [68, 286, 156]
    );
    assert_eq!(
        identity.parts[1].dtypes,
        BTreeMap::from([("F16".to_owned(), 286)])
    );
}

#[test]
fn a_folder_written_is_the_folder_read() {
    let mut model = miniature();
    let target = tempfile::tempdir().unwrap();
    let first = target.path().join("deep/er/first");
    write_folder(&model, &first, Precision::Keep, Some("# a card\n")).unwrap();
    let again = open(&first).unwrap();
    assert_eq!(model.hash(), again.hash());
    for part in model.component_names() {
        assert_same(
            &model.component(part).unwrap().tensors,
            &again.component(part).unwrap().tensors,
        );
        assert_eq!(
            model.component(part).unwrap().config,
            again.component(part).unwrap().config
        );
    }
    assert_eq!(
        fs_err::read_to_string(first.join("README.md")).unwrap(),
        "# a card\n"
    );
    for file in [
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let (a, b) = (
            miniature_path().join("tokenizer").join(file),
            first.join("tokenizer").join(file),
        );
        assert_eq!(fs_err::read(a).unwrap(), fs_err::read(b).unwrap());
    }
    assert_eq!(
        fs_err::read_dir(first.parent().unwrap()).unwrap().count(),
        1,
        "no temporary folder is left"
    );

    // A folder with something in it is never overwritten; an empty one is filled.
    assert!(
        write_folder(&model, &first, Precision::Keep, None)
            .unwrap_err()
            .to_string()
            .contains("not empty")
    );
    let second = target.path().join("second");
    fs_err::create_dir(&second).unwrap();
    write_folder(&model, &second, Precision::F16, None).unwrap();
    let half = open(&second).unwrap();
    assert_ne!(half.hash(), model.hash());
    assert_eq!(
        half.components["vae"].tensors["quant_conv.weight"].dtype(),
        Dtype::F16
    );

    // The hash sees one bit of one weight, and a configuration's number, but not its description.
    let before = model.hash();
    model.component_mut("unet").unwrap().config["_name_or_path"] = json!("elsewhere");
    assert_eq!(model.hash(), before);
    let zeros = vec![0.0; 96];
    model.component_mut("unet").unwrap().tensors.insert(
        "conv_in.bias".into(),
        scumble_nn::files::HostTensor::from_f32([96], &zeros),
    );
    assert_ne!(model.hash(), before);
    let mut other = miniature();
    other.scheduler["prediction_type"] = json!("v_prediction");
    assert_ne!(other.hash(), before);
}

#[test]
fn reads_files_compiled_into_the_program() {
    let mut files: Vec<(&'static str, &'static [u8])> = Vec::new();
    for rel in Source::dir(miniature_path()).list("").unwrap() {
        let content = fs_err::read(miniature_path().join(&rel)).unwrap();
        files.push((rel.leak(), content.leak()));
    }
    let model = Checkpoint::read(
        &Source::embedded("emoji-sd", files.leak()),
        &OpenOptions::default(),
    )
    .unwrap();
    assert_eq!(model.name, "emoji-sd");
    assert_eq!(model.hash(), miniature().hash());
}

#[test]
fn reads_networks_that_are_no_part_of_a_checkpoint() {
    let (text, _) = read_text_encoder(&miniature_path().join("text_encoder")).unwrap();
    assert_same(
        &text.tensors,
        &miniature().components["text_encoder"].tensors,
    );
    let models = Source::dir(miniature_path().join(".."));
    let clip = read_network(&models, "emoji-clip", "model").unwrap();
    assert!(clip.tensors.contains_key("logit_scale") && clip.config["projection_dim"] == 64);
    let judge = read_network(&models, "emoji-judges/object", "model").unwrap();
    assert!(
        judge.tensors.contains_key("classifier.weight"),
        "{:?}",
        judge.tensors.keys()
    );
    assert!(
        read_network(&models, "emoji-judges", "model")
            .unwrap_err()
            .to_string()
            .contains("config.json: is missing")
    );
}

#[test]
fn reads_shards_and_checks_them_against_their_index() {
    let folder = copy();
    let all = tensors(folder.path(), UNET);
    let name = |i: usize| format!("diffusion_pytorch_model-0000{i}-of-00003.safetensors");
    let mut shards = [Tensors::new(), Tensors::new(), Tensors::new()];
    let mut map = serde_json::Map::new();
    for (i, (key, tensor)) in all.iter().enumerate() {
        shards[i % 3].insert(key.clone(), tensor.clone());
        map.insert(key.clone(), name(i % 3 + 1).into());
    }
    for (i, shard) in shards.iter().enumerate() {
        put(
            folder.path(),
            &format!("unet/{}", name(i + 1)),
            shard.clone(),
        );
    }
    fs_err::remove_file(folder.path().join(format!("{UNET}.safetensors"))).unwrap();
    assert!(
        open(folder.path())
            .unwrap_err()
            .contains("has shards, but no diffusion_pytorch_model.safetensors.index.json")
    );
    let index = folder.path().join(format!("{UNET}.safetensors.index.json"));
    let write_index = |map: &serde_json::Map<String, Value>| {
        fs_err::write(
            &index,
            json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string(),
        )
        .unwrap();
    };
    write_index(&map);
    let model = open(folder.path()).unwrap();
    assert_eq!(model.hash(), miniature().hash());

    let mut lying = map.clone();
    let (first, second) = (
        all.keys().next().unwrap().clone(),
        all.keys().nth(1).unwrap().clone(),
    );
    lying.remove(&first);
    lying.insert(second.clone(), name(1).into());
    lying.insert("ghost.weight".into(), name(3).into());
    write_index(&lying);
    let error = open(folder.path()).unwrap_err();
    for part in [
        format!("left over: unet {first} in {}", name(1)),
        format!("missing: unet {second} in {}", name(1)),
        format!("left over: unet {second} in {}", name(2)),
        format!("missing: unet ghost.weight in {}", name(3)),
    ] {
        assert!(error.contains(&part), "{part} in {error}");
    }
    for evil in [
        "../../vae/diffusion_pytorch_model.safetensors",
        "/etc/passwd",
        "x.bin",
        "",
    ] {
        let mut map = map.clone();
        map.insert(first.clone(), evil.into());
        write_index(&map);
        assert!(
            open(folder.path())
                .unwrap_err()
                .contains("is not a .safetensors file of this folder"),
            "{evil}"
        );
    }
    write_index(&map);
    fs_err::remove_file(folder.path().join("unet").join(name(2))).unwrap();
    assert!(
        open(folder.path())
            .unwrap_err()
            .contains(&format!("missing: the shard {} with 95 tensors", name(2)))
    );
    for bad in [
        "[]",
        "{}",
        r#"{"weight_map": 3}"#,
        r#"{"weight_map": {"a": 3}}"#,
        r#"{"weight_map": {}}"#,
        "{",
    ] {
        fs_err::write(&index, bad).unwrap();
        assert!(
            open(folder.path()).unwrap_err().contains("index.json"),
            "{bad}"
        );
    }
}

#[test]
fn prefers_the_plain_weights_and_finds_variants() {
    let folder = copy();
    let at = |rel: &str| folder.path().join(rel);
    // Only a variant: read, and said so.
    fs_err::rename(
        at(&format!("{UNET}.safetensors")),
        at(&format!("{UNET}.fp16.safetensors")),
    )
    .unwrap();
    let model = open(folder.path()).unwrap();
    assert!(
        model
            .notes
            .iter()
            .any(|n| n.contains("only the variant `fp16`")),
        "{:?}",
        model.notes
    );
    assert_eq!(model.hash(), miniature().hash());
    // Both: the plain one, unless asked.
    let mut other = tensors(folder.path(), &format!("{UNET}.fp16"));
    let key = "conv_in.bias";
    other.insert(
        key.into(),
        scumble_nn::files::HostTensor::from_f32([96], &[1.0; 96]),
    );
    put(folder.path(), &format!("{UNET}.safetensors"), other);
    assert_eq!(
        open(folder.path()).unwrap().components["unet"].tensors[key].dtype(),
        Dtype::F32
    );
    let asked = OpenOptions {
        variant: Some("fp16".into()),
        ..OpenOptions::default()
    };
    let model = Checkpoint::open(folder.path(), &asked).unwrap();
    assert_eq!(model.components["unet"].tensors[key].dtype(), Dtype::F16);
    assert!(
        model
            .notes
            .iter()
            .any(|n| n.starts_with("vae: no variant `fp16`")),
        "{:?}",
        model.notes
    );
    // Two variants and no plain one: the user must say.
    fs_err::copy(
        at(&format!("{UNET}.fp16.safetensors")),
        at(&format!("{UNET}.non_ema.safetensors")),
    )
    .unwrap();
    fs_err::remove_file(at(&format!("{UNET}.safetensors"))).unwrap();
    assert!(
        open(folder.path())
            .unwrap_err()
            .contains("the variants fp16, non_ema")
    );
}

#[test]
fn a_pickle_is_ignored_beside_its_twin_and_refused_alone() {
    let folder = copy();
    let at = |rel: &str| folder.path().join(rel);
    fs_err::write(at(&format!("{UNET}.bin")), b"PK\x03\x04").unwrap();
    let model = open(folder.path()).unwrap();
    assert!(
        model
            .notes
            .iter()
            .any(|n| n.starts_with("unet: 1 pickle file(s)")),
        "{:?}",
        model.notes
    );
    fs_err::remove_file(at(&format!("{UNET}.safetensors"))).unwrap();
    let error = Checkpoint::open(folder.path(), &OpenOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("diffusion_pytorch_model.bin: this is a pickle"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[test]
fn old_names_are_brought_to_todays() {
    let folder = copy();
    let mut text: Tensors = tensors(folder.path(), TEXT)
        .into_iter()
        .map(|(k, t)| (k.strip_prefix("text_model.").unwrap().to_owned(), t))
        .collect();
    text.insert(
        "embeddings.position_ids".into(),
        scumble_nn::files::HostTensor::from_i64([1, 2], &[0, 1]),
    );
    put(folder.path(), &format!("{TEXT}.safetensors"), text);
    let mut vae = Tensors::new();
    for (key, tensor) in tensors(folder.path(), VAE) {
        let (mut new, mut tensor) = (key.clone(), tensor);
        for (now, then) in [
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ] {
            new = new.replace(
                &format!("attentions.0.{now}."),
                &format!("attentions.0.{then}."),
            );
        }
        if new != key && new.ends_with("weight") && new.starts_with("encoder") {
            let c = tensor.shape()[0];
            tensor = tensor.reshaped([c, c, 1, 1]).unwrap();
        }
        vae.insert(new, tensor);
    }
    assert!(vae.contains_key("decoder.mid_block.attentions.0.proj_attn.weight"));
    put(folder.path(), &format!("{VAE}.safetensors"), vae.clone());
    let model = open(folder.path()).unwrap();
    assert_eq!(model.hash(), miniature().hash());
    assert_eq!(
        model.notes,
        ["text_encoder: 1 tensor(s) known to carry no weight skipped"]
    );

    let twin = vae["decoder.mid_block.attentions.0.query.bias"].clone();
    vae.insert("decoder.mid_block.attentions.0.to_q.bias".into(), twin);
    put(folder.path(), &format!("{VAE}.safetensors"), vae);
    assert!(
        open(folder.path())
            .unwrap_err()
            .contains("there twice: vae decoder.mid_block.attentions.0.to_q.bias")
    );
}

#[test]
fn passengers_travel_and_pickles_do_not() {
    let folder = copy();
    let at = |rel: &str| folder.path().join(rel);
    fs_err::create_dir(at("safety_checker")).unwrap();
    fs_err::create_dir(at("feature_extractor")).unwrap();
    fs_err::write(at("safety_checker/config.json"), "{}").unwrap();
    fs_err::write(at("safety_checker/model.safetensors"), "whatever it is").unwrap();
    fs_err::write(at("safety_checker/pytorch_model.bin"), "PK").unwrap();
    fs_err::write(at("feature_extractor/preprocessor_config.json"), "{}").unwrap();
    let mut index: Value =
        serde_json::from_slice(&fs_err::read(at("model_index.json")).unwrap()).unwrap();
    index["safety_checker"] = json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    index["feature_extractor"] = json!(["transformers", "CLIPImageProcessor"]);
    index["requires_safety_checker"] = json!(true);
    fs_err::write(at("model_index.json"), index.to_string()).unwrap();

    let model = open(folder.path()).unwrap();
    assert!(
        model
            .notes
            .iter()
            .any(|n| n.starts_with("safety_checker: off")),
        "{:?}",
        model.notes
    );
    let target = tempfile::tempdir().unwrap();
    let out = target.path().join("out");
    write_folder(&model, &out, Precision::Keep, None).unwrap();
    assert_eq!(
        fs_err::read_to_string(out.join("safety_checker/model.safetensors")).unwrap(),
        "whatever it is"
    );
    assert!(
        out.join("feature_extractor/preprocessor_config.json")
            .is_file()
    );
    assert!(!out.join("safety_checker/pytorch_model.bin").exists());
    let written: Value =
        serde_json::from_slice(&fs_err::read(out.join("model_index.json")).unwrap()).unwrap();
    assert_eq!(written["safety_checker"], index["safety_checker"]);

    // With a pickle only, it stays behind, and the index says that there is none.
    fs_err::remove_file(at("safety_checker/model.safetensors")).unwrap();
    let out = target.path().join("out2");
    write_folder(&open(folder.path()).unwrap(), &out, Precision::Keep, None).unwrap();
    assert!(!out.join("safety_checker").exists());
    let written: Value =
        serde_json::from_slice(&fs_err::read(out.join("model_index.json")).unwrap()).unwrap();
    assert_eq!(
        (
            &written["safety_checker"],
            &written["requires_safety_checker"]
        ),
        (&json!([null, null]), &json!(false))
    );
}

#[test]
fn other_families_and_broken_folders_are_refused_by_name() {
    let folder = copy();
    let at = |rel: &str| folder.path().join(rel);
    let index = |part: &str| json!({"_class_name": "P", part: ["transformers", "X"]}).to_string();
    for (part, name) in [
        ("text_encoder_2", "SDXL"),
        ("transformer", "Flux"),
        ("controlnet", "ControlNet"),
    ] {
        fs_err::write(at("model_index.json"), index(part)).unwrap();
        assert!(open(folder.path()).unwrap_err().contains(name), "{part}");
        // SDXL is read, if it is there.
        if part != "text_encoder_2" {
            assert!(matches!(
                identify(folder.path()).unwrap().kind,
                Kind::OtherFamily(_)
            ));
        }
    }
    for bad in [
        "",
        "[]",
        "3",
        "{\"a\":",
        "\u{feff}[]",
        &"[".repeat(5000),
        &format!("{{\"a\":{}", "[".repeat(5000)),
    ] {
        fs_err::write(at("model_index.json"), bad).unwrap();
        assert!(
            open(folder.path())
                .unwrap_err()
                .contains("expected a JSON object"),
            "{bad:.20}"
        );
    }
    fs_err::write(
        at("model_index.json"),
        format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20)),
    )
    .unwrap();
    assert!(
        open(folder.path())
            .unwrap_err()
            .contains("at most 1048576 bytes")
    );
    // Without the index the usual names are read, and it is said.
    fs_err::remove_file(at("model_index.json")).unwrap();
    assert!(open(folder.path()).unwrap().notes[0].contains("model_index.json is missing"));
    for rel in [
        "unet/config.json",
        "scheduler/scheduler_config.json",
        &format!("{VAE}.safetensors"),
    ] {
        let content = fs_err::read(at(rel)).unwrap();
        fs_err::remove_file(at(rel)).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(
            error.contains("is missing") || error.contains("no model_index.json"),
            "{error}"
        );
        fs_err::write(at(rel), content).unwrap();
    }
    let config = fs_err::read_to_string(at("unet/config.json")).unwrap();
    fs_err::write(
        at("unet/config.json"),
        config.replace("\"in_channels\": 4", "\"in_channels\": 9"),
    )
    .unwrap();
    assert!(open(folder.path()).unwrap_err().contains("inpainting"));
    assert!(
        open(at("tokenizer").as_path())
            .unwrap_err()
            .contains("expected a diffusers folder")
    );
    assert_eq!(identify(at("tokenizer")).unwrap().kind, Kind::Unknown);
    assert_eq!(
        identify(at("text_encoder")).unwrap().kind,
        Kind::TextEncoderFolder
    );
    let options = OpenOptions {
        config: Some(folder.path().into()),
        ..OpenOptions::default()
    };
    assert!(Checkpoint::open(miniature_path(), &options).is_err());
    assert!(
        open(Path::new("no/such/model"))
            .unwrap_err()
            .contains("no/such/model")
    );
}

#[test]
fn the_prediction_type_can_be_overruled() {
    let asked = OpenOptions {
        prediction_type: Some(Prediction::V),
        ..OpenOptions::default()
    };
    let model = Checkpoint::open(miniature_path(), &asked).unwrap();
    assert_eq!(model.scheduler["prediction_type"], "v_prediction");
    assert!(
        model.notes[0].contains("v_prediction as asked"),
        "{:?}",
        model.notes
    );
    assert!(
        model
            .component("text_encoder_2")
            .unwrap_err()
            .hint()
            .unwrap()
            .contains("text_encoder, unet, vae")
    );
}

#[test]
fn what_is_missing_left_over_or_misshapen_is_listed() {
    let model = miniature();
    let mut wanted: BTreeMap<String, Vec<usize>> = model.components["unet"]
        .tensors
        .iter()
        .map(|(name, t)| (name.clone(), t.shape().to_vec()))
        .collect();
    expect_names("unet", &model.components["unet"].tensors, &wanted).unwrap();
    wanted.remove("conv_out.bias");
    wanted.insert("conv_in.weight".into(), vec![320, 4, 3, 3]);
    wanted.insert("ghost.weight".into(), vec![2]);
    let error = expect_names("unet", &model.components["unet"].tensors, &wanted)
        .unwrap_err()
        .to_string();
    for line in [
        "left over: unet conv_out.bias [4]",
        "shape: unet conv_in.weight: expected [320, 4, 3, 3], found [96, 4, 3, 3]",
        "missing: unet ghost.weight [2]",
    ] {
        assert!(error.contains(line), "{line} in {error}");
    }
    let mut whole = model.components["unet"].tensors.clone();
    whole.insert(
        "conv_out.bias".into(),
        scumble_nn::files::HostTensor::from_i64([4], &[0; 4]),
    );
    let wanted = model.components["unet"]
        .tensors
        .iter()
        .map(|(name, t)| (name.clone(), t.shape().to_vec()))
        .collect();
    assert!(
        expect_names("unet", &whole, &wanted)
            .unwrap_err()
            .to_string()
            .contains("expected F16, BF16 or F32, found I64")
    );
    let error = expect_names("unet", &Tensors::new(), &wanted)
        .unwrap_err()
        .to_string();
    assert_eq!(error.lines().count(), 21);
    assert!(error.ends_with("... and 266 more"), "{error}");
}
