//! A sheet for people: one thing a line, what lies inside of it indented, nothing longer than a
//! screen is wide by much.

use serde_json::Value;

use super::Sheet;

/// Longest value shown in a line, in characters; `--json` has all of it.
const LONGEST: usize = 160;

/// Most entries of a list shown.
const ENTRIES: usize = 12;

/// Deepest nesting shown.
const DEEPEST: usize = 4;

/// The lines of a sheet.
pub(super) fn lines(sheet: &Sheet) -> Vec<String> {
    let mut out = Vec::new();
    for (key, value) in sheet {
        match (key.as_str(), value) {
            ("parts", Value::Array(parts)) => {
                for part in parts {
                    let dtypes = part["dtypes"]
                        .as_object()
                        .into_iter()
                        .flatten()
                        .map(|(dtype, n)| format!("{n} {dtype}"));
                    let dtypes: Vec<String> = dtypes.collect();
                    let (name, count) = (plain(&part["name"]), plain(&part["tensors"]));
                    let numbers = plain(&part["parameters"]);
                    out.push(format!(
                        "{name:<18} {count} tensors ({}), {numbers} parameters",
                        dtypes.join(", ")
                    ));
                }
            }
            ("strongest", Value::Array(layers)) => {
                out.push("strongest changes, |new - old| / |old|:".into());
                for layer in layers {
                    out.push(format!(
                        "  {:>10.3e}  {}",
                        layer["relative_change"].as_f64().unwrap_or(0.0),
                        plain(&layer["name"])
                    ));
                }
            }
            ("tensors", Value::Array(tensors)) => {
                out.extend(tensors.iter().map(|t| {
                    format!(
                        "  {} {} {}",
                        plain(&t["name"]),
                        plain(&t["dtype"]),
                        t["shape"]
                    )
                }));
            }
            ("notes", Value::Array(notes)) => {
                out.extend(notes.iter().map(|note| format!("note: {}", plain(note))))
            }
            (_, Value::Object(map)) if !map.is_empty() => {
                out.push(format!("{key}:"));
                inside(value, 1, &mut out);
            }
            (_, Value::Array(list)) if list.iter().any(Value::is_object) => {
                out.push(format!("{key}:"));
                inside(value, 1, &mut out);
            }
            (_, Value::Null | Value::Object(_)) => {}
            _ => out.push(format!("{key:<18} {}", plain(value))),
        }
    }
    out
}

/// What lies in an object or a list of objects, a line for each plain value.
fn inside(value: &Value, depth: usize, out: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let mut one = |name: &str, value: &Value| match value {
        Value::Null => {}
        Value::Object(map) if map.is_empty() => {}
        Value::Object(_) if depth < DEEPEST => {
            out.push(format!("{indent}{name}:"));
            inside(value, depth + 1, out);
        }
        Value::Array(list) if depth < DEEPEST && list.iter().any(Value::is_object) => {
            out.push(format!("{indent}{name}:"));
            inside(value, depth + 1, out);
        }
        _ => out.push(format!("{indent}{name}: {}", short(value))),
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| one(name, value)),
        Value::Array(list) => {
            list.iter()
                .take(ENTRIES)
                .enumerate()
                .for_each(|(i, value)| one(&(i + 1).to_string(), value));
            if list.len() > ENTRIES {
                out.push(format!("{indent}... and {} more", list.len() - ENTRIES));
            }
        }
        _ => out.push(format!("{indent}{}", short(value))),
    }
}

/// A value in a line of its own, cut where it is long.
fn short(value: &Value) -> String {
    let text = match value {
        Value::Array(list) if list.len() > ENTRIES => format!("{} entries", list.len()),
        // Line breaks of prompts and word lists would look like lines of the sheet.
        _ => plain(value).replace('\n', " / "),
    };
    let cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() {
        format!("{cut}... ({} characters)", text.chars().count())
    } else {
        cut
    }
}

/// A value without the quotes of a string.
pub(super) fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_nested_stands_on_lines_of_its_own_and_what_is_long_is_cut() {
        let sheet = json!({
            "kind": "run", "empty": {}, "edit": {"concepts": ["church"], "options": {"steps": 50, "none": null}, "text": "a".repeat(9000)},
            "many": (0..40).map(|i| json!({"i": i})).collect::<Vec<_>>(), "numbers": {"list": vec![1; 300]}, "words": ["a", "b"],
        });
        let lines = lines(sheet.as_object().unwrap());
        assert!(
            lines.iter().all(|line| line.chars().count() < 220),
            "{lines:?}"
        );
        for wanted in [
            "edit:",
            "  concepts: [\"church\"]",
            "  options:",
            "    steps: 50",
            "many:",
            "  ... and 28 more",
            "  list: 300 entries",
        ] {
            assert!(
                lines.iter().any(|line| line == wanted),
                "{wanted} in {lines:?}"
            );
        }
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("words") && line.ends_with(r#"["a","b"]"#)),
            "{lines:?}"
        );
        assert!(
            !lines
                .iter()
                .any(|line| line.contains("empty") || line.contains("null")),
            "{lines:?}"
        );
    }
}
