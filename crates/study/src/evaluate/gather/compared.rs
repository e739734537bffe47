//! Subjects against each other on the same pictures, and against chance.

use std::collections::BTreeMap;

use scumble_eval::{
    statistics::{self, Clusters, Paired, holm},
    tally::{About, Answer, Measured, Sheet, Shot as Place},
};
use scumble_report::{Evaluation, evaluation as out};

use super::{Known, missing, row};
use crate::evaluate::{kit::Kit, plan::Plan, subjects::Kind};
use crate::failure::Failure;

/// Metrics whose answers are compared between subjects, picture by picture.
const COMPARED: [&str; 10] = [
    "target",
    "others",
    "binding",
    "pairs",
    "pairs-relation",
    "background",
    "paraphrase",
    "implicit",
    "category-word",
    "scene",
];

/// A subject's answers, by what was asked and which picture was asked about.
type Hits<'a> = BTreeMap<About, BTreeMap<Place<'a>, Answer<'a>>>;

fn hits(known: &Known) -> Hits<'_> {
    let all = known.sheet.as_ref().map(Sheet::answers).unwrap_or_default();
    all.into_iter()
        .map(|(about, answers)| {
            (
                about,
                answers
                    .into_iter()
                    .map(|answer| (answer.shot, answer))
                    .collect(),
            )
        })
        .collect()
}

/// Every two subjects on the same pictures; and against the oracle, the gap as a row.
pub(super) fn compare(
    plan: &Plan,
    known: &[Known],
    evaluation: &mut Evaluation,
) -> Result<(), Failure> {
    let all: Vec<Hits<'_>> = known.iter().map(hits).collect();
    for a in 0..all.len() {
        for b in a + 1..all.len() {
            for (about, first) in &all[a] {
                let Some(second) = all[b]
                    .get(about)
                    .filter(|_| COMPARED.contains(&about.1.as_str()))
                else {
                    continue;
                };
                let both: Vec<(&Answer<'_>, bool)> = first
                    .iter()
                    .filter_map(|(shot, answer)| Some((answer, second.get(shot)?.hit)))
                    .collect();
                if both.is_empty() {
                    continue;
                }
                let clusters = Clusters::by(both.iter().map(|(answer, _)| answer.cluster));
                let (one, other): (Vec<bool>, Vec<bool>) = both
                    .iter()
                    .map(|(answer, other)| (answer.hit, *other))
                    .unzip();
                let table = Paired::of(&one, &other)?;
                let difference = statistics::difference(&one, &other, &clusters)?;
                let (concept, metric) = about.clone();
                evaluation.paired.push(out::Paired {
                    concept: concept.clone(),
                    metric: metric.clone(),
                    a: plan.subjects[a].id.clone(),
                    b: plan.subjects[b].id.clone(),
                    n: Some(table.n() as u64),
                    only_a: Some(table.first as u64),
                    only_b: Some(table.second as u64),
                    difference: Some(difference.value),
                    low: Some(difference.low),
                    high: Some(difference.high),
                    p: Some(statistics::sign_flip(&one, &other, &clusters)?),
                    adjusted: None,
                    tests: None,
                    clusters: (clusters.len() < table.n()).then_some(clusters.len() as u64),
                });
                if plan.subjects[b].kind == Kind::Oracle && plan.subjects[a].kind != Kind::Oracle {
                    let gap = Measured {
                        concept,
                        metric: format!("oracle-gap:{metric}"),
                        value: difference.value,
                        n: table.n(),
                        interval: Some((difference.low, difference.high)),
                        seeds: first.keys().map(|(_, seed)| *seed).collect(),
                        note: None,
                    };
                    evaluation.rows.push(row(&plan.subjects[a], &gap, plan));
                }
            }
        }
    }
    correct(&mut evaluation.paired);
    Ok(())
}

/// Holm's correction within each metric: over all pairs of subjects and all concepts.
fn correct(tests: &mut [out::Paired]) {
    let mut families: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, test) in tests.iter().enumerate() {
        families.entry(test.metric.clone()).or_default().push(i);
    }
    for family in families.into_values() {
        let ps: Vec<f64> = family.iter().map(|&i| tests[i].p.unwrap_or(1.0)).collect();
        for (&i, adjusted) in family.iter().zip(holm(&ps)) {
            tests[i].adjusted = Some(adjusted);
            tests[i].tests = Some(family.len() as u64);
        }
    }
}

/// Says where the base model itself does no better than chance: nothing can be lost there, and the
/// rates of edits mean nothing.
pub(super) fn chance(plan: &Plan, kit: &Kit, known: &[Known], evaluation: &mut Evaluation) {
    let Some(world) = &kit.world else { return };
    let chance = 1.0 / world.backgrounds.len() as f64;
    for (subject, known) in plan
        .subjects
        .iter()
        .zip(known)
        .filter(|(subject, _)| subject.kind == Kind::Base)
    {
        for measured in known.rows.iter().filter(|m| {
            m.metric == "background" && m.interval.is_some_and(|(low, _)| low <= chance)
        }) {
            let why = format!(
                "the model itself has the right background in {:.0}% of {} pictures, where chance is {:.0}%: rates of edits say nothing here",
                100.0 * measured.value,
                measured.n,
                100.0 * chance
            );
            missing(
                evaluation,
                subject,
                measured.concept.as_deref(),
                Some("background"),
                &why,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_corrected_within_their_metric() {
        let test = |metric: &str, p: f64| out::Paired {
            metric: metric.into(),
            p: Some(p),
            ..out::Paired::default()
        };
        let mut tests = vec![
            test("target", 0.01),
            test("others", 0.04),
            test("target", 0.04),
            test("target", 0.03),
        ];
        correct(&mut tests);
        // p.adjust(c(.01, .04, .03), "holm") of R: 0.03 0.06 0.06; one test alone stays what it is.
        let found: Vec<(f64, u64)> = tests
            .iter()
            .map(|t| ((t.adjusted.unwrap() * 1e6).round() / 1e6, t.tests.unwrap()))
            .collect();
        assert_eq!(found, [(0.03, 3), (0.04, 1), (0.06, 3), (0.06, 3)]);
    }
}
