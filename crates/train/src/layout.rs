//! The folder of a model: what diffusers and transformers expect where, and the configurations that
//! a recipe's sizes come to.

use std::path::{Path, PathBuf};

use scumble_erase::{NONE_OF_THESE, Result};
use scumble_families::sd::sizes::{AutoencoderSizes, DenoiserSizes, TextSizes};
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

/// The weights of a network of transformers, in its folder.
pub(crate) const MODEL: &str = "model.safetensors";
/// The weights of a network of diffusers.
pub(crate) const DIFFUSION_MODEL: &str = "diffusion_pytorch_model.safetensors";

/// Mean and deviation of CLIP's pictures.
pub(crate) const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
pub(crate) const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

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
        write_atomically(&self.place(file)?, |out| out.write_all(content.as_bytes()))?;
        Ok(())
    }

    /// Where a file is to lie, its folder made.
    fn place(&self, file: &str) -> Result<PathBuf> {
        let path = self.root.join(file);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent).map_err(scumble_nn::Error::from)?;
        }
        Ok(path)
    }

    pub(crate) fn json(&self, file: &str, value: &Value) -> Result<()> {
        self.text(file, &format!("{value:#}\n"))
    }

    /// Writes a network's numbers as f16, which is what it computes with from then on.
    pub(crate) fn weights(&self, file: &str, weights: &Weights) -> Result<()> {
        self.some(file, weights.iter().map(|(name, _)| name), weights)
    }

    /// The same of those with these names.
    pub(crate) fn some<'a>(
        &self,
        file: &str,
        names: impl Iterator<Item = &'a String>,
        weights: &Weights,
    ) -> Result<()> {
        let tensors = names.filter_map(|name| {
            let weight = weights.get(name)?;
            let host = HostTensor::of_f32(weight.shape.clone(), weight.numbers());
            Some((name.clone(), host))
        });
        let path = self.place(file)?;
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        write_as(&path, tensors, Some(Dtype::F16), &metadata)?;
        Ok(())
    }
}

impl Recipe {
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

    /// The text encoder over a vocabulary.
    pub(crate) fn text_sizes(&self, vocabulary: usize) -> TextSizes {
        TextSizes {
            vocabulary,
            context: self.tokenizer.context,
            hidden_size: self.clip.hidden_size,
            num_hidden_layers: self.clip.num_hidden_layers,
            num_attention_heads: self.clip.num_attention_heads,
            projection_dim: self.clip.projection_dim,
        }
    }

    pub(crate) fn autoencoder_sizes(&self) -> AutoencoderSizes<'_> {
        AutoencoderSizes {
            block_out_channels: &self.vae.block_out_channels,
            latent_channels: self.vae.latent_channels,
            layers_per_block: self.vae.layers_per_block,
            norm_num_groups: self.vae.norm_num_groups,
            side: self.side,
        }
    }

    pub(crate) fn denoiser_sizes(&self) -> DenoiserSizes<'_> {
        let factor = 1 << (self.vae.block_out_channels.len() - 1);
        DenoiserSizes {
            block_out_channels: &self.denoiser.block_out_channels,
            layers_per_block: self.denoiser.layers_per_block,
            attention_head_dim: self.denoiser.attention_head_dim,
            cross_attention_dim: self.clip.hidden_size,
            latent_channels: self.vae.latent_channels,
            sample_size: self.side / factor,
        }
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

    /// A `ViTForImageClassification` that answers a question, and may say that no answer fits where it
    /// learns to refuse.
    pub(crate) fn judge_config(&self, question: &Question, refuses: bool) -> Value {
        let (id2label, label2id) = labels(question, refuses);
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

    /// The `ResNetForImageClassification` that has to agree with it, if the recipe has one.
    pub(crate) fn second_judge_config(&self, question: &Question) -> Option<Value> {
        let second = self.judge.second.as_ref()?;
        let (id2label, label2id) = labels(question, true);
        Some(json!({
            "architectures": ["ResNetForImageClassification"],
            "depths": second.depths,
            "downsample_in_bottleneck": false,
            "downsample_in_first_stage": false,
            "embedding_size": second.embedding_size,
            "hidden_act": "relu",
            "hidden_sizes": second.hidden_sizes,
            "id2label": id2label,
            "label2id": label2id,
            "layer_type": "basic",
            "model_type": "resnet",
            "num_channels": 3,
        }))
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

/// The labels of a question by number and the numbers by label, with one for none of them where a
/// judge learns to refuse.
fn labels(question: &Question, refuses: bool) -> (Value, Value) {
    let refusal = refuses.then(|| NONE_OF_THESE.to_owned());
    let labels = || question.labels.iter().cloned().chain(refusal.clone());
    let id2label: serde_json::Map<String, Value> = labels()
        .enumerate()
        .map(|(i, label)| (i.to_string(), label.into()))
        .collect();
    let label2id: serde_json::Map<String, Value> = labels()
        .enumerate()
        .map(|(i, label)| (label, i.into()))
        .collect();
    (id2label.into(), label2id.into())
}
