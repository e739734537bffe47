//! What is measured between a subject's pictures and the base model's, or a reference.

use std::{collections::BTreeMap, path::Path};

use scumble_erase::drift;
use scumble_eval::{
    distribution::{self, Gaussian, npz},
    inception::Convention,
    instruments::CLIP,
    protocol::Set,
    rates::Z95,
    statistics,
    tally::{Measured, Shot as Place},
};
use scumble_report::Evaluation;

use super::{Known, base_of, missing};
use crate::{
    args::EvaluateArgs,
    evaluate::{
        gallery::{Gallery, Shot},
        inception::{self, Reference},
        kit::Kit,
        plan::Plan,
        subjects::{Kind, digest},
    },
    failure::Failure,
    output, progress,
};

/// Groups of pictures that the jackknife leaves out in turn.
const GROUPS: usize = 10;

/// What is measured between a subject's others and the base model's on the same prompts and seeds.
pub(super) fn against_base(plan: &Plan, kit: &Kit, evaluation: &mut Evaluation, known: &mut [Known]) -> Result<(), Failure> {
    let Some((_, name)) = kit.clip() else { return Ok(()) };
    for i in 0..known.len() {
        let Some(base) = base_of(plan, i) else { continue };
        let (Some(own), Some(theirs)) = (&known[i].sheet, &known[base].sheet) else { continue };
        let mut found = Vec::new();
        for concept in plan.concepts.iter().map(|name| Some(name.as_str())).chain([None]) {
            let set = if concept.is_some() { Set::Others } else { Set::Prompts };
            let (x, y) = shared(&theirs.rows(CLIP, set, concept), &own.rows(CLIP, set, concept));
            let seeds: Vec<u64> = own.rows(CLIP, set, concept).iter().map(|((_, seed), _)| *seed).collect();
            // Fewer pictures than this say nothing about a distribution.
            if x.len() < 2 * GROUPS {
                if !x.is_empty() {
                    let why = format!(
                        "distances between distributions need {} pictures on the same seeds, there are {}",
                        2 * GROUPS,
                        x.len()
                    );
                    missing(evaluation, &plan.subjects[i], concept, Some(&format!("frechet-clip-{name}")), &why);
                }
                continue;
            }
            let mut add = |metric: String, statistic: &Statistic| -> Result<(), Failure> {
                let (value, interval) = jackknife(&x, &y, statistic)?;
                let concept = concept.map(Into::into);
                found.push(Measured { concept, metric, value, n: x.len(), interval: Some(interval), seeds: seeds.clone() });
                Ok(())
            };
            add(format!("frechet-clip-{name}"), &|x, y| {
                Ok(distribution::frechet(&Gaussian::of(x)?, &Gaussian::of(y)?)?.distance)
            })?;
            add(format!("kid-clip-{name}"), &|x, y| Ok(distribution::kid(x, y)?.value))?;
            add(format!("precision-clip-{name}"), &|x, y| Ok(distribution::precision_recall(x, y, 3)?.precision))?;
            add(format!("recall-clip-{name}"), &|x, y| Ok(distribution::precision_recall(x, y, 3)?.recall))?;
        }
        known[i].rows.extend(found);
    }
    Ok(())
}

/// The pictures that a subject has in common with the base model, of the others and of the user's prompts.
fn paired_shots(plan: &Plan, i: usize, concept: Option<&str>) -> Vec<Shot> {
    let set = if concept.is_some() { Set::Others } else { Set::Prompts };
    let of = plan.albums[i].asked.iter().filter(|(asked, _)| asked.set == set && asked.concept.as_deref() == concept);
    of.map(|(asked, _)| Shot::of(asked)).collect()
}

