//! A model: tokenizer, networks and schedule of a checkpoint, on a device.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use scumble_nn::{
    ClipText, ClipTextWithProjection, Context, SizeCondition, UNet, Vae, Watch, Weights,
    config::{ClipTextConfig, ClipTextWithProjectionConfig, UNetConfig, VaeConfig},
    files::{Checkpoint, Family, TokenizerFiles},
    tokenizer::{Tokenizer, TokenizerData},
};
use serde_json::Value;

use crate::{
    denoiser::Denoiser,
    error::{Error, Result},
    prediction::Prediction,
    sampler::Sampler,
    schedule::Schedule,
    text::{Second, TextEncoders},
    time::Timestep,
};

/// A network with its configuration and its tensors. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Part<C> {
    /// The shape of the network.
    pub config: C,
    /// Its tensors, by name.
    pub weights: Weights,
}

/// A Stable Diffusion on a device, ready to compute: nothing but what its files say. What keeps one
/// from concepts stands above it, in a [`Pipeline`](crate::Pipeline). Clones share all tensors, and
/// so do edited copies, except for what was edited.
#[derive(Clone, Debug)]
pub struct Model {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The text encoder, of SDXL the first one.
    pub text_encoder: Part<ClipTextConfig>,
    /// SDXL's second text encoder.
    pub text_encoder_2: Option<Part<ClipTextWithProjectionConfig>>,
    /// What pads a prompt of the second text encoder.
    pad_2: u32,
    /// The denoiser.
    pub unet: Part<UNetConfig>,
    /// The autoencoder.
    pub vae: Part<VaeConfig>,
    /// How noise is mixed in, and what the denoiser answers.
    pub schedule: Schedule,
    /// The sampler that the checkpoint itself names, if it is one of those here.
    pub sampler: Option<Sampler>,
    /// Whether the empty prompt is all zeros (SDXL).
    pub(crate) force_zeros_for_empty_prompt: bool,
    /// What size pictures are said to have had (SDXL); others have no place for it.
    size_condition: SizeCondition,
    family: Family,
    device: Device,
}

