//! The entries of a prompt file, whatever it is written in.
//!
//! Three forms are read: a list of entries (LECO); a table `prompts` of them with defaults beside
//! it (kohya); and `targets` with a `target_class`, each of which stands for the entries of a
//! slider (ai-toolkit, as kohya reads it).

use scumble_erase::methods::leco::{Action, Entry};
use serde_json::{Map, Value};

use super::problem::Problem;

/// The keys of an entry.
const KEYS: [&str; 12] = [
    "target",
    "positive",
    "unconditional",
    "neutral",
    "action",
    "guidance_scale",
    "resolution",
    "dynamic_resolution",
    "batch_size",
    "dynamic_crops",
    "multiplier",
    "weight",
];

/// The keys of a slider's target.
const SLIDER_KEYS: [&str; 13] = [
    "target_class",
    "positive",
    "negative",
    "neutral",
    "neutrals",
    "guidance_scale",
    "resolution",
    "resolutions",
    "dynamic_resolution",
    "batch_size",
    "dynamic_crops",
    "multiplier",
    "weight",
];

/// Keys that name further files with a prompt a line.
pub(super) const FILE_KEYS: [&str; 2] = ["neutral_prompt_file", "prompt_file"];

/// Most entries of a file, a slider's counted one by one.
pub(super) const MOST: usize = 4096;

/// Longest value shown in a message, in characters.
const LONGEST: usize = 60;

type Table = Map<String, Value>;

/// The entries of a file.
///
/// # Errors
/// If there is none, or one is not what it should be; the problem names the entry and the key.
pub(super) fn of(value: &Value) -> Result<Vec<Entry>, Problem> {
    let entries = match value {
        Value::Array(list) => of_list(list, &Table::new())?,
        Value::Object(table) => of_table(table)?,
        Value::Null => Vec::new(),
        other => {
            return Err((
                format!("is {}, expected a list of entries", shown(other)),
                Some("an entry is a mapping with the key `target`"),
            ));
        }
    };
    if entries.is_empty() {
        return Err(("holds no entry".into(), None));
    }
    if entries.len() > MOST {
        return Err((
            format!("holds {} entries, expected at most {MOST}", entries.len()),
            None,
        ));
    }
    Ok(entries)
}

/// A file that is a table: entries under a key, and defaults beside it.
fn of_table(table: &Table) -> Result<Vec<Entry>, Problem> {
    if table.contains_key("prompts_file") || table.contains_key("pretrained_model") {
        return Err((
            "is LECO's training configuration, expected the prompt file that its `prompts_file` names".into(),
            Some("give that one; rank, alpha, lr and so on are options (`scumble methods leco`)"),
        ));
    }
    if let Some(list) = table.get("prompts") {
        let defaults = beside(table, "prompts", &[&KEYS])?;
        return of_list(listed("prompts", list)?, &defaults);
    }
    let table = match table.get("slider") {
        Some(Value::Object(inner)) => {
            if let Some(key) = table.keys().find(|key| *key != "slider") {
                return Err(unknown("", key, &["slider"]));
            }
            inner
        }
        Some(other) => {
            return Err((
                format!("`slider` is {}, expected a table", shown(other)),
                None,
            ));
        }
        None => table,
    };
    if let Some(list) = table.get("targets") {
        let defaults = beside(table, "targets", &[&KEYS, &SLIDER_KEYS])?;
        return of_list(listed("targets", list)?, &defaults);
    }
    if table.contains_key("target") || table.contains_key("target_class") {
        return of_list(&[Value::Object(table.clone())], &Table::new());
    }
    let hint = "an entry has the key `target`; a file is a list of them, or holds it as `prompts`";
    match table.keys().next() {
        Some(key) => Err((format!("`{key}`: expected entries"), Some(hint))),
        None => Ok(Vec::new()),
    }
}

/// What stands beside the entries: what they say where they do not say it themselves.
fn beside(table: &Table, list: &str, known: &[&[&str]]) -> Result<Table, Problem> {
    let mut defaults = table.clone();
    defaults.shift_remove(list);
    for key in defaults.keys() {
        files("", key)?;
        if !known.iter().any(|keys| keys.contains(&key.as_str())) {
            let mut all: Vec<&str> = vec![list];
            all.extend(known.iter().flat_map(|keys| keys.iter()));
            all.dedup();
            return Err(unknown("", key, &all));
        }
    }
    Ok(defaults)
}

fn listed<'a>(key: &str, value: &'a Value) -> Result<&'a [Value], Problem> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err((
            format!("`{key}` is {}, expected a list of entries", shown(other)),
            None,
        )),
    }
}

