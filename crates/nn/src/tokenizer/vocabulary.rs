//! The vocabulary and the merges, from the files they come in.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::bytes::WORD_END;
use crate::error::{Error, Result};

/// The tokens of a BPE and the order in which they are merged.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// Index: id.
    pub(super) tokens: Vec<String>,
    /// Earlier ones first.
    pub(super) merges: Vec<(String, String)>,
}

/// Any JSON file, with its name in the error.
pub(super) fn json(path: &Path, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| Error::file(path, format!("is not JSON: {e}")))
}

/// A JSON file that holds an object.
pub(super) fn json_object(path: &Path, bytes: &[u8]) -> Result<Map<String, Value>> {
    match json(path, bytes)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::file(path, "expected a JSON object")),
    }
}

/// A number as a token's id.
pub(super) fn id(path: &Path, token: &str, value: &Value) -> Result<u32> {
    let id = value.as_u64().and_then(|n| u32::try_from(n).ok());
    id.ok_or_else(|| {
        Error::file(
            path,
            format!(
                "token `{token}`: expected an id from 0 to {}, found {value}",
                u32::MAX
            ),
        )
    })
}

/// The tokens of `vocab.json`, or of `model.vocab` in `tokenizer.json`: every id from 0 on exactly
/// once.
pub(super) fn tokens(path: &Path, map: Map<String, Value>) -> Result<Vec<String>> {
    let count = map.len();
    let mut tokens: Vec<Option<String>> = vec![None; count];
    for (token, value) in map {
        let id = id(path, &token, &value)?;
        let Some(place) = tokens.get_mut(id as usize) else {
            return Err(Error::file(
                path,
                format!(
                    "the ids have a hole: token `{token}` has id {id}, but there are only {count} tokens"
                ),
            ));
        };
        if let Some(other) = place.replace(token.clone()) {
            return Err(Error::file(
                path,
                format!("tokens `{other}` and `{token}` have the same id {id}"),
            ));
        }
    }
    // As many places as tokens and no two in one: no place is empty.
    let tokens: Vec<String> = tokens.into_iter().flatten().collect();
    if !tokens
        .iter()
        .any(|t| t.len() > WORD_END.len() && t.ends_with(WORD_END))
    {
        return Err(Error::file(
            path,
            format!("is not a CLIP vocabulary: no token ends in `{WORD_END}`"),
        ));
    }
    Ok(tokens)
}

/// The lines of `merges.txt`: two tokens and one space each, after an optional `#version` line.
pub(super) fn merges_text(path: &Path, bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        Error::file(path, format!("is not UTF-8 in line {line}"))
    })?;
    let mut merges = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if !line.is_empty() && !line.starts_with("#version") {
            merges.push(pair(line).ok_or_else(|| {
                Error::file(
                    path,
                    format!(
                        "line {}: expected two tokens with one space between them, found `{line}`",
                        i + 1
                    ),
                )
            })?);
        }
    }
    Ok(merges)
}

/// `model.merges` in `tokenizer.json`: a list of `"a b"` (older files) or `["a", "b"]`.
pub(super) fn merges_list(path: &Path, value: &Value) -> Result<Vec<(String, String)>> {
    let list = value
        .as_array()
        .ok_or_else(|| Error::file(path, "`model.merges`: expected a list"))?;
    let parse = |v: &Value| match v {
        Value::String(line) => pair(line),
        Value::Array(two) => match two.as_slice() {
            [Value::String(a), Value::String(b)] if !a.is_empty() && !b.is_empty() => {
                Some((a.clone(), b.clone()))
            }
            _ => None,
        },
        _ => None,
    };
    list.iter()
        .enumerate()
        .map(|(i, v)| {
            parse(v).ok_or_else(|| {
                Error::file(
                    path,
                    format!("`model.merges`, entry {i}: expected two tokens, found {v}"),
                )
            })
        })
        .collect()
}

fn pair(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    (!a.is_empty() && !b.is_empty() && !b.contains(' ')).then(|| (a.into(), b.into()))
}

impl Vocabulary {
    /// Checks that the merges name tokens of the vocabulary. `path` is the file of the merges.
    pub(super) fn new(
        path: &Path,
        tokens: Vec<String>,
        merges: Vec<(String, String)>,
    ) -> Result<Self> {
        let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
        for (i, (a, b)) in merges.iter().enumerate() {
            let whole = format!("{a}{b}");
            if let Some(unknown) = [a, b, &whole]
                .into_iter()
                .find(|t| !known.contains(t.as_str()))
            {
                return Err(Error::file(
                    path,
                    format!(
                        "merge {} (`{a} {b}`): `{unknown}` is not in the vocabulary",
                        i + 1
                    ),
                ));
            }
        }
        Ok(Self { tokens, merges })
    }
}
