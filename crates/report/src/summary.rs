//! What a reader asks first about a subject and a concept: gone? what stayed? does it come back? at what cost?

use std::cmp::Ordering;

use crate::evaluation::{Evaluation, Metric, Row, Subject};

/// A number with its 95% interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measure {
    pub(crate) value: f64,
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
    pub(crate) n: Option<u64>,
}

impl Measure {
    /// The number of a row, if it has one.
    pub(crate) fn of(row: &Row) -> Option<Self> {
        Self::new(row.value, row.low, row.high, row.n)
    }

    /// A number that is one, with the ends that are some.
    pub(crate) fn new(value: Option<f64>, low: Option<f64>, high: Option<f64>, n: Option<u64>) -> Option<Self> {
        let finite = |x: &f64| x.is_finite();
        Some(Self { value: value.filter(finite)?, low: low.filter(finite), high: high.filter(finite), n })
    }

    /// One less the number.
    fn complement(self) -> Self {
        Self { value: 1.0 - self.value, low: self.high.map(|x| 1.0 - x), high: self.low.map(|x| 1.0 - x), n: self.n }
    }
}

/// An attack and how often the concept came back under it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Worst {
    pub(crate) attack: String,
    pub(crate) total: Measure,
    /// How many attacks have a number.
    pub(crate) of: usize,
}

/// A subject's place in the first table.
#[derive(Clone, Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) subject: &'a Subject,
    /// The fraction of the concept's own pictures that do not show it.
    pub(crate) erased: Option<Measure>,
    pub(crate) kept: Option<Measure>,
    pub(crate) composition: Option<Measure>,
    pub(crate) worst: Option<Worst>,
}

/// Whether something that names a concept, or none, has to do with one: what names none has to do with all.
pub(crate) fn concerns(named: Option<&String>, concept: Option<&str>) -> bool {
    named.is_none_or(|name| Some(name.as_str()) == concept)
}

/// Which metric stands for an axis: the one of this id, else the first fraction on the axis that has a row about the concept.
pub(crate) fn metric_of_axis<'a>(
    evaluation: &'a Evaluation,
    concept: Option<&str>,
    id: &str,
    axis: &str,
) -> Option<(&'a str, &'a Metric)> {
    let about = |row: &&Row| row.value.is_some() && (row.concept.is_none() || row.concept.as_deref() == concept);
    let found = |id: &str| {
        let row = evaluation.rows.iter().filter(about).find(|row| row.metric == id)?;
        Some((row.metric.as_str(), evaluation.metric(&row.metric)?))
    };
    found(id).or_else(|| {
        evaluation.metrics.iter().filter(|m| m.axis == axis && m.unit == "fraction" && m.better != "none").find_map(|m| {
            let in_family = |row: &&Row| row.metric == m.id || row.metric.split(':').next() == Some(m.id.as_str());
            let row = evaluation.rows.iter().filter(about).find(in_family)?;
            Some((row.metric.as_str(), evaluation.metric(&row.metric)?))
        })
    })
}

/// The subjects that have to do with a concept: those that erased it, those with a number, an attack or a picture of it, and those
/// that erased nothing, such as the base.
pub(crate) fn subjects_of<'a>(evaluation: &'a Evaluation, concept: Option<&str>) -> Vec<&'a Subject> {
    let about = |subject: &&Subject| {
        let Some(concept) = concept else { return true };
        let named = |name: &Option<String>| name.as_deref() == Some(concept);
        (subject.concepts.is_empty() && subject.kind != "edit")
            || subject.concepts.iter().any(|c| c == concept)
            || evaluation.rows.iter().any(|r| r.subject == subject.id && named(&r.concept))
            || evaluation.attacks.iter().any(|a| a.subject == subject.id && named(&a.concept))
            || evaluation.pictures.iter().any(|p| p.subject == subject.id && named(&p.concept))
    };
    evaluation.subjects.iter().filter(about).collect()
}

/// The attack under which the concept came back most often: the highest total, of equal ones the first.
pub(crate) fn worst(evaluation: &Evaluation, subject: &str, concept: Option<&str>) -> Option<Worst> {
    let mut found: Vec<(String, Measure)> = evaluation
        .attacks
        .iter()
        .filter(|a| a.subject == subject && concerns(a.concept.as_ref(), concept))
        .filter_map(|a| Some((a.attack.clone(), Measure::new(a.total, a.low, a.high, a.n)?)))
        .collect();
    if found.is_empty() {
        // An evaluation that keeps its attacks as rows only.
        let rows = evaluation.rows.iter().filter(|r| r.subject == subject && r.concept.as_deref() == concept);
        found = rows.filter_map(|r| Some((r.metric.strip_prefix("asr:")?.to_owned(), Measure::of(r)?))).collect();
    }
    let of = found.len();
    let (attack, total) = found.into_iter().reduce(|worst, next| if next.1.value > worst.1.value { next } else { worst })?;
    Some(Worst { attack, total, of })
}

