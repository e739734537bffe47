//! Adapters and words for SDXL: kohya's names in both spellings, ComfyUI's, PEFT's and diffusers',
//! whole differences, textual inversions with a table for each text encoder.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use common::{
    Lcg, miniature,
    tiny_sdxl::{WIDTHS, tiny},
};
use scumble_nn::files::{
    Bytes, Checkpoint, Diff, Embedding, EmbeddingLayout, Family, HostTensor, Kind, Lora, LowRank,
    Spec, TensorFile, identify, identify::kind_of, read_bundled, read_embedding, read_lora,
    write_delta, write_embedding, write_kohya, write_peft,
};

/// Modules of each kind: component, path, and path in Stability's code.
const MODULES: [(&str, &str, &str); 10] = [
    (
        "unet",
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
        "input_blocks.4.1.transformer_blocks.1.attn2.to_k",
    ),
    (
        "unet",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        "middle_block.1.transformer_blocks.0.ff.net.0.proj",
    ),
    (
        "unet",
        "up_blocks.0.attentions.2.transformer_blocks.1.attn1.to_out.0",
        "output_blocks.2.1.transformer_blocks.1.attn1.to_out.0",
    ),
    (
        "unet",
        "down_blocks.1.resnets.0.conv_shortcut",
        "input_blocks.4.0.skip_connection",
    ),
    (
        "unet",
        "down_blocks.0.downsamplers.0.conv",
        "input_blocks.3.0.op",
    ),
    ("unet", "add_embedding.linear_1", "label_emb.0.0"),
    ("unet", "time_embedding.linear_2", "time_embed.2"),
    (
        "text_encoder",
        "text_model.encoder.layers.1.self_attn.q_proj",
        "text_model.encoder.layers.1.self_attn.q_proj",
    ),
    (
        "text_encoder_2",
        "text_model.encoder.layers.2.mlp.fc1",
        "text_model.encoder.layers.2.mlp.fc1",
    ),
    ("text_encoder_2", "text_projection", "text_projection"),
];

fn random(rng: &mut Lcg, shape: &[usize]) -> HostTensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.float()).collect();
    HostTensor::from_f32(shape, &values)
}

fn weight<'a>(base: &'a Checkpoint, component: &str, module: &str) -> &'a HostTensor {
    &base.components[component].tensors[&format!("{module}.weight")]
}

/// Factors of rank 2 for a module.
fn factors(rng: &mut Lcg, base: &Checkpoint, component: &str, module: &str) -> [HostTensor; 2] {
    let shape = weight(base, component, module).shape();
    let down = [&[2], &shape[1..]].concat();
    let mut up = vec![shape[0], 2];
    up.resize(shape.len(), 1);
    [random(rng, &down), random(rng, &up)]
}

fn lora(base: &Checkpoint) -> Lora {
    let mut rng = Lcg(3);
    let low_rank = MODULES.map(|(component, module, _)| {
        let [down, up] = factors(&mut rng, base, component, module);
        LowRank {
            component: component.into(),
            module: module.into(),
            down,
            up,
            alpha: 2.0,
        }
    });
    Lora {
        low_rank: low_rank.into(),
        ..Lora::default()
    }
}

fn same(found: &Lora, wanted: &Lora) {
    let all = |lora: &Lora| -> BTreeMap<(String, String), Vec<f32>> {
        let one = |l: &LowRank| ((l.component.clone(), l.module.clone()), l.delta().unwrap());
        lora.low_rank.iter().map(one).collect()
    };
    assert_eq!(all(found), all(wanted));
    assert!(found.diffs.is_empty());
}

fn file<const N: usize>(tensors: [(String, HostTensor); N]) -> TensorFile {
    TensorFile {
        path: "test.safetensors".into(),
        tensors: tensors.into(),
        metadata: BTreeMap::new(),
    }
}

fn error(file: &TensorFile, base: &Checkpoint) -> String {
    read_lora(file, base).unwrap_err().to_string()
}

