//! The folder of a model: what diffusers and transformers expect where, and the configurations that
//! a recipe's sizes come to.

use std::path::{Path, PathBuf};

use scumble_erase::Result;
use scumble_nn::{
    Weights,
    files::{
        Dtype, HostTensor,
        safetensors::{write_as, write_atomically},
    },
};
use serde_json::{Value, json};

use crate::{examples::Question, recipe::Recipe};

/// A model's folder in the making.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// Mean and deviation of CLIP's pictures.
pub(crate) const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
pub(crate) const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where a part of it lies.
    pub(crate) fn at(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }

    /// Writes a text, whole or not at all.
    pub(crate) fn text(&self, file: &str, content: &str) -> Result<()> {
        let path = self.root.join(file);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent).map_err(scumble_nn::Error::from)?;
        }
        write_atomically(&path, |out| out.write_all(content.as_bytes()))?;
        Ok(())
    }

    pub(crate) fn json(&self, file: &str, value: &Value) -> Result<()> {
        self.text(file, &format!("{value:#}\n"))
    }

    /// Writes a network's numbers as f16, which is what it computes with from then on.
    pub(crate) fn weights(&self, file: &str, weights: &Weights) -> Result<()> {
        self.some(
            file,
            weights
                .iter()
                .map(|(name, _)| (name.as_str(), name.as_str())),
            weights,
        )
    }

    /// The same of some of them, each as (name, name in the file).
    pub(crate) fn some<'a>(
        &self,
        file: &str,
        names: impl Iterator<Item = (&'a str, &'a str)>,
        weights: &Weights,
    ) -> Result<()> {
        let tensors = names.filter_map(|(name, filed)| {
            let weight = weights.get(name)?;
            let host = HostTensor::of_f32(weight.shape.clone(), weight.numbers());
            Some((filed.to_owned(), host))
        });
        let path = self.root.join(file);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent).map_err(scumble_nn::Error::from)?;
        }
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        write_as(&path, tensors, Some(Dtype::F16), &metadata)?;
        Ok(())
    }
}

