//! A model: tokenizer, networks and schedule of a checkpoint, on a device.

use burn::tensor::{Device, Tensor};
use scumble_nn::{
    Context, SizeCondition, UNet, Vae, Watch, Weights,
    config::{UNetConfig, VaeConfig},
    files::Family,
    tokenizer::Tokenizer,
};

use crate::{
    denoiser::Denoiser,
    encoders::Encoders,
    error::{Error, Result},
    outline,
    parts::{Network, Parts},
    prediction::Prediction,
    sampler::Sampler,
    schedule::Schedule,
    text::TextEncoders,
    time::Timestep,
};

/// A diffusion model on a device, ready to compute: nothing but what its files say. What keeps one
/// from concepts stands above it, in a [`Pipeline`](crate::Pipeline). Clones share all tensors, and
/// so do edited copies, except for what was edited.
///
/// What its networks are called, and which files they come from, its family knows, which makes the
/// [`Parts`].
#[derive(Clone, Debug)]
pub struct Model {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The text encoders.
    pub encoders: Encoders,
    /// The denoiser.
    pub denoiser: Network<UNetConfig>,
    /// The autoencoder.
    pub autoencoder: Network<VaeConfig>,
    /// How noise is mixed in, and what the denoiser answers.
    pub schedule: Schedule,
    /// The sampler that the checkpoint itself names, if it is one of those here.
    pub sampler: Option<Sampler>,
    /// Whether the empty prompt is all zeros.
    pub(crate) zeros_for_empty_prompt: bool,
    /// What size pictures are said to have had; some denoisers have no place for it.
    size_condition: SizeCondition,
    family: Family,
    device: Device,
}

