//! The configurations of the published Stable Diffusion 1.x, 2.x and SDXL base 1.0, for single
//! files, which bring none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checkpoint::Prediction;

/// The configurations of a checkpoint.
pub(crate) struct Configs {
    /// Of each component, by id.
    pub(crate) components: BTreeMap<&'static str, Value>,
    /// Of the scheduler.
    pub(crate) scheduler: Value,
}

impl Configs {
    fn of<const N: usize>(components: [(&'static str, Value); N], scheduler: Value) -> Self {
        Self {
            components: BTreeMap::from(components),
            scheduler,
        }
    }
}

/// Stable Diffusion 1.x: 512 pixels, CLIP ViT-L/14, epsilon unless a file says otherwise.
pub(crate) fn sd1(prediction: Prediction) -> Configs {
    let mut unet = unet();
    unet["attention_head_dim"] = json!(8);
    unet["cross_attention_dim"] = json!(768);
    unet["sample_size"] = json!(64);
    let mut scheduler = scheduler(prediction);
    scheduler["_class_name"] = json!("PNDMScheduler");
    scheduler["skip_prk_steps"] = json!(true);
    let text = text(768, 3072, 12, 12, "quick_gelu");
    Configs::of(
        [("text_encoder", text), ("unet", unet), ("vae", vae(512))],
        scheduler,
    )
}

/// Stable Diffusion 2.x: 768 pixels and v, or 512 and epsilon; OpenCLIP ViT-H/14 without its last
/// block.
pub(crate) fn sd2(prediction: Prediction) -> Configs {
    let side = if prediction == Prediction::V {
        768
    } else {
        512
    };
    let mut unet = unet();
    unet["attention_head_dim"] = json!([5, 10, 20, 20]);
    unet["cross_attention_dim"] = json!(1024);
    unet["sample_size"] = json!(side / 8);
    unet["use_linear_projection"] = json!(true);
    unet["upcast_attention"] = json!(true);
    let text = text(1024, 4096, 23, 16, "gelu");
    Configs::of(
        [("text_encoder", text), ("unet", unet), ("vae", vae(side))],
        scheduler(prediction),
    )
}

/// SDXL base 1.0: 1024 pixels, CLIP ViT-L/14 and OpenCLIP ViT-bigG/14, epsilon unless a file says
/// otherwise.
pub(crate) fn sdxl(prediction: Prediction) -> Configs {
    let mut unet = unet();
    for (key, value) in [
        ("addition_embed_type", json!("text_time")),
        ("addition_embed_type_num_heads", json!(64)),
        ("addition_time_embed_dim", json!(256)),
        ("attention_head_dim", json!([5, 10, 20])),
        ("block_out_channels", json!([320, 640, 1280])),
        ("cross_attention_dim", json!(2048)),
        (
            "down_block_types",
            json!([
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D"
            ]),
        ),
        ("projection_class_embeddings_input_dim", json!(2816)),
        ("sample_size", json!(128)),
        ("transformer_layers_per_block", json!([1, 2, 10])),
        (
            "up_block_types",
            json!(["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]),
        ),
        ("use_linear_projection", json!(true)),
    ] {
        unet[key] = value;
    }
    let mut vae = vae(1024);
    vae["scaling_factor"] = json!(0.13025);
    vae["force_upcast"] = json!(true);
    let mut second = text(1280, 5120, 32, 20, "gelu");
    second["architectures"] = json!(["CLIPTextModelWithProjection"]);
    second["projection_dim"] = json!(1280);
    let mut scheduler = scheduler(prediction);
    for (key, value) in [
        ("_class_name", json!("EulerDiscreteScheduler")),
        ("interpolation_type", json!("linear")),
        ("sample_max_value", json!(1.0)),
        ("skip_prk_steps", json!(true)),
        ("timestep_spacing", json!("leading")),
        ("use_karras_sigmas", json!(false)),
    ] {
        scheduler[key] = value;
    }
    Configs::of(
        [
            ("text_encoder", text(768, 3072, 12, 12, "quick_gelu")),
            ("text_encoder_2", second),
            ("unet", unet),
            ("vae", vae),
        ],
        scheduler,
    )
}

fn unet() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": false,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": 4,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    })
}

fn vae(side: usize) -> Value {
    json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": side,
        "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    })
}

fn text(hidden: usize, inner: usize, layers: usize, heads: usize, act: &str) -> Value {
    json!({
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": act,
        "hidden_size": hidden,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 1,
        "projection_dim": if hidden == 768 { 768 } else { 512 },
        "vocab_size": 49408,
    })
}

fn scheduler(prediction: Prediction) -> Value {
    json!({
        "_class_name": "DDIMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": prediction.name(),
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "trained_betas": null,
    })
}
