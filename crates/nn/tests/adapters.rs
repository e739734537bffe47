//! Adapters, partial U-Nets and embeddings: every dialect read, what is written read back, misfits
//! listed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use common::{Lcg, miniature};
use scumble_nn::files::{
    Bytes, Checkpoint, Diff, Dtype, Embedding, EmbeddingLayout, EsdAbout, Family, HostTensor, Kind,
    Lora, LowRank, Spec, TensorFile, Tensors, esd_family, identify, module_names, read_embedding,
    read_esd, read_lora, read_partial, write, write_delta, write_embedding, write_esd, write_kohya,
    write_peft,
};

const ATTN: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k";
const FLAT: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";

fn random(rng: &mut Lcg, shape: &[usize]) -> HostTensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.float()).collect();
    HostTensor::from_f32(shape, &values)
}

fn file(tensors: impl IntoIterator<Item = (String, HostTensor)>) -> TensorFile {
    TensorFile {
        path: PathBuf::from("x/test.safetensors"),
        tensors: tensors.into_iter().collect(),
        metadata: BTreeMap::new(),
    }
}

fn named<const N: usize>(tensors: [(&str, HostTensor); N]) -> TensorFile {
    file(tensors.map(|(k, t)| (k.to_owned(), t)))
}

fn problem(result: Result<Lora, scumble_nn::Error>) -> String {
    result.unwrap_err().to_string()
}

/// A low-rank change of every linear layer and convolution of both networks, ranks 1 to 3, alpha
/// unlike the rank.
fn everything(base: &Checkpoint) -> Lora {
    let mut rng = Lcg(5);
    let mut lora = Lora::default();
    for component in ["text_encoder", "unet"] {
        let tensors = &base.component(component).unwrap().tensors;
        for (i, module) in module_names(tensors).into_iter().enumerate() {
            let shape = tensors
                .get(&format!("{module}.weight"))
                .map(HostTensor::shape)
                .unwrap();
            if shape.len() < 2 || module.contains("embeddings") {
                continue;
            }
            let rank = 1 + i % 3;
            let (down, up) = (
                [&[rank], &shape[1..]].concat(),
                [&[shape[0], rank], &vec![1; shape.len() - 2][..]].concat(),
            );
            lora.low_rank.push(LowRank {
                component: component.into(),
                module,
                down: random(&mut rng, &down),
                up: random(&mut rng, &up),
                alpha: 0.5 + i as f32 / 8.0,
            });
        }
    }
    lora
}

fn assert_same_changes(a: &Lora, b: &Lora, tolerance: f32) {
    assert_eq!(a.low_rank.len(), b.low_rank.len());
    for (x, y) in a.low_rank.iter().zip(&b.low_rank) {
        assert_eq!(
            (&x.component, &x.module, x.rank()),
            (&y.component, &y.module, y.rank())
        );
        assert_eq!(
            (x.down.shape(), x.up.shape()),
            (y.down.shape(), y.up.shape())
        );
        for (p, q) in x.delta().unwrap().iter().zip(y.delta().unwrap()) {
            assert!((p - q).abs() <= tolerance, "{}: {p} {q}", x.module);
        }
    }
}

#[test]
fn kohya_is_written_and_read_back() {
    let base = miniature();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    let lora = everything(&base);
    assert!(lora.low_rank.len() > 120, "{}", lora.low_rank.len());
    let spec = Spec {
        title: "church".into(),
        extra: BTreeMap::from([("scumble.note".into(), "x".into())]),
        ..Spec::of(&base)
    };
    write_kohya(&path, &lora, &spec).unwrap();
    assert_eq!(identify(&path).unwrap().kind, Kind::KohyaLora);
    let file = TensorFile::open(&path).unwrap();
    assert!(
        file.tensors
            .contains_key(&format!("{FLAT}.lora_down.weight"))
    );
    assert!(
        file.tensors
            .contains_key("lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha")
    );
    for (key, value) in [
        ("ss_network_module", "networks.lora"),
        ("ss_network_dim", "Dynamic"),
        ("ss_network_alpha", "3.0"),
        ("modelspec.architecture", "stable-diffusion-custom/lora"),
        ("modelspec.title", "church"),
        ("modelspec.resolution", "32x32"),
        ("modelspec.prediction_type", "epsilon"),
        ("scumble.note", "x"),
    ] {
        assert_eq!(file.metadata[key], value, "{key}");
    }
    let again = read_lora(&file, &base).unwrap();
    assert!(again.notes.is_empty(), "{:?}", again.notes);
    assert_same_changes(&lora, &again, 1e-5);
    // The alphas differ, so they are brought to one, the highest rank; one that is shared is kept.
    assert!(again.low_rank.iter().all(|l| l.alpha == 3.0));
    let mut shared = lora;
    shared.low_rank.iter_mut().for_each(|l| l.alpha = 0.7);
    write_kohya(&path, &shared, &spec).unwrap();
    let again = read_lora(&TensorFile::open(&path).unwrap(), &base).unwrap();
    assert_same_changes(&shared, &again, 0.0);
    assert_eq!(again.low_rank[0].alpha, 0.7);
    // An alpha of 0 switches a change off; readers take 0 for the rank, so it goes into the factor.
    shared.low_rank.iter_mut().for_each(|l| l.alpha = 0.0);
    write_kohya(&path, &shared, &spec).unwrap();
    let again = read_lora(&TensorFile::open(&path).unwrap(), &base).unwrap();
    assert!(
        again
            .low_rank
            .iter()
            .all(|l| l.delta().unwrap().iter().all(|d| *d == 0.0))
    );
}

