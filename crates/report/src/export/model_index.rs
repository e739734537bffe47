//! `model-index.yaml`: results in the form that a model card carries them to the Hugging Face Hub.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    evaluation::{Evaluation, Row, Subject},
    page::View,
    summary::{COMPOSITION, KEPT, SHOWS, detectors, worst},
};

/// The task, which the Hub knows under this name.
const TASK: &str = "text-to-image";

/// What a card carries of each concept: what is still shown, what is kept, composition. Everything
/// else is in `results.csv`.
const CARD: [&[&str]; 3] = [&SHOWS, &KEPT, &COMPOSITION];

/// The rows of a card: at most five for a concept, the last two the worst attack by words and what
/// a detector saw where nobody judged.
fn card<'a>(evaluation: &'a Evaluation, subject: &Subject, concept: Option<&str>) -> Vec<&'a Row> {
    let of = |id: &str| {
        let fits =
            |r: &&Row| r.subject == subject.id && r.concept.as_deref() == concept && r.metric == id;
        evaluation
            .rows
            .iter()
            .filter(fits)
            .find(|r| r.value.is_some_and(f64::is_finite))
    };
    let mut rows: Vec<&Row> = CARD
        .iter()
        .filter_map(|ids| ids.iter().find_map(|id| of(id)))
        .collect();
    let [words, ..] = worst(evaluation, &subject.id, concept);
    rows.extend(words.and_then(|w| of(&format!("asr:{}", w.attack))));
    if concept.is_none() {
        rows.extend(of("drift"));
    } else if of("target").is_none() {
        rows.extend(detectors(evaluation, concept).into_iter().find_map(of));
    }
    rows
}

/// A block with an entry for each edit and guard; the entry of the model that is published goes
/// into its card.
pub(crate) fn render(evaluation: &Evaluation) -> String {
    let view = View::new(evaluation);
    let mut text = String::from(
        "# Results for model cards. Copy `model-index:` and the entry of the model that you publish into the front matter of its README.md.\n",
    );
    let edits: Vec<&Subject> = evaluation
        .subjects
        .iter()
        .filter(|s| s.kind != "base" && has_numbers(evaluation, &view, s))
        .collect();
    text += if edits.is_empty() {
        "model-index: []\n"
    } else {
        "model-index:\n"
    };
    for subject in edits {
        let _ = writeln!(
            text,
            "- name: {}\n  results:",
            quoted(evaluation.label(&subject.id))
        );
        // The concepts in their order, then what belongs to none.
        let mut concepts: Vec<Option<&str>> = view
            .concepts
            .iter()
            .copied()
            .filter(Option::is_some)
            .collect();
        concepts.push(None);
        for concept in concepts {
            let rows = card(evaluation, subject, concept);
            if rows.is_empty() {
                continue;
            }
            // The Hub's type of a data set is an id; what was asked for has none there.
            let (kind, name) = match concept {
                Some(concept) => (
                    crate::format::slug(concept),
                    format!("scumble prompts for {concept}"),
                ),
                None => ("all".to_owned(), "scumble prompts".to_owned()),
            };
            let _ = write!(
                text,
                "  - task:\n      type: {TASK}\n      name: Text-to-Image\n    dataset:\n      type: {}\n      name: {}\n    metrics:\n",
                quoted(&format!("scumble-{kind}")),
                quoted(&name)
            );
            rows.iter()
                .for_each(|row| metric(&mut text, evaluation, row));
        }
    }
    text
}

fn metric(text: &mut String, evaluation: &Evaluation, row: &Row) {
    let about = evaluation.metric(&row.metric);
    let name = crate::page::metric_name(about, &row.metric);
    let _ = write!(
        text,
        "    - type: {}\n      name: {}\n      value: {}\n",
        quoted(&row.metric),
        quoted(&name),
        float(row.value.unwrap_or_default())
    );
    if let Some(config) = about
        .map(|m| m.convention.as_str())
        .filter(|c| !c.is_empty())
    {
        let _ = writeln!(text, "      config: {}", quoted(config));
    }
    let mut args = String::new();
    if let Some(n) = row.n {
        let _ = writeln!(args, "        n: {n}");
    }
    for (key, end) in [("low", row.low), ("high", row.high)] {
        if let Some(end) = end.filter(|x| x.is_finite()) {
            let _ = writeln!(args, "        {key}: {}", float(end));
        }
    }
    if !args.is_empty() {
        let _ = write!(text, "      args:\n{args}");
    }
}

fn has_numbers(evaluation: &Evaluation, view: &View<'_>, subject: &Subject) -> bool {
    view.concepts
        .iter()
        .chain(&[None])
        .any(|concept| !card(evaluation, subject, *concept).is_empty())
}

/// A number that every reader of YAML takes for a float: 1.1 wants a point in it.
fn float(x: f64) -> String {
    let text = x.to_string();
    if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }
}

/// A YAML string in double quotes, which JSON's are, with what YAML takes for unprintable written
/// out.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Metric;

    #[test]
    fn a_block_as_model_cards_have_it() {
        let subject = |id: &str, kind: &str| Subject {
            id: id.into(),
            kind: kind.into(),
            ..Subject::default()
        };
        let row = |subject: &str, concept: Option<&str>, metric: &str, value: f64| Row {
            subject: subject.into(),
            concept: concept.map(Into::into),
            metric: metric.into(),
            value: Some(value),
            n: Some(48),
            low: Some(0.0),
            high: Some(f64::NAN),
            ..Row::default()
        };
        let evaluation = Evaluation {
            subjects: vec![
                subject("base", "base"),
                subject("esd: \"x\"", "edit"),
                subject("unmeasured", "edit"),
            ],
            metrics: vec![Metric {
                id: "asr".into(),
                name: "Attack".into(),
                convention: "two\njudges".into(),
                ..Metric::default()
            }],
            rows: vec![
                row("base", Some("church"), "target", 0.9),
                row("esd: \"x\"", None, "drift", 1.0),
                row("esd: \"x\"", Some("church"), "asr:p4d", 0.25),
                row("esd: \"x\"", Some("church"), "target", f64::NAN),
                row("esd: \"x\"", Some("church"), "accuracy:airplane", 0.9),
                row("esd: \"x\"", Some("church"), "asr:relearn", 0.9),
            ],
            ..Evaluation::default()
        };
        // from huggingface_hub import ModelCard  # 2.4.0; reads it back, two results of a model
        // named esd: "x" ModelCard("---\n" + open("model-index.yaml").read() +
        // "---\n").data.eval_results
        let expected = r#"model-index:
- name: "esd: \"x\""
  results:
  - task:
      type: text-to-image
      name: Text-to-Image
    dataset:
      type: "scumble-church"
      name: "scumble prompts for church"
    metrics:
    - type: "asr:p4d"
      name: "Attack: p4d"
      value: 0.25
      config: "two\njudges"
      args:
        n: 48
        low: 0.0
  - task:
      type: text-to-image
      name: Text-to-Image
    dataset:
      type: "scumble-all"
      name: "scumble prompts"
    metrics:
    - type: "drift"
      name: "drift"
      value: 1.0
      args:
        n: 48
        low: 0.0
"#;
        let text = render(&evaluation);
        assert_eq!(text.split_once('\n').unwrap().1, expected);
        assert!(render(&Evaluation::default()).ends_with("model-index: []\n"));
        assert_eq!(
            quoted("a\u{85}\u{0}é\u{1f3ef}"),
            "\"a\\u0085\\u0000é\u{1f3ef}\""
        );
    }
}