#[test]
fn kohyas_names_are_those_of_its_own_scripts_for_sdxl() {
    let (base, target) = (tiny(), tempfile::tempdir().unwrap());
    let path = target.path().join("x.safetensors");
    let wanted = lora(&base);
    let spec = Spec {
        title: "x".into(),
        ..Spec::of(&base)
    };
    write_kohya(&path, &wanted, &spec).unwrap();
    let written = TensorFile::open(&path).unwrap();
    let modules: BTreeSet<&str> = written
        .tensors
        .keys()
        .map(|key| key.split_once('.').unwrap().0)
        .collect();
    let prefix = |component: &str| match component {
        "unet" => "lora_unet_",
        "text_encoder" => "lora_te1_",
        _ => "lora_te2_",
    };
    let expected: Vec<String> = MODULES
        .iter()
        .map(|(component, _, old)| format!("{}{}", prefix(component), old.replace('.', "_")))
        .collect();
    assert_eq!(
        modules,
        expected.iter().map(String::as_str).collect::<BTreeSet<_>>()
    );
    assert_eq!(written.tensors.len(), 3 * MODULES.len());
    for (key, value) in [
        ("ss_base_model_version", "sdxl_base_v1-0"),
        ("ss_v2", "False"),
        ("ss_network_module", "networks.lora"),
        ("ss_network_dim", "2"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
        (
            "modelspec.implementation",
            "https://github.com/Stability-AI/generative-models",
        ),
        ("modelspec.prediction_type", "epsilon"),
        ("modelspec.resolution", "16x16"),
    ] {
        assert_eq!(written.metadata[key], value, "{key}");
    }
    assert_eq!(identify(&path).unwrap().kind, Kind::KohyaLora);
    same(&read_lora(&written, &base).unwrap(), &wanted);

    // Without the U-Net's shape its layers have no numbers.
    let spec = Spec {
        family: Some(Family::Sdxl),
        ..Spec::default()
    };
    let problem = write_kohya(&path, &wanted, &spec).unwrap_err().to_string();
    assert!(
        problem.contains("no name in a LoRA file: unet"),
        "{problem}"
    );
}

/// The other spellings: diffusers' paths in kohya's files, ComfyUI's own files, PEFT's and
/// diffusers'.
#[test]
fn every_dialect_names_the_same_modules() {
    let base = tiny();
    let wanted = lora(&base);
    type Name = fn(&str, &str, &str) -> String;
    let dialects: [(Name, [&str; 2], bool, Kind); 5] = [
        (
            |component, module, _| {
                let prefix = match component {
                    "unet" => "lora_unet_",
                    "text_encoder" => "lora_te1_",
                    _ => "lora_te2_",
                };
                format!("{prefix}{}", module.replace('.', "_"))
            },
            ["lora_down.weight", "lora_up.weight"],
            true,
            Kind::KohyaLora,
        ),
        (
            |component, module, old| match component {
                "unet" => format!("diffusion_model.{old}"),
                "text_encoder" => format!("text_encoders.clip_l.transformer.{module}"),
                _ => format!("text_encoders.clip_g.transformer.{module}"),
            },
            ["lora_down.weight", "lora_up.weight"],
            true,
            Kind::ComfyLora,
        ),
        (
            |component, module, _| format!("{component}.{module}"),
            ["lora_A.weight", "lora_B.weight"],
            false,
            Kind::PeftLora,
        ),
        (
            |component, module, _| format!("base_model.model.{component}.{module}"),
            ["lora_A.default.weight", "lora_B.default.weight"],
            false,
            Kind::PeftLora,
        ),
        (
            |component, module, _| format!("{component}.{module}"),
            ["lora.down.weight", "lora.up.weight"],
            false,
            Kind::PeftLora,
        ),
    ];
    for (i, (name, ends, alpha, kind)) in dialects.into_iter().enumerate() {
        let mut file = file([]);
        for (change, (component, module, old)) in wanted.low_rank.iter().zip(MODULES) {
            let key = name(component, module, old);
            file.tensors
                .insert(format!("{key}.{}", ends[0]), change.down.clone());
            file.tensors
                .insert(format!("{key}.{}", ends[1]), change.up.clone());
            if alpha {
                let two = HostTensor::from_f32([], &[2.0]);
                file.tensors.insert(format!("{key}.alpha"), two);
            }
        }
        assert_eq!(kind_of(&file), kind, "{i}");
        same(&read_lora(&file, &base).unwrap(), &wanted);
    }
}

#[test]
fn pefts_names_are_written_for_both_text_encoders() {
    let (base, target) = (tiny(), tempfile::tempdir().unwrap());
    let path = target.path().join("x.safetensors");
    let wanted = lora(&base);
    write_peft(&path, &wanted, &BTreeMap::new()).unwrap();
    let written = TensorFile::open(&path).unwrap();
    assert!(
        written
            .tensors
            .contains_key("text_encoder_2.text_projection.lora_A.weight")
    );
    same(&read_lora(&written, &base).unwrap(), &wanted);

    // PEFT saves one model under bare names: a U-Net's are known, those of two text encoders not.
    let bare = |component: &str| -> TensorFile {
        let prefix = format!("{component}.");
        let mut bare = file([]);
        for (key, tensor) in &written.tensors {
            if let Some(rest) = key.strip_prefix(&prefix) {
                bare.tensors.insert(rest.into(), tensor.clone());
            }
        }
        bare
    };
    assert_eq!(read_lora(&bare("unet"), &base).unwrap().low_rank.len(), 7);
    let problem = error(&bare("text_encoder"), &base);
    assert!(problem.contains("left over"), "{problem}");

    // The alphas of each component are its own.
    let metadata = r#"{"text_encoder.lora_alpha": 4, "text_encoder_2.lora_alpha": 6, "text_encoder_2.alpha_pattern": {"text_projection": 8}}"#;
    let mut scaled = written.clone();
    scaled
        .metadata
        .insert("lora_adapter_metadata".into(), metadata.into());
    let read = read_lora(&scaled, &base).unwrap();
    let alpha = |component: &str, end: &str| {
        let found = read
            .low_rank
            .iter()
            .find(|l| l.component == component && l.module.ends_with(end));
        found.unwrap().alpha
    };
    assert_eq!(alpha("unet", "to_k"), 2.0);
    assert_eq!(alpha("text_encoder", "q_proj"), 4.0);
    assert_eq!(alpha("text_encoder_2", "fc1"), 6.0);
    assert_eq!(alpha("text_encoder_2", "text_projection"), 8.0);
}

#[test]
fn differences_and_other_algebras_reach_the_second_encoder() {
    let (base, target) = (tiny(), tempfile::tempdir().unwrap());
    let path = target.path().join("x.safetensors");
    let mut rng = Lcg(4);
    let names = [
        ("unet", "conv_norm_out.bias"),
        ("unet", "add_embedding.linear_2.bias"),
        (
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight",
        ),
        ("text_encoder", "text_model.final_layer_norm.weight"),
        ("text_encoder", "text_model.encoder.layers.0.mlp.fc2.weight"),
        (
            "text_encoder_2",
            "text_model.encoder.layers.0.layer_norm1.bias",
        ),
        (
            "text_encoder_2",
            "text_model.embeddings.token_embedding.weight",
        ),
        (
            "text_encoder_2",
            "text_model.encoder.layers.2.self_attn.v_proj.bias",
        ),
        ("text_encoder_2", "text_projection.weight"),
    ];
    let diffs = names.map(|(component, name)| Diff {
        component: component.into(),
        name: name.into(),
        diff: random(&mut rng, base.components[component].tensors[name].shape()),
    });
    write_delta(&path, &diffs, &base, &Spec::of(&base)).unwrap();
    let written = TensorFile::open(&path).unwrap();
    for key in [
        "lora_unet_out_0.diff_b",
        "lora_unet_label_emb_0_2.diff_b",
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k.diff",
        "lora_te1_text_model_encoder_layers_0_mlp_fc2.diff",
        "lora_te2_text_model_encoder_layers_2_self_attn_v_proj.diff_b",
        "text_encoders.clip_l.transformer.text_model.final_layer_norm.diff",
        "text_encoders.clip_g.transformer.text_model.embeddings.token_embedding.diff",
        "text_encoders.clip_g.transformer.text_projection.diff",
    ] {
        assert!(written.tensors.contains_key(key), "{key}");
    }
    let read = read_lora(&written, &base).unwrap();
    for change in &diffs {
        let found = read
            .diffs
            .iter()
            .find(|d| d.component == change.component && d.name == change.name)
            .unwrap();
        assert_eq!(found.diff.bytes(), change.diff.bytes(), "{}", change.name);
    }

    // A LoHa and a DoRA.
    let key = "lora_te2_text_model_encoder_layers_0_mlp_fc1";
    let loha = file([
        (format!("{key}.hada_w1_a"), random(&mut rng, &[24, 2])),
        (format!("{key}.hada_w1_b"), random(&mut rng, &[2, 12])),
        (format!("{key}.hada_w2_a"), random(&mut rng, &[24, 2])),
        (format!("{key}.hada_w2_b"), random(&mut rng, &[2, 12])),
    ]);
    let dora = file([
        (
            format!("{key}.lora_down.weight"),
            random(&mut rng, &[2, 12]),
        ),
        (format!("{key}.lora_up.weight"), random(&mut rng, &[24, 2])),
        (format!("{key}.dora_scale"), random(&mut rng, &[24, 1])),
    ]);
    for adapter in [loha, dora] {
        let read = read_lora(&adapter, &base).unwrap();
        assert_eq!(
            (
                read.diffs[0].component.as_str(),
                read.diffs[0].name.as_str()
            ),
            (
                "text_encoder_2",
                "text_model.encoder.layers.0.mlp.fc1.weight"
            )
        );
    }
}

#[test]
fn a_lora_of_another_family_is_refused_and_says_which() {
    let (sdxl, sd, mut rng) = (tiny(), miniature(), Lcg(2));
    let pair = |key: &str, width: usize| {
        let mut rng = Lcg(7);
        file([
            (
                format!("{key}.lora_down.weight"),
                random(&mut rng, &[2, width]),
            ),
            (format!("{key}.lora_up.weight"), random(&mut rng, &[8, 2])),
        ])
    };
    // By its keys.
    for key in [
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
    ] {
        let problem = error(&pair(key, 4), &sd);
        assert!(
            problem.contains("this is a LoRA for SDXL"),
            "{key}: {problem}"
        );
    }
    // By what its cross-attentions read.
    for (width, family) in [(768, "1.x"), (1024, "2.x"), (2048, "SDXL")] {
        for key in [
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        ] {
            let adapter = pair(key, width);
            for base in [&sd, &sdxl] {
                let problem = error(&adapter, base);
                assert!(
                    problem.contains("this is a LoRA for") && problem.contains(family),
                    "{key}: {problem}"
                );
            }
        }
    }
    // By its metadata, where nothing else tells.
    let key = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    let mut adapter = file([
        (format!("{key}.lora_down.weight"), random(&mut rng, &[2, 8])),
        (format!("{key}.lora_up.weight"), random(&mut rng, &[16, 2])),
    ]);
    assert_eq!(
        read_lora(&adapter, &sdxl).unwrap().low_rank[0].component,
        "text_encoder"
    );
    for (name, value, said) in [
        ("ss_base_model_version", "sd_v1", "1.x"),
        (
            "modelspec.architecture",
            "stable-diffusion-v2-768-v/lora",
            "2.x",
        ),
    ] {
        adapter.metadata = BTreeMap::from([(name.into(), value.into())]);
        let problem = error(&adapter, &sdxl);
        assert!(
            problem.contains(said) && problem.contains(name),
            "{problem}"
        );
    }
    for key in [
        "lora_te3_encoder_block_0",
        "lora_unet_double_blocks_0_img_attn_proj",
        "transformer.transformer_blocks.0.attn.to_q",
        "transformer.single_transformer_blocks.0.attn.to_q",
    ] {
        let problem = error(&pair(key, 4), &sdxl);
        assert!(
            problem.contains("SD3") || problem.contains("Flux"),
            "{problem}"
        );
    }
    // What is of no module of it is listed.
    let problem = error(&pair("lora_unet_input_blocks_4_1_nothing", 4), &sdxl);
    assert!(
        problem.contains("left over: lora_unet_input_blocks_4_1_nothing"),
        "{problem}"
    );
    let problem = error(
        &pair("lora_te2_text_model_encoder_layers_9_mlp_fc1", 4),
        &sdxl,
    );
    assert!(
        problem.contains("the text_encoder_2 has no such module"),
        "{problem}"
    );
}

fn widths() -> [(&'static str, usize); 2] {
    [("text_encoder", WIDTHS[0]), ("text_encoder_2", WIDTHS[1])]
}

#[test]
fn embeddings_have_a_table_for_each_text_encoder() {
    let target = tempfile::tempdir().unwrap();
    let mut rng = Lcg(9);
    let mut rows = |width: usize| -> Vec<Vec<f32>> {
        (0..3)
            .map(|_| (0..width).map(|_| rng.float()).collect())
            .collect()
    };
    let embedding = Embedding {
        token: "<church>".into(),
        tables: widths()
            .map(|(id, width)| (id.to_owned(), rows(width)))
            .into(),
    };
    for layout in [EmbeddingLayout::Diffusers, EmbeddingLayout::A1111] {
        let path = target.path().join("other-name.safetensors");
        write_embedding(&path, &embedding, layout).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(
            (
                file.tensors["clip_l"].shape(),
                file.tensors["clip_g"].shape()
            ),
            (&[3, 8][..], &[3, 12][..])
        );
        assert_eq!(identify(&path).unwrap().kind, Kind::TextualInversion);
        let read = read_embedding(&file, &widths()).unwrap();
        assert_eq!(read, embedding);
        assert_eq!(read.vectors("text_encoder_2").len(), 3);
        assert!(read.vectors("text_encoder_3").is_empty());
        // On a model with one text encoder it is told what it is.
        let error = read_embedding(&file, &[("text_encoder", 8)]).unwrap_err();
        assert!(error.to_string().contains("for SDXL"), "{error}");
    }
    // Without a name in the metadata the file's counts.
    let clips = |l: HostTensor, g: HostTensor| file([("clip_l".into(), l), ("clip_g".into(), g)]);
    let mut rng = Lcg(10);
    let plain = clips(random(&mut rng, &[8]), random(&mut rng, &[1, 12]));
    assert_eq!(read_embedding(&plain, &widths()).unwrap().token, "test");

    for (file, said) in [
        (
            clips(random(&mut rng, &[1, 12]), random(&mut rng, &[1, 8])),
            "`clip_l`: expected vectors of 8",
        ),
        (
            clips(random(&mut rng, &[1, 8]), random(&mut rng, &[1, 13])),
            "`clip_g`: expected vectors of 12",
        ),
        (
            clips(random(&mut rng, &[2, 8]), random(&mut rng, &[1, 12])),
            "expected as many each",
        ),
        (
            clips(
                random(&mut rng, &[1, 8]),
                HostTensor::from_f32([12], &[f32::NAN; 12]),
            ),
            "not finite",
        ),
        (
            file([("emb_params".into(), random(&mut rng, &[1, 768]))]),
            "found `emb_params` [1, 768], as Stable Diffusion 1.x has",
        ),
        (
            file([("clip_l".into(), random(&mut rng, &[1, 8]))]),
            "expected `clip_l` [n, 8] and `clip_g` [n, 12]",
        ),
        (file([]), "found none"),
    ] {
        let error = read_embedding(&file, &widths()).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let one = Embedding::one("a", vec![vec![1.0; 8]]);
    let mut uneven = embedding.clone();
    uneven
        .tables
        .insert("text_encoder".into(), vec![vec![1.0; 8]]);
    let mut strange = one.clone();
    strange
        .tables
        .insert("text_encoder_9".into(), vec![vec![1.0; 8]]);
    let mut second = embedding.clone();
    second.tables.insert("text_encoder_2".into(), Vec::new());
    for bad in [uneven, strange, second] {
        let path = target.path().join("bad.safetensors");
        assert!(write_embedding(&path, &bad, EmbeddingLayout::Diffusers).is_err());
        assert!(!path.exists());
    }
}

#[test]
fn embeddings_travel_in_a_lora_with_a_table_for_each_encoder() {
    let (base, mut rng) = (tiny(), Lcg(12));
    let key = "lora_te2_text_model_encoder_layers_0_mlp_fc1";
    let mut lora = file([
        (
            format!("{key}.lora_down.weight"),
            random(&mut rng, &[2, 12]),
        ),
        (format!("{key}.lora_up.weight"), random(&mut rng, &[24, 2])),
        (
            "bundle_emb.my.word.clip_l".into(),
            random(&mut rng, &[2, 8]),
        ),
        (
            "bundle_emb.my.word.clip_g".into(),
            random(&mut rng, &[2, 12]),
        ),
    ]);
    let read = read_lora(&lora, &base).unwrap();
    assert!(
        read.notes.iter().any(|n| n.contains("`my.word`")),
        "{:?}",
        read.notes
    );
    let words = read_bundled(&lora, &widths()).unwrap();
    assert_eq!((words[0].token.as_str(), words.len()), ("my.word", 1));
    assert_eq!(words[0].vectors("text_encoder_2").len(), 2);
    lora.tensors
        .insert("bundle_emb.half.clip_l".into(), random(&mut rng, &[2, 8]));
    let error = read_bundled(&lora, &widths()).unwrap_err().to_string();
    assert!(error.contains("`clip_g` [n, 12]"), "{error}");
}

/// Flipped bits in adapter and embedding files: an answer each time.
#[test]
fn broken_adapters_are_answered() {
    let (base, target) = (tiny(), tempfile::tempdir().unwrap());
    let mut rng = Lcg(6);
    let (kohya, embedding) = (target.path().join("kohya"), target.path().join("word"));
    write_kohya(&kohya, &lora(&base), &Spec::of(&base)).unwrap();
    let word = Embedding {
        token: "<a>".into(),
        tables: widths()
            .map(|(id, width)| (id.to_owned(), vec![vec![0.5; width]]))
            .into(),
    };
    write_embedding(&embedding, &word, EmbeddingLayout::A1111).unwrap();
    let (mut yes, mut no) = (0, 0);
    for path in [&kohya, &embedding] {
        let whole = fs_err::read(path).unwrap();
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        for _ in 0..300 {
            let mut copy = whole.clone();
            let at = rng.below(header);
            copy[at] ^= 1 << rng.below(7);
            let Ok(file) = TensorFile::from_bytes(Path::new("x"), Bytes::Owned(copy.into())) else {
                no += 1;
                continue;
            };
            let answers = [
                read_lora(&file, &base).is_ok(),
                read_embedding(&file, &widths()).is_ok(),
                read_bundled(&file, &widths()).is_ok_and(|words| !words.is_empty()),
            ];
            if answers.contains(&true) {
                yes += 1;
            } else {
                no += 1;
            }
        }
    }
    assert!(yes > 20 && no > 200, "{yes} {no}");
}
