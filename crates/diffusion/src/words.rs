//! Words that a model learns (textual inversion), as files have them: a table of vectors for each
//! text encoder.

use std::collections::BTreeMap;

use scumble_nn::files::Embedding;

use crate::{
    error::{Error, Result},
    model::Model,
};

impl Model {
    /// Learns the word of a file. It can then be used in prompts.
    ///
    /// # Errors
    /// If the word is there already, or the vectors do not fit; the model is unchanged then.
    pub fn add_embedding(&mut self, embedding: &Embedding) -> Result<()> {
        let vectors = self.side_by_side(embedding)?;
        self.add_word(&embedding.token, &vectors)
    }

    /// A word's vectors in the tables of all text encoders side by side, as
    /// [`add_word`](Self::add_word) takes them.
    ///
    /// # Errors
    /// If there are none for an encoder, or another number than for the others.
    pub fn side_by_side(&self, embedding: &Embedding) -> Result<Vec<Vec<f32>>> {
        let encoders = self.encoder_widths();
        let count = embedding.vectors(encoders[0].0).len();
        let mut joined = vec![Vec::new(); count];
        for (id, _) in encoders {
            let table = embedding.vectors(id);
            if table.len() != count || count == 0 {
                return Err(Error::input(format!(
                    "the word `{}` has {} vector(s) for {id}, expected as many for every text encoder of the model, and at least one",
                    embedding.token,
                    table.len()
                )));
            }
            joined
                .iter_mut()
                .zip(table)
                .for_each(|(row, vector)| row.extend(vector));
        }
        Ok(joined)
    }

    /// The other way: a word with a table for each text encoder.
    pub fn embedding(&self, token: &str, vectors: &[Vec<f32>]) -> Embedding {
        let mut from = 0;
        let mut tables = BTreeMap::new();
        for (id, width) in self.encoder_widths() {
            let columns = from..from + width;
            let part = |row: &Vec<f32>| row[columns.clone()].to_vec();
            tables.insert(id.to_owned(), vectors.iter().map(part).collect());
            from += width;
        }
        Embedding {
            token: token.into(),
            tables,
        }
    }
}
