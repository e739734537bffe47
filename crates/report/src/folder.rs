//! An evaluation's folder: reading it whatever state it is in, writing it whole or not at all.

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    evaluation::{Evaluation, Row},
};

/// The file of everything that is not a row.
pub const EVALUATION: &str = "evaluation.json";
/// The file of the rows.
pub const RESULTS: &str = "results.jsonl";

/// Largest file of numbers that is read, in bytes.
const LARGEST: u64 = 512 << 20;

impl Evaluation {
    /// Reads an evaluation's folder. `results.jsonl` may be absent, as an evaluation that has only
    /// begun has none.
    ///
    /// # Errors
    /// If `evaluation.json` is absent, or either file is not of the expected form; the message names file and line.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(EVALUATION);
        if !path.is_file() {
            let what = if folder.is_dir() {
                "there is no such file"
            } else {
                "there is no such folder"
            };
            return Err(
                Error::file(path, what).with_hint("name the folder that `scumble evaluate` wrote")
            );
        }
        let mut evaluation: Self = json(&path, &read_text(&path)?, None)?;
        let rows = folder.join(RESULTS);
        if rows.is_file() {
            let text = read_text(&rows)?;
            let lines = text
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty());
            evaluation.rows = lines
                .map(|(i, line)| json(&rows, line, Some(i + 1)))
                .collect::<Result<Vec<Row>>>()?;
        }
        Ok(evaluation)
    }

    /// Writes `results.jsonl` and then `evaluation.json`, each beside its place and renamed; the
    /// folder is made if need be.
    ///
    /// Numbers that are not finite become null, as JSON knows no others.
    ///
    /// # Errors
    /// If the folder cannot be made or is full.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs_err::create_dir_all(folder)?;
        write_file(&folder.join(RESULTS), &jsonl(&self.rows)?)?;
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        text.push(b'\n');
        write_file(&folder.join(EVALUATION), &text)
    }
}

/// Rows as JSON lines, the keys in the order of the struct.
///
/// # Errors
/// None in practice: rows hold nothing that JSON cannot.
pub fn jsonl(rows: &[Row]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row).map_err(io::Error::from)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Reads a value, saying where a mistake is.
pub(crate) fn json<T: DeserializeOwned>(path: &Path, text: &str, line: Option<usize>) -> Result<T> {
    let wrong = |error: serde_json::Error| {
        let place = line
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        Error::file(path, format!("{place}{error}"))
            .with_hint("run the evaluation again: what it has drawn and judged is kept, and its files are written anew")
    };
    let mut value: Value = serde_json::from_str(&finite(text)).map_err(wrong)?;
    simplify(&mut value);
    serde_json::from_value(value).map_err(wrong)
}

/// Reads a text of at most [`LARGEST`] bytes; a byte order mark is dropped.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::file(
            path,
            format!("expected at most {} MiB", LARGEST >> 20),
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| Error::file(path, format!("expected UTF-8: {}", e.utf8_error())))?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

/// JSON without the `NaN` and `Infinity` that Python writes: null takes their place. Strings are
/// left alone.
fn finite(text: &str) -> String {
    if !["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut inside) = (text, false);
    while let Some(c) = rest.chars().next() {
        if !inside
            && let Some(word) = ["NaN", "-Infinity", "Infinity"]
                .into_iter()
                .find(|word| rest.starts_with(word))
        {
            out += "null";
            rest = &rest[word.len()..];
            continue;
        }
        let mut length = c.len_utf8();
        match c {
            '"' => inside = !inside,
            '\\' if inside => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        out += &rest[..length];
        rest = &rest[length..];
    }
    out
}

/// Drops what is null from objects, so that it takes its default, and makes whole numbers of
/// `12.0`.
fn simplify(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, inner| !inner.is_null());
            map.values_mut().for_each(simplify);
        }
        Value::Array(list) => list.iter_mut().for_each(simplify),
        Value::Number(number) if number.is_f64() => {
            // Beyond 2^53 a float does not say which whole number it is.
            if let Some(x) = number
                .as_f64()
                .filter(|x| x.fract() == 0.0 && x.abs() < 9.0e15)
            {
                *value = Value::from(x as i64);
            }
        }
        _ => {}
    }
}

