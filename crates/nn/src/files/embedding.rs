//! Textual-inversion embeddings: vectors that a token stands for.

use std::{collections::BTreeMap, path::Path};

use super::{
    checkpoint::tame,
    finite,
    lora::pieces::BUNDLED,
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

/// Keys that say nothing about the token: A1111's, those of its dumped dictionaries, and those of
/// trainers for several text encoders.
const NAMELESS: [&str; 5] = [
    "emb_params",
    "string_to_param.*",
    "string_to_param",
    "*",
    "clip_l",
];

/// Reads an embedding of vectors of `width` numbers.
///
/// Either one tensor named by its token (diffusers), or one under a key that says nothing
/// (`emb_params`, `*`, `string_to_param.*`, `clip_l`): the token then stands in the metadata, or is
/// the file's name, as in A1111 and ComfyUI.
///
/// # Errors
/// If there is not exactly one float tensor of shape [n, width] or [width], or a number is not finite.
pub fn read_embedding(file: &TensorFile, width: usize) -> Result<Embedding> {
    let mut names = file.tensors.iter();
    let (Some((key, tensor)), None) = (names.next(), names.next()) else {
        let problem = format!(
            "expected one tensor, the vectors of a token, found {}",
            file.tensors.len()
        );
        return Err(Error::file(&file.path, problem));
    };
    let vectors = vectors(&file.path, key, tensor, width)?;
    let token = if NAMELESS.contains(&key.as_str()) {
        let named = file.metadata.get("name").filter(|n| !n.is_empty()).cloned();
        let stem = || {
            file.path
                .file_stem()
                .map(|s| s.to_string_lossy().into_owned())
        };
        named
            .or_else(stem)
            .ok_or_else(|| Error::file(&file.path, "the file's name does not say the token"))?
    } else {
        key.clone()
    };
    Ok(Embedding { token, vectors })
}

/// Reads the embeddings that travel in a LoRA file, `bundle_emb.WORD.string_to_param.*`; none if
/// there are none.
///
/// # Errors
/// If one is not of shape [n, width] or [width], or a word has two tensors.
pub fn read_bundled(file: &TensorFile, width: usize) -> Result<Vec<Embedding>> {
    let mut found: Vec<Embedding> = Vec::new();
    for (key, tensor) in &file.tensors {
        let Some(rest) = key.strip_prefix(BUNDLED) else {
            continue;
        };
        let Some(token) = NAMELESS
            .iter()
            .find_map(|end| rest.strip_suffix(end)?.strip_suffix('.'))
        else {
            let problem = format!("`{key}`: expected bundle_emb.WORD.string_to_param.*");
            return Err(Error::file(&file.path, tame(&problem)));
        };
        if token.is_empty() || found.iter().any(|known| known.token == token) {
            return Err(Error::file(
                &file.path,
                tame(&format!(
                    "`{key}`: the word `{token}` is empty or there twice"
                )),
            ));
        }
        found.push(Embedding {
            token: token.into(),
            vectors: vectors(&file.path, key, tensor, width)?,
        });
    }
    Ok(found)
}

/// The rows of a tensor of shape [n, width] or [width].
fn vectors(path: &Path, key: &str, tensor: &HostTensor, width: usize) -> Result<Vec<Vec<f32>>> {
    let bad = |problem: String| Error::file(path, tame(&problem));
    let (count, found) = match *tensor.shape() {
        [d] => (1, d),
        [n, d] => (n, d),
        _ => {
            return Err(bad(format!(
                "`{key}`: expected shape [n, {width}] or [{width}], found {:?}",
                tensor.shape()
            )));
        }
    };
    if found != width {
        let error = bad(format!(
            "`{key}`: expected vectors of {width} numbers, the text encoder's width, found {found}"
        ));
        return Err(error.with_hint("an embedding fits only the family that it was trained for"));
    }
    if !(1..=MOST_VECTORS).contains(&count) {
        return Err(bad(format!(
            "`{key}`: expected 1 to {MOST_VECTORS} vectors, found {count}"
        )));
    }
    let numbers = tensor.to_f32().ok_or_else(|| {
        bad(format!(
            "`{key}`: expected F16, BF16 or F32, found {:?}",
            tensor.dtype()
        ))
    })?;
    if let Some(problem) = finite::problem(&format!("`{key}`"), tensor) {
        return Err(bad(problem));
    }
    Ok(numbers.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

/// Writes an embedding in f32; in A1111's layout the reader takes the token from the file's name.
///
/// # Errors
/// If there is no vector, their widths differ, or the file cannot be written.
pub fn write_embedding(path: &Path, embedding: &Embedding, layout: EmbeddingLayout) -> Result<()> {
    let width = embedding.vectors.first().map_or(0, Vec::len);
    if width == 0 || embedding.vectors.iter().any(|v| v.len() != width) {
        return Err(Error::input(format!(
            "`{}`: an embedding needs vectors, all of one width",
            embedding.token
        )));
    }
    let tensor = HostTensor::from_f32(
        [embedding.vectors.len(), width],
        &embedding.vectors.concat(),
    );
    let (key, metadata) = match layout {
        EmbeddingLayout::Diffusers => (
            embedding.token.as_str(),
            BTreeMap::from([("format".into(), "pt".into())]),
        ),
        EmbeddingLayout::A1111 => (
            "emb_params",
            BTreeMap::from([("name".into(), embedding.token.clone())]),
        ),
    };
    if key.is_empty() || key == "__metadata__" {
        return Err(Error::input(format!("{key:?} cannot be a token")));
    }
    write(path, [(key.to_owned(), tensor)], &metadata)
}
