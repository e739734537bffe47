//! Textual-inversion embeddings: vectors that a token stands for.

use std::{collections::BTreeMap, path::Path};

use super::{
    finite,
    lora::pieces::BUNDLED,
    names::{MANAGED, MANAGER},
    problems::tame,
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
    /// Its vectors for each text encoder, by the encoder's id (`text_encoder`, `text_encoder_2`);
    /// each as wide as that encoder.
    pub tables: BTreeMap<String, Vec<Vec<f32>>>,
}

impl Embedding {
    /// A token of a model with one text encoder.
    pub fn one(token: impl Into<String>, vectors: Vec<Vec<f32>>) -> Self {
        Self {
            token: token.into(),
            tables: BTreeMap::from([(ENCODERS[0].to_owned(), vectors)]),
        }
    }

    /// The vectors for the text encoder of that id; none if it has none for it.
    pub fn vectors(&self, encoder: &str) -> &[Vec<f32>] {
        self.tables.get(encoder).map_or(&[], Vec::as_slice)
    }
}

/// The text encoders of models, by id.
const ENCODERS: [&str; 2] = ["text_encoder", "text_encoder_2"];

/// The keys of SDXL's embeddings: the vectors for its first and its second text encoder, CLIP
/// ViT-L/14 and OpenCLIP ViT-bigG/14.
pub(super) const CLIPS: [&str; 2] = ["clip_l", "clip_g"];

/// The layouts of embedding files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingLayout {
    /// One tensor under the token's name (`learned_embeds.safetensors`); for two text encoders as
    /// below.
    Diffusers,
    /// One tensor `emb_params`, or for two text encoders `clip_l` and `clip_g`; the token is the
    /// file's name.
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

/// Reads an embedding for text encoders of these ids and widths: one, or SDXL's two.
///
/// For one, either one tensor named by its token (diffusers), or one under a key that says nothing
/// (`emb_params`, `*`, `string_to_param.*`, `clip_l`): the token then stands in the metadata, or is
/// the file's name, as in A1111 and ComfyUI. For two, `clip_l` and `clip_g`, with as many vectors
/// each.
///
/// # Errors
/// If there are not exactly those float tensors of shape [n, width] or [width], or a number is not finite.
pub fn read_embedding(file: &TensorFile, widths: &[(&str, usize)]) -> Result<Embedding> {
    let entries: Vec<(&str, &str, &HostTensor)> = file
        .tensors
        .iter()
        .map(|(key, tensor)| (key.as_str(), key.as_str(), tensor))
        .collect();
    if let Some((key, ..)) = entries.iter().find(|(key, ..)| key.starts_with(MANAGER)) {
        let problem = format!("`{key}`: a part of a model, not a word with its vectors");
        return Err(Error::file(&file.path, tame(&problem)).with_hint(MANAGED));
    }
    let tables = tables(&file.path, &entries, widths)?;
    let token = match entries[..] {
        [(key, ..)] if !NAMELESS.contains(&key) => key.to_owned(),
        _ => {
            let named = file.metadata.get("name").filter(|n| !n.is_empty()).cloned();
            let stem = || {
                file.path
                    .file_stem()
                    .map(|s| s.to_string_lossy().into_owned())
            };
            named
                .or_else(stem)
                .ok_or_else(|| Error::file(&file.path, "the file's name does not say the token"))?
        }
    };
    Ok(Embedding { token, tables })
}

/// Reads the embeddings that travel in a LoRA file, `bundle_emb.WORD.string_to_param.*`, or for two
/// text encoders `bundle_emb.WORD.clip_l` and `.clip_g`; none if there are none.
///
/// # Errors
/// If one is not of shape [n, width] or [width], or a word has two tensors for one encoder.
pub fn read_bundled(file: &TensorFile, widths: &[(&str, usize)]) -> Result<Vec<Embedding>> {
    let mut words: BTreeMap<&str, Vec<(&str, &str, &HostTensor)>> = BTreeMap::new();
    for (key, tensor) in &file.tensors {
        let Some(rest) = key.strip_prefix(BUNDLED) else {
            continue;
        };
        let split = NAMELESS
            .iter()
            .chain(&CLIPS)
            .find_map(|end| Some((rest.strip_suffix(end)?.strip_suffix('.')?, *end)));
        let Some((token, end)) = split else {
            let problem = format!("`{key}`: expected bundle_emb.WORD.string_to_param.*");
            return Err(Error::file(&file.path, tame(&problem)));
        };
        if token.is_empty() {
            let problem = format!("`{key}`: the word is empty");
            return Err(Error::file(&file.path, tame(&problem)));
        }
        words.entry(token).or_default().push((end, key, tensor));
    }
    let read = |(token, entries): (&str, Vec<(&str, &str, &HostTensor)>)| {
        let nameless = |(end, ..): &(&str, &str, &HostTensor)| !CLIPS.contains(end);
        if widths.len() == 1 && entries.len() > 1 && entries.iter().any(nameless) {
            let problem = format!("the word `{token}` is there twice");
            return Err(Error::file(&file.path, tame(&problem)));
        }
        Ok(Embedding {
            token: token.into(),
            tables: tables(&file.path, &entries, widths)?,
        })
    };
    words.into_iter().map(read).collect()
}