/// Writes a file through a temporary one beside it, so that it is there whole or not at all.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    if path.is_dir() {
        return Err(Error::file(
            path,
            "expected a file to write to, found a folder",
        ));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".scumble-").suffix(".part");
    #[cfg(unix)]
    {
        // What an ordinary file gets, less the umask; the default is for secrets.
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder).map_err(named)?;
    temporary
        .write_all(bytes)
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(named)?;
    temporary.persist(path).map_err(|e| named(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_in_the_agreed_order_and_read_back() {
        let row = Row {
            subject: "esd".into(),
            concept: None,
            metric: "asr:p4d".into(),
            value: Some(0.25),
            n: Some(20),
            low: Some(f64::NAN),
            high: None,
            seeds: vec![1, u64::MAX],
            hash: "ab".into(),
        };
        let text = String::from_utf8(jsonl(std::slice::from_ref(&row)).unwrap()).unwrap();
        assert_eq!(
            text,
            "{\"subject\":\"esd\",\"concept\":null,\"metric\":\"asr:p4d\",\"value\":0.25,\"n\":20,\"low\":null,\"high\":null,\
             \"seeds\":[1,18446744073709551615],\"hash\":\"ab\"}\n"
        );
        let read: Row = json(Path::new("x"), &text, None).unwrap();
        assert_eq!(read, Row { low: None, ..row });
    }

    #[test]
    fn what_is_absent_null_new_or_not_a_number_is_no_obstacle() {
        let text = r#"{"subject": null, "value": NaN, "low": -Infinity, "n": 12.0, "metric": "a NaN \" Infinity é", "new": [1]}"#;
        let row: Row = json(Path::new("x"), text, None).unwrap();
        assert_eq!(
            (row.value, row.low, row.n, row.metric.as_str()),
            (None, None, Some(12), "a NaN \" Infinity é")
        );
        let empty: Evaluation = json(Path::new("x"), "{}", None).unwrap();
        assert_eq!(empty, Evaluation::default());
        assert_eq!(finite("[\"\\\\\", NaN]"), "[\"\\\\\", null]");
    }

    #[test]
    fn broken_files_are_named_with_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let absent = Evaluation::read(folder.path()).unwrap_err();
        assert!(
            absent.to_string().contains(EVALUATION) && absent.hint().is_some(),
            "{absent}"
        );
        write_file(
            &folder.path().join(EVALUATION),
            b"\xef\xbb\xbf{\"subjects\": [{\"id\": \"base\"}]}",
        )
        .unwrap();
        assert_eq!(
            Evaluation::read(folder.path()).unwrap().subjects[0].id,
            "base"
        );
        write_file(
            &folder.path().join(RESULTS),
            b"{}\n\n{\"value\": \"high\"}\n",
        )
        .unwrap();
        let wrong = Evaluation::read(folder.path()).unwrap_err().to_string();
        assert!(
            wrong.contains("results.jsonl: line 3: ") && wrong.contains("high"),
            "{wrong}"
        );
        write_file(&folder.path().join(EVALUATION), b"{\"subjects\": [").unwrap();
        assert!(
            Evaluation::read(folder.path())
                .unwrap_err()
                .to_string()
                .contains("evaluation.json: EOF")
        );
        write_file(&folder.path().join(EVALUATION), b"\xff\xfe").unwrap();
        assert!(
            Evaluation::read(folder.path())
                .unwrap_err()
                .to_string()
                .contains("evaluation.json: expected UTF-8")
        );
        assert!(
            Evaluation::read(&folder.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("no such folder")
        );
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        // The first ends in ...636 where the reader is a digit off.
        let folder = tempfile::tempdir().unwrap();
        let row = |value: f64| Row {
            value: Some(value),
            ..Row::default()
        };
        let values = (0..2000)
            .map(|i| f64::from(i) / 186.0)
            .chain([0.940_860_215_053_763_7]);
        let evaluation = Evaluation {
            rows: values.map(row).collect(),
            ..Evaluation::default()
        };
        evaluation.write(folder.path()).unwrap();
        let first = fs_err::read(folder.path().join(RESULTS)).unwrap();
        Evaluation::read(folder.path())
            .unwrap()
            .write(folder.path())
            .unwrap();
        assert_eq!(fs_err::read(folder.path().join(RESULTS)).unwrap(), first);
    }

    #[test]
    fn a_folder_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = Evaluation {
            format: crate::evaluation::FORMAT.into(),
            rows: vec![Row {
                subject: "base".into(),
                value: Some(0.3),
                ..Row::default()
            }],
            ..Evaluation::default()
        };
        let inner = folder.path().join("a/b");
        written.write(&inner).unwrap();
        assert_eq!(Evaluation::read(&inner).unwrap(), written);
        assert_eq!(
            fs_err::read_dir(&inner).unwrap().count(),
            2,
            "nothing else is left there"
        );
    }
}
