//! Prompts on their way through the text encoder, each stage at hand: attacks begin at one, guards
//! change another.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use crate::{
    conditioning::Conditioning,
    error::{Error, Result},
    model::Model,
};

/// Prompts with what the text encoder makes of them. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Prompted {
    /// The words. Rules that look at words look at these, whatever `embedded` holds.
    pub texts: Vec<String>,
    /// Looked-up tokens of all text encoders, `[n, tokens, width]`, without the positions, which an
    /// encoder adds.
    pub embedded: Tensor<3>,
    /// What the text encoders make of them.
    pub conditioning: Conditioning,
    /// Tokens of each prompt before the pads, start and end included.
    pub lengths: Vec<usize>,
}

impl Prompted {
    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

impl Model {
    /// What the denoiser is told of prompts. A prompt that occurs twice is encoded once.
    pub fn encode(&self, prompts: &[String]) -> Conditioning {
        self.prompted(prompts).conditioning
    }

    /// Encodes prompts. One that occurs twice is encoded once.
    ///
    /// The empty prompt is all zeros where the checkpoint says so (`force_zeros_for_empty_prompt`
    /// of SDXL): diffusers does this for a negative prompt that is not given, here it goes for every
    /// empty one, because all of them stand for "no prompt".
    pub fn prompted(&self, texts: &[String]) -> Prompted {
        let mut rows = BTreeMap::new();
        for text in texts {
            let next = rows.len();
            rows.entry(text).or_insert(next);
        }
        let mut ids = vec![Vec::new(); rows.len()];
        let mut lengths = vec![0; rows.len()];
        for (text, &row) in &rows {
            let encoded = self.tokenizer.encode(text);
            (ids[row], lengths[row]) = (encoded.ids, encoded.length);
        }
        let network = self.text_network();
        let embedded = network.embed(&ids);
        let mut conditioning = network.encode(embedded.clone(), &network.ends(&ids));
        if self.zeros_for_empty_prompt
            && let Some(&empty) = rows.get(&String::new())
        {
            conditioning = conditioning.with_zeros(empty);
        }
        let index: Vec<usize> = texts.iter().map(|text| rows[text]).collect();
        let lengths = index.iter().map(|&row| lengths[row]).collect();
        let all = Prompted {
            texts: texts.to_vec(),
            embedded,
            conditioning,
            lengths,
        };
        if rows.len() == texts.len() {
            return all;
        }
        let at = Tensor::from_data(
            TensorData::new(
                index.iter().map(|&row| row as i64).collect::<Vec<_>>(),
                [texts.len()],
            ),
            self.device(),
        );
        Prompted {
            embedded: all.embedded.select(0, at),
            conditioning: all.conditioning.select(&index),
            ..all
        }
    }

    /// Prompts whose tokens are vectors, such as those an attack learns: the hidden states are
    /// computed from them, with gradients. `texts` are what rules that look at words see.
    ///
    /// # Shapes
    /// - embedded: `[n, tokens, width]` for all text encoders, without positions
    ///
    /// # Errors
    /// If the numbers of prompts differ, or a length does not fit.
    pub fn prompted_from(
        &self,
        texts: &[String],
        embedded: Tensor<3>,
        lengths: Vec<usize>,
    ) -> Result<Prompted> {
        let [n, tokens, width] = embedded.dims();
        let (wide, context) = (self.token_width(), self.tokenizer.context());
        if texts.len() != n || lengths.len() != n || width != wide || tokens > context {
            return Err(Error::input(format!(
                "{} prompts and {} lengths for embedded tokens {:?}, of which the text encoder takes [n, {context}, {wide}]",
                texts.len(),
                lengths.len(),
                embedded.dims()
            )));
        }
        if let Some(length) = lengths
            .iter()
            .find(|&&length| length < 2 || length > tokens)
        {
            return Err(Error::input(format!(
                "a prompt of {length} tokens, start and end included, among {tokens}"
            )));
        }
        let ends: Vec<usize> = lengths.iter().map(|length| length - 1).collect();
        let conditioning = self.text_network().encode(embedded.clone(), &ends);
        Ok(Prompted {
            texts: texts.to_vec(),
            embedded,
            conditioning,
            lengths,
        })
    }
}
