//! What a model is made of: its networks, as a checkpoint holds them and on a device.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use scumble_nn::{
    Manifest, Weights,
    config::{ClipTextConfig, ClipTextWithProjectionConfig, UNetConfig, VaeConfig},
    files::{Family, Tensors},
    tokenizer::Tokenizer,
};

use crate::{
    error::{Error, Result},
    sampler::Sampler,
    schedule::Schedule,
};

/// A network with its configuration and its tensors. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Network<C> {
    /// What its family calls it: the name of its folder in a checkpoint.
    pub id: &'static str,
    /// The shape of the network.
    pub config: C,
    /// Its tensors, by name.
    pub weights: Weights,
}

impl<C> Network<C> {
    /// What a checkpoint holds, on a device.
    ///
    /// # Errors
    /// If the tensors are not exactly those of `manifest`.
    pub(crate) fn new(
        filed: Filed<'_, C>,
        manifest: fn(&C) -> Manifest,
        device: &Device,
    ) -> Result<Self> {
        let Filed {
            id,
            config,
            tensors,
        } = filed;
        Ok(Self {
            weights: Weights::load(id, tensors, &manifest(&config), device)?,
            id,
            config,
        })
    }
}

/// A network as a checkpoint holds it: its configuration has been read, its tensors have not been
/// looked at.
#[derive(Debug)]
pub struct Filed<'a, C> {
    /// What its family calls it: the name of its folder.
    pub id: &'static str,
    /// The shape of the network.
    pub config: C,
    /// Its tensors, by name.
    pub tensors: &'a Tensors,
}

/// A text encoder as a checkpoint holds it, with the tokenizer that goes with it.
#[derive(Debug)]
pub struct FiledEncoder<'a, C> {
    /// The network.
    pub network: Filed<'a, C>,
    /// What makes tokens of words for it.
    pub tokenizer: Tokenizer,
    /// The name of the tokenizer's folder.
    pub tokenizer_id: &'static str,
}

/// All that a [`Model`](crate::Model) is made of. A family reads it from a checkpoint.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What the checkpoint is called. Errors name its files.
    pub name: &'a str,
    /// The text encoder, or the first one.
    pub encoder: FiledEncoder<'a, ClipTextConfig>,
    /// A second text encoder, for families whose denoiser is told a pooled embedding too. It reads
    /// the same tokens, but for what its own tokenizer pads with.
    pub second: Option<FiledEncoder<'a, ClipTextWithProjectionConfig>>,
    /// The denoiser.
    pub denoiser: Filed<'a, UNetConfig>,
    /// The autoencoder.
    pub autoencoder: Filed<'a, VaeConfig>,
    /// How noise is mixed in, and what the denoiser answers.
    pub schedule: Schedule,
    /// The sampler that the checkpoint itself names, if it is one of those here.
    pub sampler: Option<Sampler>,
    /// Whether the empty prompt is all zeros, in place of what the text encoders make of it.
    pub zeros_for_empty_prompt: bool,
    /// What the files were recognised as.
    pub family: Family,
}

impl Parts<'_> {
    /// Sees that the text encoders make what the denoiser reads, that they have a row for every
    /// token, and that all of them read the same tokens.
    ///
    /// # Errors
    /// If they do not.
    pub(crate) fn fit_together(&self) -> Result<()> {
        let first = &self.encoder;
        let second = self.second.as_ref();
        let mut widths = vec![first.network.config.hidden_size];
        widths.extend(second.map(|second| second.network.config.text.hidden_size));
        let found = self.denoiser.config.cross_attention_dim;
        if found != widths.iter().sum::<usize>() {
            let widths: Vec<String> = widths.iter().map(usize::to_string).collect();
            return Err(Error::config(
                self.config_of(self.denoiser.id),
                "cross_attention_dim",
                format!(
                    "{found} does not fit the text encoder's hidden_size {}",
                    widths.join(" + ")
                ),
            ));
        }
        let network = &first.network;
        self.has_rows(network.id, network.config.vocab_size, &first.tokenizer)?;
        let Some(second) = second else {
            return Ok(());
        };
        let network = &second.network;
        let rows = network.config.text.vocab_size;
        self.has_rows(network.id, rows, &second.tokenizer)?;
        if !same_tokens(&first.tokenizer, &second.tokenizer) {
            return Err(Error::input(format!(
                "{}: {} and {} have other words or lengths; expected both text encoders to read the same tokens",
                self.name, first.tokenizer_id, second.tokenizer_id
            )));
        }
        Ok(())
    }

    /// Sees that a text encoder's table has a row for every token.
    fn has_rows(&self, id: &str, rows: usize, tokenizer: &Tokenizer) -> Result<()> {
        let entries = tokenizer.vocab_size();
        if entries <= rows {
            return Ok(());
        }
        Err(Error::config(
            self.config_of(id),
            "vocab_size",
            format!("{rows} is less than the tokenizer's {entries} entries"),
        ))
    }

    /// Where the configuration of a network stands.
    fn config_of(&self, id: &str) -> PathBuf {
        Path::new(self.name).join(id).join("config.json")
    }
}

/// Whether two tokenizers make the same tokens of every text, but for the pads.
fn same_tokens(one: &Tokenizer, other: &Tokenizer) -> bool {
    one.context() == other.context()
        && one.start_id() == other.start_id()
        && one.end_id() == other.end_id()
        && one.vocabulary().eq(other.vocabulary())
}
