//! From a job to what closed-form methods work on: pairs of prompts, checked numbers, a record of it all.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Encoded, encode};
use crate::{
    concept::Concept,
    error::{Error, Result},
    job::Job,
};

/// A prompt that asks for a concept, and what the model should make of it instead.
pub(crate) type Pair = (String, String);

/// The pairs of some concepts: with `captions` of all prompts, otherwise of those that are not captions that say more.
pub(crate) fn prompt_pairs(concepts: &[Concept], captions: bool) -> Vec<Pair> {
    let prompts = concepts.iter().flat_map(|concept| &concept.prompts);
    prompts.filter(|p| captions || p.from.is_none()).map(|p| (p.asks().to_owned(), p.instead())).collect()
}

/// Both sides of every pair through the text encoder.
///
/// # Errors
/// If the caller interrupts.
pub(crate) fn encode_pairs(job: &mut Job<'_>, pairs: &[Pair]) -> Result<Vec<(Encoded, Encoded)>> {
    let both: Vec<String> = pairs.iter().flat_map(|(c, g)| [c.clone(), g.clone()]).collect();
    let mut encoded = encode(job, &both)?.into_iter();
    Ok(std::iter::from_fn(|| Some((encoded.next()?, encoded.next()?))).collect())
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
