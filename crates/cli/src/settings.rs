//! The options of one method, attack or guard: what `scumble methods ID`, `scumble attacks ID` and
//! `scumble guards ID` print.

use std::ops::ControlFlow;

use burn::tensor::Device;
use scumble_attack::{
    Case, Drawing,
    attacks::{self, Attack},
};
use scumble_diffusion::{
    Pipeline,
    guards::{self, Form, Guard, Known},
};
use scumble_erase::{
    Concept, Event, Variant, Wording, World,
    catalogue::{self, COLUMNS, Nowhere, Setting},
    methods::Method,
};
use scumble_nn::files::{Checkpoint, OpenOptions};
use serde_json::{Map, Value, json};

use crate::{
    failure::{Failure, Outcome},
    miniature, output,
};

/// The built-in miniature, on which options are tried.
pub(crate) fn miniature() -> Result<Pipeline, Failure> {
    let checkpoint = Checkpoint::read(&miniature::model(), &OpenOptions::default())?;
    Ok(Pipeline::load(&checkpoint, &Device::flex())?)
}

/// A method's options.
pub(crate) fn of_method(method: &Method, pipeline: &Pipeline) -> Result<Vec<Setting>, Failure> {
    Ok(catalogue::settings(method, pipeline)?)
}

/// An attack's options, for `church` and one picture.
pub(crate) fn of_attack(attack: &Attack, pipeline: &Pipeline) -> Result<Vec<Setting>, Failure> {
    let world = World::emoji();
    let concept = Concept::new("church", &Wording::default(), Some(&world))?;
    let cases = [Case {
        prompt: "a church".into(),
        seed: 0,
        guidance: None,
    }];
    let options = |variant: Variant, miniature: bool, options: Map<String, Value>| {
        (attack.options)(
            &scumble_attack::Job {
                base: pipeline,
                victim: pipeline,
                checkpoint: scumble_attack::Checkpoint::default(),
                concept: &concept,
                word: "church",
                cases: &cases,
                shows: None,
                likely: None,
                clip: None,
                world: Some(&world),
                drawing: Drawing {
                    steps: 20,
                    guidance: 4.0,
                    sampler: None,
                },
                miniature,
                options,
                budget: None,
                seed: 0,
                store: &Nowhere,
                listen: &mut |_: Event<'_>| ControlFlow::Break(()),
            },
            variant,
        )
    };
    let of = |variant, small| options(variant, small, Map::new());
    let columns = [
        of(Variant::Paper, false)?,
        of(Variant::Reference, false)?,
        of(Variant::Fixed, false)?,
        of(Variant::Fixed, true)?,
    ];
    let refuses = |key: &str, value: Value| {
        options(
            Variant::Fixed,
            false,
            Map::from_iter([(key.to_owned(), value)]),
        )
        .err()
        .map(|e| e.to_string())
    };
    Ok(listed(&columns, &attacks::sources(attack.id), &refuses))
}

/// A guard's numbers.
pub(crate) fn of_guard(known: &Known) -> Vec<Setting> {
    let Some(rule) = known.rule else {
        return Vec::new();
    };
    let texts = || vec!["a church".to_owned()];
    let guard = |form: Form, small: bool| Guard {
        id: known.id.into(),
        texts: texts(),
        strength: 1.0,
        rule: rule(form, small),
    };
    let of = |form, small| Value::Object(guard(form, small).options());
    let columns = [
        of(Form::Paper, false),
        of(Form::Reference, false),
        of(Form::Fixed, false),
        of(Form::Fixed, true),
    ];
    let refuses = |key: &str, value: Value| {
        let options = Map::from_iter([(key.to_owned(), value)]);
        Guard::new(known.id, texts(), Form::Fixed, false, &options)
            .err()
            .map(|e| e.to_string())
    };
    let own = guards::SOURCES
        .iter()
        .filter(|(begins, _)| known.id.starts_with(begins));
    listed(
        &columns,
        &own.map(|(_, source)| *source).collect::<Vec<_>>(),
        &refuses,
    )
}

