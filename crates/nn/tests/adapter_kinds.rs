//! Adapters beyond plain LoRA, and the names of more tools: what is read, as what, and what is
//! refused by which name.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{collections::BTreeMap, path::PathBuf};

use common::{Lcg, miniature};
use scumble_nn::files::{
    Dtype, HostTensor, Kind, TensorFile, algorithms, identify::kind_of, read_bundled, read_lora,
    read_partial,
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

fn shaped(module: &str, pieces: &[(&str, &[usize])]) -> TensorFile {
    let mut rng = Lcg(7);
    file(
        pieces
            .iter()
            .map(|(piece, shape)| (format!("{module}.{piece}"), random(&mut rng, shape))),
    )
}

/// [96, 128]: the weight that FLAT names.
#[test]
fn loha_lokr_and_locon_become_differences_of_their_weight() {
    let base = miniature();
    for (name, pieces) in [
        (
            "LoHa",
            &[
                ("hada_w1_a", &[96, 4][..]),
                ("hada_w1_b", &[4, 128]),
                ("hada_w2_a", &[96, 4]),
                ("hada_w2_b", &[4, 128]),
            ][..],
        ),
        ("LoKr", &[("lokr_w1", &[8, 8]), ("lokr_w2", &[12, 16])]),
        (
            "LoKr",
            &[
                ("lokr_w1_a", &[8, 2]),
                ("lokr_w1_b", &[2, 8]),
                ("lokr_w2_a", &[12, 2]),
                ("lokr_w2_b", &[2, 16]),
            ],
        ),
        (
            "DoRA",
            &[
                ("lora_down.weight", &[4, 128]),
                ("lora_up.weight", &[96, 4]),
                ("dora_scale", &[1, 128]),
            ],
        ),
        (
            "DoRA",
            &[
                ("lora_down.weight", &[4, 128]),
                ("lora_up.weight", &[96, 4]),
                ("dora_scale", &[96, 1]),
            ],
        ),
    ] {
        let adapter = shaped(FLAT, pieces);
        assert_eq!(kind_of(&adapter), Kind::KohyaLora, "{name}");
        assert!(algorithms(adapter.tensors.keys()).contains(&name));
        let lora = read_lora(&adapter, &base).unwrap();
        assert_eq!((lora.low_rank.len(), lora.diffs.len()), (0, 1), "{name}");
        assert_eq!(
            (lora.diffs[0].name.as_str(), lora.diffs[0].diff.shape()),
            (&*format!("{ATTN}.weight"), &[96, 128][..])
        );
        assert!(
            lora.notes
                .iter()
                .any(|note| note.contains(name) && note.contains("difference to this model")),
            "{:?}",
            lora.notes
        );
    }
    // A convolution in Tucker's form keeps two factors.
    let conv = "lora_unet_up_blocks_1_resnets_0_conv1";
    let [out, inputs, _, _] = base.components["unet"].tensors["up_blocks.1.resnets.0.conv1.weight"]
        .shape()
        .try_into()
        .unwrap();
    let locon: [(&str, &[usize]); 3] = [
        ("lora_down.weight", &[2, inputs, 1, 1]),
        ("lora_mid.weight", &[2, 2, 3, 3]),
        ("lora_up.weight", &[out, 2, 1, 1]),
    ];
    let lora = read_lora(&shaped(conv, &locon), &base).unwrap();
    assert_eq!(
        (lora.low_rank[0].rank(), lora.low_rank[0].down.shape()),
        (2, &[2, inputs, 3, 3][..])
    );
    // By hand: one number of up[p] core[.., k] down[.., r].
    let pieces = shaped(conv, &locon).tensors;
    let numbers = |end: &str| pieces[&format!("{conv}.{end}")].to_f32().unwrap();
    let (down, core, up) = (
        numbers("lora_down.weight"),
        numbers("lora_mid.weight"),
        numbers("lora_up.weight"),
    );
    let (p, r, k) = (5, 3, 4);
    let sum = |i: usize, j: usize| up[2 * p + i] * core[(2 * i + j) * 9 + k] * down[j * inputs + r];
    let expected: f32 = (0..2)
        .flat_map(|i| (0..2).map(move |j| (i, j)))
        .map(|(i, j)| sum(i, j))
        .sum();
    assert!((lora.low_rank[0].delta().unwrap()[(p * inputs + r) * 9 + k] - expected).abs() < 1e-5);
}

#[test]
fn norms_biases_and_idle_alphas_are_read_as_lycoris_writes_them() {
    let base = miniature();
    let norm = "lora_unet_mid_block_attentions_0_transformer_blocks_0_norm2";
    let width =
        base.components["unet"].tensors["mid_block.attentions.0.transformer_blocks.0.norm2.weight"]
            .len();
    let lora = read_lora(
        &shaped(norm, &[("w_norm", &[width]), ("b_norm", &[width])]),
        &base,
    )
    .unwrap();
    let names: Vec<&str> = lora
        .diffs
        .iter()
        .map(|d| d.name.rsplit_once('.').unwrap().1)
        .collect();
    assert_eq!(names, ["bias", "weight"]);
    // An alpha beside a whole difference scales nothing, in no reader.
    let whole = shaped(FLAT, &[("diff", &[96, 128]), ("alpha", &[])]);
    assert_eq!(kind_of(&whole), Kind::Delta);
    let lora = read_lora(&whole, &base).unwrap();
    assert_eq!(
        lora.diffs[0].diff.bytes(),
        whole.tensors[&format!("{FLAT}.diff")].bytes()
    );
    assert!(
        lora.notes[0].contains("1 alpha(s) beside whole differences"),
        "{:?}",
        lora.notes
    );
    // Factors and a difference of one weight add up, whatever the algebra.
    let mut both = shaped(FLAT, &[("lokr_w1", &[8, 8]), ("lokr_w2", &[12, 16])]);
    let alone = read_lora(&both, &base).unwrap().diffs[0]
        .diff
        .to_f32()
        .unwrap();
    both.tensors.insert(
        format!("{FLAT}.diff"),
        HostTensor::from_f32([96, 128], &[1.0; 96 * 128]),
    );
    let sum = read_lora(&both, &base).unwrap().diffs[0]
        .diff
        .to_f32()
        .unwrap();
    assert!(
        sum.iter()
            .zip(&alone)
            .all(|(s, a)| (s - a - 1.0).abs() < 1e-6)
    );
    both.tensors.insert(
        format!("{FLAT}.diff"),
        HostTensor::from_f32([96], &[1.0; 96]),
    );
    assert!(
        read_lora(&both, &base)
            .unwrap_err()
            .to_string()
            .contains("shape: unet"),
        "the wrong shape stays an error"
    );
}

/// PEFT 0.21 with `use_dora=True`: `W' = m (W + s B A) / |W + s B A|`, norms over inputs.
#[test]
fn pefts_magnitudes_are_one_for_each_output() {
    let base = miniature();
    let weight = base.components["unet"].tensors[&format!("{ATTN}.weight")]
        .to_f32()
        .unwrap();
    let mut rng = Lcg(3);
    let zeros = |shape: [usize; 2]| HostTensor::from_f32(shape, &vec![0.0; shape[0] * shape[1]]);
    for end in [
        "lora_magnitude_vector",
        "lora_magnitude_vector.weight",
        "lora_magnitude_vector.default",
        "lora_magnitude_vector.default.weight",
    ] {
        let adapter = file([
            (
                format!("unet.{ATTN}.lora_A.weight"),
                random(&mut rng, &[4, 128]),
            ),
            (format!("unet.{ATTN}.lora_B.weight"), zeros([96, 4])),
            (
                format!("unet.{ATTN}.{end}"),
                HostTensor::from_f32([96], &[2.0; 96]),
            ),
        ]);
        assert_eq!(kind_of(&adapter), Kind::PeftLora);
        let lora = read_lora(&adapter, &base).unwrap();
        let diff = lora.diffs[0].diff.to_f32().unwrap();
        // With B = 0 only the length of each row changes: to 2.
        for (row, change) in weight.chunks_exact(128).zip(diff.chunks_exact(128)) {
            let length: f32 = row
                .iter()
                .zip(change)
                .map(|(w, d)| (w + d).powi(2))
                .sum::<f32>()
                .sqrt();
            assert!((length - 2.0).abs() < 1e-4, "{end}: {length}");
        }
    }
}

#[test]
fn comfyuis_own_names_are_read() {
    let base = miniature();
    let mut rng = Lcg(5);
    let (down, up) = (random(&mut rng, &[2, 128]), random(&mut rng, &[96, 2]));
    let unet = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k";
    let text = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1";
    let wide =
        base.components["text_encoder"].tensors["text_model.encoder.layers.0.mlp.fc1.weight"]
            .shape()
            .to_vec();
    let pair = |module: &str, down: &HostTensor, up: &HostTensor| {
        [
            (format!("{module}.lora_down.weight"), down.clone()),
            (format!("{module}.lora_up.weight"), up.clone()),
        ]
    };
    let both = file(pair(unet, &down, &up).into_iter().chain(pair(
        text,
        &random(&mut rng, &[2, wide[1]]),
        &random(&mut rng, &[wide[0], 2]),
    )));
    assert_eq!(kind_of(&both), Kind::ComfyLora);
    let lora = read_lora(&both, &base).unwrap();
    let names: Vec<&str> = lora.low_rank.iter().map(|l| l.module.as_str()).collect();
    assert_eq!(names, ["text_model.encoder.layers.0.mlp.fc1", ATTN]);
    // Whole differences, SD 2.x's name for its encoder, and a module that is not there.
    let diff = file([
        (format!("{unet}.diff"), random(&mut rng, &[96, 128])),
        (
            "text_encoders.clip_h.transformer.text_model.final_layer_norm.diff_b".to_owned(),
            random(&mut rng, &[128]),
        ),
    ]);
    assert_eq!(kind_of(&diff), Kind::Delta);
    assert_eq!(read_lora(&diff, &base).unwrap().diffs.len(), 2);
    let wrong = file(pair(
        "diffusion_model.input_blocks.99.1.proj_in",
        &down,
        &up,
    ));
    assert!(
        read_lora(&wrong, &base)
            .unwrap_err()
            .to_string()
            .contains("the unet has no such module")
    );
    // Names that mix kohya's modules with PEFT's factors, and dots where kohya has underscores.
    for module in [
        FLAT.to_owned(),
        format!("lora_unet.{ATTN}"),
        unet.to_owned(),
    ] {
        let mixed = file([
            (format!("{module}.lora_A.weight"), down.clone()),
            (format!("{module}.lora_B.weight"), up.clone()),
        ]);
        assert_eq!(
            read_lora(&mixed, &base).unwrap().low_rank[0].module,
            ATTN,
            "{module}"
        );
    }
    let dotted = file(pair(&format!("unet.{ATTN}"), &down, &up));
    assert_eq!(read_lora(&dotted, &base).unwrap().low_rank[0].module, ATTN);
}

#[test]
fn other_adapters_and_other_families_are_called_by_their_names() {
    let base = miniature();
    let mut rng = Lcg(6);
    for (key, name) in [
        ("oft_blocks", "OFT"),
        ("oft_diag", "OFT"),
        ("boft_R", "BOFT"),
        ("a1.weight", "GLoRA"),
        ("on_input", "IA3"),
    ] {
        let adapter = file([
            (format!("{FLAT}.{key}"), random(&mut rng, &[4, 4])),
            (format!("{FLAT}.alpha"), random(&mut rng, &[])),
        ]);
        assert!(
            matches!(kind_of(&adapter), Kind::OtherAdapter(found) if found.contains(name)),
            "{key}: {:?}",
            kind_of(&adapter)
        );
        let error = read_lora(&adapter, &base).unwrap_err();
        assert!(
            error.to_string().contains(name) && error.hint().unwrap().contains("LoHa"),
            "{key}: {error}"
        );
    }
    for (key, name) in [
        (
            "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight",
            "Flux",
        ),
        (
            "diffusion_model.double_blocks.0.img_attn.proj.lora_down.weight",
            "Flux",
        ),
        ("diffusion_model.joint_blocks.0.x.lora_down.weight", "SD3"),
        ("text_encoders.t5xxl.transformer.shared.weight", "Flux"),
        ("text_encoders.qwen.weight", "several text encoders"),
    ] {
        let found = kind_of(&file([(key.to_owned(), random(&mut rng, &[4, 4]))]));
        assert!(
            matches!(found, Kind::OtherFamily(family) if family.contains(name)),
            "{key}: {found:?}"
        );
    }
}

#[test]
fn embeddings_in_a_lora_are_noted_and_can_be_taken_out() {
    let base = miniature();
    let mut rng = Lcg(8);
    let mut lora = file([
        (
            format!("{FLAT}.lora_down.weight"),
            random(&mut rng, &[2, 128]),
        ),
        (format!("{FLAT}.lora_up.weight"), random(&mut rng, &[96, 2])),
    ]);
    assert!(
        read_bundled(&lora, &[("text_encoder", 128)])
            .unwrap()
            .is_empty()
    );
    lora.tensors.insert(
        "bundle_emb.my.tok.string_to_param.*".into(),
        random(&mut rng, &[2, 128]),
    );
    lora.tensors
        .insert("bundle_emb.other.clip_l".into(), random(&mut rng, &[128]));
    assert_eq!(kind_of(&lora), Kind::KohyaLora);
    let read = read_lora(&lora, &base).unwrap();
    assert_eq!(read.low_rank.len(), 1);
    assert!(
        read.notes
            .iter()
            .any(|n| n.contains("`my.tok`, `other`") && n.contains("--embedding")),
        "{:?}",
        read.notes
    );
    let words = read_bundled(&lora, &[("text_encoder", 128)]).unwrap();
    assert_eq!(
        words
            .iter()
            .map(|w| (w.token.as_str(), w.vectors("text_encoder").len()))
            .collect::<Vec<_>>(),
        [("my.tok", 2), ("other", 1)]
    );
    assert!(
        read_bundled(&lora, &[("text_encoder", 768)])
            .unwrap_err()
            .to_string()
            .contains("768")
    );
    lora.tensors
        .insert("bundle_emb.x.what".into(), random(&mut rng, &[128]));
    assert!(
        read_bundled(&lora, &[("text_encoder", 128)])
            .unwrap_err()
            .to_string()
            .contains("bundle_emb.WORD")
    );
}

#[test]
fn a_unet_alone_in_ldms_layout_is_an_edit() {
    let base = miniature();
    let key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
    let mut unet = file([
        (
            key.to_owned(),
            base.components["unet"].tensors[&format!("{ATTN}.weight")].clone(),
        ),
        (
            "model.diffusion_model.out.2.bias".to_owned(),
            base.components["unet"].tensors["conv_out.bias"].clone(),
        ),
        (
            "model_ema.decay".to_owned(),
            HostTensor::from_f32([], &[0.9]),
        ),
    ]);
    assert_eq!(kind_of(&unet), Kind::LdmUNet);
    assert_eq!(
        read_partial(unet.clone(), &base)
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["conv_out.bias", &format!("{ATTN}.weight")]
    );
    unet.tensors.insert(
        "model.diffusion_model.out.9.bias".into(),
        HostTensor::from_f32([1], &[0.0]),
    );
    assert!(
        read_partial(unet.clone(), &base)
            .unwrap_err()
            .to_string()
            .contains("left over: model.diffusion_model.out.9.bias")
    );
    unet.tensors.insert(
        "first_stage_model.quant_conv.weight".into(),
        HostTensor::from_f32([1], &[0.0]),
    );
    assert!(matches!(kind_of(&unet), Kind::SingleFile(_)));
}

#[test]
fn numbers_that_are_none_are_refused_with_their_place() {
    let base = miniature();
    let mut rng = Lcg(9);
    let mut broken = |shape: &[usize], at: usize, value: f32, dtype: Dtype| {
        let mut values = random(&mut rng, shape).to_f32().unwrap();
        values[at] = value;
        HostTensor::from_f32(shape, &values).cast(dtype).unwrap()
    };
    let weight = format!("{ATTN}.weight");
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let partial = file([(weight.clone(), broken(&[96, 128], 130, f32::NAN, dtype))]);
        let error = read_partial(partial, &base).unwrap_err().to_string();
        let said = format!(
            "x/test.safetensors: not finite: unet {weight}: 1 of 12288 numbers are NaN or infinite, the first at [1, 2]"
        );
        assert_eq!(error, said, "{dtype:?}");
    }
    for (piece, shape, at, place) in [
        ("lora_up.weight", [96, 4], 6, "[1, 2]"),
        ("lora_down.weight", [4, 128], 511, "[3, 127]"),
    ] {
        let mut lora = shaped(
            FLAT,
            &[
                ("lora_down.weight", &[4, 128]),
                ("lora_up.weight", &[96, 4]),
            ],
        );
        lora.tensors.insert(
            format!("{FLAT}.{piece}"),
            broken(&shape, at, f32::NEG_INFINITY, Dtype::F32),
        );
        let error = read_lora(&lora, &base).unwrap_err().to_string();
        assert!(
            error.contains(&format!("not finite: {FLAT}.{piece}: 1 of")) && error.contains(place),
            "{error}"
        );
    }
    let diff = file([(
        format!("{FLAT}.diff"),
        broken(&[96, 128], 0, f32::INFINITY, Dtype::F32),
    )]);
    assert!(
        read_lora(&diff, &base)
            .unwrap_err()
            .to_string()
            .contains("the first at [0, 0]")
    );
    // Finite factors whose product is not.
    let large = HostTensor::from_f32([8, 8], &[1e30; 64]);
    let mut lokr = shaped(FLAT, &[("lokr_w2", &[12, 16])]);
    lokr.tensors
        .insert(format!("{FLAT}.lokr_w1"), large.clone());
    lokr.tensors.insert(
        format!("{FLAT}.lokr_w2"),
        HostTensor::from_f32([12, 16], &[1e30; 192]),
    );
    let error = read_lora(&lokr, &base).unwrap_err().to_string();
    assert!(
        error.contains("what the factors make: 12288 of 12288"),
        "{error}"
    );
}
