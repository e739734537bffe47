//! From a job to what closed-form methods work on: pairs of prompts, checked numbers, a record of it all.

use faer::Mat;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Encoded, Regression,
    align::{Link, linked},
    encode,
};
use crate::{
    concept::{Concept, ConceptPrompt},
    error::{Error, Result},
    job::Job,
};

/// A prompt that asks for a concept, and what the model should make of it instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) asks: String,
    pub(crate) instead: String,
    /// Whether the user or the concept's kind said what to draw instead.
    pub(crate) anchored: bool,
}

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
    /// Rows of the concept's prompt, and what each is to become: `g + eta (g - c)`, `[links, width]` each.
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

impl Pair {
    fn of(prompt: &ConceptPrompt) -> Self {
        Self { asks: prompt.asks().to_owned(), instead: prompt.instead(), anchored: prompt.anchor.is_some() }
    }
}

/// The pairs of some concepts: with `captions` of all prompts, otherwise of those that are not captions that say more.
pub(crate) fn prompt_pairs(concepts: &[Concept], captions: bool) -> Vec<Pair> {
    let prompts = concepts.iter().flat_map(|concept| &concept.prompts);
    prompts.filter(|p| captions || p.from.is_none()).map(Pair::of).collect()
}

/// All prompts of some concepts, each with the one that differs from it in the concept alone.
pub(crate) fn contrasts(concepts: &[Concept]) -> Vec<Pair> {
    let prompts = concepts.iter().flat_map(|concept| &concept.prompts);
    prompts.map(|p| Pair { instead: p.without(), ..Pair::of(p) }).collect()
}

/// Sentences that a bare name is put into, so that more than one wording is edited.
const SENTENCES: [&str; 30] = [
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "a painting of {}",
    "a close up of {}",
    "a photo of the {}",
    "{} in the background",
    "a small {}",
    "a large {}",
    "the {} in a city",
    "a beautiful picture of {}",
    "a black and white photo of {}",
    "people looking at {}",
    "a sketch of {}",
    "{} at night",
    "a bright photo of {}",
    "a blurry photo of {}",
    "many pictures of {}",
    "a poster with {}",
    "{} seen from above",
    "a postcard of {}",
    "a detailed rendering of {}",
    "{} on a white background",
    "a cartoon of {}",
    "{} in the morning light",
    "a film still with {}",
    "a print of {}",
    "a story about {}",
];

/// Pairs of sentences: all of a concept's prompts where it has several, otherwise its prompt in `templates` of the compiled-in
/// sentences. Then the same with each synonym in the place of the concept's name.
pub(crate) fn sentences(concepts: &[Concept], synonyms: &[String], templates: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for concept in concepts {
        let own = prompt_pairs(std::slice::from_ref(concept), true);
        let own: Vec<Pair> = match own.as_slice() {
            [one] if templates > 0 => {
                let put = |form: &&str| Pair {
                    asks: form.replace("{}", &one.asks),
                    instead: if one.anchored { form.replace("{}", &one.instead) } else { String::new() },
                    anchored: one.anchored,
                };
                SENTENCES.iter().take(templates).map(put).collect()
            }
            _ => own,
        };
        let renamed = |synonym: &String| -> Vec<Pair> {
            own.iter().map(|pair| Pair { asks: pair.asks.replace(&concept.name, synonym), ..pair.clone() }).collect()
        };
        let others: Vec<Pair> = synonyms.iter().flat_map(renamed).collect();
        pairs.extend(own);
        pairs.extend(others);
    }
    pairs
}

/// Keeps all positions of what the user wants kept, with this weight for each prompt.
///
/// # Errors
/// If the caller interrupts.
pub(crate) fn keep_preserved(job: &mut Job<'_>, regression: &mut Regression, weight: f64) -> Result<()> {
    let prompts: Vec<String> = job.preserve.iter().flat_map(Concept::asked).collect();
    for prompt in encode(job, &prompts)? {
        regression.keep(prompt.rows.as_ref(), weight);
    }
    Ok(())
}

/// Both sides of every pair through the text encoder, to go `eta` past the guide.
///
/// # Errors
/// If the caller interrupts.
pub(crate) fn encode_pairs(job: &mut Job<'_>, pairs: &[Pair], eta: f64) -> Result<Vec<EncodedPair>> {
    let both: Vec<String> = pairs.iter().flat_map(|pair| [pair.asks.clone(), pair.instead.clone()]).collect();
    let mut encoded = encode(job, &both)?.into_iter();
    Ok(std::iter::from_fn(|| Some(EncodedPair { c: encoded.next()?, g: encoded.next()?, eta })).collect())
}

/// Keeps all positions of the empty prompt: guidance asks it at every step of every picture.
///
/// # Errors
/// If the caller interrupts.
pub(crate) fn keep_empty(job: &mut Job<'_>, regression: &mut Regression, weight: f64) -> Result<()> {
    for prompt in encode(job, &[String::new()])? {
        regression.keep(prompt.rows.as_ref(), weight);
    }
    Ok(())
}

/// Checks that options are finite and not negative.
///
/// # Errors
/// If one is not; the error names it.
pub(crate) fn check(options: &[(&str, f64)]) -> Result<()> {
    match options.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
        Some((name, value)) => Err(Error::input(format!("{name} is {value}, expected a finite number, 0 or more"))),
        None => Ok(()),
    }
}

/// What an Edit records: the options, and the captions that were kept.
///
/// # Errors
/// If the options cannot be written.
pub(crate) fn recorded<T: Serialize>(job: &Job<'_>, options: &T) -> Result<Value> {
    let mut value = serde_json::to_value(options).map_err(|e| Error::input(format!("cannot record the options: {e}")))?;
    if let Some(map) = value.as_object_mut() {
        map.insert("preserve".into(), json!(job.preserve.iter().map(|c| c.name.as_str()).collect::<Vec<_>>()));
        map.insert("prior".into(), job.captions.about());
    }
    Ok(value)
}
