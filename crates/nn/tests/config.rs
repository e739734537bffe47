//! Configurations: the published ones are read with the right numbers, what would change the
//! computation is refused by name.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![recursion_limit = "256"]

use std::path::Path;

use scumble_nn::{
    Clip, ClipText, ClipTextWithProjection, Error, Manifest, UNet, Vae, Vit,
    config::{
        Activation, ClipConfig, ClipTextConfig, ClipTextWithProjectionConfig, TextTimeConfig,
        UNetConfig, VaeConfig, VitConfig,
    },
};
use serde_json::{Value, json};

/// unet/config.json of CompVis/stable-diffusion-v1-4.
fn sd14_unet() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.2.2", "act_fn": "silu", "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
    })
}

/// unet/config.json of stabilityai/stable-diffusion-2 and -2-1: 2.0 has no `upcast_attention`, the
/// base models have 64.
fn sd21_unet() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.10.0.dev0", "act_fn": "silu",
        "attention_head_dim": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false,
        "cross_attention_dim": 1024,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1, "dual_cross_attention": false, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4,
        "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "num_class_embeds": null,
        "only_cross_attention": false, "out_channels": 4, "sample_size": 96,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "use_linear_projection": true, "upcast_attention": true
    })
}

/// What today's diffusers writes for any of them: every argument with its default.
fn with_every_default(mut unet: Value) -> Value {
    let defaults = json!({
        "addition_embed_type": null, "addition_embed_type_num_heads": 64, "addition_time_embed_dim": null,
        "attention_type": "default", "class_embed_type": null, "class_embeddings_concat": false, "conv_in_kernel": 3,
        "conv_out_kernel": 3, "cross_attention_norm": null, "dropout": 0.0, "dual_cross_attention": false,
        "encoder_hid_dim": null, "encoder_hid_dim_type": null, "mid_block_only_cross_attention": null,
        "mid_block_type": "UNetMidBlock2DCrossAttn", "num_attention_heads": null, "num_class_embeds": null,
        "only_cross_attention": false, "projection_class_embeddings_input_dim": null, "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": false, "resnet_time_scale_shift": "default", "reverse_transformer_layers_per_block": null,
        "time_cond_proj_dim": null, "time_embedding_act_fn": null, "time_embedding_dim": null,
        "time_embedding_type": "positional", "timestep_post_act": null, "transformer_layers_per_block": 1,
        "upcast_attention": false, "use_linear_projection": false
    });
    for (key, value) in defaults.as_object().unwrap() {
        unet.as_object_mut()
            .unwrap()
            .entry(key)
            .or_insert(value.clone());
    }
    unet
}

/// unet/config.json of stabilityai/stable-diffusion-xl-base-1.0.
fn sdxl_unet() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.19.0.dev0", "act_fn": "silu", "addition_embed_type": "text_time",
        "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280], "center_input_sample": false, "class_embed_type": null,
        "class_embeddings_concat": false, "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_dim": 2048,
        "cross_attention_norm": null, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "downsample_padding": 1, "dual_cross_attention": false, "encoder_hid_dim": null, "encoder_hid_dim_type": null,
        "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_only_cross_attention": null,
        "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-05, "norm_num_groups": 32,
        "num_attention_heads": null, "num_class_embeds": null, "only_cross_attention": false, "out_channels": 4,
        "projection_class_embeddings_input_dim": 2816, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": false,
        "resnet_time_scale_shift": "default", "sample_size": 128, "time_cond_proj_dim": null, "time_embedding_act_fn": null,
        "time_embedding_dim": null, "time_embedding_type": "positional", "timestep_post_act": null,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "upcast_attention": null,
        "use_linear_projection": true
    })
}

/// text_encoder_2/config.json of stabilityai/stable-diffusion-xl-base-1.0.
fn sdxl_text_2() -> Value {
    json!({
        "architectures": ["CLIPTextModelWithProjection"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_size": 1280, "initializer_factor": 1.0, "initializer_range": 0.02,
        "intermediate_size": 5120, "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
        "num_attention_heads": 20, "num_hidden_layers": 32, "pad_token_id": 1, "projection_dim": 1280, "torch_dtype": "float16",
        "transformers_version": "4.32.0.dev0", "vocab_size": 49408
    })
}

/// vae/config.json of CompVis/stable-diffusion-v1-4.
fn sd14_vae() -> Value {
    json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.2.2", "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
    })
}

