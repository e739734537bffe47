//! The options of one method, attack or guard: what `scumble methods ID`, `scumble attacks ID` and
//! `scumble guards ID` print.

use std::ops::ControlFlow;

use burn::tensor::Device;
use scumble_attack::{Attack, Case, Drawing, Job};
use scumble_diffusion::{Pipeline, guards::Known};
use scumble_erase::{
    Concept, Event, Profile, Wording, World,
    catalogue::{self, COLUMNS, Nowhere, Setting},
    methods::Method,
};
use scumble_families as families;
use scumble_nn::files::{Checkpoint, OpenOptions};
use serde_json::{Map, Value, json};

use crate::{
    failure::{Failure, Outcome},
    miniature, output,
};

/// The built-in miniature, on which options are tried.
pub(crate) fn miniature() -> Result<Pipeline, Failure> {
    let checkpoint = Checkpoint::read(&miniature::model(), &OpenOptions::default())?;
    Ok(families::load(&checkpoint, &Device::flex())?)
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
    let usual = Profile::MINIATURE.drawing;
    let job = Job {
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
            steps: usual.steps,
            guidance: usual.guidance,
            sampler: None,
        },
        profile: Profile::MINIATURE,
        options: Map::new(),
        budget: None,
        seed: 0,
        store: &Nowhere,
        listen: &mut |_: Event<'_>| ControlFlow::Break(()),
    };
    Ok(catalogue::listed(&attack.list(), attack.presets(&job)?))
}

/// A guard's numbers.
pub(crate) fn of_guard(known: &Known) -> Vec<Setting> {
    let Some(presets) = known.presets else {
        return Vec::new();
    };
    let presets = presets();
    let list = presets.fixed.list();
    catalogue::listed(&list, presets.map(|rule| rule.options().into()))
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
    use scumble_attack::attacks;
    use scumble_diffusion::guards;

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
