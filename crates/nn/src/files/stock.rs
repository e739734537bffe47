//! The configurations of the published Stable Diffusion 1.x and 2.x, for single files, which bring
//! none.

use serde_json::{Value, json};

use super::checkpoint::Prediction;

/// The four configurations of a checkpoint.
pub(crate) struct Configs {
    pub(crate) unet: Value,
    pub(crate) vae: Value,
    pub(crate) text_encoder: Value,
    pub(crate) scheduler: Value,
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
    Configs {
        unet,
        vae: vae(512),
        text_encoder: text(768, 3072, 12, 12, "quick_gelu"),
        scheduler,
    }
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
    Configs {
        unet,
        vae: vae(side),
        text_encoder: text(1024, 4096, 23, 16, "gelu"),
        scheduler: scheduler(prediction),
    }
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
