//! `report.md`: the main tables as Markdown, for wherever a page of HTML does not go.

use std::fmt::Write as _;

use crate::{
    evaluation::Evaluation,
    export::plots::Plot,
    format::{NONE, count, interval, number, percent, probability, seconds},
    outcome::sentences,
    page::{facts, title},
    rating::Ratings,
    summary::{Measure, RULE, THREATS, concepts, concerns, detector_name, detectors, standings},
};

/// The whole text.
pub(crate) fn render(
    evaluation: &Evaluation,
    given: Option<&str>,
    plots: &[Plot],
    ratings: Option<&Ratings>,
) -> String {
    let mut text = format!("# {}\n\n", plain(&title(evaluation, given)));
    for concept in concepts(evaluation) {
        for sentence in sentences(evaluation, concept) {
            let _ = writeln!(text, "{}  ", plain(&sentence));
        }
    }
    if !evaluation.finished {
        text += "\n**This evaluation has not finished.**\n";
    }
    text += "\nPictures, plots, every number with its convention: [index.html](index.html). Every number as a table: \
             [results.csv](results.csv). Square brackets are 95% intervals.\n";
    for (i, concept) in concepts(evaluation).into_iter().enumerate() {
        let _ = write!(
            text,
            "\n## {}\n\n",
            plain(concept.unwrap_or("All concepts"))
        );
        ranking(&mut text, evaluation, concept);
        for plot in plots.iter().filter(|p| p.concept == i) {
            let _ = write!(text, "\n![{}]({})\n", plain(&plot.title), plot.file);
        }
        attacks(&mut text, evaluation, concept);
        paired(&mut text, evaluation, concept);
    }
    if let Some(ratings) = ratings {
        text += "\n## Human ratings\n\n1: not at all, 5: very much.\n\n";
        let rows = ratings.by_subject().into_iter().map(|r| {
            vec![
                evaluation.label(&r.subject).to_owned(),
                r.concept.unwrap_or_default(),
                format!("{:.2} {}", r.mean, interval(r.low, r.high, "")),
                r.raters.to_string(),
                r.pictures.to_string(),
                r.ratings.to_string(),
            ]
        });
        table(
            &mut text,
            &[
                "subject", "concept", "mean", "raters", "pictures", "ratings",
            ],
            2,
            rows,
        );
    }
    if !evaluation.notes.is_empty() {
        text += "\n## What to know about the numbers\n\n";
        let or = |part: &Option<String>| part.clone().unwrap_or_else(|| "all".into());
        let rows = evaluation.notes.iter().map(|m| {
            vec![
                or(&m.subject),
                or(&m.concept),
                or(&m.metric),
                m.text.clone(),
            ]
        });
        table(
            &mut text,
            &["subject", "concept", "metric", "note"],
            4,
            rows,
        );
    }
    if !evaluation.missing.is_empty() {
        text += "\n## What has not run\n\n";
        let or = |part: &Option<String>| part.clone().unwrap_or_else(|| "all".into());
        let rows = evaluation
            .missing
            .iter()
            .map(|m| vec![or(&m.subject), or(&m.concept), or(&m.metric), m.why.clone()]);
        table(&mut text, &["subject", "concept", "metric", "why"], 4, rows);
    }
    text += "\n## What was tested\n\n";
    for fact in facts(evaluation) {
        let _ = writeln!(text, "- {}: {}", fact.name, plain(&fact.value));
    }
    text
}

fn ranking(text: &mut String, evaluation: &Evaluation, concept: Option<&str>) {
    let standings = standings(evaluation, concept);
    if standings.is_empty() {
        text.push_str("Nothing was measured.\n");
        return;
    }
    let _ = writeln!(text, "{RULE}\n");
    let detectors = detectors(evaluation, concept);
    let kinds: Vec<usize> = (0..THREATS.len())
        .filter(|&i| standings.iter().any(|s| s.worst[i].is_some()))
        .collect();
    let composed = standings.iter().any(|s| s.composition.is_some());
    let mut heads: Vec<String> = ["subject", "still shows it", "others kept"]
        .map(String::from)
        .to_vec();
    heads.extend(composed.then(|| "composition".into()));
    heads.extend(
        detectors
            .iter()
            .map(|id| format!("seen by {}", detector_name(id))),
    );
    heads.extend(kinds.iter().map(|&i| THREATS[i].1.to_lowercase()));
    heads.push("time to make".into());
    let rows = standings.iter().map(|s| {
        let mut row = vec![
            evaluation.label(&s.subject.id).to_owned(),
            said(s.shows),
            said(s.kept),
        ];
        row.extend(composed.then(|| said(s.composition)));
        row.extend(s.detections.iter().map(|m| said(*m)));
        row.extend(kinds.iter().map(|&i| {
            s.worst[i].as_ref().map_or_else(
                || NONE.into(),
                |w| {
                    let looks = w
                        .looks
                        .filter(|&n| n > 1)
                        .map(|n| format!(", {n} looks"))
                        .unwrap_or_default();
                    format!("{} ({}{looks})", said(Some(w.total)), w.attack)
                },
            )
        }));
        row.push(
            s.subject
                .seconds
                .filter(|x| x.is_finite())
                .map_or_else(|| NONE.into(), seconds),
        );
        row
    });
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    table(text, &heads, 1, rows);
}

