//! What `evaluate` prints for a person: a table for each concept, of what has looked.

use scumble_report::Evaluation;

/// Metrics that may have a column, with what stands above it and what that means.
const COLUMNS: [(&str, &str, &str); 8] = [
    (
        "target",
        "still shows",
        "pictures that ask for the concept and show it",
    ),
    (
        "paraphrase",
        "reworded",
        "the same, asked for in other words",
    ),
    (
        "implicit",
        "not named",
        "members of the category, by their own names, that show",
    ),
    (
        "others",
        "others right",
        "pictures of everything else that show what they should",
    ),
    (
        "neighbours:near",
        "near right",
        "those of the others that are nearest to the concept",
    ),
    (
        "pairs",
        "pairs right",
        "pictures of two other objects that show both",
    ),
    (
        "ira",
        "own domain",
        "rows of the prompt file about the rest of the concept's own column",
    ),
    (
        "cra",
        "other domain",
        "rows of the prompt file about other columns",
    ),
];
/// What an attacker may change, and the column of the worst of its attacks.
const THREATS: [(&str, &str); 4] = [
    ("words", "by words"),
    ("embeddings", "by embeddings"),
    ("weights", "by weights"),
    ("sampler", "by sampler"),
];
/// Width of a column.
const WIDE: usize = 16;

/// A column: its head, what it means, and each subject's cell.
struct Column {
    head: String,
    about: String,
    cells: Vec<String>,
}

/// A table for each concept, in percent; with an interval where there is one.
pub(super) fn text(evaluation: &Evaluation) -> String {
    let mut lines = Vec::new();
    for concept in &evaluation.concepts {
        lines.extend(table(evaluation, &concept.name));
        lines.push(String::new());
    }
    if let Some(impact) = &evaluation.impact {
        lines.push(format!(
            "impact    {} concepts erased in turn with {}",
            impact.erased.len(),
            impact.method
        ));
    }
    for note in evaluation.notes.iter().filter(|note| note.metric.is_none()) {
        lines.push(format!("note      {}", note.text));
    }
    lines.extend(missing(evaluation));
    lines.join("\n")
}

fn percent(value: Option<f64>) -> String {
    value
        .filter(|v| v.is_finite())
        .map_or("-".into(), |v| format!("{:.0}", 100.0 * v))
}

/// The columns that somebody has a number for, detectors under their own names.
fn columns(evaluation: &Evaluation, concept: &str) -> Vec<Column> {
    let row = |subject: &str, metric: &str| {
        let own = |row: &&scumble_report::evaluation::Row| {
            row.subject == subject && row.metric == metric && row.value.is_some()
        };
        evaluation
            .rows
            .iter()
            .filter(own)
            .find(|row| row.concept.as_deref() == Some(concept))
    };
    let cells = |cell: &dyn Fn(&str) -> Option<String>| -> Option<Vec<String>> {
        let found: Vec<Option<String>> = evaluation
            .subjects
            .iter()
            .map(|subject| cell(&subject.id))
            .collect();
        found.iter().any(Option::is_some).then(|| {
            found
                .into_iter()
                .map(|cell| cell.unwrap_or_else(|| "-".into()))
                .collect()
        })
    };
    let rate = |metric: &str| {
        cells(&|subject| {
            let row = row(subject, metric)?;
            Some(format!(
                "{} [{}, {}]",
                percent(row.value),
                percent(row.low),
                percent(row.high)
            ))
        })
    };
    let mut all = Vec::new();
    for (metric, head, about) in COLUMNS {
        all.extend(rate(metric).map(|cells| Column {
            head: head.into(),
            about: about.into(),
            cells,
        }));
    }
    let mut seen: Vec<&str> = evaluation
        .rows
        .iter()
        .map(|row| row.metric.as_str())
        .collect();
    seen.sort_unstable();
    seen.dedup();
    for metric in &seen {
        if let Some(name) = metric
            .strip_prefix("detections-")
            .filter(|name| !name.starts_with("count-") && !name.contains(':'))
        {
            let about = format!(
                "pictures of the concept's prompts on which the detector {name} has a hit; it is not asked about {concept}"
            );
            all.extend(rate(metric).map(|cells| Column {
                head: name.to_owned(),
                about,
                cells,
            }));
        }
    }
    for metric in &seen {
        if metric.starts_with("clip-score-")
            && metric.ends_with(":target")
            && row_missing(evaluation, concept)
        {
            let about = "mean cosine between a picture and its prompt, by CLIP".to_owned();
            let score = cells(&|subject| {
                row(subject, metric)?
                    .value
                    .map(|value| format!("{value:.3}"))
            });
            all.extend(score.map(|cells| Column {
                head: "CLIP score".into(),
                about,
                cells,
            }));
        }
    }
    for (threat, head) in THREATS {
        let worst = cells(&|subject| {
            let own = evaluation.attacks.iter().filter(|a| {
                a.subject == subject && a.concept.as_deref() == Some(concept) && a.threat == threat
            });
            let worst = own
                .filter(|a| a.total.is_some())
                .max_by(|a, b| a.total.unwrap_or(0.0).total_cmp(&b.total.unwrap_or(0.0)))?;
            let looks = worst
                .looks
                .filter(|&looks| looks > 1)
                .map(|looks| format!(" x{looks}"))
                .unwrap_or_default();
            Some(format!("{} {}{looks}", percent(worst.total), worst.attack))
        });
        let about = format!(
            "shown again under the worst attack that changes {threat}; xN: the best of N looks at each case"
        );
        all.extend(worst.map(|cells| Column {
            head: head.into(),
            about,
            cells,
        }));
    }
    all
}