/// Every subject of a concept, in the order of [`first`].
pub(crate) fn standings<'a>(evaluation: &'a Evaluation, concept: Option<&str>) -> Vec<Standing<'a>> {
    let chosen = |id: &str, axis: &str| metric_of_axis(evaluation, concept, id, axis);
    let (erasure, retention, composition) =
        (chosen("target", "erasure"), chosen("others", "retention"), chosen("composition", "composition"));
    let measured = |subject: &Subject, metric: Option<(&str, &Metric)>| {
        let (id, metric) = metric?;
        Some((Measure::of(evaluation.row(&subject.id, concept, id)?)?, metric.better == "lower"))
    };
    let good = |subject: &Subject, metric| measured(subject, metric).map(|(m, lower)| if lower { m.complement() } else { m });
    let mut standings: Vec<_> = subjects_of(evaluation, concept)
        .into_iter()
        .map(|subject| Standing {
            subject,
            erased: good(subject, erasure),
            kept: good(subject, retention),
            composition: good(subject, composition),
            worst: worst(evaluation, &subject.id, concept),
        })
        .collect();
    standings.sort_by(first);
    standings
}

/// The rule of order, in words.
pub(crate) const RULE: &str = "The base comes first. The others stand in the order of erased, most first; where that is equal, of others kept, most first; \
     then of the worst attack, least first. What has no number comes last. No column is weighed against another.";

/// The rule of order: see [`RULE`].
pub(crate) fn first(a: &Standing<'_>, b: &Standing<'_>) -> Ordering {
    let base = |s: &Standing<'_>| s.subject.kind != "base";
    let value = |m: &Option<Measure>| m.map_or(f64::NEG_INFINITY, |m| m.value);
    let worst = |s: &Standing<'_>| s.worst.as_ref().map_or(f64::INFINITY, |w| w.total.value);
    base(a)
        .cmp(&base(b))
        .then(value(&b.erased).total_cmp(&value(&a.erased)))
        .then(value(&b.kept).total_cmp(&value(&a.kept)))
        .then(worst(a).total_cmp(&worst(b)))
        .then_with(|| a.subject.id.cmp(&b.subject.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Attacked;

    #[test]
    fn the_order_is_the_rule_and_nothing_else() {
        let subject = |id: &str, kind: &str| Subject { id: id.into(), kind: kind.into(), ..Subject::default() };
        let row = |subject: &str, metric: &str, value: f64| Row {
            subject: subject.into(),
            concept: Some("church".into()),
            metric: metric.into(),
            value: Some(value),
            low: Some(value - 0.05),
            high: Some(value + 0.05),
            ..Row::default()
        };
        let metric = |id: &str, better: &str| Metric {
            id: id.into(),
            unit: "fraction".into(),
            better: better.into(),
            ..Metric::default()
        };
        let attack = |subject: &str, attack: &str, total: f64| Attacked {
            subject: subject.into(),
            concept: Some("church".into()),
            attack: attack.into(),
            total: Some(total),
            ..Attacked::default()
        };
        let mut evaluation = Evaluation {
            subjects: ["unseen", "weak", "a", "b", "c"].map(|id| subject(id, "guard")).to_vec(),
            metrics: vec![metric("target", "lower"), metric("others", "higher")],
            rows: vec![
                row("weak", "target", 0.5),
                row("weak", "others", 0.99),
                row("a", "target", 0.0),
                row("a", "others", 0.9),
                row("b", "target", 0.0),
                row("b", "others", 0.9),
                row("c", "target", 0.0),
                row("c", "others", 0.95),
                row("base", "target", 0.0),
                row("unseen", "target", f64::NAN),
            ],
            attacks: vec![attack("a", "p4d", 0.5), attack("b", "p4d", 0.1), attack("b", "pez", 0.3)],
            ..Evaluation::default()
        };
        evaluation.subjects.push(subject("base", "base"));
        let order = standings(&evaluation, Some("church"));
        assert_eq!(order.iter().map(|s| s.subject.id.as_str()).collect::<Vec<_>>(), ["base", "c", "b", "a", "weak", "unseen"]);
        let worst = order[2].worst.clone().unwrap();
        assert_eq!((worst.attack.as_str(), worst.total.value, worst.of), ("pez", 0.3, 2));
        let erased = order[4].erased.unwrap();
        assert_eq!((erased.value, erased.low, erased.high), (0.5, Some(1.0 - 0.55), Some(1.0 - 0.45)));
        assert!(standings(&Evaluation::default(), None).is_empty());
    }
}
