//! The text encoders of a model, as one: from tokens to what the denoiser is told.
//!
//! SDXL (Podell et al. 2023, arXiv 2307.01952) has two. Both read the same tokens, so position i of
//! one is position i of the other, and what they make of it lies side by side: in looked-up tokens
//! as in hidden states, the first encoder's columns come first. A soft token or a learned word is
//! then one vector as wide as both tables, and nobody who makes one has to know how many there are.

use burn::tensor::Tensor;
use scumble_nn::{ClipText, ClipTextWithProjection};

use crate::conditioning::Conditioning;

/// The text encoders over their tensors.
#[derive(Debug)]
pub struct TextEncoders {
    pub(crate) first: ClipText,
    pub(crate) second: Option<Second>,
}

/// SDXL's second text encoder.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) network: ClipTextWithProjection,
    /// The token behind which a prompt is padded.
    pub(crate) end: u32,
    /// What pads a prompt of it; the first pads with its end token.
    pub(crate) pad: u32,
}

impl TextEncoders {
    /// Looks the tokens of prompts up: rows of ids, all of one length and padded as the first
    /// encoder's tokenizer pads, to `[n, tokens, width]`. Positions are not added yet.
    pub fn embed(&self, prompts: &[Vec<u32>]) -> Tensor<3> {
        let first = self.first.embed(prompts);
        match &self.second {
            None => first,
            Some(second) => {
                let padded = second.padded(prompts);
                Tensor::cat(vec![first, second.network.text().embed(&padded)], 2)
            }
        }
    }

    /// The vectors of words that are no prompt, `[words, width]`.
    pub fn vectors(&self, words: &[u32]) -> Tensor<2> {
        let words = [words.to_vec()];
        let mut tables = vec![self.first.embed(&words)];
        tables.extend(
            self.second
                .iter()
                .map(|second| second.network.text().embed(&words)),
        );
        Tensor::cat(tables, 2).squeeze_dim(0)
    }

    /// Where the end token of each row of ids is, as the encoder that pools looks for it.
    pub fn ends(&self, ids: &[Vec<u32>]) -> Vec<usize> {
        match &self.second {
            None => self.first.ends(ids),
            Some(second) => second.network.text().ends(ids),
        }
    }

    /// Encodes looked-up tokens, with gradients.
    ///
    /// With one encoder the hidden states are those after its final layer norm. With two they are
    /// both encoders' penultimate ones, and the second's projected state at the end token is pooled.
    ///
    /// # Shapes
    /// - embedded: `[n, tokens, width]`, without positions
    /// - ends: the position of the end token of each prompt; with one encoder it is not looked at
    pub fn encode(&self, embedded: Tensor<3>, ends: &[usize]) -> Conditioning {
        match &self.second {
            None => self.first.encode(embedded).into(),
            Some(second) => {
                let width = self.first.width();
                let rest = embedded.dims()[2] - width;
                let first = self.first.penultimate(embedded.clone().narrow(2, 0, width));
                let (states, pooled) = second
                    .network
                    .penultimate_and_text_embeds(embedded.narrow(2, width, rest), ends);
                Conditioning {
                    tokens: Tensor::cat(vec![first, states], 2),
                    pooled: Some(pooled),
                }
            }
        }
    }

    /// Conditioning of rows of token ids.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Conditioning {
        self.encode(self.embed(ids), &self.ends(ids))
    }

    /// The first encoder: the only one of Stable Diffusion 1.x and 2.x.
    pub fn first(&self) -> &ClipText {
        &self.first
    }
}

impl Second {
    /// The same prompts with this encoder's pads behind the end tokens.
    fn padded(&self, prompts: &[Vec<u32>]) -> Vec<Vec<u32>> {
        let row = |ids: &Vec<u32>| {
            let kept = ids.iter().position(|&id| id == self.end);
            let kept = kept.map_or(ids.len(), |end| end + 1);
            let pads = std::iter::repeat_n(self.pad, ids.len() - kept);
            ids[..kept].iter().copied().chain(pads).collect()
        };
        prompts.iter().map(row).collect()
    }
}
