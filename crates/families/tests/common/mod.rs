//! The complete manifests of published models: names and shapes of every tensor, made of the
//! published configurations. No numbers.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::Path;

use scumble_nn::{
    ClipText, ClipTextWithProjection, Manifest, UNet, Vae,
    config::{ClipTextConfig, ClipTextWithProjectionConfig, UNetConfig, VaeConfig},
};
use serde_json::{Value, json};

/// A published model: what it is called, the id of its family, and its networks by id.
pub(crate) struct Published {
    pub(crate) name: &'static str,
    pub(crate) family: &'static str,
    pub(crate) networks: Vec<(&'static str, Manifest)>,
}

impl Published {
    pub(crate) fn network(&self, id: &str) -> &Manifest {
        let found = self.networks.iter().find(|(known, _)| *known == id);
        &found.unwrap().1
    }
}

/// Stable Diffusion 1.5, 2.1 and SDXL base 1.0.
pub(crate) fn published() -> [Published; 3] {
    let unet_1 = json!({ "attention_head_dim": 8, "cross_attention_dim": 768 });
    let unet_2 = json!({
        "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
        "use_linear_projection": true,
    });
    let unet_xl = json!({
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "projection_class_embeddings_input_dim": 2816,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "use_linear_projection": true,
    });
    let clip_l = || text(&clip(768, 3072, 12, 12));
    let second = clip(1280, 5120, 32, 20);
    let second = ClipTextWithProjectionConfig::read(Path::new("text_encoder_2"), &second).unwrap();
    [
        Published {
            name: "Stable Diffusion 1.5",
            family: "sd",
            networks: vec![
                ("text_encoder", clip_l()),
                ("unet", unet(unet_1)),
                ("vae", vae()),
            ],
        },
        Published {
            name: "Stable Diffusion 2.1",
            family: "sd",
            networks: vec![
                ("text_encoder", text(&clip(1024, 4096, 23, 16))),
                ("unet", unet(unet_2)),
                ("vae", vae()),
            ],
        },
        Published {
            name: "SDXL base 1.0",
            family: "sdxl",
            networks: vec![
                ("text_encoder", clip_l()),
                ("text_encoder_2", ClipTextWithProjection::manifest(&second)),
                ("unet", unet(unet_xl)),
                ("vae", vae()),
            ],
        },
    ]
}

fn clip(hidden: usize, inner: usize, layers: usize, heads: usize) -> Value {
    json!({
        "hidden_act": "gelu", "hidden_size": hidden, "intermediate_size": inner,
        "num_attention_heads": heads, "num_hidden_layers": layers, "projection_dim": hidden,
    })
}

fn text(config: &Value) -> Manifest {
    ClipText::manifest(&ClipTextConfig::read(Path::new("text_encoder"), config).unwrap())
}

fn unet(own: Value) -> Manifest {
    let mut config = json!({
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [
            "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"
        ],
        "up_block_types": [
            "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"
        ],
    });
    for (key, value) in own.as_object().unwrap() {
        config[key] = value.clone();
    }
    UNet::manifest(&UNetConfig::read(Path::new("unet"), &config).unwrap())
}

fn vae() -> Manifest {
    let config = json!({
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
        "down_block_types": vec!["DownEncoderBlock2D"; 4],
        "up_block_types": vec!["UpDecoderBlock2D"; 4],
    });
    Vae::manifest(&VaeConfig::read(Path::new("vae"), &config).unwrap())
}