impl Recipe {
    /// `model_index.json`.
    pub(crate) fn model_index(&self) -> Value {
        json!({
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.38.0",
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

    /// Stable Diffusion's noise schedule.
    pub(crate) fn scheduler(&self) -> Value {
        json!({
            "_class_name": "DDIMScheduler",
            "_diffusers_version": "0.38.0",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": false,
            "num_train_timesteps": 1000,
            "prediction_type": self.denoiser.prediction.prediction_type(),
            "set_alpha_to_one": false,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            "trained_betas": null,
        })
    }

    pub(crate) fn tokenizer_config(&self) -> Value {
        json!({
            "add_prefix_space": false,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "model_max_length": self.tokenizer.context,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": "<|endoftext|>",
        })
    }

    /// A `CLIPTextModel` over a vocabulary whose last two ids are the start and the end.
    pub(crate) fn text_config(&self, vocabulary: usize) -> Value {
        json!({
            "architectures": ["CLIPTextModel"],
            "attention_dropout": 0.0,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
            "hidden_act": "quick_gelu",
            "hidden_size": self.clip.hidden_size,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": 4 * self.clip.hidden_size,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": self.tokenizer.context,
            "model_type": "clip_text_model",
            "num_attention_heads": self.clip.num_attention_heads,
            "num_hidden_layers": self.clip.num_hidden_layers,
            "projection_dim": self.clip.projection_dim,
            "vocab_size": vocabulary,
        })
    }

    /// A `CLIPModel`.
    pub(crate) fn clip_config(&self, vocabulary: usize) -> Value {
        let mut text = self.text_config(vocabulary);
        if let Some(text) = text.as_object_mut() {
            text.remove("architectures");
        }
        json!({
            "architectures": ["CLIPModel"],
            "initializer_factor": 1.0,
            "logit_scale_init_value": 2.6592,
            "model_type": "clip",
            "projection_dim": self.clip.projection_dim,
            "text_config": text,
            "vision_config": {
                "attention_dropout": 0.0,
                "hidden_act": "quick_gelu",
                "hidden_size": self.clip.hidden_size,
                "image_size": self.side,
                "initializer_factor": 1.0,
                "initializer_range": 0.02,
                "intermediate_size": 4 * self.clip.hidden_size,
                "layer_norm_eps": 1e-5,
                "model_type": "clip_vision_model",
                "num_attention_heads": self.clip.num_attention_heads,
                "num_channels": 3,
                "num_hidden_layers": self.clip.num_hidden_layers,
                "patch_size": self.clip.patch_size,
                "projection_dim": self.clip.projection_dim,
            },
        })
    }

    /// How CLIP's pictures are prepared.
    pub(crate) fn clip_preprocessor(&self) -> Value {
        json!({
            "crop_size": {"height": self.side, "width": self.side},
            "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
            "do_rescale": true, "do_resize": true,
            "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
            "image_processor_type": "CLIPImageProcessor",
            "resample": 3, "rescale_factor": 1.0 / 255.0,
            "size": {"shortest_edge": self.side},
        })
    }

    /// An `AutoencoderKL`, whose latents are multiplied by `scaling_factor`.
    pub(crate) fn vae_config(&self, scaling_factor: f64) -> Value {
        let levels = self.vae.block_out_channels.len();
        json!({
            "_class_name": "AutoencoderKL",
            "_diffusers_version": "0.38.0",
            "act_fn": "silu",
            "block_out_channels": self.vae.block_out_channels,
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "force_upcast": true,
            "in_channels": 3,
            "latent_channels": self.vae.latent_channels,
            "layers_per_block": self.vae.layers_per_block,
            "mid_block_add_attention": true,
            "norm_num_groups": self.vae.norm_num_groups,
            "out_channels": 3,
            "sample_size": self.side,
            "scaling_factor": scaling_factor,
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "use_post_quant_conv": true,
            "use_quant_conv": true,
        })
    }

    /// A `UNet2DConditionModel` with cross-attention at every level.
    pub(crate) fn unet_config(&self) -> Value {
        let levels = self.denoiser.block_out_channels.len();
        let factor = 1 << (self.vae.block_out_channels.len() - 1);
        json!({
            "_class_name": "UNet2DConditionModel",
            "_diffusers_version": "0.38.0",
            "act_fn": "silu",
            "attention_head_dim": self.denoiser.attention_head_dim,
            "block_out_channels": self.denoiser.block_out_channels,
            "center_input_sample": false,
            "cross_attention_dim": self.clip.hidden_size,
            "down_block_types": vec!["CrossAttnDownBlock2D"; levels],
            "downsample_padding": 1,
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "in_channels": self.vae.latent_channels,
            "layers_per_block": self.denoiser.layers_per_block,
            "mid_block_scale_factor": 1,
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "norm_eps": 1e-5,
            "norm_num_groups": 32,
            "out_channels": self.vae.latent_channels,
            "sample_size": self.side / factor,
            "up_block_types": vec!["CrossAttnUpBlock2D"; levels],
        })
    }

    /// A `ViTForImageClassification` that answers a question, or that none of its answers fits.
    pub(crate) fn judge_config(&self, question: &Question) -> Value {
        let labels = labels(question, self.judge.reject > 0.0);
        let id2label: serde_json::Map<String, Value> = labels
            .iter()
            .enumerate()
            .map(|(i, label)| (i.to_string(), label.as_str().into()))
            .collect();
        let label2id: serde_json::Map<String, Value> = labels
            .iter()
            .enumerate()
            .map(|(i, label)| (label.clone(), i.into()))
            .collect();
        json!({
            "architectures": ["ViTForImageClassification"],
            "attention_probs_dropout_prob": 0.0,
            "encoder_stride": 16,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": self.judge.hidden_size,
            "id2label": id2label,
            "image_size": self.side,
            "initializer_range": 0.02,
            "intermediate_size": 4 * self.judge.hidden_size,
            "label2id": label2id,
            "layer_norm_eps": 1e-12,
            "model_type": "vit",
            "num_attention_heads": self.judge.num_attention_heads,
            "num_channels": 3,
            "num_hidden_layers": self.judge.num_hidden_layers,
            "patch_size": self.judge.patch_size,
            "qkv_bias": true,
        })
    }

    pub(crate) fn judge_preprocessor(&self) -> Value {
        json!({
            "do_normalize": true, "do_rescale": true, "do_resize": true,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "ViTImageProcessor",
            "resample": 2, "rescale_factor": 1.0 / 255.0,
            "size": {"height": self.side, "width": self.side},
        })
    }
}

/// What a judge says where no answer fits.
pub(crate) const NONE: &str = "none of these";

/// The answers of a judge, with the refusal behind them where it learns one.
pub(crate) fn labels(question: &Question, refuses: bool) -> Vec<String> {
    let refusal = refuses.then(|| NONE.to_owned());
    question.labels.iter().cloned().chain(refusal).collect()
}