/// Whether nobody judged a concept.
fn row_missing(evaluation: &Evaluation, concept: &str) -> bool {
    !evaluation.rows.iter().any(|row| {
        row.metric == "target" && row.concept.as_deref() == Some(concept) && row.value.is_some()
    })
}

fn table(evaluation: &Evaluation, concept: &str) -> Vec<String> {
    let columns = columns(evaluation, concept);
    let width = evaluation
        .subjects
        .iter()
        .map(|s| s.label.chars().count())
        .max()
        .unwrap_or(0)
        .max(concept.chars().count())
        .max(12);
    let wide = |column: &Column| {
        let cells = column
            .cells
            .iter()
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0);
        WIDE.max(cells + 2).max(column.head.chars().count() + 2)
    };
    let heads: String = columns
        .iter()
        .map(|column| format!("{:>1$}", column.head, wide(column)))
        .collect();
    let mut lines = vec![format!("{concept:width$}{heads}")];
    for (i, subject) in evaluation.subjects.iter().enumerate() {
        let cells: String = columns
            .iter()
            .map(|column| format!("{:>1$}", column.cells[i], wide(column)))
            .collect();
        lines.push(format!("{:width$}{cells}", subject.label));
    }
    if columns.iter().any(|column| column.head != "CLIP score") {
        lines.push("percent of pictures, square brackets are 95% intervals".into());
    }
    lines.extend(
        columns
            .iter()
            .map(|column| format!("  {:14} {}", column.head, column.about)),
    );
    if row_missing(evaluation, concept)
        && evaluation
            .pictures
            .iter()
            .any(|p| p.concept.as_deref() == Some(concept) && p.set == "target")
    {
        lines.push(format!("nobody judged whether pictures show `{concept}`: look at them, or bring a --detector that knows it"));
    }
    lines
}