impl Model {
    /// Moves a checkpoint to a device. Every tensor is checked against the configurations.
    ///
    /// A scheduler's configuration that is not supported is an error where the schedule is first
    /// used ([`Schedule::refused`]).
    ///
    /// # Errors
    /// If a configuration is not supported or the tensors are not exactly the ones it asks for.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        let name = Path::new(&checkpoint.name);
        let (text, unet, vae) = (
            checkpoint.component(TEXT_ENCODER)?,
            checkpoint.component(UNET)?,
            checkpoint.component(VAE)?,
        );
        let text_config =
            ClipTextConfig::read(&name.join("text_encoder/config.json"), &text.config)?;
        let second = match checkpoint.component(TEXT_ENCODER_2) {
            Ok(component) => {
                let path = name.join("text_encoder_2/config.json");
                let config = ClipTextWithProjectionConfig::read(&path, &component.config)?;
                Some((config, component))
            }
            Err(_) => None,
        };
        let unet_config = UNetConfig::read(&name.join("unet/config.json"), &unet.config)?;
        let vae_config = VaeConfig::read(&name.join("vae/config.json"), &vae.config)?;
        fitting(
            checkpoint,
            &name.join("unet/config.json"),
            &unet_config,
            &text_config,
        )?;
        let scheduler_path = name.join("scheduler/scheduler_config.json");
        // SDXL's pipeline takes a scheduler's configuration as it is.
        let scheduler = match second {
            None => as_pipeline_reads(&checkpoint.scheduler),
            Some(_) => checkpoint.scheduler.clone(),
        };
        let tokenizer = tokenizer_of(checkpoint, "tokenizer", text_config.max_position_embeddings)?;
        if tokenizer.vocab_size() > text_config.vocab_size {
            return Err(Error::config(
                name.join("text_encoder/config.json"),
                "vocab_size",
                format!(
                    "{} is less than the tokenizer's {} entries",
                    text_config.vocab_size,
                    tokenizer.vocab_size()
                ),
            ));
        }
        let pad_2 = match &second {
            Some((config, _)) => pad_of_second(checkpoint, &tokenizer, config)?,
            None => 0,
        };
        // Other families have no such switch, and diffusers' own default is for SDXL alone.
        let force_zeros_for_empty_prompt = second.is_some() && checkpoint.zeros_for_empty_prompt();
        let load = |part, tensors, manifest| Weights::load(part, tensors, manifest, device);
        Ok(Self {
            tokenizer,
            text_encoder: Part {
                weights: load(
                    TEXT_ENCODER,
                    &text.tensors,
                    &ClipText::manifest(&text_config),
                )?,
                config: text_config,
            },
            text_encoder_2: second
                .map(|(config, component)| -> Result<_> {
                    let manifest = ClipTextWithProjection::manifest(&config);
                    let (id, tensors) = (TEXT_ENCODER_2, &component.tensors);
                    Ok(Part {
                        weights: Weights::load(id, tensors, &manifest, device)?,
                        config,
                    })
                })
                .transpose()?,
            pad_2,
            force_zeros_for_empty_prompt,
            size_condition: SizeCondition::uncropped(vae_config.factor()),
            unet: Part {
                weights: load(UNET, &unet.tensors, &UNet::manifest(&unet_config))?,
                config: unet_config,
            },
            vae: Part {
                weights: load(VAE, &vae.tensors, &Vae::manifest(&vae_config))?,
                config: vae_config,
            },
            // What asks for no timestep works without one: a closed form has no use for the
            // schedule.
            schedule: Schedule::from_config(&scheduler_path, &scheduler)
                .unwrap_or_else(|error| Schedule::refused(&error)),
            sampler: Sampler::default_for(&scheduler_path, &scheduler).ok(),
            family: checkpoint.family,
            device: device.clone(),
        })
    }

    /// The device it lives on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The family that its files were recognised as.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The names of its components with weights, in the order in which a prompt passes them.
    pub fn component_names(&self) -> Vec<&'static str> {
        let second = self.text_encoder_2.is_some().then_some(TEXT_ENCODER_2);
        [TEXT_ENCODER]
            .into_iter()
            .chain(second)
            .chain([UNET, VAE])
            .collect()
    }

    /// Its text encoders by id, and how wide a token's vector is in each.
    pub fn encoder_widths(&self) -> Vec<(&'static str, usize)> {
        let first = (TEXT_ENCODER, self.text_encoder.config.hidden_size);
        let second = self.text_encoder_2.as_ref();
        let second = second.map(|part| (TEXT_ENCODER_2, part.config.text.hidden_size));
        [first].into_iter().chain(second).collect()
    }

    /// The weights of a component by its diffusers name; `None` for a name that it has not.
    pub fn weights(&self, component: &str) -> Option<&Weights> {
        match component {
            TEXT_ENCODER => Some(&self.text_encoder.weights),
            TEXT_ENCODER_2 => self.text_encoder_2.as_ref().map(|part| &part.weights),
            UNET => Some(&self.unet.weights),
            VAE => Some(&self.vae.weights),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn weights_mut(&mut self, component: &str) -> Option<&mut Weights> {
        match component {
            TEXT_ENCODER => Some(&mut self.text_encoder.weights),
            TEXT_ENCODER_2 => self.text_encoder_2.as_mut().map(|part| &mut part.weights),
            UNET => Some(&mut self.unet.weights),
            VAE => Some(&mut self.vae.weights),
            _ => None,
        }
    }

    /// The same model with no tensor tracked, for sampling with a model that is being trained.
    #[must_use]
    pub fn without_gradients(&self) -> Self {
        let mut plain = self.clone();
        for component in self.component_names() {
            if let Some(weights) = plain.weights_mut(component) {
                weights.untrack();
            }
        }
        plain
    }

    /// Gives a new word its vectors (textual inversion), each as wide as the tables of all text
    /// encoders side by side ([`token_width`](Self::token_width)). It can then be used in prompts.
    ///
    /// # Errors
    /// If the word is there already or the vectors do not fit; the model is unchanged then.
    pub fn add_word(&mut self, word: &str, vectors: &[Vec<f32>]) -> Result<()> {
        let (width, wide) = (self.text_encoder.config.hidden_size, self.token_width());
        if let Some(other) = vectors.iter().find(|vector| vector.len() != wide) {
            return Err(Error::input(format!(
                "`{word}`: a vector of {} numbers, expected {wide}, as many as the text encoder takes",
                other.len()
            )));
        }
        let mut tokenizer = self.tokenizer.clone();
        let ids = tokenizer.add_token(word, vectors.len())?;
        let columns = |from: usize, to: usize| -> Vec<Vec<f32>> {
            vectors.iter().map(|row| row[from..to].to_vec()).collect()
        };
        let mut taught = self.clone();
        // Rows beyond the vocabulary are padding that no token reaches.
        taught.text_encoder.weights.extend_rows(
            TOKEN_EMBEDDING,
            ids.start as usize,
            &columns(0, width),
        )?;
        taught.text_encoder.config.vocab_size = ids.end as usize;
        if let Some(second) = &mut taught.text_encoder_2 {
            second.weights.extend_rows(
                TOKEN_EMBEDDING,
                ids.start as usize,
                &columns(width, wide),
            )?;
            second.config.text.vocab_size = ids.end as usize;
        }
        taught.tokenizer = tokenizer;
        *self = taught;
        Ok(())
    }

    /// How wide a token's vector is, in the tables of all text encoders side by side.
    pub fn token_width(&self) -> usize {
        self.encoder_widths().iter().map(|(_, width)| width).sum()
    }

    /// How wide the hidden states are that the denoiser reads.
    pub fn context_width(&self) -> usize {
        self.unet.config.cross_attention_dim
    }

    /// Says what size pictures had before they were cropped, in pixels: `original` height and
    /// width, top and left of the `crop`.
    ///
    /// # Errors
    /// If the denoiser has no place for it.
    pub fn set_size_condition(
        &mut self,
        original: Option<[usize; 2]>,
        crop: [usize; 2],
    ) -> Result<()> {
        if self.unet.config.text_time.is_none() {
            return Err(Error::input("this model takes no size condition")
                .with_hint("only SDXL does; leave out --size-condition"));
        }
        (self.size_condition.original, self.size_condition.crop) = (original, crop);
        Ok(())
    }

    /// The sampler that the checkpoint itself names.
    ///
    /// # Errors
    /// If there is no such sampler here, or it does not do what the configuration asks.
    pub fn own_sampler(&self) -> Result<Sampler> {
        match self.sampler {
            Some(sampler) => self.schedule.usable_by(sampler)?,
            None => self.schedule.usable()?,
        }
        let missing = || {
            Error::input("the checkpoint's scheduler has no sampler here")
                .with_hint("choose one with --sampler, such as ddim")
        };
        self.sampler.ok_or_else(missing)
    }

    /// The text encoders as one network.
    pub fn text_network(&self) -> TextEncoders {
        TextEncoders {
            first: ClipText::new(&self.text_encoder.config, &self.text_encoder.weights),
            second: self.text_encoder_2.as_ref().map(|part| Second {
                network: ClipTextWithProjection::new(&part.config, &part.weights),
                end: self.tokenizer.end_id(),
                pad: self.pad_2,
            }),
        }
    }

    /// The denoiser, ready to be asked. For many questions: it is put together anew at every call.
    pub fn denoiser(&self) -> Denoiser<'_> {
        let unet = UNet::new(&self.unet.config, &self.unet.weights)
            .with_size_condition(self.size_condition);
        Denoiser::new(unet, &self.schedule)
    }

    /// What the denoiser answers: see [`Denoiser::predict`].
    ///
    /// # Errors
    /// As [`Denoiser::predict`].
    pub fn predict(
        &self,
        x: Tensor<4>,
        t: &[Timestep],
        context: &Context,
        watch: Option<&mut Watch>,
    ) -> Result<Prediction> {
        self.denoiser().predict(x, t, context, watch)
    }

    /// The autoencoder as a network.
    pub fn vae_network(&self) -> Vae {
        Vae::new(&self.vae.config, &self.vae.weights)
    }

    /// The shape of the latents of `n` pictures.
    ///
    /// # Errors
    /// If the size is not a multiple of what one latent pixel covers.
    pub fn latent_shape(
        &self,
        n: usize,
        height: Option<usize>,
        width: Option<usize>,
    ) -> Result<[usize; 4]> {
        let factor = self.vae.config.factor();
        let side = |flag: &str, pixels: Option<usize>| match pixels {
            None => Ok(self.unet.config.sample_size),
            Some(p) if p > 0 && p % factor == 0 && p <= MAX_SIDE => Ok(p / factor),
            Some(p) => Err(Error::input(format!(
                "--{flag} {p}: expected a multiple of {factor} up to {MAX_SIDE}"
            ))),
        };
        Ok([
            n,
            self.unet.config.in_channels,
            side("height", height)?,
            side("width", width)?,
        ])
    }

    /// Pictures from latents, `[n, 3, h, w]` about in [-1, 1], not clamped.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.vae_network()
            .decode(latents / self.vae.config.scaling_factor)
    }

    /// Latents of pictures in [-1, 1], `[n, 3, h, w]`: the posterior's mean, scaled.
    pub fn encode_pictures(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.vae_network().encode(pictures) * self.vae.config.scaling_factor
    }
}

