//! Prompts on their way through the text encoder, each stage at hand: attacks begin at one, guards
//! change another.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use crate::{
    error::{Error, Result},
    pipeline::Pipeline,
};

/// Prompts with what the text encoder makes of them. Clones share the tensors.
#[derive(Clone, Debug)]
pub struct Prompted {
    /// The words. Rules that look at words look at these, whatever `embedded` holds.
    pub texts: Vec<String>,
    /// Looked-up tokens, `[n, tokens, width]`, without the positions, which the encoder adds.
    pub embedded: Tensor<3>,
    /// Hidden states, `[n, tokens, width]`, after the final layer norm.
    pub hidden: Tensor<3>,
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

impl Pipeline {
    /// Encodes prompts. One that occurs twice is encoded once.
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
        let hidden = network.encode(embedded.clone());
        let index: Vec<usize> = texts.iter().map(|text| rows[text]).collect();
        let lengths = index.iter().map(|&row| lengths[row]).collect();
        let all = |x: Tensor<3>| {
            if rows.len() == texts.len() {
                return x;
            }
            let index: Vec<i64> = index.iter().map(|&row| row as i64).collect();
            x.select(
                0,
                Tensor::from_data(TensorData::new(index, [texts.len()]), self.device()),
            )
        };
        Prompted {
            texts: texts.to_vec(),
            embedded: all(embedded),
            hidden: all(hidden),
            lengths,
        }
    }

    /// Prompts whose tokens are vectors, such as those an attack learns: the hidden states are
    /// computed from them, with gradients. `texts` are what rules that look at words see.
    ///
    /// # Shapes
    /// - embedded: `[n, tokens, width]`, without positions
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
        let (wide, context) = (
            self.text_encoder.config.hidden_size,
            self.text_encoder.config.max_position_embeddings,
        );
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
        let hidden = self.text_network().encode(embedded.clone());
        Ok(Prompted {
            texts: texts.to_vec(),
            embedded,
            hidden,
            lengths,
        })
    }
}