/// What is measured picture by picture between a subject and the base model; kept beside the facts.
pub(super) fn beside_base(plan: &Plan, kit: &Kit, gallery: &Gallery, folder: &Path, known: &mut [Known]) -> Result<(), Failure> {
    for (i, known) in known.iter_mut().enumerate() {
        let Some(base) = base_of(plan, i).filter(|_| !progress::interrupted()) else { continue };
        for one in kit.beside() {
            for concept in plan.concepts.iter().map(|name| Some(name.as_str())).chain([None]) {
                let shots = paired_shots(plan, i, concept);
                let name = |subject: usize, shot: &Shot| gallery.picture_name(&plan.subjects[subject].hash, shot);
                let pairs: Option<Vec<_>> = shots
                    .iter()
                    .map(|shot| Some((gallery.picture(&name(base, shot))?, gallery.picture(&name(i, shot))?)))
                    .collect();
                let Some((theirs, own)) =
                    pairs.filter(|pairs| !pairs.is_empty()).map(|pairs| pairs.into_iter().unzip::<_, _, Vec<_>, Vec<_>>())
                else {
                    continue;
                };
                let shot_names: String = shots.iter().map(|shot| name(i, shot)).collect();
                let key = digest(&[one.metric, one.hash, &plan.subjects[base].hash, &shot_names]);
                let path = folder.join("facts").join(format!("beside-{key}.json"));
                let stored = fs_err::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Vec<f32>>(&bytes).ok());
                let values = match stored {
                    Some(values) if values.len() == shots.len() => values,
                    _ => {
                        let values = (one.measure)(&theirs, &own)?;
                        crate::store::write_file(&path, serde_json::to_string(&values).unwrap_or_default().as_bytes())?;
                        values
                    }
                };
                let values: Vec<f64> = values.into_iter().map(f64::from).collect();
                let mean = statistics::mean(&values, 0)?;
                known.rows.push(Measured {
                    concept: concept.map(Into::into),
                    metric: one.metric.into(),
                    value: mean.value,
                    n: values.len(),
                    interval: Some((mean.low, mean.high)),
                    seeds: shots.iter().map(|shot| shot.seed).collect(),
                });
            }
        }
    }
    Ok(())
}

/// FID and KID under the user's Inception: against the reference, and against the base model's pictures of the same prompts.
pub(super) fn inception_distances(
    args: &EvaluateArgs,
    plan: &Plan,
    kit: &Kit,
    folder: &Path,
    known: &mut [Known],
) -> Result<(), Failure> {
    let Some(features) = kit.features() else { return Ok(()) };
    let reference = args.reference.as_deref().map(|path| Reference::open(path, &features)).transpose()?;
    for i in 0..known.len() {
        let mut found = Vec::new();
        for concept in plan.concepts.iter().map(|name| Some(name.as_str())).chain([None]) {
            let set = if concept.is_some() { Set::Others } else { Set::Prompts };
            for convention in Convention::ALL {
                let column = inception::column(convention);
                let rows = known[i].sheet.as_ref().map(|sheet| sheet.rows(&column, set, concept)).unwrap_or_default();
                if rows.len() < 2 {
                    continue;
                }
                let seeds: Vec<u64> = rows.iter().map(|((_, seed), _)| *seed).collect();
                let own: Vec<Vec<f32>> = rows.iter().map(|(_, row)| row.to_vec()).collect();
                let mut add = |metric: String, (value, interval): (f64, Option<(f64, f64)>)| {
                    let concept = concept.map(Into::into);
                    found.push(Measured { concept, metric, value, n: own.len(), interval, seeds: seeds.clone() });
                };
                let id = convention.id();
                if let Some((statistics, features)) = reference.as_ref().and_then(|r| r.of(convention)) {
                    let fid = |_: &[Vec<f32>], y: &[Vec<f32>]| Ok(distribution::frechet_to(statistics, y)?.distance);
                    add(format!("fid-{id}:reference"), spread(&own, &own, &fid)?);
                    if let Some(theirs) = features {
                        let kid = |_: &[Vec<f32>], y: &[Vec<f32>]| Ok(distribution::kid(theirs, y)?.value);
                        add(format!("kid-{id}:reference"), spread(&own, &own, &kid)?);
                    }
                }
                if let Some(base) = base_of(plan, i) {
                    let theirs = known[base].sheet.as_ref().map(|sheet| sheet.rows(&column, set, concept)).unwrap_or_default();
                    let (x, y) = shared(&theirs, &rows);
                    if x.len() >= 2 {
                        let fid = |x: &[Vec<f32>], y: &[Vec<f32>]| Ok(distribution::frechet_to(&Gaussian::of(x)?, y)?.distance);
                        let kid = |x: &[Vec<f32>], y: &[Vec<f32>]| Ok(distribution::kid(x, y)?.value);
                        add(format!("fid-{id}:base"), spread(&x, &y, &fid)?);
                        add(format!("kid-{id}:base"), spread(&x, &y, &kid)?);
                    }
                }
                if args.save_stats {
                    let name = format!(
                        "{}-{}-{id}.npz",
                        output::slug(&plan.subjects[i].label),
                        output::slug(concept.unwrap_or("prompts"))
                    );
                    let place = folder.join("stats");
                    fs_err::create_dir_all(&place)?;
                    crate::store::write_file(&place.join(name), &npz::bytes(&Gaussian::of(&own)?)?)?;
                }
            }
        }
        known[i].rows.extend(found);
    }
    Ok(())
}

