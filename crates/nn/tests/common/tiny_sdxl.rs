//! An SDXL of a few thousand numbers, random ones, and folders of it that can be broken.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use scumble_nn::{
    ClipText, ClipTextWithProjection, Manifest, UNet, Vae,
    config::{ClipTextConfig, ClipTextWithProjectionConfig, UNetConfig, VaeConfig},
    files::{Checkpoint, Component, Dtype, Family, HostTensor, Precision, Tensors, write_folder},
};
use serde_json::{Value, json};

use super::{Lcg, miniature};

/// Widths of the two text encoders.
pub(crate) const WIDTHS: [usize; 2] = [8, 12];
/// Width of the pooled embedding.
pub(crate) const POOLED: usize = 10;

fn text(width: usize, layers: usize, class: &str) -> Value {
    json!({
        "architectures": [class], "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "gelu",
        "hidden_size": width, "intermediate_size": 2 * width, "layer_norm_eps": 1e-5,
        "max_position_embeddings": 32, "model_type": "clip_text_model", "num_attention_heads": 2,
        "num_hidden_layers": layers, "projection_dim": POOLED, "vocab_size": 726,
    })
}

/// The configurations of its components.
pub(crate) fn configs() -> [(&'static str, Value); 4] {
    let unet = json!({
        "_class_name": "UNet2DConditionModel", "act_fn": "silu",
        "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": 4, "attention_head_dim": [2, 4], "block_out_channels": [8, 16],
        "cross_attention_dim": WIDTHS[0] + WIDTHS[1],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "in_channels": 4,
        "layers_per_block": 2, "norm_num_groups": 4, "out_channels": 4,
        "projection_class_embeddings_input_dim": POOLED + 6 * 4, "sample_size": 8,
        "transformer_layers_per_block": [1, 2],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "use_linear_projection": true,
    });
    let vae = json!({
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"], "force_upcast": true,
        "in_channels": 3, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4,
        "out_channels": 3, "sample_size": 8, "scaling_factor": 0.13025,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    });
    [
        ("text_encoder", text(WIDTHS[0], 2, "CLIPTextModel")),
        (
            "text_encoder_2",
            text(WIDTHS[1], 3, "CLIPTextModelWithProjection"),
        ),
        ("unet", unet),
        ("vae", vae),
    ]
}

/// The names and shapes that a component's network asks for.
pub(crate) fn manifest(id: &str, config: &Value) -> Manifest {
    let place = Path::new(id);
    match id {
        "text_encoder" => ClipText::manifest(&ClipTextConfig::read(place, config).unwrap()),
        "text_encoder_2" => ClipTextWithProjection::manifest(
            &ClipTextWithProjectionConfig::read(place, config).unwrap(),
        ),
        "unet" => UNet::manifest(&UNetConfig::read(place, config).unwrap()),
        _ => Vae::manifest(&VaeConfig::read(place, config).unwrap()),
    }
}

/// The model: U-Net and text encoders in f16, the autoencoder in f32, every number of its own.
pub(crate) fn tiny() -> Checkpoint {
    let mut rng = Lcg(11);
    let mut component = |id: &str, config: Value| {
        let dtype = if id == "vae" { Dtype::F32 } else { Dtype::F16 };
        let tensors: Tensors = manifest(id, &config)
            .into_iter()
            .map(|(name, shape)| {
                let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.float()).collect();
                let tensor = HostTensor::from_f32(shape, &values).cast(dtype).unwrap();
                (name, tensor)
            })
            .collect();
        Component { config, tensors }
    };
    let mini = miniature();
    let first = mini.tokenizers["tokenizer"].clone();
    let mut second = first.clone();
    let special =
        json!({"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!"});
    second.files.insert(
        "special_tokens_map.json".into(),
        scumble_nn::files::Bytes::Owned(special.to_string().into_bytes().into()),
    );
    Checkpoint {
        name: "tiny-sdxl".into(),
        components: configs()
            .map(|(id, config)| (id.to_owned(), component(id, config)))
            .into(),
        scheduler: json!({
            "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
            "prediction_type": "epsilon", "steps_offset": 1, "timestep_spacing": "leading",
        }),
        model_index: json!({
            "_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.27.0",
            "add_watermarker": null, "force_zeros_for_empty_prompt": false,
            "feature_extractor": [null, null], "image_encoder": [null, null],
        }),
        tokenizers: BTreeMap::from([
            ("tokenizer".to_owned(), first),
            ("tokenizer_2".to_owned(), second),
        ]),
        passengers: Vec::new(),
        notes: Vec::new(),
        family: Family::Sdxl,
    }
}

/// A folder of it.
pub(crate) fn folder(target: &Path) -> PathBuf {
    let path = target.join("tiny-sdxl");
    write_folder(&tiny(), &path, Precision::Keep, None).unwrap();
    path
}

/// Changes a JSON file.
pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    change(&mut value);
    fs_err::write(path, value.to_string()).unwrap();
}
