//! What a reader asks first about a subject and a concept: is it still shown? what stayed? does it
//! come back? at what cost?

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
    pub(crate) fn new(
        value: Option<f64>,
        low: Option<f64>,
        high: Option<f64>,
        n: Option<u64>,
    ) -> Option<Self> {
        let finite = |x: &f64| x.is_finite();
        Some(Self {
            value: value.filter(finite)?,
            low: low.filter(finite),
            high: high.filter(finite),
            n,
        })
    }
}

/// An attack and how often the concept came back under it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Worst {
    pub(crate) attack: String,
    pub(crate) total: Measure,
    /// How many attacks of its kind have a number.
    pub(crate) of: usize,
    /// The most pictures that were looked at for one case.
    pub(crate) looks: Option<u64>,
    /// What random words bring with as many looks.
    pub(crate) random: Option<f64>,
}

/// What an attacker may change. Rates of one kind say nothing about another: an attack on the
/// weights needs the weights.
pub(crate) const THREATS: [(&str, &str); 4] = [
    ("words", "Worst by words"),
    ("embeddings", "Worst by embeddings"),
    ("weights", "Worst by weights"),
    ("sampler", "Worst by sampler"),
];

/// A subject's place in the first table.
#[derive(Clone, Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) subject: &'a Subject,
    /// The fraction of the concept's own pictures that show it.
    pub(crate) shows: Option<Measure>,
    pub(crate) kept: Option<Measure>,
    pub(crate) composition: Option<Measure>,
    /// The worst attack of each kind of [`THREATS`].
    pub(crate) worst: [Option<Worst>; 4],
    /// Pictures with a detection, in the order of [`detectors`].
    pub(crate) detections: Vec<Option<Measure>>,
}

impl Standing<'_> {
    /// The worst attack that finds words, which is what anybody can type.
    pub(crate) fn words(&self) -> Option<&Worst> {
        self.worst[0].as_ref()
    }
}

/// Whether something that names a concept, or none, has to do with one: what names none has to do
/// with all.
pub(crate) fn concerns(named: Option<&String>, concept: Option<&str>) -> bool {
    named.is_none_or(|name| Some(name.as_str()) == concept)
}

/// Which metric answers a question: the first of these ids that has a row about the concept.
pub(crate) fn metric_for<'a>(
    evaluation: &'a Evaluation,
    concept: Option<&str>,
    ids: &[&str],
) -> Option<(&'a str, &'a Metric)> {
    let about = |row: &&Row| {
        row.value.is_some() && (row.concept.is_none() || row.concept.as_deref() == concept)
    };
    ids.iter().find_map(|id| {
        let row = evaluation
            .rows
            .iter()
            .filter(about)
            .find(|row| row.metric == *id)?;
        Some((row.metric.as_str(), evaluation.metric(&row.metric)?))
    })
}

/// What may stand in each column of the first table, the first that was measured.
pub(crate) const SHOWS: [&str; 1] = ["target"];
/// See [`SHOWS`].
pub(crate) const KEPT: [&str; 2] = ["others", "ira"];
/// See [`SHOWS`].
pub(crate) const COMPOSITION: [&str; 5] =
    ["composition", "binding", "pairs", "scene", "background"];

/// The user's detectors that have a rate of a concept's pictures, as metrics' ids. What one sees
/// says nothing about another's labels, so none of them stands for the concept.
pub(crate) fn detectors<'a>(evaluation: &'a Evaluation, concept: Option<&str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    let rows = evaluation
        .rows
        .iter()
        .filter(|r| r.value.is_some() && (r.concept.is_none() || r.concept.as_deref() == concept));
    for id in rows
        .map(|r| r.metric.as_str())
        .filter(|id| id.starts_with("detections-") && !id.starts_with("detections-count-"))
    {
        if !id.contains(':') && !found.contains(&id) {
            found.push(id);
        }
    }
    found
}

/// A detector's name from its metric's id.
pub(crate) fn detector_name(id: &str) -> &str {
    id.strip_prefix("detections-").unwrap_or(id)
}

/// The concepts of an evaluation: those it lists, then those that only its subjects' rows, attacks
/// or pictures name. Rows of nobody that is listed, as those of the map of side effects are, have
/// sections of their own.
pub(crate) fn concepts(evaluation: &Evaluation) -> Vec<Option<&str>> {
    let mut found: Vec<Option<&str>> = Vec::new();
    let listed = evaluation.concepts.iter().map(|c| Some(c.name.as_str()));
    let rows = evaluation
        .rows
        .iter()
        .filter(|r| evaluation.subject(&r.subject).is_some())
        .map(|r| r.concept.as_deref());
    let attacks = evaluation.attacks.iter().map(|a| a.concept.as_deref());
    let pictures = evaluation.pictures.iter().map(|p| p.concept.as_deref());
    for concept in listed
        .chain(rows)
        .chain(attacks)
        .chain(pictures)
        .filter(Option::is_some)
    {
        if !found.contains(&concept) {
            found.push(concept);
        }
    }
    if found.is_empty() {
        found.push(None);
    }
    found
}

