//! What several commands read in the same way: `--set KEY=VALUE`, which reaches every option of a
//! method, an attack or a guard, and lists.

use serde_json::{Map, Value};

use crate::failure::Failure;

/// The options of all `--set`, a later one in the place of an earlier one.
///
/// # Errors
/// If one is not `KEY=VALUE`.
pub(crate) fn of_set(set: &[String]) -> Result<Map<String, Value>, Failure> {
    let one = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("--set {text}: expected KEY=VALUE")))?;
        // Numbers, true and false as such; anything else is text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok((key.trim().replace('-', "_"), value))
    };
    set.iter().map(one).collect()
}
