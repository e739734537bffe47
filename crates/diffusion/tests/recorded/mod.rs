//! A golden file of named values: for each subject what it is at first, and of every other
//! situation what differs from that.

use std::path::Path;

use serde_json::{Map, Value};

/// Of one subject, such as a method, its values in each situation.
pub(crate) type Situations = Vec<(String, Value)>;

/// What differs from the first situation, with situations that differ in nothing left out.
fn differences(all: &Situations) -> Vec<(String, Value)> {
    let first = all[0].1.as_object().unwrap();
    let mut lines = vec![all[0].clone()];
    for (name, value) in &all[1..] {
        let value = value.as_object().unwrap();
        let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(first), keys(value), "{name}");
        let differing: Map<String, Value> = value
            .iter()
            .filter(|(key, value)| first[*key] != **value)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !differing.is_empty() {
            lines.push((name.clone(), differing.into()));
        }
    }
    lines
}

/// Compares with the file, or writes it if `SCUMBLE_BLESS` is set.
pub(crate) fn compare(path: &Path, subjects: &[(&str, Situations)]) {
    let one = |(id, all): &(&str, Situations)| {
        let lines: Vec<String> = differences(all)
            .iter()
            .map(|(name, value)| format!("    \"{name}\": {value}"))
            .collect();
        format!("  \"{id}\": {{\n{}\n  }}", lines.join(",\n"))
    };
    let text = format!(
        "{{\n{}\n}}\n",
        subjects.iter().map(one).collect::<Vec<_>>().join(",\n")
    );
    if std::env::var_os("SCUMBLE_BLESS").is_some() {
        fs_err::write(path, &text).unwrap();
    }
    let known = fs_err::read_to_string(path).unwrap();
    for (found, known) in text.lines().zip(known.lines()) {
        assert_eq!(found, known);
    }
    assert_eq!(text.lines().count(), known.lines().count());
}
