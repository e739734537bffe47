//! Found words that depend on no edit, kept by what they were found for, so that the next edit's
//! attack has them at once.

use burn::tensor::Tensor;
use scumble_erase::{
    Event, Result,
    training::snapshot::{Snapshot, Stored},
};
use serde::Serialize;

use crate::job::Job;

/// The key of a search: its kind, whatever it was told, and the numbers it looked at.
pub(crate) fn key(kind: &str, told: &impl Serialize, numbers: &[Tensor<1>]) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(kind.as_bytes());
    hash.update(serde_json::to_string(told).unwrap_or_default().as_bytes());
    for numbers in numbers {
        for value in numbers.clone().into_data().iter::<f32>() {
            hash.update(&value.to_le_bytes());
        }
    }
    hash.finalize().to_hex().to_string()
}

/// The rows of tokens that an earlier search found; `None` if there was none. What has another
/// shape than it should, or names a token that the model has not, is said and searched anew: the
/// cache is nobody's only copy.
///
/// # Errors
/// If the store cannot be read, or the caller interrupts.
pub(crate) fn found(
    job: &mut Job<'_>,
    key: &str,
    rows: usize,
    tokens: usize,
) -> Result<Option<Vec<Vec<u32>>>> {
    let Some(tensors) = job.store.get_shared(key)? else {
        return Ok(None);
    };
    let known = job.base.tokenizer.vocab_size() as u64;
    let mut stored = Stored::of("words found earlier", tensors);
    match stored
        .below("ids", rows * tokens, known)
        .and_then(|ids| stored.end().map(|()| ids))
    {
        Ok(ids) => Ok(Some(
            ids.chunks_exact(tokens)
                .map(|row| row.iter().map(|&id| id as u32).collect())
                .collect(),
        )),
        Err(damaged) => {
            job.tell(Event::Note(&format!(
                "searching anew: the cache is no help, {damaged}"
            )))?;
            Ok(None)
        }
    }
}

/// Keeps rows of tokens, all of one length.
///
/// # Errors
/// If the store cannot be written.
pub(crate) fn keep(job: &Job<'_>, key: &str, rows: &[Vec<u32>]) -> Result<()> {
    let ids: Vec<u64> = rows.iter().flatten().map(|&id| u64::from(id)).collect();
    let mut snapshot = Snapshot::new();
    snapshot.whole("ids", &ids);
    job.store.put_shared(key, snapshot.into_tensors())
}
