//! What came out, in a few sentences: what a page and a text begin with.

use crate::{
    evaluation::Evaluation,
    format::{counted, interval, listed, percent},
    summary::{Measure, Standing, detector_name, detectors, standings},
};

/// Subjects that are named in a sentence, at most.
const NAMED: usize = 4;

/// The sentences about a concept; empty where nothing was measured.
pub(crate) fn sentences(evaluation: &Evaluation, concept: Option<&str>) -> Vec<String> {
    let standings = standings(evaluation, concept);
    let name = concept.unwrap_or("the concept");
    let mut said = Vec::new();
    let (base, others): (Vec<_>, Vec<_>) = standings.iter().partition(|s| s.subject.kind == "base");
    let label = |s: &Standing<'_>| evaluation.label(&s.subject.id).to_owned();
    // The subjects that have a number, in the order of the table: all of few, the ends of many.
    let list = |get: &dyn Fn(&Standing<'_>) -> Option<String>| -> Option<String> {
        let found: Vec<String> = others
            .iter()
            .filter_map(|s| Some(format!("{} {}", label(s), get(s)?)))
            .collect();
        match found.len() {
            0 => None,
            n if n <= NAMED => Some(listed(&found)),
            n => Some(format!(
                "{}, … and {} (of {n}, the table has all)",
                found[..NAMED - 1].join(", "),
                found[n - 1]
            )),
        }
    };
    let whole = |m: Measure| {
        format!(
            "{} {}",
            percent(m.value),
            interval(m.low, m.high, "fraction")
        )
        .trim()
        .to_owned()
    };
    let of_base =
        |get: &dyn Fn(&Standing<'_>) -> Option<Measure>| base.first().and_then(|s| get(s));
    match (of_base(&|s| s.shows), list(&|s| s.shows.map(whole))) {
        (Some(before), Some(after)) => {
            let n = before
                .n
                .map(|n| counted(n as usize, "picture", "pictures"))
                .unwrap_or_else(|| "its pictures".into());
            said.push(format!(
                "Asked for {name}, the model shows it in {} of {n}; with {after}.",
                percent(before.value)
            ));
        }
        (Some(before), None) => said.push(format!(
            "Asked for {name}, the model shows it in {} of its pictures.",
            whole(before)
        )),
        (None, Some(after)) => said.push(format!("Asked for {name}, it is shown with {after}.")),
        (None, None)
            if evaluation
                .pictures
                .iter()
                .any(|p| p.concept.as_deref() == concept && p.set == "target") =>
        {
            let looked: Vec<&str> = detectors(evaluation, concept)
                .into_iter()
                .map(detector_name)
                .collect();
            let by = if looked.is_empty() {
                String::new()
            } else {
                format!(
                    " What {} saw is in the table; it is not asked about {name}.",
                    listed(&looked)
                )
            };
            said.push(format!(
                "Nobody judged whether the pictures show {name}: look at them, or bring a detector that knows it.{by}"
            ));
        }
        (None, None) => {}
    }
    if let Some(after) = list(&|s| s.kept.map(whole)) {
        said.push(match of_base(&|s| s.kept) {
            Some(before) => format!(
                "Of everything else the model gets {} right; with {after}.",
                percent(before.value)
            ),
            None => format!("Of everything else is right with {after}."),
        });
    }
    if let Some(worst) = list(&|s| {
        s.words()
            .map(|w| format!("{} ({})", whole(w.total), w.attack))
    }) {
        said.push(format!(
            "Asked with words that an attack found, it is shown again: {worst}."
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Attacked, Metric, Picture, Row, Subject};

    fn evaluation(subjects: &[&str], rows: &[(&str, &str, f64)]) -> Evaluation {
        let subject = |id: &&str| Subject {
            id: (*id).into(),
            label: (*id).into(),
            kind: if *id == "base" { "base" } else { "edit" }.into(),
            ..Subject::default()
        };
        let row = |&(subject, metric, value): &(&str, &str, f64)| Row {
            subject: subject.into(),
            concept: Some("church".into()),
            metric: metric.into(),
            value: Some(value),
            n: Some(48),
            low: Some(value - 0.01),
            high: Some(value + 0.01),
            ..Row::default()
        };
        let metric = |id: &str| Metric {
            id: id.into(),
            ..Metric::default()
        };
        Evaluation {
            subjects: subjects.iter().map(subject).collect(),
            rows: rows.iter().map(row).collect(),
            metrics: ["target", "others"].map(metric).to_vec(),
            ..Evaluation::default()
        }
    }

    #[test]
    fn the_first_sentence_says_what_came_out() {
        let mut evaluation = evaluation(
            &["base", "esd", "uce"],
            &[
                ("base", "target", 0.9),
                ("esd", "target", 0.0625),
                ("uce", "target", 0.02),
                ("base", "others", 0.95),
                ("esd", "others", 0.94),
            ],
        );
        evaluation.attacks.push(Attacked {
            subject: "esd".into(),
            attack: "unlearndiff".into(),
            total: Some(0.25),
            ..Attacked::default()
        });
        assert_eq!(
            sentences(&evaluation, Some("church")),
            [
                "Asked for church, the model shows it in 90.0% of 48 pictures; with uce 2.0% [1.0, 3.0%] and esd 6.3% [5.3, 7.3%].",
                "Of everything else the model gets 95.0% right; with esd 94.0% [93.0, 95.0%].",
                "Asked with words that an attack found, it is shown again: esd 25.0% (unlearndiff).",
            ]
        );
    }

    #[test]
    fn what_nobody_judged_is_said_so() {
        let mut evaluation = evaluation(&["base", "uce"], &[("base", "detections-nn", 0.0)]);
        evaluation.pictures.push(Picture {
            subject: "base".into(),
            concept: Some("church".into()),
            set: "target".into(),
            ..Picture::default()
        });
        let said = sentences(&evaluation, Some("church"));
        assert_eq!(said.len(), 1);
        assert!(
            said[0].starts_with("Nobody judged whether the pictures show church")
                && said[0].contains("What nn saw"),
            "{}",
            said[0]
        );
        assert!(sentences(&Evaluation::default(), None).is_empty());
    }

    #[test]
    fn of_many_only_the_ends_are_named() {
        let names: Vec<String> = (0..9).map(|i| format!("m{i}")).collect();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        let rows: Vec<(&str, &str, f64)> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (*id, "target", 0.05 + 0.1 * i as f64))
            .collect();
        let said = &sentences(&evaluation(&ids, &rows), Some("church"))[0];
        assert!(
            said.contains("m0")
                && said.contains("m2")
                && !said.contains("m3")
                && said.contains("m8 85.0%"),
            "{said}"
        );
        assert!(said.contains("of 9, the table has all"), "{said}");
    }
}
