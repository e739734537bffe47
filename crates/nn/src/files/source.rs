//! Where the files of a model come from: a folder on disk, or the program itself.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    safetensors::{TensorFile, map},
    tensor::Bytes,
};
use crate::error::{Error, Result};

/// Longest configuration read, in bytes; published ones have a few thousand.
pub const LONGEST_CONFIG: u64 = 1 << 20;

/// Longest tokenizer file read, in bytes; CLIP's have about two million.
pub const LONGEST_TOKENIZER: u64 = 64 << 20;

/// Most entries listed below one folder.
const MOST_FILES: usize = 1000;

/// The files of a model under their paths relative to its folder, with `/` between the parts.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder on disk.
    Dir(PathBuf),
    /// Files compiled into the program.
    Embedded {
        /// What stands in place of the folder's path in messages.
        name: &'static str,
        /// Relative path and content of each file.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl Source {
    /// A folder on disk.
    pub fn dir(path: impl Into<PathBuf>) -> Self {
        Self::Dir(path.into())
    }

    /// Files compiled into the program.
    pub fn embedded(name: &'static str, files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self::Embedded { name, files }
    }

    /// The folder's path, or the name that stands for it.
    pub fn name(&self) -> String {
        match self {
            Self::Dir(path) => path.display().to_string(),
            Self::Embedded { name, .. } => (*name).into(),
        }
    }

    /// Where a file lies, for messages.
    pub fn path(&self, rel: &str) -> PathBuf {
        match self {
            Self::Dir(path) => path.join(rel),
            Self::Embedded { name, .. } => Path::new(name).join(rel),
        }
    }

    /// Whether there is such a file.
    pub fn exists(&self, rel: &str) -> bool {
        match self {
            Self::Dir(path) => path.join(rel).is_file(),
            Self::Embedded { files, .. } => files.iter().any(|(name, _)| *name == rel),
        }
    }

    /// The content of a file of at most `longest` bytes; `None` if there is no such file.
    ///
    /// # Errors
    /// If it is longer or cannot be read.
    pub fn read(&self, rel: &str, longest: u64) -> Result<Option<Bytes>> {
        match self {
            Self::Dir(path) => {
                let path = path.join(rel);
                if path.is_file() {
                    read_file(&path, longest).map(|b| Some(Bytes::Owned(b.into())))
                } else {
                    Ok(None)
                }
            }
            Self::Embedded { files, .. } => Ok(files
                .iter()
                .find(|(name, _)| *name == rel)
                .map(|(_, bytes)| Bytes::Static(bytes))),
        }
    }

    /// A JSON object of configuration size, Python's dialect included ([`parse_config`]); `None` if
    /// there is no such file.
    ///
    /// # Errors
    /// If it is too long, not JSON, or not an object.
    pub fn json(&self, rel: &str) -> Result<Option<Value>> {
        let bytes = self.read(rel, LONGEST_CONFIG)?;
        bytes
            .map(|bytes| parse_config(&self.path(rel), &bytes))
            .transpose()
    }

    /// A JSON object that must be there.
    ///
    /// # Errors
    /// If it is absent, too long, not JSON, or not an object.
    pub fn need_json(&self, rel: &str) -> Result<Value> {
        self.json(rel)?
            .ok_or_else(|| Error::file(self.path(rel), "is missing"))
    }

    /// A safetensors file; `None` if there is no such file.
    ///
    /// # Errors
    /// If it is not a well-formed safetensors file.
    pub fn tensors(&self, rel: &str) -> Result<Option<TensorFile>> {
        match self {
            Self::Dir(path) => {
                let path = path.join(rel);
                path.is_file()
                    .then(|| TensorFile::from_bytes(&path, map(&path)?))
                    .transpose()
            }
            Self::Embedded { files, .. } => files
                .iter()
                .find(|(name, _)| *name == rel)
                .map(|(_, bytes)| TensorFile::from_bytes(self.path(rel), Bytes::Static(bytes)))
                .transpose(),
        }
    }

    /// The files below a folder, at any depth, sorted; empty if there is no such folder.
    ///
    /// # Errors
    /// If the folder cannot be listed, or holds more than a thousand entries.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        match self {
            Self::Dir(path) => {
                let mut waiting = vec![(path.join(folder), folder.to_owned(), 0)];
                while let Some((path, rel, depth)) = waiting.pop() {
                    if !path.is_dir() {
                        continue;
                    }
                    for entry in fs_err::read_dir(&path)? {
                        let entry = entry?;
                        let Ok(name) = entry.file_name().into_string() else {
                            return Err(Error::file(entry.path(), "the file's name is not UTF-8"));
                        };
                        let rel = if rel.is_empty() {
                            name
                        } else {
                            format!("{rel}/{name}")
                        };
                        if found.len() + waiting.len() >= MOST_FILES {
                            return Err(Error::file(
                                &path,
                                format!("holds more than {MOST_FILES} files"),
                            ));
                        }
                        // Links are followed (the hub's cache is made of them); the depth ends a
                        // loop of them.
                        let kind = entry.path();
                        if kind.is_file() {
                            found.push(rel);
                        } else if kind.is_dir() && depth < 4 {
                            waiting.push((kind, rel, depth + 1));
                        }
                    }
                }
            }
            Self::Embedded { files, .. } => {
                let inside = |name: &str| {
                    folder.is_empty()
                        || name
                            .strip_prefix(folder)
                            .is_some_and(|r| r.starts_with('/'))
                };
                found.extend(
                    files
                        .iter()
                        .filter(|(name, _)| inside(name))
                        .map(|(name, _)| (*name).to_owned()),
                );
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A whole file of at most `longest` bytes.
///
/// # Errors
/// If it is longer, no regular file, or cannot be read.
pub fn read_file(path: &Path, longest: u64) -> Result<Vec<u8>> {
    let found = fs_err::metadata(path)?;
    if !found.is_file() {
        return Err(Error::file(path, "expected a file"));
    }
    let mut content = Vec::new();
    fs_err::File::open(path)?
        .take(longest + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > longest {
        return Err(Error::file(
            path,
            format!("expected at most {longest} bytes, found {}", found.len()),
        ));
    }
    Ok(content)
}

/// Parses a JSON object; `path` is for messages.
///
/// # Errors
/// If it is not JSON, or JSON but no object.
pub fn parse_object(path: &Path, bytes: &[u8]) -> Result<Value> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(other) => {
            let kind = match other {
                Value::Array(_) => "a list",
                Value::String(_) => "a string",
                Value::Null => "null",
                _ => "a number or a truth value",
            };
            Err(Error::file(
                path,
                format!("expected a JSON object, found {kind}"),
            ))
        }
        Err(e) => Err(Error::file(path, format!("expected a JSON object: {e}"))),
    }
}

/// Numbers that Python's `json` writes and JSON does not have.
const BARE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses the JSON object of a configuration, which Python may have written: its bare `NaN`,
/// `Infinity` and `-Infinity` become strings of these letters. diffusers writes
/// `"lambda_min_clipped": -Infinity` with every DPM-Solver.
///
/// # Errors
/// As [`parse_object`].
pub(crate) fn parse_config(path: &Path, bytes: &[u8]) -> Result<Value> {
    parse_object(path, bytes).or_else(|strict| match quoted_numbers(bytes) {
        Some(quoted) => parse_object(path, &quoted),
        None => Err(strict),
    })
}

/// The text with the bare numbers in quotes; `None` if there is none outside of its strings.
fn quoted_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut at, mut inside, mut any) =
        (Vec::with_capacity(bytes.len() + 16), 0, false, false);
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        // A number follows a bracket, a colon, a comma or white space; `xNaN` stays the error that
        // it is.
        let begins = !inside && out.last().is_none_or(|b| b"[:, \t\r\n".contains(b));
        let bare = BARE
            .iter()
            .find(|word| begins && rest.starts_with(word.as_bytes()));
        if let Some(word) = bare {
            out.push(b'"');
            out.extend_from_slice(word.as_bytes());
            out.push(b'"');
            at += word.len();
            any = true;
        } else if inside && byte == b'\\' && rest.len() > 1 {
            out.extend_from_slice(&rest[..2]);
            at += 2;
        } else {
            inside ^= byte == b'"';
            out.push(byte);
            at += 1;
        }
    }
    any.then_some(out)
}