fn of_list(list: &[Value], defaults: &Table) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let name = format!("entry {}: ", i + 1);
        let Value::Object(own) = value else {
            return Err((
                format!("{name}is {}, expected a mapping of keys", shown(value)),
                Some("an entry has the key `target`, such as `- target: \"van gogh\"`"),
            ));
        };
        let slider = own.contains_key("target_class");
        let keys: &[&str] = if slider { &SLIDER_KEYS } else { &KEYS };
        for key in own.keys() {
            files(&name, key)?;
            if !keys.contains(&key.as_str()) {
                return Err(unknown(&name, key, keys));
            }
        }
        let mut all = defaults.clone();
        all.retain(|key, _| keys.contains(&key.as_str()));
        all.extend(own.clone());
        let item = Item { name, table: all };
        if slider {
            entries.extend(item.slider()?);
        } else {
            entries.push(item.entry()?);
        }
        if entries.len() > MOST {
            break;
        }
    }
    Ok(entries)
}

fn files(name: &str, key: &str) -> Result<(), Problem> {
    if FILE_KEYS.contains(&key) {
        return Err((
            format!("{name}`{key}` is for sliders, and this is none"),
            Some("a slider is one of `targets` and has a `target_class`"),
        ));
    }
    Ok(())
}

fn unknown(name: &str, key: &str, keys: &[&str]) -> Problem {
    let renamed = if key == "bucketing" {
        "; LECO calls it `dynamic_resolution` now"
    } else {
        ""
    };
    (
        format!(
            "{name}there is no key `{key}`{renamed}; the keys are {}",
            keys.join(", ")
        ),
        None,
    )
}

/// A value for a message.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() {
        format!("{cut}...")
    } else {
        cut
    }
}

/// An entry with its defaults.
struct Item {
    /// What messages begin with, such as `entry 2: `.
    name: String,
    table: Table,
}

impl Item {
    fn entry(&self) -> Result<Entry, Problem> {
        let target = self.text("target")?.ok_or_else(|| {
            let hint = "it is the prompt that is trained; `positive` is the target too if absent";
            (format!("{}`target` is missing", self.name), Some(hint))
        })?;
        let action = match self.text("action")?.as_deref() {
            None | Some("erase") => Action::Erase,
            Some("enhance") => Action::Enhance,
            Some(other) => {
                return Err(self.wrong("action", &Value::from(other), "erase or enhance"));
            }
        };
        Ok(Entry {
            positive: self.text("positive")?,
            unconditional: self.text("unconditional")?.unwrap_or_default(),
            neutral: self.text("neutral")?,
            action,
            resolution: self.size("resolution")?,
            ..self.numbers(target)?
        })
    }

    /// What entries and sliders have in common.
    fn numbers(&self, target: String) -> Result<Entry, Problem> {
        Ok(Entry {
            guidance_scale: self.number("guidance_scale")?,
            dynamic_resolution: self.flag("dynamic_resolution")?,
            dynamic_crops: self.flag("dynamic_crops")?,
            batch_size: self.count("batch_size")?,
            multiplier: self.number("multiplier")?,
            weight: self.number("weight")?,
            ..Entry::erasing(target)
        })
    }

    /// The entries of a slider: towards the positive prompt and away from the negative one where
    /// the adapter is added, the other way round where it is taken away.
    fn slider(&self) -> Result<Vec<Entry>, Problem> {
        let base = self.numbers(self.text("target_class")?.unwrap_or_default())?;
        let said = |key: &str| {
            let text = self.text(key)?;
            Ok::<_, Problem>(text.filter(|text| !text.trim().is_empty()))
        };
        let m = base.multiplier;
        let nothing = String::new;
        // Positive, unconditional, action, multiplier.
        let sides = match (said("positive")?, said("negative")?) {
            (Some(p), Some(n)) => vec![
                (n.clone(), p.clone(), Action::Erase, m),
                (p.clone(), n.clone(), Action::Enhance, m),
                (p.clone(), n.clone(), Action::Erase, -m),
                (n, p, Action::Enhance, -m),
            ],
            (Some(p), None) => vec![
                (p.clone(), nothing(), Action::Enhance, m),
                (p, nothing(), Action::Erase, -m),
            ],
            (None, Some(n)) => vec![
                (n.clone(), nothing(), Action::Erase, m),
                (n, nothing(), Action::Enhance, -m),
            ],
            (None, None) => {
                return Err((
                    format!("{}`positive` and `negative` are missing", self.name),
                    Some("a slider needs one of them"),
                ));
            }
        };
        let mut entries = Vec::new();
        for resolution in self.sizes()? {
            for neutral in self.neutrals()? {
                entries.extend(
                    sides
                        .iter()
                        .map(|(positive, unconditional, action, m)| Entry {
                            positive: Some(positive.clone()),
                            unconditional: unconditional.clone(),
                            neutral: Some(neutral.clone()),
                            action: *action,
                            multiplier: *m,
                            resolution,
                            ..base.clone()
                        }),
                );
            }
            if entries.len() > MOST {
                break;
            }
        }
        Ok(entries)
    }

