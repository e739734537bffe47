//! A run's record, `run.json`: read with care, for anybody may have written it.

use std::path::Path;

use scumble_nn::files::source::{parse_object, read_file};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;

/// Longest record read, in bytes.
const LONGEST: u64 = 1 << 30;

/// What a hint says of every damaged record.
const HINT: &str =
    "it is not what scumble wrote; give another --output-dir, or --overwrite to replace it";

/// The record at `path`; `None` if there is none.
///
/// # Errors
/// If it is no JSON object, or what every record holds is not what it should be; the error names the file and the field.
pub(crate) fn read(path: &Path) -> Result<Option<Value>, Failure> {
    match fs_err::metadata(path) {
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
        Ok(_) => {}
    }
    let bytes = read_file(path, LONGEST)?;
    let record = parse_object(path, &bytes).map_err(|e| Failure::from(e).with_hint(HINT))?;
    for (name, fits, expected) in [
        (
            "plan_hash",
            record["plan_hash"].is_null() || record["plan_hash"].is_string(),
            "a string",
        ),
        (
            "finished",
            record["finished"].is_null() || record["finished"].is_boolean(),
            "true or false",
        ),
    ] {
        if !fits {
            return Err(wrong(
                path,
                name,
                &format!("expected {expected}, found {}", record[name]),
            ));
        }
    }
    Ok(Some(record))
}

/// A field of a record, by its name with dots.
///
/// # Errors
/// If it is not there, or of another form; the error names the file and the field.
pub(crate) fn field<T: DeserializeOwned>(
    record: &Value,
    path: &Path,
    name: &str,
) -> Result<T, Failure> {
    let value = name
        .split('.')
        .try_fold(record, |value, key| value.get(key));
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Err(wrong(path, name, "is missing"));
    };
    serde_json::from_value(value.clone()).map_err(|e| wrong(path, name, &e.to_string()))
}

fn wrong(path: &Path, name: &str, problem: &str) -> Failure {
    Failure::new(format!("{}: `{name}`: {problem}", path.display())).with_hint(HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        assert!(read(&path).unwrap().is_none());
        for (text, said) in [
            ("{\"finished\": tr", "run.json"),
            ("[1]", "run.json"),
            (
                "{\"plan_hash\": 3}",
                "`plan_hash`: expected a string, found 3",
            ),
            (
                "{\"finished\": \"yes\"}",
                "`finished`: expected true or false, found \"yes\"",
            ),
        ] {
            fs_err::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        fs_err::write(
            &path,
            "{\"plan_hash\": \"a\", \"cost\": {\"seconds\": \"x\"}}",
        )
        .unwrap();
        let record = read(&path).unwrap().unwrap();
        assert_eq!(field::<String>(&record, &path, "plan_hash").unwrap(), "a");
        assert!(
            field::<f64>(&record, &path, "cost.seconds")
                .unwrap_err()
                .to_string()
                .contains("`cost.seconds`: invalid type")
        );
        assert!(
            field::<f64>(&record, &path, "cost.evaluations")
                .unwrap_err()
                .to_string()
                .contains("is missing")
        );
    }
}