/// A configuration as Python reads it back: indented, with the three numbers bare again.
pub(crate) fn config_text(value: &Value) -> String {
    let mut text = String::new();
    for line in format!("{value:#}").lines() {
        // Inside a string a quote has a backslash before it, so a line that ends like this is a
        // whole value.
        let bare = BARE.iter().find_map(|word| {
            let (head, comma) = line
                .strip_suffix(',')
                .map_or((line, ""), |head| (head, ","));
            let head = head.strip_suffix(&format!("\"{word}\""))?;
            (head.ends_with(": ") || head.trim().is_empty()).then(|| format!("{head}{word}{comma}"))
        });
        text += bare.as_deref().unwrap_or(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_of_python_is_read_and_written_back() {
        let text = r#"{"a": -Infinity, "b": [NaN, Infinity,-Infinity], "c": "a \" NaN, Infinity", "d": ": -Infinity", "e":NaN}"#;
        let value = parse_config(Path::new("x"), text.as_bytes()).unwrap();
        assert_eq!(value["a"], "-Infinity");
        assert_eq!(
            value["b"],
            serde_json::json!(["NaN", "Infinity", "-Infinity"])
        );
        assert_eq!(
            (&value["c"], &value["d"]),
            (&"a \" NaN, Infinity".into(), &": -Infinity".into())
        );
        let back = config_text(&value);
        assert!(
            back.contains("\"a\": -Infinity,\n")
                && back.contains("    NaN,\n")
                && back.contains("\"e\": NaN\n"),
            "{back}"
        );
        assert_eq!(
            parse_config(Path::new("x"), back.as_bytes()).unwrap(),
            value
        );
        for broken in [
            "{\"a\": -Inf}",
            "{\"a\": xNaN}",
            "{\"a\": NaNs}",
            "{NaN: 1",
            "{\"a\": Infinity",
            "\"\\",
            "[NaN]",
            "",
        ] {
            assert!(
                parse_config(Path::new("x"), broken.as_bytes()).is_err(),
                "{broken}"
            );
        }
        // Other files than configurations stay JSON.
        assert!(parse_object(Path::new("x"), text.as_bytes()).is_err());
    }
}