/// text_encoder/config.json of CompVis/stable-diffusion-v1-4.
fn sd14_text() -> Value {
    json!({
        "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0,
        "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
        "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12,
        "pad_token_id": 1, "projection_dim": 768, "torch_dtype": "float32", "transformers_version": "4.21.0.dev0",
        "vocab_size": 49408
    })
}

/// text_encoder/config.json of stabilityai/stable-diffusion-2-1.
fn sd21_text() -> Value {
    json!({
        "_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder", "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "gelu",
        "hidden_size": 1024, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 4096,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 16,
        "num_hidden_layers": 23, "pad_token_id": 1, "projection_dim": 512, "torch_dtype": "float32",
        "transformers_version": "4.25.0.dev0", "vocab_size": 49408
    })
}

fn unet(config: &Value) -> Result<UNetConfig, Error> {
    UNetConfig::read(Path::new("unet/config.json"), config)
}

fn vae(config: &Value) -> Result<VaeConfig, Error> {
    VaeConfig::read(Path::new("vae/config.json"), config)
}

fn text(config: &Value) -> Result<ClipTextConfig, Error> {
    ClipTextConfig::read(Path::new("text_encoder/config.json"), config)
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn without(mut config: Value, key: &str) -> Value {
    config.as_object_mut().unwrap().remove(key);
    config
}

/// How many tensors and numbers.
fn size(manifest: &Manifest) -> (usize, usize) {
    (
        manifest.len(),
        manifest
            .values()
            .map(|shape| shape.iter().product::<usize>())
            .sum(),
    )
}

#[test]
fn stable_diffusion_1_has_its_numbers() {
    for config in [sd14_unet(), with_every_default(sd14_unet())] {
        let config = unet(&config).unwrap();
        assert_eq!(config.heads, [8; 4]);
        assert_eq!(config.down_cross_attention, [true, true, true, false]);
        assert_eq!(config.up_cross_attention, [false, true, true, true]);
        assert_eq!(
            (
                config.cross_attention_dim,
                config.sample_size,
                config.layers_per_block
            ),
            (768, 64, 2)
        );
        assert_eq!(
            (config.norm_num_groups, config.norm_eps, config.freq_shift),
            (32, 1e-5, 0.0)
        );
        assert!(!config.use_linear_projection && config.flip_sin_to_cos);
        let manifest = UNet::manifest(&config);
        assert_eq!(size(&manifest), (686, 859_520_964));
        for (name, shape) in [
            ("conv_in.weight", vec![320, 4, 3, 3]),
            ("time_embedding.linear_1.weight", vec![1280, 320]),
            (
                "down_blocks.0.attentions.0.proj_in.weight",
                vec![320, 320, 1, 1],
            ),
            (
                "down_blocks.1.resnets.0.conv_shortcut.weight",
                vec![640, 320, 1, 1],
            ),
            (
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                vec![1280, 768],
            ),
            (
                "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight",
                vec![10240, 1280],
            ),
            (
                "up_blocks.0.resnets.2.conv_shortcut.weight",
                vec![1280, 2560, 1, 1],
            ),
            ("up_blocks.3.resnets.2.norm1.weight", vec![640]),
            ("conv_norm_out.bias", vec![320]),
        ] {
            assert_eq!(manifest.get(name), Some(&shape), "{name}");
        }
        assert!(!manifest.contains_key("down_blocks.3.attentions.0.proj_in.weight"));
        assert!(!manifest.contains_key("down_blocks.3.downsamplers.0.conv.weight"));
    }
    // 1.5 says the same, with keys of its time.
    let sd15 = with(sd14_unet(), "_diffusers_version", json!("0.6.0"));
    assert_eq!(unet(&sd15).unwrap(), unet(&sd14_unet()).unwrap());
}

#[test]
fn stable_diffusion_2_has_its_numbers() {
    let sd20 = without(sd21_unet(), "upcast_attention");
    let base = with(sd21_unet(), "sample_size", json!(64));
    for (config, side) in [
        (sd21_unet(), 96),
        (sd20, 96),
        (base, 64),
        (with_every_default(sd21_unet()), 96),
    ] {
        let config = unet(&config).unwrap();
        assert_eq!(config.heads, [5, 10, 20, 20]);
        assert_eq!(
            (config.cross_attention_dim, config.sample_size),
            (1024, side)
        );
        assert!(config.use_linear_projection);
        let manifest = UNet::manifest(&config);
        assert_eq!(size(&manifest), (686, 865_910_724));
        assert_eq!(
            manifest["down_blocks.0.attentions.0.proj_in.weight"],
            [320, 320]
        );
    }
}

#[test]
fn sdxl_has_its_numbers() {
    let config = unet(&sdxl_unet()).unwrap();
    assert_eq!(config.heads, [5, 10, 20]);
    assert_eq!(
        config.down_transformer_layers,
        [vec![], vec![2, 2], vec![10, 10]]
    );
    assert_eq!(
        (config.mid_transformer_layers, config.cross_attention_dim),
        (10, 2048)
    );
    assert_eq!(
        config.up_transformer_layers,
        [vec![10, 10, 10], vec![2, 2, 2], vec![]]
    );
    let added = TextTimeConfig {
        addition_time_embed_dim: 256,
        projection_class_embeddings_input_dim: 2816,
    };
    assert_eq!(config.text_time, Some(added));
    let manifest = UNet::manifest(&config);
    assert_eq!(size(&manifest), (1680, 2_567_463_684));
    for (name, shape) in [
        ("add_embedding.linear_1.weight", vec![1280, 2816]),
        ("add_embedding.linear_2.bias", vec![1280]),
        (
            "mid_block.attentions.0.transformer_blocks.9.attn2.to_v.weight",
            vec![1280, 2048],
        ),
        ("down_blocks.1.attentions.0.proj_in.weight", vec![640, 640]),
        (
            "up_blocks.1.attentions.2.transformer_blocks.1.ff.net.2.bias",
            vec![640],
        ),
    ] {
        assert_eq!(manifest.get(name), Some(&shape), "{name}");
    }
    assert!(!manifest.contains_key("down_blocks.0.attentions.0.norm.weight"));
    assert!(!manifest.contains_key("down_blocks.1.attentions.0.transformer_blocks.2.norm1.weight"));

    let second =
        ClipTextWithProjectionConfig::read(Path::new("text_encoder_2/config.json"), &sdxl_text_2())
            .unwrap();
    assert_eq!(
        (
            second.projection_dim,
            second.text.hidden_act,
            second.text.eos_token_id
        ),
        (1280, Activation::Gelu, 2)
    );
    assert_eq!(
        size(&ClipTextWithProjection::manifest(&second)),
        (517, 694_659_840)
    );
}

#[test]
fn depths_are_those_of_diffusers() {
    let depths = |key: &[(&str, Value)]| {
        let mut config = sdxl_unet();
        for (key, value) in key {
            config[*key] = value.clone();
        }
        let config = unet(&config)?;
        Ok((
            config.down_transformer_layers,
            config.mid_transformer_layers,
            config.up_transformer_layers,
        ))
    };
    let (one, two) = (
        "transformer_layers_per_block",
        "reverse_transformer_layers_per_block",
    );
    let found = depths(&[(one, json!(3))]).unwrap();
    assert_eq!(
        found,
        (
            vec![vec![], vec![3, 3], vec![3, 3]],
            3,
            vec![vec![3; 3], vec![3; 3], vec![]]
        )
    );
    let found = depths(&[
        (one, json!([0, [2, 1], [4, 0]])),
        (two, json!([[4, 4, 10], 1, 7])),
    ])
    .unwrap();
    assert_eq!(
        found,
        (
            vec![vec![], vec![2, 1], vec![4, 0]],
            4,
            vec![vec![4, 4, 10], vec![1; 3], vec![]]
        )
    );
    assert_eq!(depths(&[(one, Value::Null)]).unwrap().1, 1);
    for (keys, wrong) in [
        // As diffusers: up levels have one transformer more, so a list within the list has no
        // mirror image.
        (vec![(one, json!([1, [2, 2], 10]))], two),
        (
            vec![(one, json!([1, [2, 2, 2], 10])), (two, json!([10, 2, 1]))],
            one,
        ),
        (vec![(two, json!([10, [2, 2], 1]))], two),
        (vec![(two, json!([10, 2]))], two),
        (
            vec![(one, json!([1, 2, []])), (two, json!([10, 2, 1]))],
            one,
        ),
    ] {
        refused::<(Vec<Vec<usize>>, usize, Vec<Vec<usize>>)>(depths(&keys), wrong);
    }
}

#[test]
fn the_autoencoders_have_their_numbers() {
    let old = vae(&sd14_vae()).unwrap();
    assert_eq!(
        (old.scaling_factor, old.factor(), old.norm_num_groups),
        (0.18215, 8, 32)
    );
    assert_eq!(size(&Vae::manifest(&old)), (248, 83_653_863));
    // Stable Diffusion 2.1 and today's diffusers say it in full; x-fp32 of 2.1 samples 768.
    let today = json!({"force_upcast": true, "latents_mean": null, "latents_std": null, "mid_block_add_attention": true,
        "scaling_factor": 0.18215, "shift_factor": null, "use_post_quant_conv": true, "use_quant_conv": true, "sample_size": 768});
    let mut new = sd14_vae();
    new.as_object_mut()
        .unwrap()
        .extend(today.as_object().unwrap().clone());
    assert_eq!(vae(&new).unwrap(), old);
    assert_eq!(
        vae(&with(new, "scaling_factor", json!(0.5)))
            .unwrap()
            .scaling_factor,
        0.5
    );
}

#[test]
fn the_text_encoders_have_their_numbers() {
    let sd1 = text(&sd14_text()).unwrap();
    assert_eq!(
        (sd1.hidden_act, sd1.eos_token_id, sd1.num_attention_heads),
        (Activation::QuickGelu, 2, 12)
    );
    // 196 with the weights alone; published files add `position_ids`.
    assert_eq!(size(&ClipText::manifest(&sd1)), (196, 123_060_480));
    let sd2 = text(&sd21_text()).unwrap();
    assert_eq!(
        (
            sd2.hidden_act,
            sd2.num_hidden_layers,
            sd2.num_attention_heads
        ),
        (Activation::Gelu, 23, 16)
    );
    assert_eq!(size(&ClipText::manifest(&sd2)), (372, 340_387_840));
}

/// What transformers wrote before 4.30: every generation setting of every model, with its default.
#[test]
fn the_noise_of_old_files_changes_nothing() {
    let noise = json!({
        "add_cross_attention": false, "bad_words_ids": null, "begin_suppress_tokens": null, "chunk_size_feed_forward": 0,
        "cross_attention_hidden_size": null, "decoder_start_token_id": null, "diversity_penalty": 0.0, "do_sample": false,
        "early_stopping": false, "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": null,
        "finetuning_task": null, "forced_bos_token_id": null, "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "is_decoder": false, "is_encoder_decoder": false, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0,
        "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1,
        "num_return_sequences": 1, "output_attentions": false, "output_hidden_states": false, "output_scores": false,
        "prefix": null, "problem_type": null, "pruned_heads": {}, "remove_invalid_values": false, "repetition_penalty": 1.0,
        "return_dict": true, "return_dict_in_generate": false, "sep_token_id": null, "suppress_tokens": null,
        "task_specific_params": null, "temperature": 1.0, "tf_legacy_loss": false, "tie_encoder_decoder": false,
        "tie_word_embeddings": true, "tokenizer_class": null, "top_k": 50, "top_p": 1.0, "torchscript": false,
        "typical_p": 1.0, "use_bfloat16": false
    });
    let mut config = sd14_text();
    config
        .as_object_mut()
        .unwrap()
        .extend(noise.as_object().unwrap().clone());
    assert_eq!(text(&config).unwrap(), text(&sd14_text()).unwrap());
    // openai/clip-vit-large-patch14 and google/vit-base-patch16-224, the sizes of the judges users
    // bring.
    let clip = json!({
        "projection_dim": 768, "logit_scale_init_value": 2.6592, "text_config": config, "text_config_dict": {"hidden_size": 768},
        "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
            "patch_size": 14, "image_size": 224, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "max_length": 20}
    });
    let clip = ClipConfig::read(Path::new("clip"), &clip).unwrap();
    assert_eq!(size(&Clip::manifest(&clip)).1, 427_616_513);
    let labels: serde_json::Map<String, Value> = (0..1000)
        .map(|i| (i.to_string(), json!(format!("class {i}"))))
        .collect();
    let vit = json!({"architectures": ["ViTForImageClassification"], "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "hidden_size": 768, "id2label": labels, "image_size": 224, "intermediate_size": 3072,
        "layer_norm_eps": 1e-12, "num_attention_heads": 12, "num_channels": 3, "num_hidden_layers": 12, "patch_size": 16,
        "qkv_bias": true});
    assert_eq!(
        size(&Vit::manifest(
            &VitConfig::read(Path::new("vit"), &vit).unwrap()
        ))
        .1,
        86_567_656
    );
}