/// The vectors for each text encoder: `entries` are what a tensor is called, its whole key, and the
/// tensor.
fn tables(
    path: &Path,
    entries: &[(&str, &str, &HostTensor)],
    widths: &[(&str, usize)],
) -> Result<BTreeMap<String, Vec<Vec<f32>>>> {
    let of = |name: &str| entries.iter().find(|(n, ..)| *n == name);
    let two = CLIPS.map(of);
    match (widths, entries, two) {
        ([(id, width)], [(_, key, tensor)], [_, None]) => {
            let rows = vectors(path, key, tensor, *width)?;
            Ok(BTreeMap::from([((*id).to_owned(), rows)]))
        }
        ([_], _, [_, Some(_)]) => Err(Error::file(
            path,
            "`clip_g`: this is a textual inversion for SDXL, and the model has one text encoder",
        )
        .with_hint("an embedding fits only the family that it was trained for")),
        ([_], ..) => Err(Error::file(
            path,
            format!(
                "expected one tensor, the vectors of a token, found {}",
                entries.len()
            ),
        )),
        ([first, second], [_, _], [Some(l), Some(g)]) => {
            let mut tables = BTreeMap::new();
            for ((id, width), (_, key, tensor)) in [(first, l), (second, g)] {
                tables.insert((*id).to_owned(), vectors(path, key, tensor, *width)?);
            }
            let counts: Vec<usize> = tables.values().map(Vec::len).collect();
            if counts.windows(2).any(|pair| pair[0] != pair[1]) {
                let problem =
                    format!("`clip_l` and `clip_g` hold {counts:?} vectors, expected as many each");
                return Err(Error::file(path, problem));
            }
            Ok(tables)
        }
        ([first, second], ..) => {
            let found: Vec<String> = entries
                .iter()
                .map(|(name, _, tensor)| format!("`{name}` {:?}", tensor.shape()))
                .take(4)
                .collect();
            let family = match entries {
                [(_, _, tensor)] => match tensor.shape().last() {
                    Some(768) => ", as Stable Diffusion 1.x has",
                    Some(1024) => ", as Stable Diffusion 2.x has",
                    _ => "",
                },
                _ => "",
            };
            let problem = format!(
                "expected `clip_l` [n, {}] and `clip_g` [n, {}], the vectors for SDXL's two text encoders, found {}{family}",
                first.1,
                second.1,
                if found.is_empty() {
                    "none".into()
                } else {
                    found.join(", ")
                }
            );
            Err(Error::file(path, tame(&problem))
                .with_hint("an embedding fits only the family that it was trained for"))
        }
        _ => Err(Error::input(format!(
            "{} text encoders: an embedding is for one or two",
            widths.len()
        ))),
    }
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

/// Writes an embedding in f32: for one text encoder in the layout asked for, for two as `clip_l` and
/// `clip_g` in either. Where no key names the token, the reader takes it from the metadata or the
/// file's name.
///
/// # Errors
/// If there is no vector, their widths differ, their numbers differ between the encoders, or the
/// file cannot be written.
pub fn write_embedding(path: &Path, embedding: &Embedding, layout: EmbeddingLayout) -> Result<()> {
    let bad = |problem: &str| {
        Err(Error::input(format!(
            "`{}`: an embedding needs {problem}",
            embedding.token
        )))
    };
    let mut tables = Vec::new();
    for id in ENCODERS {
        let Some(vectors) = embedding.tables.get(id) else {
            continue;
        };
        let width = vectors.first().map_or(0, Vec::len);
        if width == 0 || vectors.iter().any(|v| v.len() != width) {
            return bad("vectors, all of one width");
        }
        tables.push(HostTensor::from_f32(
            [vectors.len(), width],
            &vectors.concat(),
        ));
    }
    if tables.len() != embedding.tables.len() {
        return bad("tables for the text encoders text_encoder and text_encoder_2");
    }
    let named = BTreeMap::from([("name".to_owned(), embedding.token.clone())]);
    let (keys, metadata) = match (tables.len(), layout) {
        (1, EmbeddingLayout::Diffusers) => (
            vec![embedding.token.as_str()],
            BTreeMap::from([("format".into(), "pt".into())]),
        ),
        (1, EmbeddingLayout::A1111) => (vec!["emb_params"], named),
        (2, _) => {
            let mut both = named;
            both.insert("format".into(), "pt".into());
            (CLIPS.to_vec(), both)
        }
        _ => return bad("vectors for one text encoder or two"),
    };
    if tables.len() == 2 && tables[0].shape()[0] != tables[1].shape()[0] {
        return bad("as many vectors for each text encoder");
    }
    if keys
        .iter()
        .any(|key| key.is_empty() || *key == "__metadata__")
    {
        return Err(Error::input(format!(
            "{:?} cannot be a token",
            embedding.token
        )));
    }
    let named = keys.into_iter().map(str::to_owned).zip(tables);
    write(path, named, &metadata)
}
