//! New networks of this family, before any number of theirs is known: configurations of diffusers and
//! transformers, from the few sizes that one chooses.

use scumble_diffusion::{Denoiser, Result};
use scumble_nn::{Manifest, config::UNetConfig};
use serde_json::{Map, Value, json};

/// The version of diffusers whose keys these are.
const VERSION: &str = "0.38.0";

/// `model_index.json`.
pub fn model_index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": VERSION,
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// Stable Diffusion's noise schedule, for a model that answers `epsilon` or `v_prediction`.
pub fn scheduler(prediction_type: &str) -> Value {
    json!({
        "_class_name": "DDIMScheduler",
        "_diffusers_version": VERSION,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": null,
    })
}

/// A text encoder, which is a tower of a CLIP.
#[derive(Clone, Copy, Debug)]
pub struct TextSizes {
    /// Tokens; the last two are the start and the end.
    pub vocabulary: usize,
    /// Positions.
    pub context: usize,
    /// Width of the hidden states; feed-forward layers are four times as wide.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of each.
    pub num_attention_heads: usize,
    /// Width of the space that CLIP projects to.
    pub projection_dim: usize,
}

impl TextSizes {
    /// The keys of both towers.
    fn tower(&self) -> Map<String, Value> {
        let keys = json!({
            "attention_dropout": 0.0,
            "hidden_act": "quick_gelu",
            "hidden_size": self.hidden_size,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": 4 * self.hidden_size,
            "layer_norm_eps": 1e-5,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "projection_dim": self.projection_dim,
        });
        keys.as_object().cloned().unwrap_or_default()
    }

    fn text(&self) -> Map<String, Value> {
        let end = self.vocabulary.saturating_sub(1);
        let mut keys = self.tower();
        keys.extend([
            ("bos_token_id".into(), end.saturating_sub(1).into()),
            ("eos_token_id".into(), end.into()),
            ("pad_token_id".into(), end.into()),
            ("max_position_embeddings".into(), self.context.into()),
            ("model_type".into(), "clip_text_model".into()),
            ("vocab_size".into(), self.vocabulary.into()),
        ]);
        keys
    }

    /// The `config.json` of a `CLIPTextModel`.
    pub fn config(&self) -> Value {
        let mut keys = self.text();
        keys.insert("architectures".into(), json!(["CLIPTextModel"]));
        keys.into()
    }

    /// The `config.json` of the `CLIPModel` whose text tower it is; the other looks at pictures of
    /// `side` pixels.
    pub fn clip_config(&self, side: usize, patch_size: usize) -> Value {
        let mut vision = self.tower();
        vision.extend([
            ("image_size".into(), side.into()),
            ("model_type".into(), "clip_vision_model".into()),
            ("num_channels".into(), 3.into()),
            ("patch_size".into(), patch_size.into()),
        ]);
        json!({
            "architectures": ["CLIPModel"],
            "initializer_factor": 1.0,
            "logit_scale_init_value": 2.6592,
            "model_type": "clip",
            "projection_dim": self.projection_dim,
            "text_config": self.text(),
            "vision_config": vision,
        })
    }
}

/// An `AutoencoderKL`.
#[derive(Clone, Copy, Debug)]
pub struct AutoencoderSizes<'a> {
    /// Channels of each level; each but the first halves the picture.
    pub block_out_channels: &'a [usize],
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Residual blocks of a level.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Width of its pictures.
    pub side: usize,
}

impl AutoencoderSizes<'_> {
    /// Its `config.json`, with what latents are multiplied by.
    pub fn config(&self, scaling_factor: f64) -> Value {
        let levels = self.block_out_channels.len();
        json!({
            "_class_name": "AutoencoderKL",
            "_diffusers_version": VERSION,
            "act_fn": "silu",
            "block_out_channels": self.block_out_channels,
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "force_upcast": true,
            "in_channels": 3,
            "latent_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "mid_block_add_attention": true,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": 3,
            "sample_size": self.side,
            "scaling_factor": scaling_factor,
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "use_post_quant_conv": true,
            "use_quant_conv": true,
        })
    }
}

/// A `UNet2DConditionModel` with cross-attention at every level.
#[derive(Clone, Copy, Debug)]
pub struct DenoiserSizes<'a> {
    /// Channels of each level.
    pub block_out_channels: &'a [usize],
    /// Residual blocks of a level.
    pub layers_per_block: usize,
    /// Heads, which the configurations of SD 1.x call so.
    pub attention_head_dim: usize,
    /// Width of the text encoder's hidden states.
    pub cross_attention_dim: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Width of a latent.
    pub sample_size: usize,
}

impl DenoiserSizes<'_> {
    /// Its `config.json`.
    pub fn config(&self) -> Value {
        let levels = self.block_out_channels.len();
        json!({
            "_class_name": "UNet2DConditionModel",
            "_diffusers_version": VERSION,
            "act_fn": "silu",
            "attention_head_dim": self.attention_head_dim,
            "block_out_channels": self.block_out_channels,
            "center_input_sample": false,
            "cross_attention_dim": self.cross_attention_dim,
            "down_block_types": vec!["CrossAttnDownBlock2D"; levels],
            "downsample_padding": 1,
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "in_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "mid_block_scale_factor": 1,
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "norm_eps": 1e-5,
            "norm_num_groups": 32,
            "out_channels": self.latent_channels,
            "sample_size": self.sample_size,
            "up_block_types": vec!["CrossAttnUpBlock2D"; levels],
        })
    }

    /// The names and shapes of its tensors.
    ///
    /// # Errors
    /// If the sizes do not fit together.
    pub fn manifest(&self) -> Result<Manifest> {
        let config = UNetConfig::read("unet/config.json".as_ref(), &self.config())?;
        Ok(Denoiser::manifest(&config))
    }

    /// How the names of the last tensors of its residual branches end: where these are 0 a network
    /// begins as if it had no layers (`zero_module` of ADM and LDM).
    pub const LAST_OF_BRANCHES: [&'static str; 3] =
        ["conv2.weight", "proj_out.weight", "conv_out.weight"];
}