/// The error must name the file and the key.
#[track_caller]
fn refused<T: std::fmt::Debug>(read: Result<T, Error>, key: &str) {
    match read {
        Err(Error::Config {
            path,
            key: found,
            problem,
            ..
        }) => {
            assert_eq!(found, key, "{problem}");
            assert!(
                !path.as_os_str().is_empty() && !problem.is_empty() && !problem.ends_with('.'),
                "{problem}"
            );
        }
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn what_changes_the_unet_is_refused_by_name() {
    for (key, value) in [
        ("class_embed_type", json!("timestep")),
        ("class_embeddings_concat", json!(true)),
        ("num_class_embeds", json!(1000)),
        ("center_input_sample", json!(true)),
        ("dual_cross_attention", json!(true)),
        ("resnet_time_scale_shift", json!("scale_shift")),
        ("only_cross_attention", json!([true, true, true, false])),
        ("only_cross_attention", json!(true)),
        ("mid_block_only_cross_attention", json!(true)),
        ("addition_embed_type", json!("text")),
        ("addition_embed_type", json!(true)),
        ("addition_time_embed_dim", json!(256)),
        ("transformer_layers_per_block", json!([1, 2, 10])),
        ("transformer_layers_per_block", json!([1, 2, 10, 65])),
        ("transformer_layers_per_block", json!(65)),
        ("transformer_layers_per_block", json!(-1)),
        ("transformer_layers_per_block", json!("2")),
        ("reverse_transformer_layers_per_block", json!([[1], [2]])),
        ("reverse_transformer_layers_per_block", json!(2)),
        ("act_fn", json!("gelu")),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("mid_block_scale_factor", json!(2)),
        ("downsample_padding", json!(0)),
        ("conv_in_kernel", json!(5)),
        ("conv_out_kernel", json!(1)),
        ("encoder_hid_dim", json!(4096)),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("time_embedding_type", json!("fourier")),
        ("time_embedding_dim", json!(512)),
        ("time_embedding_act_fn", json!("gelu")),
        ("timestep_post_act", json!("silu")),
        ("time_cond_proj_dim", json!(256)),
        ("attention_type", json!("gated")),
        ("cross_attention_norm", json!("layer_norm")),
        ("resnet_skip_time_act", json!(true)),
        ("resnet_out_scale_factor", json!(0.7)),
        ("projection_class_embeddings_input_dim", json!(2816)),
        ("a_key_of_next_year", json!("on")),
        ("a_key_of_next_year", json!(0)),
    ] {
        refused(unet(&with(sd14_unet(), key, value.clone())), key);
        refused(
            unet(&with(with_every_default(sd21_unet()), key, value)),
            key,
        );
    }
    // Harmless spellings of the same network.
    assert!(
        unet(&with(
            sd14_unet(),
            "only_cross_attention",
            json!([false, false, false, false])
        ))
        .is_ok()
    );
    assert!(unet(&with(sd14_unet(), "a_key_of_next_year", json!(false))).is_ok());
    assert!(unet(&with(sd14_unet(), "_what_a_trainer_noted", json!(7))).is_ok());
}

#[test]
fn added_conditioning_must_make_sense() {
    for (key, value) in [
        ("addition_time_embed_dim", Value::Null),
        ("addition_time_embed_dim", json!(255)),
        ("addition_time_embed_dim", json!(0)),
        ("projection_class_embeddings_input_dim", Value::Null),
        ("projection_class_embeddings_input_dim", json!(256)),
        ("projection_class_embeddings_input_dim", json!("2816")),
        ("addition_embed_type", json!("image")),
    ] {
        refused(unet(&with(sdxl_unet(), key, value)), key);
    }
    refused(
        unet(&with(
            with(sdxl_unet(), "addition_time_embed_dim", json!(2)),
            "freq_shift",
            json!(1),
        )),
        "freq_shift",
    );
    // The number of heads of a level without a transformer is nobody's.
    assert!(unet(&with(sdxl_unet(), "attention_head_dim", json!([7, 10, 20]))).is_ok());
    refused(
        unet(&with(sdxl_unet(), "attention_head_dim", json!([5, 10, 7]))),
        "attention_head_dim",
    );
}

#[test]
fn what_changes_the_others_is_refused_by_name() {
    for (key, value) in [
        ("act_fn", json!("relu")),
        ("mid_block_add_attention", json!(false)),
        ("use_quant_conv", json!(false)),
        ("use_post_quant_conv", json!(false)),
        ("shift_factor", json!(0.1159)),
        ("latents_mean", json!([0.0, 0.0, 0.0, 0.0])),
        (
            "down_block_types",
            json!([
                "DownEncoderBlock2D",
                "AttnDownEncoderBlock2D",
                "DownEncoderBlock2D",
                "DownEncoderBlock2D"
            ]),
        ),
        ("up_block_types", json!(["UpDecoderBlock2D"])),
        ("a_key_of_next_year", json!("on")),
    ] {
        refused(vae(&with(sd14_vae(), key, value)), key);
    }
    refused(
        text(&with(sd14_text(), "hidden_act", json!("relu"))),
        "hidden_act",
    );
    refused(
        text(&with(sd14_text(), "hidden_act", json!(3))),
        "hidden_act",
    );
}

#[test]
fn absurd_numbers_are_refused() {
    let absurd = [
        json!(0),
        json!(-1),
        json!(1e18),
        json!(1_000_000_000_000_000_000u64),
        json!(1.5),
        json!("320"),
        json!([]),
    ];
    for value in &absurd {
        for key in [
            "in_channels",
            "out_channels",
            "sample_size",
            "layers_per_block",
            "cross_attention_dim",
            "norm_num_groups",
        ] {
            refused(unet(&with(sd14_unet(), key, value.clone())), key);
        }
        refused(
            unet(&with(sd14_unet(), "attention_head_dim", value.clone())),
            "attention_head_dim",
        );
        refused(
            unet(&with(
                sd14_unet(),
                "block_out_channels",
                json!([320, value, 1280, 1280]),
            )),
            "block_out_channels",
        );
        for key in [
            "in_channels",
            "out_channels",
            "latent_channels",
            "layers_per_block",
            "norm_num_groups",
        ] {
            refused(vae(&with(sd14_vae(), key, value.clone())), key);
        }
        for key in [
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ] {
            refused(text(&with(sd14_text(), key, value.clone())), key);
        }
    }
    for value in [json!(0), json!(-1e-5), json!("small"), json!(1e300)] {
        refused(
            unet(&with(sd14_unet(), "norm_eps", value.clone())),
            "norm_eps",
        );
        refused(
            text(&with(sd14_text(), "layer_norm_eps", value)),
            "layer_norm_eps",
        );
    }
    for value in [json!(-1), json!(160), json!(161), json!(1e300)] {
        refused(unet(&with(sd14_unet(), "freq_shift", value)), "freq_shift");
    }
    for value in [json!(0), json!(-1), json!("x")] {
        refused(
            vae(&with(sd14_vae(), "scaling_factor", value)),
            "scaling_factor",
        );
    }
    refused(
        unet(&with(sd14_unet(), "flip_sin_to_cos", json!(1))),
        "flip_sin_to_cos",
    );
    refused(
        text(&with(sd14_text(), "eos_token_id", json!(-1))),
        "eos_token_id",
    );
}

/// Asked for by a few bytes, each of these would be gigabytes of names.
#[test]
fn a_small_file_cannot_ask_for_a_large_network() {
    let levels = vec![json!(320); 1_000_000];
    refused(
        unet(&with(sd14_unet(), "block_out_channels", json!(levels))),
        "block_out_channels",
    );
    refused(
        vae(&with(sd14_vae(), "block_out_channels", json!(levels))),
        "block_out_channels",
    );
    refused(
        unet(&with(sd14_unet(), "layers_per_block", json!(1_000_000))),
        "layers_per_block",
    );
    refused(
        vae(&with(sd14_vae(), "layers_per_block", json!(65))),
        "layers_per_block",
    );
    let deep = with(sd14_unet(), "layers_per_block", json!(64));
    refused(
        unet(&with(deep, "transformer_layers_per_block", json!(64))),
        "transformer_layers_per_block",
    );
    let long = vec![json!(1); 1_000_000];
    refused(
        unet(&with(
            sd14_unet(),
            "transformer_layers_per_block",
            json!(long),
        )),
        "transformer_layers_per_block",
    );
    refused(
        unet(&with(
            sd14_unet(),
            "transformer_layers_per_block",
            json!([1, 1, 1, long]),
        )),
        "transformer_layers_per_block",
    );
    refused(
        text(&with(sd14_text(), "num_hidden_layers", json!(1_000_000))),
        "num_hidden_layers",
    );
    let vision = json!({"text_config": {}, "vision_config": {"num_hidden_layers": 1_000_000}});
    refused(
        ClipConfig::read(Path::new("clip"), &vision),
        "num_hidden_layers",
    );
    let vit = json!({"id2label": {"0": "cat"}, "num_hidden_layers": 1_000_000});
    refused(VitConfig::read(Path::new("vit"), &vit), "num_hidden_layers");
    // The largest that is accepted is built at once.
    let most = with(
        with(sd14_unet(), "layers_per_block", json!(64)),
        "block_out_channels",
        json!([1_048_576, 1_048_576, 1_048_576, 1_048_576]),
    );
    assert!(UNet::manifest(&unet(&most).unwrap()).len() < 20_000);
}

#[test]
fn numbers_must_fit_each_other() {
    refused(
        unet(&with(sd14_unet(), "attention_head_dim", json!(7))),
        "attention_head_dim",
    );
    refused(
        unet(&with(sd14_unet(), "attention_head_dim", json!([8, 8, 8]))),
        "attention_head_dim",
    );
    refused(
        unet(&with(sd14_unet(), "norm_num_groups", json!(48))),
        "norm_num_groups",
    );
    refused(
        unet(&with(
            sd14_unet(),
            "down_block_types",
            json!(["DownBlock2D"]),
        )),
        "down_block_types",
    );
    refused(
        unet(&with(
            sd14_unet(),
            "up_block_types",
            json!(["UpBlock2D", "UpBlock2D", "UpBlock2D", "AttnUpBlock2D"]),
        )),
        "up_block_types",
    );
    refused(
        unet(&without(sd14_unet(), "block_out_channels")),
        "block_out_channels",
    );
    refused(
        unet(&without(sd14_unet(), "down_block_types")),
        "down_block_types",
    );
    refused(
        vae(&with(sd14_vae(), "norm_num_groups", json!(48))),
        "norm_num_groups",
    );
    refused(
        vae(&without(sd14_vae(), "up_block_types")),
        "up_block_types",
    );
    refused(
        text(&with(sd14_text(), "num_attention_heads", json!(11))),
        "num_attention_heads",
    );
    refused(
        VitConfig::read(
            Path::new("vit"),
            &json!({"id2label": {"0": "cat"}, "image_size": 225}),
        ),
        "patch_size",
    );
    refused(
        VitConfig::read(
            Path::new("vit"),
            &json!({"id2label": {"0": "cat", "2": "dog"}}),
        ),
        "id2label",
    );
    refused(
        VitConfig::read(Path::new("vit"), &json!({"id2label": {}})),
        "id2label",
    );
    refused(VitConfig::read(Path::new("vit"), &json!({})), "id2label");
    for other in [json!(null), json!([]), json!("unet"), json!(3)] {
        assert!(unet(&other).is_err() && vae(&other).is_err() && text(&other).is_err());
    }
}