/// Options from their defaults and where they are declared.
fn listed(
    columns: &[Value; 4],
    sources: &[&str],
    refuses: &dyn Fn(&str, Value) -> Option<String>,
) -> Vec<Setting> {
    let keys = columns[2]
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys().cloned());
    let one = |key: String| {
        let of = |column: &Value| column.get(&key).cloned().unwrap_or_default();
        Setting {
            meaning: catalogue::meaning(sources, &key).unwrap_or_default(),
            range: catalogue::range(&key, &of(&columns[2]), &|value| refuses(&key, value)),
            defaults: columns.each_ref().map(of),
            key,
        }
    };
    keys.map(one).collect()
}

/// Prints what something is, and all its options.
pub(crate) fn print(
    as_json: bool,
    text: &str,
    mut about: Value,
    settings: &[Setting],
) -> Result<Outcome, Failure> {
    if as_json {
        let one = |setting: &Setting| {
            let defaults: Map<String, Value> = COLUMNS
                .iter()
                .zip(&setting.defaults)
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect();
            json!({ "key": setting.key, "meaning": setting.meaning, "range": setting.range, "defaults": defaults })
        };
        about["options"] = settings.iter().map(one).collect();
        output::json(&about)?;
        return Ok(Outcome::Done);
    }
    output::data(text)?;
    if settings.is_empty() {
        output::data("    options  none")?;
        return Ok(Outcome::Done);
    }
    output::data(
        "\noptions, each by --set KEY=VALUE; `miniature` is what `fixed` does on a model of its size",
    )?;
    for setting in settings {
        output::data(&format!("\n{}\n    {}", setting.key, setting.meaning))?;
        output::data(&format!(
            "    {}; by default {}",
            setting.range,
            by_default(&setting.defaults)
        ))?;
    }
    Ok(Outcome::Done)
}

/// The defaults in words: one value, or which variants have which.
fn by_default(defaults: &[Value; 4]) -> String {
    let shown = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), String::from)
    };
    let mut groups: Vec<(&Value, Vec<&str>)> = Vec::new();
    for (name, value) in COLUMNS.into_iter().zip(defaults) {
        match groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, names)) => names.push(name),
            None => groups.push((value, vec![name])),
        }
    }
    match groups.as_slice() {
        [(value, _)] => shown(value),
        groups => groups
            .iter()
            .map(|(value, names)| format!("{} ({})", shown(value), names.join(", ")))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Which variants are the same, in words; nothing if all differ.
pub(crate) fn same(groups: &Value) -> Option<String> {
    let names = |group: &Value| {
        group
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(String::from)
            .collect()
    };
    let groups: Vec<Vec<String>> = groups.as_array().into_iter().flatten().map(names).collect();
    let equal: Vec<String> = groups
        .iter()
        .filter(|group| group.len() > 1)
        .map(|group| group.join(" = "))
        .collect();
    (!equal.is_empty()).then(|| format!("{} on a checkpoint", equal.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_defaults_are_said_once() {
        let values = |list: [f64; 4]| list.map(Value::from);
        assert_eq!(by_default(&values([0.5; 4])), "0.5");
        assert_eq!(
            by_default(&values([1.0, 2.0, 1.0, 3.0])),
            "1.0 (paper, fixed), 2.0 (reference), 3.0 (miniature)"
        );
        assert_eq!(
            by_default(&["a", "a", "b", "b"].map(Value::from)),
            "a (paper, reference), b (fixed, miniature)"
        );
    }

    #[test]
    fn equal_variants_are_named() {
        assert_eq!(
            same(&json!([["paper", "reference"], ["fixed"]])).as_deref(),
            Some("paper = reference on a checkpoint")
        );
        assert_eq!(same(&json!([["paper"], ["reference"], ["fixed"]])), None);
    }

    #[test]
    fn every_option_of_attacks_and_guards_has_a_meaning_and_a_range() {
        let pipeline = miniature().unwrap();
        let lists = attacks::ALL
            .iter()
            .map(|a| (a.id, of_attack(a, &pipeline).unwrap()))
            .chain(guards::ALL.iter().map(|g| (g.id, of_guard(g))));
        for (id, settings) in lists {
            for setting in settings {
                assert!(
                    !setting.meaning.is_empty() && !setting.range.is_empty(),
                    "{id} {setting:?}"
                );
            }
        }
    }
}
