//! What was tested: the page's title and its first table.

use serde::Serialize;

use crate::{
    evaluation::Evaluation,
    format::{listed, seconds},
    summary::concepts,
};

/// What a page is called: the user's title, else one made of what was erased from what.
pub(crate) fn title(evaluation: &Evaluation, given: Option<&str>) -> String {
    if let Some(title) = given {
        return title.to_owned();
    }
    let names: Vec<&str> = concepts(evaluation).into_iter().flatten().collect();
    let what = match names.len() {
        0 => "Erasing concepts".to_owned(),
        1..=3 => format!("Erasing {}", listed(&names)),
        n => format!("Erasing {n} concepts"),
    };
    if evaluation.model.is_empty() {
        what
    } else {
        format!("{what} from {}", evaluation.model)
    }
}

/// A line of what was tested.
#[derive(Debug, Serialize)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

/// Names as in a sentence, of many only some.
fn few<S: AsRef<str>>(names: &[S]) -> String {
    if names.len() <= 5 {
        return listed(names);
    }
    let some: Vec<&str> = names.iter().take(3).map(AsRef::as_ref).collect();
    format!("{} and {} more", some.join(", "), names.len() - 3)
}

/// What was tested, with what, on what, when.
pub(crate) fn facts(evaluation: &Evaluation) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name, value: String| {
        if !value.is_empty() {
            facts.push(Fact { name, value });
        }
    };
    let kinds = ["base", "edit", "guard", "oracle"];
    let of_kind = |kind: &str| {
        evaluation
            .subjects
            .iter()
            .filter(|s| s.kind == kind)
            .count()
    };
    let subjects = kinds
        .iter()
        .filter(|k| of_kind(k) > 0)
        .map(|k| format!("{} {k}", of_kind(k)))
        .collect::<Vec<_>>();
    let others = evaluation
        .subjects
        .iter()
        .filter(|s| !kinds.contains(&s.kind.as_str()))
        .count();
    let others = (others > 0).then(|| format!("{others} other"));
    let kind = |name: &str| {
        let found = evaluation
            .concepts
            .iter()
            .find(|c| c.name == name)
            .and_then(|c| c.kind.as_deref());
        found.map_or_else(|| name.to_owned(), |kind| format!("{name} ({kind})"))
    };
    let named = concepts(evaluation)
        .into_iter()
        .flatten()
        .map(kind)
        .collect::<Vec<_>>();
    let mut attacks: Vec<&str> = evaluation
        .attacks
        .iter()
        .map(|a| a.attack.as_str())
        .collect();
    attacks.sort_unstable();
    attacks.dedup();
    let mut seeds: Vec<u64> = evaluation.pictures.iter().map(|p| p.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    add("Model", evaluation.model.clone());
    add(
        "Subjects",
        subjects
            .into_iter()
            .chain(others)
            .collect::<Vec<_>>()
            .join(", "),
    );
    add("Concepts", few(&named));
    add("Attacks", few(&attacks));
    add("Drawing", evaluation.drawing.clone());
    let drawn: u64 = evaluation.counts.iter().map(|c| c.drawn).sum();
    if drawn > 0 {
        add(
            "Pictures",
            format!(
                "{drawn} asked about, {} kept for this report",
                evaluation.pictures.len()
            ),
        );
    }
    if !evaluation.pictures.is_empty() {
        add("Seeds", format!("{} different ones", seeds.len()));
    }
    add("Numbers", evaluation.rows.len().to_string());
    add("Machine", evaluation.machine.clone());
    let created = evaluation.created.replace('T', " ");
    add(
        "Date",
        created
            .trim_end_matches('Z')
            .get(..16)
            .map_or_else(|| created.clone(), |text| format!("{text} UTC")),
    );
    add(
        "Time taken",
        evaluation
            .seconds
            .filter(|s| s.is_finite())
            .map(seconds)
            .unwrap_or_default(),
    );
    add(
        "Program",
        if evaluation.version.is_empty() {
            String::new()
        } else {
            format!("scumble {}", evaluation.version)
        },
    );
    facts
}