    /// A slider's neutral prompts.
    fn neutrals(&self) -> Result<Vec<String>, Problem> {
        match self.table.get("neutrals") {
            None | Some(Value::Null) => Ok(vec![self.text("neutral")?.unwrap_or_default()]),
            Some(Value::Array(list)) if !list.is_empty() => list
                .iter()
                .map(|value| match value {
                    Value::String(text) => Ok(text.clone()),
                    other => Err(self.wrong("neutrals", other, "a list of prompts")),
                })
                .collect(),
            Some(other) => Err(self.wrong("neutrals", other, "a list of prompts")),
        }
    }

    /// A slider's sizes.
    fn sizes(&self) -> Result<Vec<Option<[usize; 2]>>, Problem> {
        match self.table.get("resolutions") {
            None | Some(Value::Null) => Ok(vec![self.size("resolution")?]),
            Some(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_array) => {
                list.iter()
                    .map(|value| self.size_of("resolutions", value).map(Some))
                    .collect()
            }
            // Two numbers would be one height and one width in kohya's scripts.
            Some(other) => Err(self.wrong(
                "resolutions",
                other,
                "a list of [height, width], such as [[512, 512], [768, 768]]",
            )),
        }
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Problem {
        let hint = (expected == TEXT).then_some("put it in quotes");
        (
            format!(
                "{}`{key}` is {}, expected {expected}",
                self.name,
                shown(value)
            ),
            hint,
        )
    }

    /// The value under a key; `None` if it is absent or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.table.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<String>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(key, other, TEXT)),
        }
    }

    /// A number, 1 if absent.
    fn number(&self, key: &str) -> Result<f64, Problem> {
        match self.get(key) {
            None => Ok(1.0),
            Some(value) => value
                .as_f64()
                .ok_or_else(|| self.wrong(key, value, "a number")),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, Problem> {
        match self.get(key) {
            None => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.wrong(key, value, "true or false")),
        }
    }

    fn count(&self, key: &str) -> Result<Option<usize>, Problem> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match whole(value) {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(key, value, "a whole number of 1 or more")),
        }
    }

    fn size(&self, key: &str) -> Result<Option<[usize; 2]>, Problem> {
        self.get(key)
            .map(|value| self.size_of(key, value))
            .transpose()
    }

    /// A side in pixels, or a height and a width.
    fn size_of(&self, key: &str, value: &Value) -> Result<[usize; 2], Problem> {
        let sides = match value {
            Value::Array(list) if list.len() == 2 => whole(&list[0]).zip(whole(&list[1])),
            other => whole(other).map(|side| (side, side)),
        };
        match sides {
            Some((height, width)) => Ok([height, width]),
            None => Err(self.wrong(key, value, "a number of pixels, or [height, width]")),
        }
    }
}

const TEXT: &str = "text";

