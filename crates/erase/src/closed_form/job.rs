//! From a job to what closed-form methods work on: pairs of prompts, checked numbers, a record of
//! it all.

use faer::Mat;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Encoded, PromptPair, Regression,
    align::{Link, linked},
    encode,
};
use crate::{
    concepts::concept::Concept,
    error::{Error, Result},
    job::{self, Job},
};

/// The same through the text encoder.
#[derive(Clone, Debug)]
pub(crate) struct EncodedPair {
    /// The concept's prompt.
    pub(crate) c: Encoded,
    /// What stands in for it ("guide").
    pub(crate) g: Encoded,
    /// How far past the guide to go.
    pub(crate) eta: f64,
}

impl EncodedPair {
    /// Rows of the concept's prompt, and what each is to become: `g + eta (g - c)`, `[links,
    /// width]` each.
    pub(crate) fn rows(&self, links: &[Link]) -> (Mat<f64>, Mat<f64>) {
        let (c, g) = linked(&self.c, &self.g, links);
        self.past(c, g)
    }

    /// The same of rows that were picked already.
    pub(crate) fn past(&self, c: Mat<f64>, g: Mat<f64>) -> (Mat<f64>, Mat<f64>) {
        let to = &g + faer::Scale(self.eta) * (&g - &c);
        (c, to)
    }
}

/// Keeps all positions of what the user wants kept, with this weight for each prompt.
pub(crate) fn keep_preserved(job: &mut Job<'_>, regression: &mut Regression, weight: f64) {
    let prompts: Vec<String> = job.preserve.iter().flat_map(Concept::asked).collect();
    for prompt in encode(job, &prompts) {
        regression.keep(prompt.rows.as_ref(), weight);
    }
}

/// Both sides of every pair through the text encoder, to go `eta` past the guide.
///
/// # Errors
/// If a prompt that a concept is to leave does not name it.
pub(crate) fn encode_pairs(
    job: &mut Job<'_>,
    pairs: &[PromptPair],
    eta: f64,
) -> Result<Vec<EncodedPair>> {
    for concept in job
        .concepts
        .iter()
        .filter(|concept| concept.leaves_prompts())
    {
        if let Some(prompt) = concept
            .prompts
            .iter()
            .find(|prompt| concept.taken_out_of(prompt.asks()).is_none())
        {
            let (from, name) = (prompt.asks(), &concept.name);
            return Err(Error::input(format!("--from `{from}` does not name `{name}`, so there are no words to take out of it"))
                .with_hint("a closed form moves rows of words; methods that train predictions, such as esd, take any prompt"));
        }
    }
    let both: Vec<String> = pairs
        .iter()
        .flat_map(|pair| [pair.asks.clone(), pair.instead.clone()])
        .collect();
    let mut encoded = encode(job, &both).into_iter();
    Ok(std::iter::from_fn(|| {
        Some(EncodedPair {
            c: encoded.next()?,
            g: encoded.next()?,
            eta,
        })
    })
    .collect())
}

/// Keeps all positions of the empty prompt: guidance asks it at every step of every picture.
pub(crate) fn keep_empty(job: &mut Job<'_>, regression: &mut Regression, weight: f64) {
    for prompt in encode(job, &[String::new()]) {
        regression.keep(prompt.rows.as_ref(), weight);
    }
}

/// What an Edit records: the options, and the captions that were kept.
///
/// # Errors
/// If the options cannot be written.
pub(crate) fn recorded<T: Serialize>(job: &Job<'_>, options: &T) -> Result<Value> {
    let mut value = job::recorded(options)?;
    if let Some(map) = value.as_object_mut() {
        map.insert(
            "preserve".into(),
            json!(
                job.preserve
                    .iter()
                    .map(|c| c.name.as_str())
                    .collect::<Vec<_>>()
            ),
        );
        map.insert("prior".into(), job.captions.about());
    }
    Ok(value)
}
