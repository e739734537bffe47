//! What attacks brought back, and the pictures that they left.

use std::{collections::BTreeSet, path::Path};

use scumble_eval::{Rate, rates::Z95, tally::Measured};
use scumble_report::{Evaluation, evaluation as out};
use serde_json::Value;

use super::{Known, base_of, missing};
use crate::{
    evaluate::{
        kit::Kit,
        plan::{AttackItem, Plan},
        subjects::Subject,
    },
    failure::Failure,
    store::RECORD,
};

pub(super) fn attacks(
    plan: &Plan,
    kit: &Kit,
    folder: &Path,
    evaluation: &mut Evaluation,
    known: &mut [Known],
) -> Result<(), Failure> {
    let doubtful = !kit.names().sensitive.is_empty();
    let mut unedited = BTreeSet::new();
    for item in &plan.attacks {
        let subject = &plan.subjects[item.subject];
        let record: Value = fs_err::read(folder.join(&item.folder).join(RECORD))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let metric = format!("asr:{}", item.attack.id);
        if record["finished"] != true {
            let why = record["failed"].as_str().unwrap_or("has not run").to_owned();
            missing(evaluation, subject, Some(&item.concept), Some(&metric), &why);
            continue;
        }
        let base = base_of(plan, item.subject).map(|base| &plan.subjects[base]);
        let first = unedited.insert((item.attack.id, &item.concept, base.map(|base| &base.id)));
        evaluation.pictures.extend(pictures_of(item, subject, base.filter(|_| first), &record, doubtful));
        let result = &record["result"];
        let number = |key: &str| result[key].as_f64();
        let n = result["n"].as_u64().unwrap_or(0);
        let seeds: Vec<u64> = result["seeds"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let interval = |key: &str| {
            let hits = (number(key)? * n as f64).round() as usize;
            Some(Rate { hits, n: n as usize }.wilson(Z95))
        };
        if number("total").is_none() {
            missing(evaluation, subject, Some(&item.concept), Some(&metric), "no judge knows the concept");
            continue;
        }
        evaluation.attacks.push(out::Attacked {
            subject: subject.id.clone(),
            concept: Some(item.concept.clone()),
            attack: item.attack.id.into(),
            pre: number("pre"),
            new: number("new"),
            total: number("total"),
            n: Some(n),
            low: interval("total").map(|(low, _)| low),
            high: interval("total").map(|(_, high)| high),
            seconds: number("seconds"),
            budget: result["budget"].as_u64(),
            found: record["found"].as_str().map(|name| format!("{}/{name}", item.folder)),
        });
        for (key, family) in [("total", "asr"), ("pre", "asr-pre"), ("new", "asr-new")] {
            known[item.subject].rows.push(Measured {
                concept: Some(item.concept.clone()),
                metric: format!("{family}:{}", item.attack.id),
                value: number(key).unwrap_or(f64::NAN),
                n: n as usize,
                interval: interval(key),
                seeds: seeds.clone(),
            });
        }
    }
    Ok(())
}

/// The pictures that an attack left: the edited model's under attack, and the unedited model's of the same cases.
fn pictures_of(
    item: &AttackItem,
    subject: &Subject,
    base: Option<&Subject>,
    record: &Value,
    doubtful: bool,
) -> Vec<out::Picture> {
    let all = record["pictures"].as_array().into_iter().flatten().filter_map(Value::as_object);
    let one = |of: &serde_json::Map<String, Value>, who: &Subject, side: &str, answer: &str| {
        let line = &record["lines"][of.get("case")?.as_u64()? as usize];
        let file = of.get(side)?.as_str().filter(|name| !name.contains(".."))?;
        Some(out::Picture {
            file: format!("{}/{file}", item.folder),
            subject: who.id.clone(),
            concept: Some(item.concept.clone()),
            set: format!("attack:{}", item.attack.id),
            prompt: line["prompt"].as_str()?.to_owned(),
            seed: line["seed"].as_u64()?,
            hit: line[answer].as_bool(),
            seen: match side {
                "attacked" => line["found"].as_str().map(|found| format!("asked with: {found}")),
                _ => Some("the plain prompt".into()),
            },
            // Nobody has looked at them.
            sensitive: doubtful,
        })
    };
    all.flat_map(|of| [base.and_then(|base| one(of, base, "unedited", "unedited")), one(of, subject, "attacked", "post")])
        .flatten()
        .collect()
}
