//! Subjects against each other on the same pictures, and against chance.

use std::collections::BTreeMap;

use scumble_eval::{
    statistics::Paired,
    tally::{About, Measured, Sheet, Shot as Place},
};
use scumble_report::{Evaluation, evaluation as out};

use super::{Known, missing, row};
use crate::{
    evaluate::{kit::Kit, plan::Plan, subjects::Kind},
    failure::Failure,
};

/// Metrics whose answers are compared between subjects, picture by picture.
const COMPARED: [&str; 9] =
    ["target", "others", "binding", "pairs", "background", "paraphrase", "implicit", "category-word", "scene"];

/// A subject's answers, by what was asked and which picture was asked about.
type Hits<'a> = BTreeMap<About, BTreeMap<Place<'a>, bool>>;

fn hits(known: &Known) -> Hits<'_> {
    let all = known.sheet.as_ref().map(Sheet::answers).unwrap_or_default();
    all.into_iter().map(|(about, answers)| (about, answers.into_iter().collect())).collect()
}

/// Every two subjects on the same pictures; and against the oracle, the gap as a row.
pub(super) fn compare(plan: &Plan, known: &[Known], evaluation: &mut Evaluation) -> Result<(), Failure> {
    let all: Vec<Hits<'_>> = known.iter().map(hits).collect();
    for a in 0..all.len() {
        for b in a + 1..all.len() {
            for (about, first) in &all[a] {
                let Some(second) = all[b].get(about).filter(|_| COMPARED.contains(&about.1.as_str())) else { continue };
                let both: Vec<(bool, bool)> = first.iter().filter_map(|(shot, hit)| Some((*hit, *second.get(shot)?))).collect();
                if both.is_empty() {
                    continue;
                }
                let (one, other): (Vec<bool>, Vec<bool>) = both.into_iter().unzip();
                let table = Paired::of(&one, &other)?;
                let difference = table.difference()?;
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
                    p: Some(table.mcnemar()),
                });
                if plan.subjects[b].kind == Kind::Oracle && plan.subjects[a].kind != Kind::Oracle {
                    let gap = Measured {
                        concept,
                        metric: format!("oracle-gap:{metric}"),
                        value: difference.value,
                        n: table.n(),
                        interval: Some((difference.low, difference.high)),
                        seeds: first.keys().map(|(_, seed)| *seed).collect(),
                    };
                    evaluation.rows.push(row(&plan.subjects[a], &gap, plan));
                }
            }
        }
    }
    Ok(())
}

/// Says where the base model itself does no better than chance: nothing can be lost there, and the rates of edits mean nothing.
pub(super) fn chance(plan: &Plan, kit: &Kit, known: &[Known], evaluation: &mut Evaluation) {
    let Some(world) = &kit.world else { return };
    let chance = 1.0 / world.backgrounds.len() as f64;
    for (subject, known) in plan.subjects.iter().zip(known).filter(|(subject, _)| subject.kind == Kind::Base) {
        for measured in known.rows.iter().filter(|m| m.metric == "background" && m.interval.is_some_and(|(low, _)| low <= chance))
        {
            let why = format!(
                "the model itself has the right background in {:.0}% of {} pictures, where chance is {:.0}%: rates of edits say nothing here",
                100.0 * measured.value,
                measured.n,
                100.0 * chance
            );
            missing(evaluation, subject, measured.concept.as_deref(), Some("background"), &why);
        }
    }
}
