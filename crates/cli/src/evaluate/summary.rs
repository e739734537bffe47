//! What `evaluate` prints for a person: a table for each concept.

use scumble_report::Evaluation;

/// The columns: a metric and what stands above it.
const COLUMNS: [(&str, &str); 5] =
    [("target", "target"), ("paraphrase", "reworded"), ("others", "others"), ("neighbours:near", "near"), ("pairs", "pairs")];

/// A table for each concept, in percent; with an interval where it matters most.
pub(super) fn text(evaluation: &Evaluation) -> String {
    let mut lines = Vec::new();
    for concept in &evaluation.concepts {
        let width = evaluation.subjects.iter().map(|s| s.label.chars().count()).max().unwrap_or(0).max(12);
        let heads: String = COLUMNS.iter().map(|(_, head)| format!("{head:>16}")).collect();
        lines.push(format!("{:width$}{heads}{:>24}", concept.name, "worst attack"));
        for subject in &evaluation.subjects {
            let cell = |metric: &str| {
                let row = evaluation.rows.iter().find(|row| {
                    row.subject == subject.id && row.metric == metric && row.concept.as_deref() == Some(&concept.name)
                });
                let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{:.0}", 100.0 * v));
                match row {
                    Some(row) => format!("{} [{}, {}]", percent(row.value), percent(row.low), percent(row.high)),
                    None => "-".into(),
                }
            };
            let cells: String = COLUMNS.iter().map(|(metric, _)| format!("{:>16}", cell(metric))).collect();
            let worst = evaluation
                .attacks
                .iter()
                .filter(|a| a.subject == subject.id && a.concept.as_deref() == Some(&concept.name))
                .max_by(|a, b| a.total.unwrap_or(0.0).total_cmp(&b.total.unwrap_or(0.0)));
            let worst = worst.map_or("-".into(), |a| format!("{:.0} {}", 100.0 * a.total.unwrap_or(0.0), a.attack));
            if cells.contains('[') {
                lines.push(format!("{:width$}{cells}{worst:>24}", subject.label));
            }
        }
        lines.push(String::new());
    }
    if let Some(impact) = &evaluation.impact {
        lines.push(format!("impact    {} concepts erased in turn with {}", impact.erased.len(), impact.method));
    }
    if !evaluation.missing.is_empty() {
        lines.push(format!("missing   {} numbers; evaluation.json says which and why", evaluation.missing.len()));
    }
    lines.join("\n")
}