/// Sees that the text encoders make what the denoiser reads.
fn fitting(
    checkpoint: &Checkpoint,
    path: &Path,
    unet: &UNetConfig,
    first: &ClipTextConfig,
) -> Result<()> {
    let alone = checkpoint.component(TEXT_ENCODER_2).is_err();
    let (found, wide) = (unet.cross_attention_dim, first.hidden_size);
    if alone && found != wide {
        return Err(Error::config(
            path,
            "cross_attention_dim",
            format!("{found} does not fit the text encoder's hidden_size {wide}"),
        ));
    }
    checkpoint.fits_together()
}

/// diffusers' Stable Diffusion pipeline overrules two keys of a scheduler's configuration on
/// loading, because the first published files had them wrong. The same picture needs the same two.
fn as_pipeline_reads(scheduler: &Value) -> Value {
    let mut scheduler = scheduler.clone();
    if let Value::Object(map) = &mut scheduler {
        map.insert("steps_offset".into(), 1.into());
        map.insert("clip_sample".into(), false.into());
    }
    scheduler
}

/// The checkpoint's own tokenizer, or CLIP's where it brings none, as single files do.
fn tokenizer_of(checkpoint: &Checkpoint, id: &str, context: usize) -> Result<Tokenizer> {
    let none = TokenizerFiles::default();
    let files = checkpoint.tokenizer(id).unwrap_or(&none);
    if files.is_empty() {
        return Tokenizer::clip(files.pad, context);
    }
    let data = TokenizerData {
        vocab_json: files.get("vocab.json"),
        merges: files.get("merges.txt"),
        tokenizer_json: files.get("tokenizer.json"),
        tokenizer_config: files.get("tokenizer_config.json"),
        special_tokens_map: files.get("special_tokens_map.json"),
        added_tokens: files.get("added_tokens.json"),
    };
    Tokenizer::new(&Path::new(&checkpoint.name).join(id), &data, context)
}

