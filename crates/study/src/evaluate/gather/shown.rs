//! What a report shows beside numbers: pictures, curves, confusion, the map, and what each metric
//! is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use scumble_erase::Known;
use scumble_eval::{Rate, metrics, rates::Z95, tally::Sheet};
use scumble_report::{Evaluation, evaluation as out};

use crate::evaluate::{
    album::Shot,
    gallery::Gallery,
    kit::Kit,
    plan::Plan,
    subjects::{Subject, digest},
};
use crate::failure::Failure;

/// Pictures of each set and concept that a report may choose from.
const SHOWN: usize = 12;

/// Pictures, curves and confusion of one subject.
pub(super) fn show(
    gallery: &Gallery,
    subject: &Subject,
    kit: &Kit,
    sheet: &Sheet,
    evaluation: &mut Evaluation,
) {
    let mut counts: BTreeMap<(Option<&str>, &str), out::Count> = BTreeMap::new();
    let mut sizes: BTreeMap<(Option<&str>, &str), (usize, usize)> = BTreeMap::new();
    for (asked, _) in &sheet.asked {
        sizes
            .entry((asked.concept.as_deref(), asked.set.id()))
            .or_default()
            .0 += 1;
    }
    for (asked, picture) in &sheet.asked {
        let hit = asked
            .asks
            .first()
            .and_then(|ask| sheet.shows(*picture, &ask.wanted));
        let count = counts
            .entry((asked.concept.as_deref(), asked.set.id()))
            .or_insert_with(|| out::Count {
                subject: subject.id.clone(),
                concept: asked.concept.clone(),
                set: asked.set.id().into(),
                ..out::Count::default()
            });
        count.drawn += 1;
        count.judged += u64::from(hit.is_some());
        count.hits += u64::from(hit == Some(true));
        // At equal steps through each set, whatever they show.
        let (n, place) = sizes
            .entry((asked.concept.as_deref(), asked.set.id()))
            .or_default();
        *place += 1;
        if *n > SHOWN && (*place * SHOWN) / *n == ((*place - 1) * SHOWN) / *n {
            continue;
        }
        let shot = Shot::of(asked);
        evaluation.pictures.push(out::Picture {
            file: gallery.picture_name(&subject.hash, &shot),
            subject: subject.id.clone(),
            concept: asked.concept.clone(),
            set: asked.set.id().into(),
            prompt: asked.prompt.clone(),
            seed: asked.seed,
            hit,
            seen: Some(sheet.seen(asked, *picture)).filter(|seen| !seen.is_empty()),
            sensitive: sheet.is_sensitive(*picture),
        });
    }
    evaluation.counts.extend(counts.into_values());
    for curve in sheet.curves() {
        evaluation.curves.push(out::Curve {
            subject: subject.id.clone(),
            name: format!(
                "{}, {}",
                curve.metric,
                curve.concept.as_deref().unwrap_or("all prompts")
            ),
            concept: curve.concept,
            metric: curve.metric,
            thresholds: curve.thresholds.into_iter().map(Some).collect(),
            values: curve.values.into_iter().map(Some).collect(),
        });
    }
    let counts = sheet.confusion();
    if counts.iter().flatten().any(|&count| count > 0) {
        evaluation.confusion.push(out::Confusion {
            subject: subject.id.clone(),
            concept: None,
            kind: "object".into(),
            labels: sheet.names.objects.clone(),
            counts: counts
                .into_iter()
                .map(|row| row.into_iter().map(Some).collect())
                .collect(),
            erased: erased(subject, kit, &sheet.names.objects),
        });
    }
}

/// The judge's labels that a subject was to forget: an object, or the members of a category.
fn erased(subject: &Subject, kit: &Kit, labels: &[String]) -> Vec<String> {
    let Some(world) = &kit.world else {
        return Vec::new();
    };
    let of = |name: &String| match world.find(name) {
        Some(Known::Object(name)) => vec![name],
        Some(Known::Category { members, .. }) => members,
        _ => Vec::new(),
    };
    subject
        .erased
        .iter()
        .flat_map(of)
        .filter(|name| labels.contains(name))
        .collect()
}

pub(super) fn matrix(
    plan: &Plan,
    kit: &Kit,
    folder: &Path,
    gallery: &Gallery,
    evaluation: &mut Evaluation,
) -> Result<(), Failure> {
    let Some(impact) = &plan.impact else {
        return Ok(());
    };
    let plan_hash = plan.hash();
    let (before, after) = impact.rates(folder, gallery, kit)?;
    for (erased, row) in impact.erased.iter().zip(&after) {
        if row.iter().all(Option::is_none) {
            let why = "has not run".into();
            let metric = Some("impact".into());
            evaluation.missing.push(out::Missing {
                subject: None,
                concept: Some(erased.clone()),
                metric,
                why,
            });
        }
        for (affected, value) in impact.affected.iter().zip(row) {
            let Some(value) = value else { continue };
            let styles = kit
                .world
                .as_ref()
                .is_some_and(|world| world.styles.contains(affected));
            let n = if styles {
                impact.album.shots.len() / 6
            } else {
                6
            };
            let (low, high) = Rate {
                hits: (value * n as f64).round() as usize,
                n,
            }
            .wilson(Z95);
            evaluation.rows.push(out::Row {
                subject: format!("impact:{}", impact.method.id),
                concept: Some(erased.clone()),
                metric: format!("impact:{affected}"),
                value: Some(*value),
                n: Some(n as u64),
                low: Some(low),
                high: Some(high),
                seeds: vec![],
                hash: digest(&[&plan_hash, erased, affected])[..16].to_owned(),
            });
        }
    }
    evaluation.impact = Some(out::Impact {
        method: impact.method.id.into(),
        erased: impact.erased.clone(),
        affected: impact.affected.clone(),
        before,
        after,
        n: Some(6),
        similarity: impact
            .similarity
            .iter()
            .map(|row| row.iter().copied().map(Some).collect())
            .collect(),
    });
    Ok(())
}

pub(super) fn described_metrics(
    used: BTreeSet<&str>,
    plan: &Plan,
    sensitive: &[String],
) -> Vec<out::Metric> {
    let mut all: Vec<out::Metric> = Vec::new();
    let mut order: Vec<&str> = used.into_iter().collect();
    order.sort_by_key(|id| {
        metrics::of(id).and_then(|m| metrics::ALL.iter().position(|other| other.id == m.id))
    });
    for id in order {
        let Some(metric) = metrics::of(id) else {
            continue;
        };
        // One entry for a family, under the name that its rows begin with.
        let own = id.split(':').next().unwrap_or(id);
        if all.iter().any(|known| known.id == own) {
            continue;
        }
        all.push(out::Metric {
            id: own.into(),
            name: metric.name.into(),
            meaning: metric.meaning.into(),
            unit: metric.unit.into(),
            better: metric.better.into(),
            axis: metric.axis.into(),
            convention: metric.convention(Some(&plan.setting)),
            source: metric.source.into(),
            sensitive: sensitive
                .iter()
                .any(|name| own.ends_with(&format!("-{name}"))),
        });
    }
    all
}
