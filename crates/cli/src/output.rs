//! The only place that prints: data to stdout, everything else to stderr.

use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::failure::Failure;

/// Prints lines of data.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    ignore_broken_pipe(writeln!(std::io::stdout().lock(), "{text}"))
}

/// Prints one JSON value on one line.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    data(&value.to_string())
}

/// Says something about the run, on stderr; `note:`, `warning:` and `next` in front of it are set
/// apart.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", painted(text, colour()));
}

/// The words a note may begin with, and their colours: cyan, yellow, green.
const HEADS: [(&str, &str); 4] = [
    ("note:", "36;1"),
    ("hint:", "36;1"),
    ("warning:", "33;1"),
    ("next ", "32;1"),
];

/// A text with its head in colour.
fn painted(text: &str, colour: bool) -> String {
    match HEADS
        .iter()
        .find(|(head, _)| colour && text.starts_with(head))
    {
        Some((head, code)) => format!("\x1b[{code}m{head}\x1b[0m{}", &text[head.len()..]),
        None => text.to_owned(),
    }
}

/// Says what went wrong, on stderr.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    let mut err = std::io::stderr().lock();
    let (red, plain) = if colour() {
        ("\x1b[31;1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let _ = writeln!(err, "{red}error{plain}: {message}");
    if let Some(hint) = hint {
        let _ = writeln!(err, "\n{}", painted(&format!("hint: {hint}"), colour()));
    }
}

/// Whether stderr is a person's terminal and colour is wanted.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn ignore_broken_pipe(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A list of objects with the same keys as lines of a table, the keys first; `None` for anything
/// else.
pub(crate) fn columns(list: &Value) -> Option<Vec<String>> {
    let rows: Vec<&serde_json::Map<String, Value>> = list
        .as_array()?
        .iter()
        .map(Value::as_object)
        .collect::<Option<_>>()?;
    let keys: Vec<&String> = rows.first()?.keys().collect();
    let cell = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let mut table = vec![
        keys.iter()
            .map(|key| (*key).clone())
            .collect::<Vec<String>>(),
    ];
    table.extend(
        rows.iter()
            .map(|row| keys.iter().map(|key| cell(row.get(*key))).collect()),
    );
    let widths: Vec<usize> = (0..keys.len())
        .map(|i| {
            table
                .iter()
                .map(|row| row[i].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    Some(table.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_set_apart_only_in_colour() {
        assert_eq!(painted("note: a b", true), "\x1b[36;1mnote:\x1b[0m a b");
        assert_eq!(painted("a note: b", true), "a note: b");
        assert_eq!(painted("warning: a", false), "warning: a");
    }

    #[test]
    fn lists_of_objects_become_tables() {
        let rows = serde_json::json!([{"trial": "noisier 1", "n": 11, "control": null}, {"trial": "x", "n": 3, "control": 2}]);
        let table = columns(&rows).unwrap();
        assert_eq!(table.len(), 3);
        assert!(
            table
                .iter()
                .all(|line| line.split("  ").filter(|cell| !cell.is_empty()).count() == 3),
            "{table:?}"
        );
        assert!(table[1].contains("noisier 1") && table[1].contains('-'));
        assert!(
            columns(&serde_json::json!([])).is_none() && columns(&serde_json::json!([1])).is_none()
        );
        assert!(columns(&serde_json::json!({"a": 1})).is_none());
    }
}