impl Model {
    /// Puts a model together on a device. Its parts are held against each other, then every tensor
    /// against the configurations.
    ///
    /// # Errors
    /// If the parts do not fit together, or the tensors are not exactly the ones that the
    /// configurations ask for.
    pub fn new(parts: Parts<'_>, device: &Device) -> Result<Self> {
        parts.fit_together()?;
        Ok(Self {
            size_condition: SizeCondition::uncropped(parts.autoencoder.config.factor()),
            encoders: Encoders::new(parts.encoder.network, parts.second, device)?,
            denoiser: Network::new(parts.denoiser, UNet::manifest, device)?,
            autoencoder: Network::new(parts.autoencoder, Vae::manifest, device)?,
            tokenizer: parts.encoder.tokenizer,
            schedule: parts.schedule,
            sampler: parts.sampler,
            zeros_for_empty_prompt: parts.zeros_for_empty_prompt,
            family: parts.family,
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

    /// The ids of its networks, in the order in which a prompt passes them.
    pub fn component_names(&self) -> Vec<&'static str> {
        self.components().map(|(id, _)| id).collect()
    }

    /// The tensors of its networks by id, in the order in which a prompt passes them.
    fn components(&self) -> impl Iterator<Item = (&'static str, &Weights)> {
        self.encoders.weights().chain([
            (self.denoiser.id, &self.denoiser.weights),
            (self.autoencoder.id, &self.autoencoder.weights),
        ])
    }

    /// The same, to be changed.
    fn components_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Weights)> {
        self.encoders.weights_mut().chain([
            (self.denoiser.id, &mut self.denoiser.weights),
            (self.autoencoder.id, &mut self.autoencoder.weights),
        ])
    }

    /// Its text encoders by id, and how wide a token's vector is in each.
    pub fn encoder_widths(&self) -> Vec<(&'static str, usize)> {
        self.encoders.widths()
    }

    /// The tensors of a network by its id; `None` for an id that none of them has.
    pub fn weights(&self, component: &str) -> Option<&Weights> {
        let mut components = self.components();
        components.find_map(|(id, weights)| (id == component).then_some(weights))
    }

    /// The same, to be changed.
    pub fn weights_mut(&mut self, component: &str) -> Option<&mut Weights> {
        let mut components = self.components_mut();
        components.find_map(|(id, weights)| (id == component).then_some(weights))
    }

    /// The same model with no tensor tracked, for sampling with a model that is being trained.
    #[must_use]
    pub fn without_gradients(&self) -> Self {
        let mut plain = self.clone();
        plain
            .components_mut()
            .for_each(|(_, weights)| weights.untrack());
        plain
    }

    /// A model of the same build and of hardly any size, whose denoiser answers without computing:
    /// for counting what a computation would ask of it.
    #[must_use]
    pub fn outline(&self) -> Self {
        let mut model = self.clone();
        let wide = model.encoders.outline(&self.device);
        let pooled = model.encoders.pooled_width();
        outline::denoiser(&mut model.denoiser, wide, pooled, &self.device);
        outline::autoencoder(&mut model.autoencoder, &self.device);
        model
    }

    /// The same model, to which the empty prompt is a text like any other and never zeros.
    #[must_use]
    pub fn reading_empty_prompts(&self) -> Self {
        Self {
            zeros_for_empty_prompt: false,
            ..self.clone()
        }
    }

    /// Gives a new word its vectors (textual inversion), each as wide as the tables of all text
    /// encoders side by side ([`token_width`](Self::token_width)). It can then be used in prompts.
    ///
    /// # Errors
    /// If the word is there already or the vectors do not fit; the model is unchanged then.
    pub fn add_word(&mut self, word: &str, vectors: &[Vec<f32>]) -> Result<()> {
        let wide = self.token_width();
        if let Some(other) = vectors.iter().find(|vector| vector.len() != wide) {
            return Err(Error::input(format!(
                "`{word}`: a vector of {} numbers, expected {wide}, as many as the text encoder takes",
                other.len()
            )));
        }
        let (mut tokenizer, mut encoders) = (self.tokenizer.clone(), self.encoders.clone());
        let ids = tokenizer.add_token(word, vectors.len())?;
        encoders.learn(&ids, vectors)?;
        (self.tokenizer, self.encoders) = (tokenizer, encoders);
        Ok(())
    }

    /// How wide a token's vector is, in the tables of all text encoders side by side.
    pub fn token_width(&self) -> usize {
        self.encoder_widths().iter().map(|(_, width)| width).sum()
    }

    /// How wide the hidden states are that the denoiser reads.
    pub fn context_width(&self) -> usize {
        self.denoiser.config.cross_attention_dim
    }

    /// Whether the denoiser is told what pictures were cut from.
    pub fn takes_size_condition(&self) -> bool {
        self.denoiser.config.text_time.is_some()
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
        if !self.takes_size_condition() {
            return Err(Error::input("this model is not told of sizes and crops")
                .with_hint("SDXL is; leave out --size-condition"));
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
        self.encoders.network(&self.tokenizer)
    }

    /// The denoiser, ready to be asked. For many questions: it is put together anew at every call.
    pub fn denoiser(&self) -> Denoiser<'_> {
        let network = UNet::new(&self.denoiser.config, &self.denoiser.weights)
            .with_size_condition(self.size_condition);
        Denoiser::new(network, &self.schedule)
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
    pub fn autoencoder_network(&self) -> Vae {
        Vae::new(&self.autoencoder.config, &self.autoencoder.weights)
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
        let factor = self.autoencoder.config.factor();
        let side = |flag: &str, pixels: Option<usize>| match pixels {
            None => Ok(self.denoiser.config.sample_size),
            Some(p) if p > 0 && p % factor == 0 && p <= MAX_SIDE => Ok(p / factor),
            Some(p) => Err(Error::input(format!(
                "--{flag} {p}: expected a multiple of {factor} up to {MAX_SIDE}"
            ))),
        };
        Ok([
            n,
            self.denoiser.config.in_channels,
            side("height", height)?,
            side("width", width)?,
        ])
    }

    /// Pictures from latents, `[n, 3, h, w]` about in [-1, 1], not clamped.
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.let_others_rest(self.autoencoder.id);
        self.autoencoder_network()
            .decode(latents / self.autoencoder.config.scaling_factor)
    }

    /// Lets go of the memory that other networks than this have mapped: it is about to need it, and
    /// they come back when they are asked.
    pub(crate) fn let_others_rest(&self, busy: &str) {
        let others = self.components().filter(|(id, _)| *id != busy);
        others.for_each(|(_, weights)| weights.rest());
    }

    /// Latents of pictures in [-1, 1], `[n, 3, h, w]`: the posterior's mean, scaled.
    pub fn encode_pictures(&self, pictures: Tensor<4>) -> Tensor<4> {
        self.autoencoder_network().encode(pictures) * self.autoencoder.config.scaling_factor
    }
}

/// The largest side of a picture in pixels; a larger one is a slip of the hand.
const MAX_SIDE: usize = 8192;