fn whole(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .filter(|n| *n > 0)
        .and_then(|n| usize::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn refused(value: &Value, words: &[&str]) {
        let (problem, hint) = of(value).unwrap_err();
        let all = format!("{problem} {}", hint.unwrap_or_default());
        for word in words {
            assert!(all.contains(word), "no `{word}` in `{all}`");
        }
    }

    #[test]
    fn an_entry_has_lecos_defaults() {
        let entries = of(&json!([{"target": "van gogh"}])).unwrap();
        assert_eq!(entries, [Entry::erasing("van gogh")]);
        let entry = &entries[0];
        assert_eq!((entry.positive(), entry.neutral()), ("van gogh", ""));
        assert_eq!(
            (entry.guidance_scale, entry.multiplier, entry.weight),
            (1.0, 1.0, 1.0)
        );
        let whole = json!([{
            "target": "1girl", "positive": "1girl, cat ears", "unconditional": "low", "action": "enhance", "guidance_scale": 2,
            "resolution": [512, 768], "dynamic_resolution": true, "batch_size": 2, "dynamic_crops": false, "multiplier": -1.5,
            "weight": 0.5
        }]);
        let entry = &of(&whole).unwrap()[0];
        let expected = Entry {
            positive: Some("1girl, cat ears".into()),
            unconditional: "low".into(),
            action: Action::Enhance,
            guidance_scale: 2.0,
            resolution: Some([512, 768]),
            dynamic_resolution: true,
            batch_size: Some(2),
            multiplier: -1.5,
            weight: 0.5,
            ..Entry::erasing("1girl")
        };
        assert_eq!(entry, &expected);
        assert_eq!(entry.neutral(), "low", "the unconditional prompt");
    }

    #[test]
    fn defaults_may_stand_beside_the_entries() {
        let file = json!({"guidance_scale": 3.0, "neutral": "x", "prompts": [{"target": "a"}, {"target": "b", "guidance_scale": 1}]});
        let entries = of(&file).unwrap();
        let numbers: Vec<f64> = entries.iter().map(|e| e.guidance_scale).collect();
        assert_eq!(numbers, [3.0, 1.0]);
        assert_eq!(entries[1].neutral(), "x");
        assert_eq!(of(&json!({"target": "a"})).unwrap().len(), 1);
        assert_eq!(of(&json!({"targets": [{"target": "a"}]})).unwrap().len(), 1);
    }

    #[test]
    fn a_slider_is_entries_at_both_signs() {
        let file = json!({"weight": 0.5, "neutrals": ["", "photo"], "targets": [
            {"target_class": "person", "positive": "smiling", "negative": "sad", "multiplier": 2, "resolutions": [[64, 64], [64, 128]]}]});
        let entries = of(&file).unwrap();
        assert_eq!(entries.len(), 2 * 2 * 4);
        let sides: Vec<_> = entries[..4]
            .iter()
            .map(|e| (e.positive(), &*e.unconditional, e.action, e.multiplier))
            .collect();
        assert_eq!(
            sides,
            [
                ("sad", "smiling", Action::Erase, 2.0),
                ("smiling", "sad", Action::Enhance, 2.0),
                ("smiling", "sad", Action::Erase, -2.0),
                ("sad", "smiling", Action::Enhance, -2.0),
            ]
        );
        assert!(
            entries
                .iter()
                .all(|e| e.target == "person" && e.weight == 0.5)
        );
        assert_eq!(entries[4].neutral(), "photo");
        assert_eq!(entries[15].resolution, Some([64, 128]));
        let one = of(&json!({"slider": {"target_class": "", "negative": "blurry"}})).unwrap();
        assert_eq!(
            one.iter()
                .map(|e| (e.action, e.multiplier))
                .collect::<Vec<_>>(),
            [(Action::Erase, 1.0), (Action::Enhance, -1.0)]
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_entry_and_key() {
        let second =
            |key: &str, value: Value| json!([{"target": "a"}, {"target": "b", key: value}]);
        for (key, value, expected) in [
            ("positive", json!(5), "expected text"),
            ("neutral", json!(["x"]), "expected text"),
            ("action", json!("remove"), "expected erase or enhance"),
            ("guidance_scale", json!("big"), "expected a number"),
            ("guidance_scale", json!("NaN"), "expected a number"),
            ("resolution", json!(0), "[height, width]"),
            ("resolution", json!([512]), "[height, width]"),
            ("batch_size", json!(1.5), "a whole number of 1 or more"),
            ("batch_size", json!(0), "a whole number of 1 or more"),
            ("dynamic_resolution", json!("yes"), "true or false"),
            ("weight", json!(true), "expected a number"),
        ] {
            refused(
                &second(key, value),
                &["entry 2", &format!("`{key}` is "), expected],
            );
        }
        let cropped = of(&second("dynamic_crops", json!(true))).unwrap();
        assert_eq!(
            (cropped[0].dynamic_crops, cropped[1].dynamic_crops),
            (false, true)
        );
        refused(
            &second("guidance", json!(1)),
            &["entry 2", "no key `guidance`", "guidance_scale"],
        );
        refused(
            &second("bucketing", json!(false)),
            &["dynamic_resolution` now"],
        );
        refused(
            &json!([{"target": "a"}, {"positive": "b"}]),
            &["entry 2", "`target` is missing"],
        );
        refused(
            &json!([{"target": "a"}, "b"]),
            &["entry 2", "expected a mapping"],
        );
        refused(&json!("a church"), &["expected a list of entries"]);
        refused(&json!({"promts": []}), &["`promts`", "`target`"]);
        refused(
            &json!({"prompts": [{"target": "a"}], "lr": 1}),
            &["no key `lr`"],
        );
        refused(&json!({"prompts": 3}), &["`prompts` is 3"]);
        refused(
            &json!({"prompts_file": "x", "network": {}}),
            &["training configuration", "prompts_file"],
        );
        refused(
            &json!({"targets": [{"target_class": "a"}]}),
            &["entry 1", "`positive` and `negative`"],
        );
        refused(
            &json!({"targets": [{"target_class": "a", "positive": "b", "resolutions": [512, 768]}]}),
            &["`resolutions`", "[[512, 512]"],
        );
        refused(
            &json!([{"target": "a", "neutral_prompt_file": "x"}]),
            &["entry 1", "`neutral_prompt_file`", "sliders"],
        );
        for empty in [json!(null), json!([]), json!({}), json!({"prompts": []})] {
            refused(&empty, &["holds no entry"]);
        }
        let many: Vec<Value> = (0..MOST + 1).map(|_| json!({"target": "a"})).collect();
        refused(&json!(many), &["at most 4096"]);
    }
}
