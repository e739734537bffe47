//! Found words that depend on no edit, kept by what they were found for, so that the next edit's attack has them at once.

use burn::tensor::Tensor;
use scumble_erase::Result;
use scumble_nn::files::{HostTensor, Tensors};
use serde::Serialize;

use crate::job::Job;

/// The key of a search: its kind, whatever it was told, and the numbers it looked at.
pub fn key(kind: &str, told: &impl Serialize, numbers: &[Tensor<1>]) -> String {
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

/// The rows of tokens that an earlier search found; `None` if there was none, or what it left has another shape.
///
/// # Errors
/// If the store cannot be read.
pub fn found(job: &Job<'_>, key: &str, rows: usize, tokens: usize) -> Result<Option<Vec<Vec<u32>>>> {
    let kept = job.store.get_shared(key)?.and_then(|mut tensors| tensors.remove("ids"));
    let known = job.base.tokenizer.vocab_size();
    let values = kept.filter(|host| host.shape() == [rows, tokens]).and_then(|host| host.to_f32());
    let values = values.filter(|values| values.iter().all(|&id| id >= 0.0 && (id as usize) < known));
    Ok(values.map(|values| values.chunks_exact(tokens).map(|row| row.iter().map(|&id| id as u32).collect()).collect()))
}

/// Keeps rows of tokens, all of one length.
///
/// # Errors
/// If the store cannot be written.
pub fn keep(job: &Job<'_>, key: &str, rows: &[Vec<u32>]) -> Result<()> {
    let values: Vec<f32> = rows.iter().flatten().map(|&id| id as f32).collect();
    let tokens = rows.first().map_or(0, Vec::len);
    let ids = HostTensor::from_f32([rows.len(), tokens], &values);
    job.store.put_shared(key, Tensors::from([("ids".to_owned(), ids)]))
}