/// The rows that two subjects have of the same shots.
fn shared(a: &[(Place<'_>, &[f32])], b: &[(Place<'_>, &[f32])]) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let of: BTreeMap<Place<'_>, &[f32]> = a.iter().copied().collect();
    b.iter().filter_map(|(shot, row)| Some((of.get(shot)?.to_vec(), row.to_vec()))).unzip()
}

/// A number of two sets of features.
type Statistic<'a> = dyn Fn(&[Vec<f32>], &[Vec<f32>]) -> scumble_eval::Result<f64> + 'a;

/// A statistic, and its interval where there are enough pictures for one.
fn spread(x: &[Vec<f32>], y: &[Vec<f32>], statistic: &Statistic) -> Result<(f64, Option<(f64, f64)>), Failure> {
    if y.len() < 2 * GROUPS {
        return Ok((statistic(x, y)?, None));
    }
    jackknife(x, y, statistic).map(|(value, interval)| (value, Some(interval)))
}

/// A statistic of two sets on the same shots, and its interval by a jackknife over ten groups of pictures. A bootstrap would repeat
/// pictures, which distances between distributions take for less variety.
fn jackknife(x: &[Vec<f32>], y: &[Vec<f32>], statistic: &Statistic) -> Result<(f64, (f64, f64)), Failure> {
    let value = statistic(x, y)?;
    let without = |set: &[Vec<f32>], group: usize| -> Vec<Vec<f32>> {
        set.iter().enumerate().filter(|(i, _)| i % GROUPS != group).map(|(_, row)| row.clone()).collect()
    };
    let parts = (0..GROUPS).map(|group| statistic(&without(x, group), &without(y, group)));
    let parts: Vec<f64> = parts.collect::<scumble_eval::Result<_>>()?;
    let g = GROUPS as f64;
    let mean = parts.iter().sum::<f64>() / g;
    let error = ((g - 1.0) / g * parts.iter().map(|part| (part - mean).powi(2)).sum::<f64>()).sqrt();
    Ok((value, (value - Z95 * error, value + Z95 * error)))
}

/// The unconditional drift of every edit of the miniature; for larger models only where it was computed before.
pub(super) fn drifts(plan: &Plan, folder: &Path, known: &mut [Known]) -> Result<(), Failure> {
    for (i, subject) in plan.subjects.iter().enumerate() {
        let base = &plan.bases[subject.base];
        if subject.kind == Kind::Base || !crate::erase::is_miniature(&base.pipeline) {
            continue;
        }
        let path = folder.join("facts").join(format!("drift-{}.json", subject.hash));
        let stored = fs_err::read_to_string(&path).ok().and_then(|text| text.trim().parse::<f64>().ok());
        let value = match stored {
            Some(value) => value,
            None if progress::interrupted() => continue,
            None => {
                // An oracle's frozen counterpart is the model that learned everything.
                let frozen = &plan.bases[if subject.kind == Kind::Oracle { 0 } else { subject.base }].pipeline;
                let value = drift::unconditional(frozen, &subject.pipeline(&plan.bases)?)?;
                crate::store::write_file(&path, value.to_string().as_bytes())?;
                value
            }
        };
        known[i].rows.push(Measured { concept: None, metric: "drift".into(), value, n: 160, interval: None, seeds: vec![] });
    }
    Ok(())
}
