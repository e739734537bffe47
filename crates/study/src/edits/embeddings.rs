//! Learned words, put into a model.

use std::path::{Path, PathBuf};

use scumble_diffusion::Pipeline;
use scumble_nn::files::{Embedding, Kind, TensorFile, identify, read_bundled, read_embedding};

use crate::{failure::Failure, record::EmbeddingRecord};

/// Puts the words of textual-inversion files into a model; what run.json says about each.
///
/// # Errors
/// If a file is no embedding, or does not fit the text encoder.
pub(crate) fn add_embeddings(
    files: &[PathBuf],
    pipeline: &mut Pipeline,
) -> Result<Vec<EmbeddingRecord>, Failure> {
    let mut records = Vec::new();
    for path in files {
        for embedding in embeddings(path, &pipeline.encoder_widths())? {
            let vectors = pipeline.side_by_side(&embedding)?;
            pipeline
                .add_word(&embedding.token, &vectors)
                .map_err(|e| Failure::from(e).of(&format!("--embedding {}", path.display())))?;
            let mut hash = blake3::Hasher::new();
            hash.update(embedding.token.as_bytes());
            for value in vectors.iter().flatten() {
                hash.update(&value.to_le_bytes());
            }
            records.push(EmbeddingRecord {
                embedding: path.display().to_string(),
                token: embedding.token,
                vectors: vectors.len(),
                hash: hash.finalize().to_hex().to_string(),
            });
        }
    }
    Ok(records)
}

/// The embedding in a file, or those that travel in a LoRA.
fn embeddings(path: &Path, widths: &[(&str, usize)]) -> Result<Vec<Embedding>, Failure> {
    let kind = identify(path)?.kind;
    if !path.is_dir() {
        let file = TensorFile::open(path)?;
        let found = if kind == Kind::TextualInversion {
            vec![read_embedding(&file, widths)?]
        } else {
            read_bundled(&file, widths)?
        };
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let problem = format!(
        "--embedding {}: expected a textual inversion, found: {}",
        path.display(),
        kind.describe()
    );
    Err(Failure::new(problem).with_hint("an edit or a LoRA is given with --edit or --lora"))
}