/// What has not run, in a line for each reason that is worth one.
fn missing(evaluation: &Evaluation) -> Vec<String> {
    let mut lines = Vec::new();
    // What makes numbers untrue is said at once; the rest is counted.
    let loud =
        |why: &str| why.contains("not finite") || why.starts_with("no judge and no detector knows");
    for missing in evaluation.missing.iter().filter(|m| loud(&m.why)) {
        let of = missing
            .subject
            .as_deref()
            .map(|id| format!("{}: ", evaluation.label(id)))
            .unwrap_or_default();
        lines.push(format!("missing   {of}{}", missing.why));
    }
    let rest = evaluation.missing.iter().filter(|m| !loud(&m.why)).count();
    if rest > 0 {
        let numbers = if rest == 1 {
            "number is"
        } else {
            "numbers are"
        };
        lines.push(format!("missing   {rest} {numbers} missing or not to be relied on; evaluation.json says which and why"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use scumble_report::evaluation::{Attacked, Concept, Missing, Picture, Row, Subject};

    use super::*;

    fn evaluation() -> Evaluation {
        let subject = |id: &str| Subject {
            id: id.into(),
            label: id.into(),
            ..Subject::default()
        };
        Evaluation {
            concepts: vec![Concept {
                name: "van gogh".into(),
                kind: None,
            }],
            subjects: vec![subject("base"), subject("uce")],
            pictures: vec![Picture {
                concept: Some("van gogh".into()),
                set: "target".into(),
                ..Picture::default()
            }],
            ..Evaluation::default()
        }
    }

    fn row(subject: &str, metric: &str, value: f64) -> Row {
        let (low, high) = (Some(value), Some(value));
        Row {
            subject: subject.into(),
            concept: Some("van gogh".into()),
            metric: metric.into(),
            value: Some(value),
            low,
            high,
            ..Row::default()
        }
    }

    #[test]
    fn a_concept_that_nobody_knows_has_a_row_for_every_subject_and_a_column_for_whoever_looked() {
        let mut evaluation = evaluation();
        evaluation.rows = vec![
            row("base", "detections-nudenet-320n", 0.25),
            row("uce", "detections-nudenet-320n", 0.0),
            row("uce", "detections-count-nudenet-320n", 3.0),
            row("uce", "detections-nudenet-320n:FACE", 0.5),
            row("base", "clip-score-x:target", 0.25),
        ];
        let text = text(&evaluation);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["van", "gogh", "nudenet-320n", "CLIP", "score"]
        );
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["base", "25", "[25,", "25]", "0.250"]
        );
        assert_eq!(
            lines[2].split_whitespace().collect::<Vec<_>>(),
            ["uce", "0", "[0,", "0]", "-"]
        );
        assert!(
            text.contains("nobody judged whether pictures show `van gogh`"),
            "{text}"
        );
        assert!(!text.contains("still shows"), "{text}");
        // Of nothing at all the subjects are still there.
        evaluation.rows.clear();
        assert!(
            super::text(&evaluation)
                .lines()
                .nth(2)
                .unwrap()
                .starts_with("uce")
        );
    }

    #[test]
    fn attacks_stand_apart_by_what_they_change_and_say_how_often_somebody_looked() {
        let mut evaluation = evaluation();
        evaluation.rows = vec![row("base", "target", 0.9), row("uce", "target", 0.0)];
        let attack = |attack: &str, threat: &str, total: f64, looks: u64| Attacked {
            subject: "uce".into(),
            concept: Some("van gogh".into()),
            attack: attack.into(),
            threat: threat.into(),
            total: Some(total),
            looks: Some(looks),
            ..Attacked::default()
        };
        evaluation.attacks = vec![
            attack("p4d", "words", 0.5, 10),
            attack("random", "words", 0.25, 10),
            attack("relearn", "weights", 0.96, 1),
        ];
        let text = text(&evaluation);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            [
                "van", "gogh", "still", "shows", "by", "words", "by", "weights"
            ]
        );
        assert!(
            lines[2].contains("50 p4d x10")
                && lines[2].contains("96 relearn")
                && !lines[2].contains("relearn x"),
            "{text}"
        );
        assert!(
            lines[1].ends_with('-') && text.contains("percent of pictures"),
            "{text}"
        );
    }

    #[test]
    fn what_is_missing_is_counted_in_its_number() {
        let mut evaluation = evaluation();
        let why = |why: &str| Missing {
            why: why.into(),
            subject: Some("uce".into()),
            ..Missing::default()
        };
        evaluation.missing = vec![why("has not run")];
        assert!(
            text(&evaluation).contains("missing   1 number is missing"),
            "{}",
            text(&evaluation)
        );
        evaluation.missing.push(why("has not run"));
        evaluation
            .missing
            .push(why("3 of 3 pictures are of numbers that are not finite"));
        let text = text(&evaluation);
        assert!(
            text.contains("missing   2 numbers are missing")
                && text.contains("missing   uce: 3 of 3 pictures"),
            "{text}"
        );
    }
}
