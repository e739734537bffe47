//! The YAML that prompt files are written in: lists, mappings and plain values, as YAML's core
//! schema reads them.
//!
//! What one does not write by hand is refused: aliases, by which a small file can stand for a huge
//! one, tags, by which it can stand for anything, and a second document.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::{Map, Value};

use super::problem::Problem;

/// Deepest nesting.
const DEEPEST: usize = 16;

/// A list or mapping that is not closed yet.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Map(Map<String, Value>, Option<String>),
}

/// The value of a document; null of an empty one.
///
/// # Errors
/// If it is not YAML or holds what is refused; the problem names the line.
pub(super) fn parse(text: &str) -> Result<Value, Problem> {
    let mut open: Vec<Open> = Vec::new();
    let mut whole: Option<Value> = None;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| at(e.marker(), e.info()))?;
        let here = span.start;
        let refused = |what: &str, hint: &'static str| (at(&here, what).0, Some(hint));
        let done = match event {
            Event::Alias(_) => {
                return Err(refused("an alias (`*name`) is not read", "write it out"));
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(refused("a tag (`!name`) is not read", "leave it out"));
            }
            Event::DocumentStart(_) if whole.is_some() => {
                return Err(refused(
                    "a second document begins",
                    "a prompt file is one document",
                ));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == DEEPEST => {
                return Err(at(&here, &format!("is nested deeper than {DEEPEST}")));
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => {
                // A key is text, whatever it looks like.
                if let Some(Open::Map(map, key @ None)) = open.last_mut() {
                    if map.contains_key(text.as_ref()) {
                        return Err(at(&here, &format!("the key `{text}` stands there twice")));
                    }
                    *key = Some(text.into_owned());
                    continue;
                }
                scalar(&text, style)
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => list.into(),
                Some(Open::Map(map, _)) => map.into(),
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            None => whole = Some(done),
            Some(Open::List(list)) => list.push(done),
            Some(Open::Map(map, key)) => match key.take() {
                Some(key) => drop(map.insert(key, done)),
                None => return Err(at(&here, "expected text as a key")),
            },
        }
    }
    Ok(whole.unwrap_or_default())
}

/// A problem at a place.
fn at(place: &Marker, problem: &str) -> Problem {
    (format!("line {}: {problem}", place.line()), None)
}

/// What a scalar stands for: text in quotes or in a block is text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    // Rust reads `inf` and `nan` as numbers too.
    let number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.contains(|c: char| c.is_ascii_digit());
    if number {
        if let Ok(whole) = text.parse::<i64>() {
            return whole.into();
        }
        if let Some(real) = text.parse::<f64>().ok().filter(|x| x.is_finite()) {
            return real.into();
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_lists_mappings_and_values() {
        let text = "# church\n- target: \"a church\" # quoted\n  positive: a church: with a colon\n  guidance_scale: 1e-1\n  \
                    batch_size: 2\n  neutral:\n  'dynamic_resolution': False\n- {target: '007', resolution: [512, 768], x: .5}\n\
                    - target: |\n    two\n    lines\n";
        assert!(parse(text).is_err(), "a colon in plain text");
        let text = text.replace("church: with", "church with");
        assert_eq!(
            parse(&text).unwrap(),
            json!([
                {"target": "a church", "positive": "a church with a colon", "guidance_scale": 0.1, "batch_size": 2, "neutral": null,
                 "dynamic_resolution": false},
                {"target": "007", "resolution": [512, 768], "x": 0.5},
                {"target": "two\nlines\n"},
            ])
        );
        for (text, value) in [
            ("", json!(null)),
            ("# nothing\n", json!(null)),
            ("1girl", json!("1girl")),
            ("-3", json!(-3)),
            ("+0.5", json!(0.5)),
            ("1.5.2", json!("1.5.2")),
            (".nan", json!(".nan")),
            ("inf", json!("inf")),
            ("1e999", json!("1e999")),
            ("no", json!("no")),
            ("\"\"", json!("")),
            ("&a church", json!("church")),
        ] {
            assert_eq!(parse(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_nobody_writes_by_hand_is_refused() {
        for (text, says) in [
            ("- &a x\n- *a\n", "line 2: an alias"),
            ("- x\n- !!python/object:os.system x\n", "line 2: a tag"),
            ("- x\n---\n- y\n", "a second document"),
            (
                "a: 1\nb: 2\na: 3\n",
                "line 3: the key `a` stands there twice",
            ),
            ("[a, b\n", "line "),
            ("? [a]\n: b\n", "expected text as a key"),
        ] {
            let (problem, _) = parse(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
        // Small files that stand for huge ones, and deep ones.
        let laughs = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert!(parse(laughs).unwrap_err().0.contains("alias"));
        for deep in ["- ".repeat(1000), "[".repeat(100_000), "{a: ".repeat(1000)] {
            assert!(parse(&deep).is_err());
        }
    }
}
