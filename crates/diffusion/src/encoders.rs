//! The text encoders' configurations and tensors, from which the network of [`text`](crate::text)
//! is put together.

use std::ops::Range;

use burn::tensor::Device;
use scumble_nn::{
    ClipText, ClipTextWithProjection, Weights,
    config::{ClipTextConfig, ClipTextWithProjectionConfig},
    tokenizer::Tokenizer,
};

use crate::{
    error::Result,
    outline,
    parts::{Filed, FiledEncoder, Network},
    text::{Second, TextEncoders},
};

/// The text encoders of a model, on a device. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Encoders {
    /// The first one, in most families the only one.
    pub first: Network<ClipTextConfig>,
    second: Option<Pooling>,
}

/// A second one, whose pooled embeddings the denoiser is told too.
#[derive(Clone, Debug)]
struct Pooling {
    network: Network<ClipTextWithProjectionConfig>,
    /// What pads a prompt of it; the first pads with its end token.
    pad: u32,
}

impl Encoders {
    /// What a checkpoint holds, on a device.
    ///
    /// # Errors
    /// If the tensors are not exactly the ones that the configurations ask for.
    pub(crate) fn new(
        first: Filed<'_, ClipTextConfig>,
        second: Option<FiledEncoder<'_, ClipTextWithProjectionConfig>>,
        device: &Device,
    ) -> Result<Self> {
        let pooling = |second: FiledEncoder<'_, _>| -> Result<Pooling> {
            Ok(Pooling {
                network: Network::new(second.network, ClipTextWithProjection::manifest, device)?,
                pad: second.tokenizer.pad_id(),
            })
        };
        Ok(Self {
            first: Network::new(first, ClipText::manifest, device)?,
            second: second.map(pooling).transpose()?,
        })
    }

    /// The tensors of each, by id.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&'static str, &Weights)> {
        let second = self.second.iter().map(|second| &second.network);
        [(self.first.id, &self.first.weights)]
            .into_iter()
            .chain(second.map(|network| (network.id, &network.weights)))
    }

    /// The same, to be changed.
    pub(crate) fn weights_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Weights)> {
        let second = self.second.iter_mut().map(|second| &mut second.network);
        [(self.first.id, &mut self.first.weights)]
            .into_iter()
            .chain(second.map(|network| (network.id, &mut network.weights)))
    }

    /// How wide a token's vector is in each, by id.
    pub(crate) fn widths(&self) -> Vec<(&'static str, usize)> {
        let first = (self.first.id, self.first.config.hidden_size);
        let second = self.second.iter().map(|second| &second.network);
        let second = second.map(|network| (network.id, network.config.text.hidden_size));
        [first].into_iter().chain(second).collect()
    }

    /// Makes outlines of them, and says how wide the hidden states of all are side by side.
    pub(crate) fn outline(&mut self, device: &Device) -> usize {
        outline::text(&mut self.first, device);
        if let Some(second) = &mut self.second {
            outline::text_with_projection(&mut second.network, device);
        }
        self.widths().iter().map(|(_, width)| width).sum()
    }

    /// How wide a pooled embedding is, where one is made.
    pub(crate) fn pooled_width(&self) -> Option<usize> {
        let second = self.second.as_ref()?;
        Some(second.network.config.projection_dim)
    }

    /// Writes the vectors of new tokens, each as wide as all tables side by side, behind the
    /// vocabulary.
    ///
    /// # Errors
    /// If they do not fit; some tables may be changed then.
    pub(crate) fn learn(&mut self, ids: &Range<u32>, vectors: &[Vec<f32>]) -> Result<()> {
        let columns = |columns: Range<usize>| -> Vec<Vec<f32>> {
            let part = |row: &Vec<f32>| row[columns.clone()].to_vec();
            vectors.iter().map(part).collect()
        };
        // Rows beyond the vocabulary are padding that no token reaches.
        let (start, end) = (ids.start as usize, ids.end as usize);
        let (first, table) = (&mut self.first, ClipText::TOKEN_EMBEDDING);
        let width = first.config.hidden_size;
        first
            .weights
            .extend_rows(table, start, &columns(0..width))?;
        first.config.vocab_size = end;
        if let Some(Pooling { network, .. }) = &mut self.second {
            let wide = width + network.config.text.hidden_size;
            let rows = columns(width..wide);
            network.weights.extend_rows(table, start, &rows)?;
            network.config.text.vocab_size = end;
        }
        Ok(())
    }

    /// All of them as one network, for the tokens of `tokenizer`.
    pub(crate) fn network(&self, tokenizer: &Tokenizer) -> TextEncoders {
        TextEncoders {
            first: ClipText::new(&self.first.config, &self.first.weights),
            second: self.second.as_ref().map(|Pooling { network, pad }| Second {
                network: ClipTextWithProjection::new(&network.config, &network.weights),
                end: tokenizer.end_id(),
                pad: *pad,
            }),
        }
    }
}