/// What the second text encoder's tokenizer pads with. Both encoders have to read the same tokens.
fn pad_of_second(
    checkpoint: &Checkpoint,
    first: &Tokenizer,
    config: &ClipTextWithProjectionConfig,
) -> Result<u32> {
    let second = tokenizer_of(
        checkpoint,
        "tokenizer_2",
        config.text.max_position_embeddings,
    )?;
    let name = Path::new(&checkpoint.name);
    if second.vocab_size() > config.text.vocab_size {
        return Err(Error::config(
            name.join("text_encoder_2/config.json"),
            "vocab_size",
            format!(
                "{} is less than the tokenizer's {} entries",
                config.text.vocab_size,
                second.vocab_size()
            ),
        ));
    }
    let same = first.context() == second.context()
        && first.start_id() == second.start_id()
        && first.end_id() == second.end_id()
        && first.vocabulary().eq(second.vocabulary());
    if !same {
        return Err(Error::input(format!(
            "{}: tokenizer and tokenizer_2 have other words or lengths; expected both text encoders to read the same tokens",
            checkpoint.name
        )));
    }
    Ok(second.pad_id())
}

/// The ids of the components: the names of their diffusers folders.
const TEXT_ENCODER: &str = "text_encoder";
const TEXT_ENCODER_2: &str = "text_encoder_2";
const UNET: &str = "unet";
const VAE: &str = "vae";

/// The text encoder's table of words.
const TOKEN_EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";

/// The largest side of a picture in pixels; a larger one is a slip of the hand.
const MAX_SIDE: usize = 8192;