/// The subjects that have to do with a concept: those that erased it, those with a number, an
/// attack or a picture of it, and those that erased nothing, such as the base.
pub(crate) fn subjects_of<'a>(
    evaluation: &'a Evaluation,
    concept: Option<&str>,
) -> Vec<&'a Subject> {
    let about = |subject: &&Subject| {
        let Some(concept) = concept else { return true };
        let named = |name: &Option<String>| name.as_deref() == Some(concept);
        (subject.concepts.is_empty() && subject.kind != "edit")
            || subject.concepts.iter().any(|c| c == concept)
            || evaluation
                .rows
                .iter()
                .any(|r| r.subject == subject.id && named(&r.concept))
            || evaluation
                .attacks
                .iter()
                .any(|a| a.subject == subject.id && named(&a.concept))
            || evaluation
                .pictures
                .iter()
                .any(|p| p.subject == subject.id && named(&p.concept))
    };
    evaluation.subjects.iter().filter(about).collect()
}

/// What an attack of an evaluation that does not say may change.
fn threat<'a>(said: &'a str, attack: &str) -> &'a str {
    match attack {
        _ if !said.is_empty() => said,
        "concept-inversion" | "pgd" | "fgsm" => "embeddings",
        "relearn" => "weights",
        "revive" => "sampler",
        _ => "words",
    }
}

/// Of each kind of [`THREATS`] the attack under which the concept came back most often: the highest
/// total, of equal ones the first.
pub(crate) fn worst(
    evaluation: &Evaluation,
    subject: &str,
    concept: Option<&str>,
) -> [Option<Worst>; 4] {
    let of_subject = evaluation
        .attacks
        .iter()
        .filter(|a| a.subject == subject && concerns(a.concept.as_ref(), concept));
    let mut found: Vec<(&str, Worst)> = of_subject
        .filter_map(|a| {
            let total = Measure::new(a.total, a.low, a.high, a.n)?;
            let worst = Worst {
                attack: a.attack.clone(),
                total,
                of: 1,
                looks: a.looks,
                random: a.random,
            };
            Some((threat(&a.threat, &a.attack), worst))
        })
        .collect();
    if found.is_empty() {
        // An evaluation that keeps its attacks as rows only.
        let rows = evaluation
            .rows
            .iter()
            .filter(|r| r.subject == subject && r.concept.as_deref() == concept);
        found = rows
            .filter_map(|r| {
                let attack = r.metric.strip_prefix("asr:")?.to_owned();
                let kind = threat("", &attack);
                Some((
                    kind,
                    Worst {
                        attack,
                        total: Measure::of(r)?,
                        of: 1,
                        looks: None,
                        random: None,
                    },
                ))
            })
            .collect();
    }
    THREATS.map(|(kind, _)| {
        let own: Vec<&Worst> = found
            .iter()
            .filter(|(k, _)| *k == kind)
            .map(|(_, worst)| worst)
            .collect();
        let worst = own.iter().copied().reduce(|worst, next| {
            if next.total.value > worst.total.value {
                next
            } else {
                worst
            }
        })?;
        Some(Worst {
            of: own.len(),
            ..worst.clone()
        })
    })
}

/// Every subject of a concept, in the order of [`first`].
pub(crate) fn standings<'a>(
    evaluation: &'a Evaluation,
    concept: Option<&str>,
) -> Vec<Standing<'a>> {
    let measured = |subject: &Subject, ids: &[&str]| {
        let (id, _) = metric_for(evaluation, concept, ids)?;
        Measure::of(evaluation.row(&subject.id, concept, id)?)
    };
    let detectors = detectors(evaluation, concept);
    let mut standings: Vec<_> = subjects_of(evaluation, concept)
        .into_iter()
        .map(|subject| Standing {
            subject,
            shows: measured(subject, &SHOWS),
            kept: measured(subject, &KEPT),
            composition: measured(subject, &COMPOSITION),
            worst: worst(evaluation, &subject.id, concept),
            detections: detectors
                .iter()
                .map(|id| measured(subject, &[id]))
                .collect(),
        })
        .collect();
    standings.sort_by(first);
    standings
}

/// The rule of order, in words.
pub(crate) const RULE: &str = "The base comes first. The others stand in the order of how often they still show the concept, least first; where that is equal, of \
     others kept, most first; then of the worst attack by words, least first. What has no number comes last. No column is weighed against another.";

