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
    /// Where the places are.
    layout: Layout,
}

/// Where places are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Before the text.
    Front,
    /// In the place of the text.
    Whole,
    /// Between the text's tokens, or where a word stands.
    Within,
}

impl Placed {
    /// `k` places between each prompt's start token and its text (UnlearnDiffAtk's `prefix_k`).
    ///
    /// # Errors
    /// If a prompt leaves no room for them.
    pub fn before(pipeline: &Pipeline, prompts: &[String], k: usize) -> Result<Self> {
        let context = pipeline.tokenizer.context();
        let mut placed = Self {
            layout: Layout::Front,
            ..Self::of(prompts)
        };
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

    /// `k` places that are the whole prompt of each of `n` cases: start token, places, end token
    /// (P4D's N form).
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn whole(pipeline: &Pipeline, n: usize, k: usize) -> Result<Self> {
        let (tokenizer, context) = (&pipeline.tokenizer, pipeline.tokenizer.context());
        if k + 2 > context {
            return Err(Error::input(format!(
                "tokens is {k}: no room for them within {context}, start and end included"
            )));
        }
        let mut ids = tokenizer.encode("").ids;
        ids.splice(1..1, std::iter::repeat_n(ids[0], k));
        ids.truncate(context);
        let row = (ids, (0..k).map(|j| (1 + j, j)).collect::<Vec<_>>());
        Ok(Self {
            layout: Layout::Whole,
            rows: vec![row.0; n],
            lengths: vec![k + 2; n],
            places: vec![row.1; n],
            ..Self::of(&vec![String::new(); n])
        })
    }

    /// A place before every group of `every` tokens of each prompt, and one at the end where the
    /// last group is a whole one: where `i mod (every + 1) = 0` among `length / every + 1` places
    /// and the prompt's tokens (P4D's K form, `optimize_k.py`).
    ///
    /// # Errors
    /// If a prompt leaves no room for them.
    pub fn between(pipeline: &Pipeline, prompts: &[String], every: usize) -> Result<Self> {
        let context = pipeline.tokenizer.context();
        let mut placed = Self::of(prompts);
        for prompt in prompts {
            let encoded = pipeline.tokenizer.encode(prompt);
            let text = &encoded.ids[1..encoded.length - 1];
            let every = every.max(1);
            let groups = text.len() / every + 1;
            if encoded.length + groups > context {
                return Err(Error::input(format!(
                    "`{prompt}` has {} tokens: no room for {groups} more within {context}",
                    encoded.length
                ))
                .with_hint("use shorter prompts or larger groups"));
            }
            let mut ids = vec![encoded.ids[0]];
            let mut here = Vec::new();
            for group in 0..groups {
                here.push((ids.len(), group));
                ids.push(encoded.ids[0]);
                ids.extend(text.iter().skip(group * every).take(every));
            }
            ids.extend(&encoded.ids[encoded.length - 1..]);
            ids.truncate(context);
            placed.rows.push(ids);
            placed.lengths.push(encoded.length + groups);
            placed.places.push(here);
        }
        Ok(placed)
    }

    /// Places within each prompt: `offsets` says of a prompt's number of tokens how many of them
    /// stand before each place, in rising order (UnlearnDiffAtk's `suffix_k`, `mid_k`, `insert_k`,
    /// `per_k_words`).
    ///
    /// # Errors
    /// If a prompt leaves no room for them.
    pub fn at(
        pipeline: &Pipeline,
        prompts: &[String],
        offsets: &dyn Fn(usize) -> Vec<usize>,
    ) -> Result<Self> {
        let context = pipeline.tokenizer.context();
        let mut placed = Self::of(prompts);
        for prompt in prompts {
            let encoded = pipeline.tokenizer.encode(prompt);
            let length = encoded.length - 2;
            let offsets: Vec<usize> = offsets(length).into_iter().map(|o| o.min(length)).collect();
            let k = offsets.len();
            if encoded.length + k > context {
                return Err(Error::input(format!(
                    "`{prompt}` has {} tokens: no room for {k} more within {context}",
                    encoded.length
                ))
                .with_hint("use shorter prompts or fewer tokens"));
            }
            let mut ids = encoded.ids;
            let mut here = Vec::new();
            for (j, offset) in offsets.into_iter().enumerate() {
                let at = 1 + offset + j;
                ids.insert(at, ids[0]);
                here.push((at, j));
            }
            ids.truncate(context);
            placed.rows.push(ids);
            placed.lengths.push(encoded.length + k);
            placed.places.push(here);
        }
        Ok(placed)
    }

    fn of(prompts: &[String]) -> Self {
        Self {
            texts: prompts.to_vec(),
            rows: vec![],
            lengths: vec![],
            places: vec![],
            layout: Layout::Within,
        }
    }

    /// The most places of a prompt.
    pub fn places(&self) -> usize {
        self.places.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// A prompt with words in its places, as text: read again, it may come apart into other tokens.
    pub fn worded(&self, pipeline: &Pipeline, prompt: usize, words: &[u32]) -> String {
        let tokenizer = &pipeline.tokenizer;
        match self.layout {
            Layout::Front => return format!("{} {}", tokenizer.decode(words), self.texts[prompt]),
            Layout::Whole => return tokenizer.decode(words),
            Layout::Within => {}
        }
        let mut ids = self.rows[prompt].clone();
        for &(at, j) in &self.places[prompt] {
            if let Some(&word) = words.get(j) {
                ids[at] = word;
            }
        }
        tokenizer.decode(&ids[1..self.lengths[prompt] - 1])
    }

    /// Places where `token` stands, one for each of its `k` vectors. The token must not be a word
    /// of the model yet.
    ///
    /// # Errors
    /// If it is one, or does not stand in a prompt.
    pub fn word(pipeline: &Pipeline, prompts: &[String], token: &str, k: usize) -> Result<Self> {
        let mut tokenizer = pipeline.tokenizer.clone();
        let own = tokenizer.add_token(token, k)?;
        let mut placed = Self::of(prompts);
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
                return Err(Error::input(format!(
                    "`{prompt}` does not hold the new word `{token}`"
                )));
            }
            here.iter().for_each(|&(at, _)| ids[at] = 0);
            placed.rows.push(ids);
            placed.lengths.push(encoded.length);
            placed.places.push(here);
        }
        Ok(placed)
    }

    /// Whether the places are the whole prompt.
    pub(crate) fn is_whole(&self) -> bool {
        self.layout == Layout::Whole
    }

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Some of the prompts with vectors in their places, as the model sees them. The gradient
    /// reaches the vectors.
    ///
    /// # Shapes
    /// - vectors: `[n, k, width]` for as many prompts as `which` names, or `[1, k, width]` for all
    ///   of them
    ///
    /// # Errors
    /// If the vectors are not as wide as the text encoder.
    pub fn filled(
        &self,
        pipeline: &Pipeline,
        which: &[usize],
        vectors: &Tensor<3>,
    ) -> Result<Prompted> {
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
        let all = Tensor::cat(
            vec![
                embedded.reshape([n * tokens, width]),
                vectors.clone().reshape([sets * k, width]),
            ],
            0,
        );
        let index =
            Tensor::<1, Int>::from_data(TensorData::new(index, [n * tokens]), pipeline.device());
        let embedded = all.select(0, index).reshape([n, tokens, width]);
        let texts: Vec<String> = which.iter().map(|&i| self.texts[i].clone()).collect();
        let lengths = which.iter().map(|&i| self.lengths[i]).collect();
        Ok(pipeline.prompted_from(&texts, embedded, lengths)?)
    }
}
