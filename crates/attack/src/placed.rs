//! Prompts with places for vectors: in front of the text, or where a new word stands.

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{Pipeline, Prompted};
use scumble_erase::{Error, Result};

/// Prompts whose places are filled with vectors as if these were words.
#[derive(Clone, Debug)]
pub struct Placed {
    texts: Vec<String>,
    /// Ids, as many as the context has positions. What stands in a place is not looked at.
    rows: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    /// For each prompt the position of each place, and which vector belongs there.
    places: Vec<Vec<(usize, usize)>>,
}

impl Placed {
    /// `k` places between each prompt's start token and its text (UnlearnDiffAtk's `prefix_k`).
    ///
    /// # Errors
    /// If a prompt leaves no room for them.
    pub fn before(pipeline: &Pipeline, prompts: &[String], k: usize) -> Result<Self> {
        let context = pipeline.tokenizer.context();
        let mut placed = Self { texts: prompts.to_vec(), rows: vec![], lengths: vec![], places: vec![] };
        for prompt in prompts {
            let encoded = pipeline.tokenizer.encode(prompt);
            if encoded.length + k > context {
                return Err(Error::input(format!(
                    "`{prompt}` has {} tokens: no room for {k} more within {context}",
                    encoded.length
                ))
                .with_hint("use shorter prompts or fewer tokens"));
            }
            let mut ids = encoded.ids;
            ids.splice(1..1, std::iter::repeat_n(ids[0], k));
            ids.truncate(context);
            placed.rows.push(ids);
            placed.lengths.push(encoded.length + k);
            placed.places.push((0..k).map(|j| (1 + j, j)).collect());
        }
        Ok(placed)
    }

    /// Places where `token` stands, one for each of its `k` vectors. The token must not be a word of the model yet.
    ///
    /// # Errors
    /// If it is one, or does not stand in a prompt.
    pub fn word(pipeline: &Pipeline, prompts: &[String], token: &str, k: usize) -> Result<Self> {
        let mut tokenizer = pipeline.tokenizer.clone();
        let own = tokenizer.add_token(token, k)?;
        let mut placed = Self { texts: prompts.to_vec(), rows: vec![], lengths: vec![], places: vec![] };
        for prompt in prompts {
            let encoded = tokenizer.encode(prompt);
            let mut ids = encoded.ids;
            let here: Vec<(usize, usize)> = ids
                .iter()
                .enumerate()
                .filter(|(_, id)| own.contains(id))
                .map(|(at, id)| (at, (id - own.start) as usize))
                .collect();
            if here.is_empty() {
                return Err(Error::input(format!("`{prompt}` does not hold the new word `{token}`")));
            }
            here.iter().for_each(|&(at, _)| ids[at] = 0);
            placed.rows.push(ids);
            placed.lengths.push(encoded.length);
            placed.places.push(here);
        }
        Ok(placed)
    }

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Some of the prompts with vectors in their places, as the model sees them. The gradient reaches the vectors.
    ///
    /// # Shapes
    /// - vectors: `[n, k, width]` for as many prompts as `which` names, or `[1, k, width]` for all of them
    ///
    /// # Errors
    /// If the vectors are not as wide as the text encoder.
    pub fn filled(&self, pipeline: &Pipeline, which: &[usize], vectors: &Tensor<3>) -> Result<Prompted> {
        let rows: Vec<Vec<u32>> = which.iter().map(|&i| self.rows[i].clone()).collect();
        let embedded = pipeline.text_network().embed(&rows);
        let [n, tokens, width] = embedded.dims();
        let [sets, k, _] = vectors.dims();
        let mut index: Vec<i64> = (0..(n * tokens) as i64).collect();
        for (row, &i) in which.iter().enumerate() {
            let set = if sets == 1 { 0 } else { row };
            for &(at, j) in &self.places[i] {
                index[row * tokens + at] = (n * tokens + set * k + j) as i64;
            }
        }
        let all = Tensor::cat(vec![embedded.reshape([n * tokens, width]), vectors.clone().reshape([sets * k, width])], 0);
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [n * tokens]), pipeline.device());
        let embedded = all.select(0, index).reshape([n, tokens, width]);
        let texts: Vec<String> = which.iter().map(|&i| self.texts[i].clone()).collect();
        let lengths = which.iter().map(|&i| self.lengths[i]).collect();
        Ok(pipeline.prompted_from(&texts, embedded, lengths)?)
    }
}
