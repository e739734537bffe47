//! Reading a `config.json`: a key that is missing, out of range or not supported is an error that
//! names file and key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// No published network of this family has a number in its config above this; a larger one is a
/// lie.
pub(super) const LARGEST: u64 = 1 << 20;

/// The most layers of an encoder; each has its names, so a file of a few bytes must not ask for
/// millions.
pub(super) const MOST_LAYERS: usize = 256;

/// The most residual blocks of a level.
pub(super) const MOST_BLOCKS: usize = 64;

/// Activation functions of CLIP, ViT and the U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(1.702 x), OpenAI's CLIP.
    QuickGelu,
    /// The exact (erf) GELU, OpenCLIP and ViT.
    Gelu,
    /// x * sigmoid(x).
    Silu,
}

/// A configuration's keys, read with errors that name the file and the key.
pub(super) struct Keys<'a> {
    path: PathBuf,
    pub(super) map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(path: &Path, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self {
                path: path.into(),
                map,
            }),
            _ => Err(Error::file(
                path,
                "expected a JSON object with a network's configuration",
            )),
        }
    }

    pub(super) fn error(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::config(self.path.clone(), key, problem)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn integer(&self, key: &str, value: &Value) -> Result<usize> {
        match value.as_u64() {
            Some(n) if (1..=LARGEST).contains(&n) => Ok(n as usize),
            _ => Err(self.error(
                key,
                format!("expected a whole number from 1 to {LARGEST}, found {value}"),
            )),
        }
    }

    pub(super) fn need(&self, key: &str) -> Result<&'a Value> {
        self.get(key).ok_or_else(|| self.error(key, "is missing"))
    }

    pub(super) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |v| self.integer(key, v))
    }

    /// A number of layers.
    pub(super) fn layers_or(&self, key: &str, default: usize, most: usize) -> Result<usize> {
        match self.size_or(key, default)? {
            n if n <= most => Ok(n),
            n => Err(self.error(key, format!("expected at most {most}, found {n}"))),
        }
    }

    /// What keeps a normalisation from dividing by nothing.
    pub(super) fn epsilon_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.number_or(key, default)? {
            eps if eps > 0.0 && eps <= 1.0 => Ok(eps),
            eps => Err(self.error(
                key,
                format!("expected a small positive number, found {eps}"),
            )),
        }
    }

    /// An id or a small count, where zero is a value like any other.
    pub(super) fn id_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => match v.as_u64() {
                Some(n) if n <= LARGEST => Ok(n as usize),
                _ => Err(self.error(
                    key,
                    format!("expected a whole number up to {LARGEST}, found {v}"),
                )),
            },
        }
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |v| {
            v.as_f64()
                .ok_or_else(|| self.error(key, format!("expected a number, found {v}")))
        })
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |v| {
            v.as_bool()
                .ok_or_else(|| self.error(key, format!("expected true or false, found {v}")))
        })
    }

    pub(super) fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let value = self.need(key)?;
        match value.as_array() {
            Some(list) if (1..=16).contains(&list.len()) => {
                list.iter().map(|v| self.integer(key, v)).collect()
            }
            _ => Err(self.error(
                key,
                format!("expected a list of 1 to 16 whole numbers, found {value}"),
            )),
        }
    }

    pub(super) fn names(&self, key: &str) -> Result<Vec<&'a str>> {
        let value = self.need(key)?;
        value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>())
            .ok_or_else(|| self.error(key, format!("expected a list of names, found {value}")))
    }

    pub(super) fn activation(&self, key: &str, default: Activation) -> Result<Activation> {
        match self.get(key).map(|v| v.as_str().unwrap_or_default()) {
            None => Ok(default),
            Some("quick_gelu") => Ok(Activation::QuickGelu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some(other) => Err(self.error(
                key,
                format!("`{other}` is not supported (quick_gelu, gelu, silu are)"),
            )),
        }
    }

    /// Every key must be absent, null, or equal to the neutral value beside it.
    pub(super) fn neutral(&self, keys: &[(&str, Value)]) -> Result<()> {
        for (key, neutral) in keys {
            if let Some(found) = self.get(key)
                && found != neutral
                && found
                    .as_f64()
                    .zip(neutral.as_f64())
                    .is_none_or(|(a, b)| a != b)
            {
                return Err(self.error(key, format!("{found} is not supported, only {neutral}")));
            }
        }
        Ok(())
    }

    /// Every key of the file must be known, describe only, or hold a value that switches nothing
    /// on.
    pub(super) fn no_other(&self, known: &[&str]) -> Result<()> {
        for (key, value) in self.map {
            let off = value.is_null() || value == &Value::Bool(false);
            if !off && !key.starts_with('_') && !known.contains(&key.as_str()) {
                return Err(self.error(
                    key,
                    format!("is not known here, so its value {value} might change the computation"),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn divides(&self, key: &str, part: usize, whole: usize) -> Result<()> {
        if whole.is_multiple_of(part) {
            Ok(())
        } else {
            Err(self.error(key, format!("{part} does not divide {whole}")))
        }
    }
}