#[test]
fn peft_is_written_and_read_back() {
    let base = miniature();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_lora_weights.safetensors");
    let lora = everything(&base);
    write_peft(&path, &lora, &BTreeMap::new()).unwrap();
    assert_eq!(identify(&path).unwrap().kind, Kind::PeftLora);
    let file = TensorFile::open(&path).unwrap();
    assert!(
        file.tensors
            .contains_key(&format!("unet.{ATTN}.lora_A.weight"))
    );
    assert_same_changes(&lora, &read_lora(&file, &base).unwrap(), 1e-5);
}

/// numpy: alpha / r * up @ down with down = [[1, 2, 3], [4, 5, 6]], up = [[1, 0], [0, 1], [1, -1],
/// [2, 0.5]], alpha = 3
#[test]
fn the_change_is_alpha_over_rank_times_the_product() {
    let change = LowRank {
        component: "unet".into(),
        module: "m".into(),
        down: HostTensor::from_f32([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        up: HostTensor::from_f32([4, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, -1.0, 2.0, 0.5]),
        alpha: 3.0,
    };
    let expected = [
        1.5, 3.0, 4.5, 6.0, 7.5, 9.0, -4.5, -4.5, -4.5, 6.0, 9.75, 13.5,
    ];
    assert_eq!(change.delta().unwrap(), expected);
}

#[test]
fn whole_differences_are_written_and_read_back() {
    let base = miniature();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("delta.safetensors");
    let mut rng = Lcg(9);
    let mut lora = Lora::default();
    for (component, name) in [
        ("text_encoder", "text_model.encoder.layers.1.mlp.fc1.bias"),
        ("unet", "conv_norm_out.weight"),
        (
            "unet",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        ),
    ] {
        let shape = base.component(component).unwrap().tensors[name]
            .shape()
            .to_vec();
        lora.diffs.push(Diff {
            component: component.into(),
            name: name.into(),
            diff: random(&mut rng, &shape),
        });
    }
    write_delta(&path, &lora.diffs, &base, &Spec::of(&base)).unwrap();
    assert_eq!(identify(&path).unwrap().kind, Kind::Delta);
    let file = TensorFile::open(&path).unwrap();
    // A1111 wants a weight beside every bias, and takes `out_0` for the last norm, as ComfyUI does.
    let fc1 = "lora_te_text_model_encoder_layers_1_mlp_fc1";
    let mut keys = vec![
        format!("{fc1}.diff"),
        format!("{fc1}.diff_b"),
        format!("{FLAT}.diff"),
        "lora_unet_out_0.diff".into(),
    ];
    keys.sort();
    assert_eq!(file.tensors.keys().cloned().collect::<Vec<_>>(), keys);
    assert!(
        file.tensors[&format!("{fc1}.diff")]
            .to_f32()
            .unwrap()
            .iter()
            .all(|v| *v == 0.0)
    );
    let again = read_lora(&file, &base).unwrap();
    for a in &lora.diffs {
        let b = again
            .diffs
            .iter()
            .find(|b| (&a.component, &a.name) == (&b.component, &b.name))
            .unwrap();
        assert_eq!(a.diff.bytes(), b.diff.bytes());
    }
    assert_eq!(again.diffs.len(), 4);

    let vae = Diff {
        component: "vae".into(),
        name: "quant_conv.weight".into(),
        diff: random(&mut rng, &[1]),
    };
    let error = write_delta(&path, &[vae], &base, &Spec::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no name in a LoRA file: vae quant_conv.weight"),
        "{error}"
    );
    assert!(
        write_peft(&path, &lora, &BTreeMap::new())
            .unwrap_err()
            .to_string()
            .contains("whole change")
    );
    assert!(
        write_kohya(&path, &lora, &Spec::default())
            .unwrap_err()
            .to_string()
            .contains("whole change")
    );
    assert!(write_kohya(&path, &Lora::default(), &Spec::default()).is_err());
}

/// What ComfyUI 0.12 and A1111 1.8 load was tried in them: ComfyUI has no kohya name for the text
/// encoder's norms and tables.
#[test]
fn the_text_encoders_norms_and_tables_carry_the_names_of_both_programs() {
    let (folder, mut base) = (tempfile::tempdir().unwrap(), miniature());
    let path = folder.path().join("delta.safetensors");
    let mut rng = Lcg(19);
    let names = [
        "text_model.encoder.layers.0.layer_norm1.weight",
        "text_model.encoder.layers.0.layer_norm1.bias",
        "text_model.final_layer_norm.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
    ];
    let diffs: Vec<Diff> = names
        .iter()
        .map(|name| {
            let shape = base.components["text_encoder"].tensors[*name]
                .shape()
                .to_vec();
            Diff {
                component: "text_encoder".into(),
                name: (*name).into(),
                diff: random(&mut rng, &shape),
            }
        })
        .collect();
    let comfy = "text_encoders.clip_l.transformer.text_model";
    let layer = "lora_te_text_model_encoder_layers_0";
    let first = vec![
        format!("{layer}_layer_norm1.diff"),
        format!("{layer}_layer_norm1.diff_b"),
        format!("{layer}_self_attn_q_proj.diff"),
        "lora_te1_text_model_final_layer_norm.diff".into(),
        format!("{comfy}.embeddings.token_embedding.diff"),
        format!("{comfy}.encoder.layers.0.layer_norm1.diff"),
        format!("{comfy}.encoder.layers.0.layer_norm1.diff_b"),
        format!("{comfy}.final_layer_norm.diff"),
    ];
    // A1111 does not find the norms of OpenCLIP under any of these names.
    let second: Vec<String> = first
        .iter()
        .filter(|key| key.starts_with("text_encoders") || key.contains("q_proj"))
        .map(|key| key.replace("clip_l", "clip_h"))
        .collect();
    for (family, mut keys) in [
        (Family::Custom, first.clone()),
        (Family::Sd1, first),
        (Family::Sd2, second),
    ] {
        base.family = family;
        write_delta(&path, &diffs, &base, &Spec::of(&base)).unwrap();
        let file = TensorFile::open(&path).unwrap();
        keys.sort();
        assert_eq!(
            file.tensors.keys().cloned().collect::<Vec<_>>(),
            keys,
            "{family:?}"
        );
        // Two spellings of one change are one change.
        assert_eq!(identify(&path).unwrap().kind, Kind::Delta);
        let again = read_lora(&file, &base).unwrap();
        assert_eq!(again.diffs.len(), diffs.len());
        assert!(diffs.iter().all(|a| {
            again
                .diffs
                .iter()
                .any(|b| a.name == b.name && a.diff.bytes() == b.diff.bytes())
        }));
    }
    let mut other = TensorFile::open(&path).unwrap();
    let key = "lora_te_text_model_encoder_layers_0_layer_norm1.diff";
    other.tensors.insert(
        key.into(),
        random(
            &mut rng,
            base.components["text_encoder"].tensors[names[0]].shape(),
        ),
    );
    assert!(problem(read_lora(&other, &base)).contains("there twice"));
}

#[test]
fn every_dialect_names_the_same_module() {
    let base = miniature();
    let mut rng = Lcg(1);
    let (down, up) = (random(&mut rng, &[2, 128]), random(&mut rng, &[96, 2]));
    let old = ATTN.replace("attn2.to_k", "attn2.processor.to_k_lora");
    for (down_key, up_key) in [
        (
            format!("{FLAT}.lora_down.weight"),
            format!("{FLAT}.lora_up.weight"),
        ),
        // LDM's own paths, as SD 1.x adapters of the first days have them.
        (
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_down.weight".into(),
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_up.weight".into(),
        ),
        (
            format!("unet.{ATTN}.lora_A.weight"),
            format!("unet.{ATTN}.lora_B.weight"),
        ),
        (
            format!("unet.{ATTN}.lora.down.weight"),
            format!("unet.{ATTN}.lora.up.weight"),
        ),
        (
            format!("base_model.model.{ATTN}.lora_A.weight"),
            format!("base_model.model.{ATTN}.lora_B.weight"),
        ),
        (
            format!("base_model.model.unet.{ATTN}.lora_A.default.weight"),
            format!("base_model.model.unet.{ATTN}.lora_B.default.weight"),
        ),
        (
            format!("unet.{old}.down.weight"),
            format!("unet.{old}.up.weight"),
        ),
    ] {
        let lora = read_lora(
            &file([(down_key.clone(), down.clone()), (up_key, up.clone())]),
            &base,
        )
        .unwrap();
        assert_eq!(
            (
                lora.low_rank[0].component.as_str(),
                lora.low_rank[0].module.as_str()
            ),
            ("unet", ATTN),
            "{down_key}"
        );
        assert_eq!((lora.low_rank.len(), lora.low_rank[0].scale()), (1, 1.0));
        assert_eq!(lora.notes, ["1 module(s) without alpha: scale 1"]);
    }
    // Modules without a block in their path are the U-Net's too.
    let shape = base.components["unet"].tensors["conv_in.weight"]
        .shape()
        .to_vec();
    let conv = file([
        (
            "base_model.model.conv_in.lora_A.weight".to_owned(),
            random(&mut rng, &[2, shape[1], 3, 3]),
        ),
        (
            "base_model.model.conv_in.lora_B.weight".to_owned(),
            random(&mut rng, &[shape[0], 2, 1, 1]),
        ),
    ]);
    assert_eq!(
        read_lora(&conv, &base).unwrap().low_rank[0].component,
        "unet"
    );
    let (down, up) = (random(&mut rng, &[2, 128]), random(&mut rng, &[128, 2]));
    let module = "text_model.encoder.layers.2.self_attn.out_proj";
    for key in [
        "lora_te_text_model_encoder_layers_2_self_attn_out_proj.lora_",
        "lora_te1_text_model_encoder_layers_2_self_attn_out_proj.lora_",
        "text_encoder.text_model.encoder.layers.2.self_attn.out_proj.lora_linear_layer.",
        "text_encoder.text_model.encoder.layers.2.self_attn.to_out_lora.",
        "text_encoder.encoder.layers.2.self_attn.out_proj.lora.",
    ] {
        let lora = named([
            (&format!("{key}down.weight"), down.clone()),
            (&format!("{key}up.weight"), up.clone()),
        ]);
        assert_eq!(
            read_lora(&lora, &base).unwrap().low_rank[0].module,
            module,
            "{key}"
        );
    }
}

#[test]
fn alpha_comes_from_the_tensor_the_metadata_or_the_file_beside() {
    let base = miniature();
    let mut rng = Lcg(2);
    let factors = |a: &str, b: &str| {
        let mut rng = Lcg(3);
        named([
            (a, random(&mut rng, &[4, 128])),
            (b, random(&mut rng, &[96, 4])),
        ])
    };
    let (down, up) = (
        format!("{FLAT}.lora_down.weight"),
        format!("{FLAT}.lora_up.weight"),
    );
    for (alpha, expected) in [
        (HostTensor::from_f32([], &[2.0]), 0.5),
        (
            HostTensor::from_f32([1], &[1.0]).cast(Dtype::BF16).unwrap(),
            0.25,
        ),
        (HostTensor::from_i64([], &[8]), 2.0),
        (HostTensor::from_f32([], &[0.0]), 1.0),
    ] {
        let mut lora = factors(&down, &up);
        lora.tensors.insert(format!("{FLAT}.alpha"), alpha);
        assert_eq!(
            read_lora(&lora, &base).unwrap().low_rank[0].scale(),
            expected
        );
    }
    for bad in [
        HostTensor::from_f32([], &[f32::NAN]),
        HostTensor::from_f32([2], &[1.0, 1.0]),
        random(&mut rng, &[0]),
    ] {
        let mut lora = factors(&down, &up);
        lora.tensors.insert(format!("{FLAT}.alpha"), bad);
        assert!(problem(read_lora(&lora, &base)).contains("expected one finite number"));
    }
    let peft = || {
        factors(
            &format!("unet.{ATTN}.lora_A.weight"),
            &format!("unet.{ATTN}.lora_B.weight"),
        )
    };
    for (json, expected) in [
        (r#"{"unet.r": 4, "unet.lora_alpha": 2}"#, 0.5),
        (r#"{"unet.lora_alpha": 2, "unet.use_rslora": true}"#, 1.0),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"attn2.to_k": 12}}"#,
            3.0,
        ),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"ttn2.to_k": 12}}"#,
            0.5,
        ),
        // Regular expressions, the first in the file's order:
        // peft.utils.other.get_pattern_key(patterns, module) of PEFT 0.21 is
        // "down_blocks\\..*attn2\\.to_k", "to_k", "attn2.to_k", the module itself (none),
        // "^down_blocks.*to_k", "(a|b)ttn2.to_(k|v)".
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"down_blocks\\..*attn2\\.to_k": 16}}"#,
            4.0,
        ),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_k": 16, "attn2.to_k": 1}}"#,
            4.0,
        ),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"attn2.to_k": 1, "to_k": 16}}"#,
            0.25,
        ),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_": 16, "down_blocks": 16, "attn2": 16}}"#,
            0.5,
        ),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"^down_blocks.*to_k": 16}}"#,
            4.0,
        ),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"(a|b)ttn2.to_(k|v)": 16}}"#,
            4.0,
        ),
        (
            r#"{"unet.lora_alpha": 2, "unet.alpha_pattern": {"attn(?!1).*": 16}, "unet.use_rslora": true}"#,
            8.0,
        ),
        (r#"{"text_encoder.lora_alpha": 2}"#, 1.0),
    ] {
        let mut lora = peft();
        lora.metadata
            .insert("lora_adapter_metadata".into(), json.into());
        assert_eq!(
            read_lora(&lora, &base).unwrap().low_rank[0].scale(),
            expected,
            "{json}"
        );
    }
    for (pattern, said) in [
        (r#"{"(": 1}"#, "is not a regular expression"),
        (r#"{"to_k": "16"}"#, "expected a number"),
        (r#"{"to_k": NaN}"#, "expected a number"),
        (
            &format!(r#"{{"{}": 1}}"#, "a".repeat(2000)),
            "at most 1000 bytes",
        ),
        (r#"{"(.*)(.*)(.*)(.*)(.*)\\3zzz": 1}"#, "backtrack"),
    ] {
        let mut lora = peft();
        lora.metadata.insert(
            "lora_adapter_metadata".into(),
            format!(r#"{{"unet.lora_alpha": 2, "unet.alpha_pattern": {pattern}}}"#),
        );
        let error = problem(read_lora(&lora, &base));
        assert!(
            error.contains("`alpha_pattern`") && error.contains(said),
            "{pattern}: {error}"
        );
    }
    let mut lora = peft();
    lora.metadata
        .insert("lora_adapter_metadata".into(), "[]".into());
    assert!(problem(read_lora(&lora, &base)).contains("lora_adapter_metadata"));
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(
        folder.path().join("adapter_config.json"),
        r#"{"lora_alpha": 16, "r": 4}"#,
    )
    .unwrap();
    let mut lora = peft();
    lora.path = folder.path().join("adapter_model.safetensors");
    let lora = read_lora(&lora, &base).unwrap();
    assert_eq!(lora.low_rank[0].scale(), 4.0);
    assert!(lora.notes[0].contains("adapter_config.json"));
}

#[test]
fn adapters_that_do_not_fit_are_refused_with_every_misfit() {
    let base = miniature();
    let mut rng = Lcg(4);
    let (down, up) = (random(&mut rng, &[2, 128]), random(&mut rng, &[96, 2]));
    let pair = |a: &HostTensor, b: &HostTensor| {
        named([
            (&format!("{FLAT}.lora_down.weight"), a.clone()),
            (&format!("{FLAT}.lora_up.weight"), b.clone()),
        ])
    };
    // A convolution's factors for a linear layer are the same numbers.
    let four = (
        down.reshaped([2, 128, 1, 1]).unwrap(),
        up.reshaped([96, 2, 1, 1]).unwrap(),
    );
    assert_eq!(
        read_lora(&pair(&four.0, &four.1), &base).unwrap().low_rank[0]
            .down
            .shape(),
        [2, 128]
    );
    for (a, b) in [
        (random(&mut rng, &[2, 127]), up.clone()),
        (down.clone(), random(&mut rng, &[96, 3])),
        (down.clone(), random(&mut rng, &[2, 96])),
        (random(&mut rng, &[2, 128, 3, 3]), up.clone()),
        (random(&mut rng, &[0, 128]), random(&mut rng, &[96, 0])),
        (random(&mut rng, &[]), up.clone()),
    ] {
        assert!(
            problem(read_lora(&pair(&a, &b), &base)).contains("shape: unet down_blocks.0"),
            "{a:?} {b:?}"
        );
    }
    let ints = HostTensor::from_i64([96, 2], &[0; 192]);
    assert!(problem(read_lora(&pair(&down, &ints), &base)).contains("dtype"));

    let mut lora = pair(&down, &up);
    for key in [
        "lora_unet_no_such_module.lora_down.weight",
        "lora_te_text_model_encoder_layers_9_mlp_fc1.lora_up.weight",
        "stray",
        &format!("{FLAT}.dora_scale"),
        "lora_unet_conv_in.hada_w1_a",
        "lora_unet_conv_in.oft_blocks",
        "lora_unet_conv_in.a1.weight",
    ] {
        lora.tensors.insert(key.into(), down.clone());
    }
    let error = problem(read_lora(&lora, &base));
    for part in [
        "no_such_module",
        "layers_9_mlp_fc1",
        "left over: stray",
        "its magnitudes are [2, 128]",
        "unet conv_in: the factor hada_w1_b",
        "oft_blocks: OFT",
        "a1.weight: GLoRA",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let half = named([(&format!("{FLAT}.lora_down.weight"), down.clone())]);
    assert!(
        problem(read_lora(&half, &base))
            .contains(&format!("missing: unet {ATTN}: the up (B) factor"))
    );
    let twice = named([
        (&format!("{FLAT}.lora_down.weight"), down.clone()),
        (&format!("{FLAT}.lora_up.weight"), up.clone()),
        (
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_up.weight",
            random(&mut rng, &[96, 2]),
        ),
    ]);
    assert!(problem(read_lora(&twice, &base)).contains("there twice"));
    let sdxl = named([(
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        down.clone(),
    )]);
    assert!(problem(read_lora(&sdxl, &base)).contains("SDXL"));
    assert!(problem(read_lora(&named([("x", down.clone())]), &base)).contains("expected a LoRA"));
    let mut many = pair(&down, &up);
    for i in 0..333 {
        many.tensors.insert(format!("stray {i}"), down.clone());
    }
    assert!(problem(read_lora(&many, &base)).ends_with("... and 313 more"));
}

#[test]
fn partial_unets_are_checked_against_the_base() {
    let base = miniature();
    let name = format!("{ATTN}.weight");
    let weight = base.components["unet"].tensors[&name].clone();
    let other = base.components["unet"].tensors["conv_in.bias"].clone();
    for prefix in ["", "unet."] {
        let lora = named([
            (&format!("{prefix}{name}"), weight.clone()),
            (&format!("{prefix}conv_in.bias"), other.clone()),
        ]);
        let read = read_partial(lora, &base).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["conv_in.bias", &name]);
    }
    let wrong = named([
        (&name, random(&mut Lcg(1), &[96, 127])),
        ("conv_in.bias", HostTensor::from_i64([96], &[0; 96])),
        ("up_blocks.7.x", other.clone()),
        (
            "conv_out.bias",
            base.components["unet"].tensors["conv_out.bias"].clone(),
        ),
        (
            "unet.conv_out.bias",
            base.components["unet"].tensors["conv_out.bias"].clone(),
        ),
    ]);
    let error = read_partial(wrong, &base).unwrap_err().to_string();
    for part in [
        "shape: unet down_blocks.0",
        "dtype: unet conv_in.bias",
        "left over: up_blocks.7.x",
        "there twice: unet conv_out.bias",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(
        read_partial(named([]), &base)
            .unwrap_err()
            .to_string()
            .contains("no tensor")
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esd-church.safetensors");
    write(&path, [(name, weight)], &BTreeMap::new()).unwrap();
    assert_eq!(identify(&path).unwrap().kind, Kind::PartialUNet);
    write(
        &path,
        [("x.weight".to_owned(), other)],
        &BTreeMap::from([("scumble.edit".into(), "1".into())]),
    )
    .unwrap();
    assert_eq!(identify(&path).unwrap().kind, Kind::ScumbleEdit);
}

#[test]
fn esds_own_files_are_written_and_read() {
    let base = miniature();
    let name = format!("{ATTN}.weight");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esd.safetensors");
    let about = EsdAbout {
        family: Some(esd_family(&base)),
        base_model_id: "someone/emoji".into(),
        train_method: "esd-x".into(),
        erase_concept: "a church".into(),
        guidance_scale: Some(3.0),
        batch_size: Some(8),
        ..EsdAbout::default()
    };
    let extra = BTreeMap::from([
        ("scumble.note".to_owned(), "x".to_owned()),
        ("format".to_owned(), "pt".to_owned()),
    ]);
    let weight = base.components["unet"].tensors[&name].clone();
    let tensors = Tensors::from([(name.clone(), weight.clone())]);
    write_esd(&path, tensors, Some(Dtype::F32), &about, &extra).unwrap();
    assert_eq!(identify(&path).unwrap().kind, Kind::Esd);
    let file = TensorFile::open(&path).unwrap();
    let plain: Vec<(&str, &str)> = file
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        plain,
        [
            ("base_model_id", "someone/emoji"),
            ("batch_size", "8"),
            ("component", "unet"),
            ("erase_concept", "a church"),
            ("erase_from", ""),
            ("family", "sd"),
            ("format", "erasing-esd-v2"),
            ("guidance_scale", "3.0"),
            ("scumble.note", "x"),
            ("train_method", "esd-x"),
        ]
    );
    let (said, read) = read_esd(file, &base).unwrap();
    assert_eq!(said, about);
    assert_eq!(read.keys().collect::<Vec<_>>(), [&name]);
    assert_eq!(read[&name].to_f32(), weight.to_f32());

    // Damaged metadata, another family, tensors of another model.
    let with = |key: &str, value: &str, tensor: &str| {
        let mut metadata = about.metadata();
        metadata.insert(key.into(), value.into());
        write(&path, [(tensor.to_owned(), weight.clone())], &metadata).unwrap();
        TensorFile::open(&path).unwrap()
    };
    let damaged = read_esd(with("guidance_scale", "much", &name), &base).unwrap_err();
    assert!(
        damaged.to_string().contains("esd.safetensors")
            && damaged.to_string().contains("`guidance_scale` is \"much\""),
        "{damaged}"
    );
    with("family", "flux", &name);
    assert_eq!(
        identify(&path).unwrap().kind,
        Kind::OtherFamily("an ESD file for Flux")
    );
    let other = with("family", "sdxl", &name);
    let foreign = read_esd(other, &base).unwrap_err().to_string();
    assert!(
        foreign.contains("for SDXL, expected an ESD file for Stable Diffusion"),
        "{foreign}"
    );
    let left = read_esd(with("family", "sd", "up_blocks.7.x"), &base).unwrap_err();
    assert!(
        left.to_string().contains("left over: up_blocks.7.x"),
        "{left}"
    );
}

#[test]
fn embeddings_are_written_and_read_in_both_layouts() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Lcg(8);
    let embedding = Embedding::one(
        "<church>",
        (0..3)
            .map(|_| (0..128).map(|_| rng.float()).collect())
            .collect(),
    );
    for layout in [EmbeddingLayout::Diffusers, EmbeddingLayout::A1111] {
        let path = folder.path().join("other-name.safetensors");
        write_embedding(&path, &embedding, layout).unwrap();
        assert_eq!(identify(&path).unwrap().kind, Kind::TextualInversion);
        assert_eq!(
            read_embedding(&TensorFile::open(&path).unwrap(), &[("text_encoder", 128)]).unwrap(),
            embedding
        );
    }
    let one = read_embedding(
        &named([("<cat>", random(&mut rng, &[128]))]),
        &[("text_encoder", 128)],
    )
    .unwrap();
    assert_eq!(
        (one.token.as_str(), one.vectors("text_encoder").len()),
        ("<cat>", 1)
    );
    // Without a name in the metadata, A1111 takes the file's.
    for key in ["*", "emb_params", "string_to_param.*", "clip_l"] {
        assert_eq!(
            read_embedding(
                &named([(key, random(&mut rng, &[2, 128]))]),
                &[("text_encoder", 128)]
            )
            .unwrap()
            .token,
            "test",
            "{key}"
        );
    }
    // What a checkpoint of textual inversion's own code holds is no word of that name.
    let managed = named([(
        "embedding_manager.string_to_param_dict.*",
        random(&mut rng, &[1, 128]),
    )]);
    let error = read_embedding(&managed, &[("text_encoder", 128)]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`embedding_manager.string_to_param_dict.*`")
            && error.hint().unwrap().contains("--embedding"),
        "{error}"
    );
    for (tensors, expected) in [
        (
            named([
                ("a", random(&mut rng, &[128])),
                ("b", random(&mut rng, &[128])),
            ]),
            "expected one tensor",
        ),
        (named([]), "expected one tensor"),
        (
            named([("a", random(&mut rng, &[2, 768]))]),
            "expected vectors of 128",
        ),
        (
            named([("a", random(&mut rng, &[0, 128]))]),
            "expected 1 to 1024 vectors",
        ),
        (
            named([("a", random(&mut rng, &[2, 2, 128]))]),
            "expected shape",
        ),
        (named([("a", random(&mut rng, &[]))]), "expected shape"),
        (
            named([("a", HostTensor::from_i64([128], &[0; 128]))]),
            "found I64",
        ),
        (
            named([("a", HostTensor::from_f32([128], &[f32::INFINITY; 128]))]),
            "not finite: `a`: 128 of 128",
        ),
    ] {
        let error = read_embedding(&tensors, &[("text_encoder", 128)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{expected} in {error}");
    }
    let path = folder.path().join("x");
    for vectors in [vec![], vec![vec![]], vec![vec![1.0], vec![1.0, 2.0]]] {
        assert!(
            write_embedding(
                &path,
                &Embedding::one("a", vectors),
                EmbeddingLayout::Diffusers
            )
            .is_err()
        );
    }
    assert!(!path.exists());
}

/// Flipped bits in adapter and embedding files: an answer each time.
#[test]
fn broken_adapters_are_answered() {
    let base = miniature();
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Lcg(6);
    let mut small = everything(&base);
    small.low_rank.truncate(3);
    let path = |name: &str| folder.path().join(name);
    write_kohya(&path("kohya"), &small, &Spec::default()).unwrap();
    write_peft(
        &path("peft"),
        &small,
        &BTreeMap::from([(
            "lora_adapter_metadata".into(),
            r#"{"unet.lora_alpha":2}"#.into(),
        )]),
    )
    .unwrap();
    write(
        path("partial"),
        [(
            "conv_in.bias".to_owned(),
            base.components["unet"].tensors["conv_in.bias"].clone(),
        )],
        &BTreeMap::new(),
    )
    .unwrap();
    let embedding = Embedding::one("<a>", vec![vec![0.5; 128]]);
    write_embedding(&path("embedding"), &embedding, EmbeddingLayout::A1111).unwrap();
    let (mut yes, mut no) = (0, 0);
    for name in ["kohya", "peft", "partial", "embedding"] {
        let whole = fs_err::read(path(name)).unwrap();
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        for _ in 0..500 {
            let mut copy = whole.clone();
            let at = rng.below(header);
            copy[at] ^= 1 << rng.below(7);
            let Ok(file) = TensorFile::from_bytes(Path::new(name), Bytes::Owned(copy.into()))
            else {
                no += 1;
                continue;
            };
            let answers = [
                read_lora(&file, &base)
                    .map(|l| l.low_rank.iter().for_each(|c| drop(c.delta())))
                    .is_ok(),
                read_partial(file.clone(), &base).is_ok(),
                read_embedding(&file, &[("text_encoder", 128)]).is_ok(),
            ];
            if answers.contains(&true) {
                yes += 1
            } else {
                no += 1
            }
        }
    }
    assert!(yes > 100 && no > 500, "{yes} {no}");
}

/// Writes every kind of export of the miniature into $SCUMBLE_EXPORTS for golden/check_exports.py,
/// which loads them with diffusers:
///
///     SCUMBLE_EXPORTS=/tmp/exports cargo test -p scumble-nn --test adapters -- --ignored
///     python crates/nn/tests/golden/check_exports.py /tmp/exports
#[test]
#[ignore = "writes files for golden/check_exports.py"]
fn writes_exports_for_diffusers() {
    use scumble_nn::files::{Precision, write_folder, write_single};
    let out =
        PathBuf::from(std::env::var("SCUMBLE_EXPORTS").expect("SCUMBLE_EXPORTS names a folder"));
    fs_err::create_dir_all(&out).unwrap();
    let base = miniature();
    write_folder(
        &base,
        &out.join("folder"),
        Precision::Keep,
        Some("# emoji-sd\n"),
    )
    .unwrap();
    write_folder(&base, &out.join("half"), Precision::F16, None).unwrap();
    write_single(
        &base,
        &out.join("single.safetensors"),
        Precision::Keep,
        &BTreeMap::new(),
    )
    .unwrap();
    let mut bare = base.clone();
    let clip = scumble_nn::files::TokenizerFiles {
        pad: scumble_nn::files::Pad::Zero,
        ..Default::default()
    };
    bare.tokenizers.insert("tokenizer".into(), clip);
    write_folder(&bare, &out.join("clip"), Precision::Keep, None).unwrap();
    let mut lora = everything(&base);
    for change in &mut lora.low_rank {
        // Small enough that pictures stay pictures.
        let small: Vec<f32> = change
            .up
            .to_f32()
            .unwrap()
            .iter()
            .map(|v| v * 0.01)
            .collect();
        change.up = HostTensor::from_f32(change.up.shape(), &small);
    }
    write_kohya(&out.join("kohya.safetensors"), &lora, &Spec::of(&base)).unwrap();
    write_peft(&out.join("peft.safetensors"), &lora, &BTreeMap::new()).unwrap();
    let mut merged = Tensors::new();
    for change in &lora.low_rank {
        let name = format!("{}.weight", change.module);
        let weight = &base.component(&change.component).unwrap().tensors[&name];
        let sum: Vec<f32> = weight
            .to_f32()
            .unwrap()
            .iter()
            .zip(change.delta().unwrap())
            .map(|(w, d)| w + d)
            .collect();
        merged.insert(
            format!("{}.{name}", change.component),
            HostTensor::from_f32(weight.shape(), &sum),
        );
    }
    write(out.join("merged.safetensors"), merged, &BTreeMap::new()).unwrap();
    let embedding = Embedding::one("<cat2>", vec![vec![0.5; 128], vec![0.25; 128]]);
    write_embedding(
        &out.join("embedding.safetensors"),
        &embedding,
        EmbeddingLayout::Diffusers,
    )
    .unwrap();
    write_embedding(
        &out.join("embedding-a1111.safetensors"),
        &embedding,
        EmbeddingLayout::A1111,
    )
    .unwrap();
}
