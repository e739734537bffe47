//! PEFT's patterns: settings of single modules, under regular expressions for their paths.

use std::path::{Path, PathBuf};

use fancy_regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    files::problems::tame,
};

/// Most patterns of one adapter; one for each module of a U-Net and its text encoder are a few
/// hundred.
const MOST: usize = 2000;

/// Longest pattern, in bytes; a module's path has a hundred.
const LONGEST: usize = 1000;

/// Steps that one match may take back, and bytes that one pattern may compile to.
const BACKTRACK: usize = 100_000;
const COMPILED: usize = 1 << 20;

/// Values by pattern, in the order of the file.
#[derive(Debug)]
pub(super) struct Patterns {
    path: PathBuf,
    key: &'static str,
    list: Vec<(Regex, f64)>,
}

impl Patterns {
    /// Compiles the patterns of `key`, an object of numbers by regular expression.
    ///
    /// # Errors
    /// If one is no regular expression, no pattern is bound to a finite number, or there are too many.
    pub(super) fn read(path: &Path, key: &'static str, map: &Map<String, Value>) -> Result<Self> {
        let bad = |pattern: &str, problem: &str| {
            Error::file(path, format!("`{key}`: `{}`: {problem}", tame(pattern)))
        };
        if map.len() > MOST {
            return Err(Error::file(
                path,
                format!(
                    "`{key}`: expected at most {MOST} patterns, found {}",
                    map.len()
                ),
            ));
        }
        let mut list = Vec::new();
        for (pattern, value) in map {
            if pattern.len() > LONGEST {
                return Err(bad(
                    pattern,
                    &format!("expected at most {LONGEST} bytes, found {}", pattern.len()),
                ));
            }
            let value = value
                .as_f64()
                .ok_or_else(|| bad(pattern, &format!("expected a number, found {value}")))?;
            // peft.utils.other.get_pattern_key: re.match(rf"(.*\.)?({key})$", path); its groups
            // count too.
            let regex = RegexBuilder::new(&format!(r"^(.*\.)?({pattern})$"))
                .backtrack_limit(BACKTRACK)
                .delegate_size_limit(COMPILED)
                .build()
                .map_err(|e| {
                    bad(
                        pattern,
                        &format!("is not a regular expression: {}", tame(&e.to_string())),
                    )
                })?;
            list.push((regex, value));
        }
        Ok(Self {
            path: path.into(),
            key,
            list,
        })
    }

    /// The value of the first pattern, in the order of the file, that is the end of a module's
    /// path.
    ///
    /// # Errors
    /// If a pattern takes too many steps.
    pub(super) fn find(&self, module: &str) -> Result<Option<f64>> {
        for (regex, value) in &self.list {
            match regex.is_match(module) {
                Ok(true) => return Ok(Some(*value)),
                Ok(false) => {}
                Err(e) => {
                    let problem = format!(
                        "`{}`: `{}`: {}",
                        self.key,
                        tame(regex.as_str()),
                        tame(&e.to_string())
                    );
                    return Err(Error::file(&self.path, problem));
                }
            }
        }
        Ok(None)
    }
}