fn attacks(text: &mut String, evaluation: &Evaluation, concept: Option<&str>) {
    let of_concept: Vec<_> = evaluation
        .attacks
        .iter()
        .filter(|a| concerns(a.concept.as_ref(), concept))
        .collect();
    if of_concept.is_empty() {
        return;
    }
    text.push_str("\n### Attacks\n\n");
    let rows = of_concept.iter().map(|a| {
        vec![
            evaluation.label(&a.subject).to_owned(),
            a.attack.clone(),
            number(a.pre, "fraction"),
            number(a.new, "fraction"),
            said(Measure::new(a.total, a.low, a.high, a.n)),
            a.conditional
                .as_ref()
                .map_or_else(|| NONE.into(), |s| format!("{} of {}", s.hits, s.n)),
            count(a.n),
            count(a.looks),
            number(a.random, "fraction"),
            count(a.searches),
            probability(a.p),
            number(a.seconds, "seconds"),
        ]
    });
    let heads = [
        "subject",
        "attack",
        "before",
        "new",
        "total",
        "hidden brought back",
        "n",
        "looks",
        "random, as many",
        "searches",
        "p",
        "time",
    ];
    table(text, &heads, 2, rows);
}

fn paired(text: &mut String, evaluation: &Evaluation, concept: Option<&str>) {
    let of_concept: Vec<_> = evaluation
        .paired
        .iter()
        .filter(|p| concerns(p.concept.as_ref(), concept))
        .collect();
    if of_concept.is_empty() {
        return;
    }
    text.push_str(
        "\n### Subject against subject\n\nOn the same prompts and seeds. Exact tests: McNemar's, or by signs of clusters where pictures hang together. The adjusted p is Holm's, \
         over all tests of the metric.\n\n",
    );
    let rows = of_concept.iter().map(|p| {
        vec![
            evaluation.label(&p.a).to_owned(),
            evaluation.label(&p.b).to_owned(),
            p.metric.clone(),
            count(p.n),
            count(p.only_a),
            count(p.only_b),
            format!(
                "{} {}",
                number(p.difference, "fraction"),
                interval(p.low, p.high, "fraction")
            ),
            probability(p.p),
            probability(p.adjusted),
            count(p.tests),
        ]
    });
    table(
        text,
        &[
            "A",
            "B",
            "metric",
            "pictures",
            "only A",
            "only B",
            "A less B",
            "p",
            "adjusted p",
            "tests",
        ],
        3,
        rows,
    );
}

fn said(m: Option<Measure>) -> String {
    m.map_or_else(
        || NONE.into(),
        |m| {
            format!(
                "{} {}",
                percent(m.value),
                interval(m.low, m.high, "fraction")
            )
            .trim()
            .to_owned()
        },
    )
}

/// A table; the columns after the first `left` hold numbers.
fn table(text: &mut String, heads: &[&str], left: usize, rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(text, "| {} |", heads.join(" | "));
    let rules: Vec<&str> = (0..heads.len())
        .map(|i| if i < left { "---" } else { "---:" })
        .collect();
    let _ = writeln!(text, "|{}|", rules.join("|"));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

/// A text that stays one: on one line, without a character that means something in Markdown or
/// HTML.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '#' | '!' | '~' => {
                // Intervals are the program's own brackets, and no link without a parenthesis after
                // them.
                if !matches!(c, '[' | ']' | '#' | '!' | '_') || text.contains("](") {
                    out.push('\\');
                }
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_stay_texts() {
        assert_eq!(plain("a|b\n<script>"), "a\\|b &lt;script&gt;");
        assert_eq!(plain("[x](javascript:1)"), "\\[x\\](javascript:1)");
        assert_eq!(plain("6.3% [2.1, 17.0%]"), "6.3% [2.1, 17.0%]");
        let mut text = String::new();
        table(
            &mut text,
            &["a", "n"],
            1,
            [vec!["x\r\ny".to_owned(), "1".to_owned()]].into_iter(),
        );
        assert_eq!(text, "| a | n |\n|---|---:|\n| x  y | 1 |\n");
    }

    #[test]
    fn nothing_is_a_report_too() {
        let text = render(&Evaluation::default(), None, &[], None);
        assert!(
            text.starts_with("# Erasing concepts\n") && text.contains("has not finished"),
            "{text}"
        );
    }
}