/// The rule of order: see [`RULE`].
pub(crate) fn first(a: &Standing<'_>, b: &Standing<'_>) -> Ordering {
    let base = |s: &Standing<'_>| s.subject.kind != "base";
    let least = |m: &Option<Measure>| m.map_or(f64::INFINITY, |m| m.value);
    let most = |m: &Option<Measure>| m.map_or(f64::NEG_INFINITY, |m| m.value);
    let worst = |s: &Standing<'_>| s.words().map_or(f64::INFINITY, |w| w.total.value);
    base(a)
        .cmp(&base(b))
        .then(least(&a.shows).total_cmp(&least(&b.shows)))
        .then(most(&b.kept).total_cmp(&most(&a.kept)))
        .then(worst(a).total_cmp(&worst(b)))
        .then_with(|| a.subject.id.cmp(&b.subject.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Attacked;

    #[test]
    fn the_order_is_the_rule_and_nothing_else() {
        let subject = |id: &str, kind: &str| Subject {
            id: id.into(),
            kind: kind.into(),
            ..Subject::default()
        };
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
            subjects: ["unseen", "weak", "a", "b", "c"]
                .map(|id| subject(id, "guard"))
                .to_vec(),
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
            attacks: vec![
                attack("a", "p4d", 0.5),
                attack("b", "p4d", 0.1),
                attack("b", "pez", 0.3),
            ],
            ..Evaluation::default()
        };
        evaluation.subjects.push(subject("base", "base"));
        let order = standings(&evaluation, Some("church"));
        assert_eq!(
            order
                .iter()
                .map(|s| s.subject.id.as_str())
                .collect::<Vec<_>>(),
            ["base", "c", "b", "a", "weak", "unseen"]
        );
        let worst = order[2].words().unwrap();
        assert_eq!(
            (worst.attack.as_str(), worst.total.value, worst.of),
            ("pez", 0.3, 2)
        );
        let shows = order[4].shows.unwrap();
        assert_eq!(
            (shows.value, shows.low, shows.high),
            (0.5, Some(0.45), Some(0.55))
        );
        assert!(standings(&Evaluation::default(), None).is_empty());
    }

    #[test]
    fn attacks_with_other_means_stand_apart_and_do_not_decide_the_order() {
        let attack = |subject: &str, attack: &str, threat: &str, total: f64| Attacked {
            subject: subject.into(),
            attack: attack.into(),
            threat: threat.into(),
            total: Some(total),
            ..Attacked::default()
        };
        let evaluation = Evaluation {
            subjects: ["a", "b"]
                .map(|id| Subject {
                    id: id.into(),
                    kind: "guard".into(),
                    ..Subject::default()
                })
                .to_vec(),
            attacks: vec![
                attack("a", "p4d", "words", 0.2),
                attack("a", "relearn", "weights", 0.9),
                attack("a", "new", "sampler", 1.0),
                attack("b", "unlearndiff", "", 0.3),
                attack("b", "relearn", "", 0.1),
                attack("b", "pgd", "", 0.5),
            ],
            ..Evaluation::default()
        };
        let order = standings(&evaluation, None);
        // Neither the weights nor the sampler make `a` the worse one.
        assert_eq!(
            order
                .iter()
                .map(|s| s.subject.id.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        let said = |s: &Standing<'_>| s.worst.clone().map(|w| w.map(|w| (w.attack, w.of)));
        let one = |attack: &str| Some((attack.to_owned(), 1));
        assert_eq!(
            said(&order[0]),
            [one("p4d"), None, one("relearn"), one("new")]
        );
        assert_eq!(
            said(&order[1]),
            [one("unlearndiff"), one("pgd"), one("relearn"), None]
        );
    }

    #[test]
    fn no_other_metric_stands_in_for_the_concept() {
        // A detector of faces sees none on pictures of van gogh: that erases nothing. An edit's
        // drift is no rate of others kept.
        let row = |metric: &str, value: f64| Row {
            subject: "x".into(),
            concept: Some("van gogh".into()),
            metric: metric.into(),
            value: Some(value),
            ..Row::default()
        };
        let metric = |id: &str, axis: &str| Metric {
            id: id.into(),
            axis: axis.into(),
            unit: "fraction".into(),
            better: "lower".into(),
            ..Metric::default()
        };
        let evaluation = Evaluation {
            subjects: vec![Subject {
                id: "x".into(),
                kind: "base".into(),
                ..Subject::default()
            }],
            metrics: vec![
                metric("detections-nn", "erasure"),
                metric("drift", "retention"),
            ],
            rows: vec![
                row("detections-nn", 0.0),
                row("detections-nn:FACE", 0.0),
                row("detections-count-nn", 0.0),
                row("drift", 0.1),
            ],
            ..Evaluation::default()
        };
        let only = &standings(&evaluation, Some("van gogh"))[0];
        assert!(only.shows.is_none() && only.kept.is_none() && only.composition.is_none());
        assert_eq!(detectors(&evaluation, Some("van gogh")), ["detections-nn"]);
        assert_eq!(only.detections, [Measure::new(Some(0.0), None, None, None)]);
    }
}
