//! Textual-inversion embeddings: vectors that a token stands for.

use std::{collections::BTreeMap, path::Path};

use super::{
    checkpoint::tame,
    safetensors::{TensorFile, write},
    tensor::HostTensor,
};
use crate::error::{Error, Result};

/// More vectors than one prompt has places for.
const MOST_VECTORS: usize = 1024;

/// What one token stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The token, such as `<church>`.
    pub token: String,
    /// Its vectors, each as wide as the text encoder.
    pub vectors: Vec<Vec<f32>>,
}

/// The layouts of embedding files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingLayout {
    /// One tensor under the token's name (`learned_embeds.safetensors`).
    Diffusers,
    /// One tensor `emb_params`; the token is the file's name.
    A1111,
}

/// Reads an embedding of vectors of `width` numbers.
///
/// Both layouts are read: one tensor named by its token (diffusers), or `emb_params` or `*` with the token in the metadata
/// or else the file's name (A1111).
///
/// # Errors
/// If there is not exactly one float tensor of shape [n, width] or [width].
pub fn read_embedding(file: &TensorFile, width: usize) -> Result<Embedding> {
    let bad = |problem: String| Error::file(&file.path, tame(&problem));
    let mut names = file.tensors.iter();
    let (Some((key, tensor)), None) = (names.next(), names.next()) else {
        return Err(bad(format!("expected one tensor, the vectors of a token, found {}", file.tensors.len())));
    };
    let (count, found) = match *tensor.shape() {
        [d] => (1, d),
        [n, d] => (n, d),
        _ => return Err(bad(format!("`{key}`: expected shape [n, {width}] or [{width}], found {:?}", tensor.shape()))),
    };
    if found != width {
        let error = bad(format!("`{key}`: expected vectors of {width} numbers, the text encoder's width, found {found}"));
        return Err(error.with_hint("an embedding fits only the family that it was trained for"));
    }
    if !(1..=MOST_VECTORS).contains(&count) {
        return Err(bad(format!("`{key}`: expected 1 to {MOST_VECTORS} vectors, found {count}")));
    }
    let numbers =
        tensor.to_f32().ok_or_else(|| bad(format!("`{key}`: expected F16, BF16 or F32, found {:?}", tensor.dtype())))?;
    if numbers.iter().any(|v| !v.is_finite()) {
        return Err(bad(format!("`{key}`: some numbers are not finite")));
    }
    let token = match key.as_str() {
        "emb_params" | "*" => {
            let named = file.metadata.get("name").filter(|n| !n.is_empty()).cloned();
            let stem = || file.path.file_stem().map(|s| s.to_string_lossy().into_owned());
            named.or_else(stem).ok_or_else(|| bad("the file's name does not say the token".into()))?
        }
        _ => key.clone(),
    };
    Ok(Embedding { token, vectors: numbers.chunks_exact(width).map(<[f32]>::to_vec).collect() })
}

/// Writes an embedding in f32; in A1111's layout the reader takes the token from the file's name.
///
/// # Errors
/// If there is no vector, their widths differ, or the file cannot be written.
pub fn write_embedding(path: &Path, embedding: &Embedding, layout: EmbeddingLayout) -> Result<()> {
    let width = embedding.vectors.first().map_or(0, Vec::len);
    if width == 0 || embedding.vectors.iter().any(|v| v.len() != width) {
        return Err(Error::input(format!("`{}`: an embedding needs vectors, all of one width", embedding.token)));
    }
    let tensor = HostTensor::from_f32([embedding.vectors.len(), width], &embedding.vectors.concat());
    let (key, metadata) = match layout {
        EmbeddingLayout::Diffusers => (embedding.token.as_str(), BTreeMap::from([("format".into(), "pt".into())])),
        EmbeddingLayout::A1111 => ("emb_params", BTreeMap::from([("name".into(), embedding.token.clone())])),
    };
    if key.is_empty() || key == "__metadata__" {
        return Err(Error::input(format!("{key:?} cannot be a token")));
    }
    write(path, [(key.to_owned(), tensor)], &metadata)
}
