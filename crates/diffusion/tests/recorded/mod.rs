//! A golden file of named values: of each subject its values in one situation, and of every other
//! what differs.

use std::path::Path;

use serde_json::{Map, Value};

/// Of one subject, such as a method, its values in each `SITUATION: COLUMN`.
pub(crate) type Situations = Vec<(String, Value)>;

/// The first values in full; of its situation's other columns what differs from them, of other
/// situations what differs from the first one's same column. What differs in nothing is left out.
fn differences(all: &Situations) -> Map<String, Value> {
    let column = |name: &str| name.split_once(": ").unwrap().1.to_owned();
    let situation = |name: &str| name.split_once(": ").unwrap().0.to_owned();
    let first = situation(&all[0].0);
    let mut lines = Map::from_iter([all[0].clone()]);
    for (name, value) in &all[1..] {
        let base = all.iter().find(|(other, _)| {
            situation(name) != first && situation(other) == first && column(other) == column(name)
        });
        let base = base.map_or(&all[0].1, |(_, base)| base);
        let (base, value) = (base.as_object().unwrap(), value.as_object().unwrap());
        assert_eq!(base.len(), value.len(), "{name}");
        let differing: Map<String, Value> = value
            .iter()
            .filter(|(key, value)| base[*key] != **value)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !differing.is_empty() {
            lines.insert(name.clone(), differing.into());
        }
    }
    lines
}

/// Compares with the file, or writes it if `SCUMBLE_BLESS` is set.
pub(crate) fn compare(path: &Path, subjects: &[(&str, Situations)]) {
    let found: Vec<(&str, Map<String, Value>)> = subjects
        .iter()
        .map(|(id, all)| (*id, differences(all)))
        .collect();
    if std::env::var_os("SCUMBLE_BLESS").is_some() {
        let line = |(name, value): (&String, &Value)| format!("    \"{name}\": {value}");
        let one = |(id, lines): &(&str, Map<String, Value>)| {
            let lines: Vec<String> = lines.iter().map(line).collect();
            format!("  \"{id}\": {{\n{}\n  }}", lines.join(",\n"))
        };
        let all: Vec<String> = found.iter().map(one).collect();
        fs_err::write(path, format!("{{\n{}\n}}\n", all.join(",\n"))).unwrap();
    }
    let known = fs_err::read_to_string(path).unwrap();
    let known: Map<String, Value> = serde_json::from_str(&known).unwrap();
    let ids: Vec<&str> = found.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, known.keys().map(String::as_str).collect::<Vec<_>>());
    for (id, lines) in found {
        let known = known[id].as_object().unwrap();
        let names = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&lines), names(known), "{id}");
        for (name, value) in &lines {
            assert_eq!(value, &known[name], "{id}, {name}");
        }
    }
}
