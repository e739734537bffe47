//! `report.md`: the main tables as Markdown, for wherever a page of HTML does not go.

use std::fmt::Write as _;

use crate::{
    evaluation::Evaluation,
    export::plots::Plot,
    format::{NONE, count, interval, number, percent, probability, seconds},
    page::{concepts, facts, title},
    rating::Ratings,
    summary::{Measure, RULE, concerns, standings},
};

/// The whole text.
pub(crate) fn render(evaluation: &Evaluation, given: Option<&str>, plots: &[Plot], ratings: Option<&Ratings>) -> String {
    let mut text = format!("# {}\n\n", plain(&title(evaluation, given)));
    for fact in facts(evaluation) {
        let _ = writeln!(text, "- {}: {}", fact.name, plain(&fact.value));
    }
    if !evaluation.finished {
        text += "\n**This evaluation has not finished.**\n";
    }
    text += "\nPictures, plots, every number with its convention: [index.html](index.html). Every number as a table: \
             [results.csv](results.csv). Square brackets are 95% intervals.\n";
    for (i, concept) in concepts(evaluation).into_iter().enumerate() {
        let _ = write!(text, "\n## {}\n\n", plain(concept.unwrap_or("All concepts")));
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
        table(&mut text, &["subject", "concept", "mean", "raters", "pictures", "ratings"], 2, rows);
    }
    if !evaluation.missing.is_empty() {
        text += "\n## What has not run\n\n";
        let or = |part: &Option<String>| part.clone().unwrap_or_else(|| "all".into());
        let rows = evaluation.missing.iter().map(|m| vec![or(&m.subject), or(&m.concept), or(&m.metric), m.why.clone()]);
        table(&mut text, &["subject", "concept", "metric", "why"], 4, rows);
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
    let rows = standings.iter().map(|s| {
        let worst = s.worst.as_ref().map_or_else(|| NONE.into(), |w| format!("{} ({})", said(Some(w.total)), w.attack));
        vec![
            evaluation.label(&s.subject.id).to_owned(),
            said(s.erased),
            said(s.kept),
            said(s.composition),
            worst,
            s.subject.seconds.filter(|x| x.is_finite()).map_or_else(|| NONE.into(), seconds),
        ]
    });
    table(text, &["subject", "erased", "others kept", "composition", "worst attack", "time to make"], 1, rows);
}

fn attacks(text: &mut String, evaluation: &Evaluation, concept: Option<&str>) {
    let of_concept: Vec<_> = evaluation.attacks.iter().filter(|a| concerns(a.concept.as_ref(), concept)).collect();
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
            count(a.n),
            number(a.seconds, "seconds"),
        ]
    });
    table(text, &["subject", "attack", "before", "new", "total", "n", "time"], 2, rows);
}

fn paired(text: &mut String, evaluation: &Evaluation, concept: Option<&str>) {
    let of_concept: Vec<_> = evaluation.paired.iter().filter(|p| concerns(p.concept.as_ref(), concept)).collect();
    if of_concept.is_empty() {
        return;
    }
    text.push_str(
        "\n### Pairs on the same prompts and seeds\n\nMcNemar's exact test; p is not corrected for the number of tests.\n\n",
    );
    let rows = of_concept.iter().map(|p| {
        vec![
            evaluation.label(&p.a).to_owned(),
            evaluation.label(&p.b).to_owned(),
            p.metric.clone(),
            count(p.n),
            count(p.only_a),
            count(p.only_b),
            format!("{} {}", number(p.difference, "fraction"), interval(p.low, p.high, "fraction")),
            probability(p.p),
        ]
    });
    table(text, &["A", "B", "metric", "pairs", "only A", "only B", "A less B", "p"], 3, rows);
}

fn said(m: Option<Measure>) -> String {
    m.map_or_else(|| NONE.into(), |m| format!("{} {}", percent(m.value), interval(m.low, m.high, "fraction")).trim().to_owned())
}

/// A table; the columns after the first `left` hold numbers.
fn table(text: &mut String, heads: &[&str], left: usize, rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(text, "| {} |", heads.join(" | "));
    let rules: Vec<&str> = (0..heads.len()).map(|i| if i < left { "---" } else { "---:" }).collect();
    let _ = writeln!(text, "|{}|", rules.join("|"));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

/// A text that stays one: on one line, without a character that means something in Markdown or HTML.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '#' | '!' | '~' => {
                // Intervals are the program's own brackets, and no link without a parenthesis after them.
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
        table(&mut text, &["a", "n"], 1, [vec!["x\r\ny".to_owned(), "1".to_owned()]].into_iter());
        assert_eq!(text, "| a | n |\n|---|---:|\n| x  y | 1 |\n");
    }

    #[test]
    fn nothing_is_a_report_too() {
        let text = render(&Evaluation::default(), None, &[], None);
        assert!(text.starts_with("# Erasing concepts\n") && text.contains("has not finished"), "{text}");
    }
}
