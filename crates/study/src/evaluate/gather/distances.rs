//! What is measured between a subject's pictures and the base model's, or a reference.

use std::{collections::BTreeMap, path::Path};

use scumble_erase::drift;
use scumble_eval::{
    distribution::{self, Gaussian, npz},
    inception::Convention,
    instruments::CLIP,
    protocol::{Asked, Set},
    statistics::{self, Clusters, GROUPS},
    tally::{Measured, Shot as Place},
};
use scumble_report::Evaluation;

use super::{Known, base_of, missing};
use crate::evaluate::{
    album::Shot,
    gallery::Gallery,
    inception::{self, Reference},
    kit::Kit,
    plan::Plan,
    subjects::{Kind, digest},
};
use crate::{
    failure::Failure, folder::slug, folder::write_file, listener::Listener,
    request::EvaluateRequest,
};

/// Seeds of the fixed set that the drift is measured over: its trajectories, which are what is
/// independent of each other.
const TRAJECTORIES: usize = 8;

/// What is measured between a subject's others and the base model's on the same prompts and seeds.
pub(super) fn against_base(
    plan: &Plan,
    kit: &Kit,
    evaluation: &mut Evaluation,
    known: &mut [Known],
) -> Result<(), Failure> {
    let Some((_, name)) = kit.clip() else {
        return Ok(());
    };
    for i in 0..known.len() {
        let Some(base) = base_of(plan, i) else {
            continue;
        };
        let (Some(own), Some(theirs)) = (&known[i].sheet, &known[base].sheet) else {
            continue;
        };
        let mut found = Vec::new();
        for concept in plan
            .concepts
            .iter()
            .map(|name| Some(name.as_str()))
            .chain([None])
        {
            let set = if concept.is_some() {
                Set::Others
            } else {
                Set::Prompts
            };
            let both = Both::of(
                &theirs.rows(CLIP, set, concept),
                &own.rows(CLIP, set, concept),
            );
            // Fewer pictures than this say nothing about a distribution.
            if both.x.len() < 2 * GROUPS {
                if !both.x.is_empty() {
                    let why = format!(
                        "distances between distributions need {} pictures on the same seeds, there are {}",
                        2 * GROUPS,
                        both.x.len()
                    );
                    missing(
                        evaluation,
                        &plan.subjects[i],
                        concept,
                        Some(&format!("frechet-clip-{name}")),
                        &why,
                    );
                }
                continue;
            }
            let mut add = |metric: String, statistic: &Statistic| -> Result<(), Failure> {
                found.push(Measured {
                    concept: concept.map(Into::into),
                    metric,
                    ..both.measured(statistic)?
                });
                Ok(())
            };
            add(format!("frechet-clip-{name}"), &|x, y| {
                distribution::frechet(&Gaussian::of(x)?, &Gaussian::of(y)?).map(of_frechet)
            })?;
            add(format!("kid-clip-{name}"), &|x, y| {
                Ok((distribution::kid(x, y)?.value, false))
            })?;
            add(format!("precision-clip-{name}"), &|x, y| {
                Ok((
                    distribution::precision_recall(x, y, distribution::NEIGHBOURS)?.precision,
                    false,
                ))
            })?;
            add(format!("recall-clip-{name}"), &|x, y| {
                Ok((
                    distribution::precision_recall(x, y, distribution::NEIGHBOURS)?.recall,
                    false,
                ))
            })?;
        }
        known[i].rows.extend(found);
    }
    Ok(())
}

/// The pictures that a subject has in common with the base model, of the others and of the user's
/// prompts. Those that one of the two did not make of finite numbers are left out.
fn paired_shots<'a>(
    plan: &'a Plan,
    known: &[Known],
    i: usize,
    base: usize,
    concept: Option<&str>,
) -> Vec<&'a Asked> {
    let set = if concept.is_some() {
        Set::Others
    } else {
        Set::Prompts
    };
    let bad = |subject: usize, shot: &Shot| {
        let place = plan.albums[subject]
            .shots
            .iter()
            .position(|other| other == shot);
        place
            .zip(known[subject].sheet.as_ref())
            .is_some_and(|(place, sheet)| !sheet.is_finite(place))
    };
    let broken = |k: usize| {
        known[k]
            .sheet
            .as_ref()
            .is_some_and(|sheet| sheet.not_finite().0 > 0)
    };
    let looked = broken(i) || broken(base);
    let of = plan.albums[i].asked.iter().map(|(asked, _)| asked);
    of.filter(|asked| asked.set == set && asked.concept.as_deref() == concept)
        .filter(|asked| !looked || !(bad(i, &Shot::of(asked)) || bad(base, &Shot::of(asked))))
        .collect()
}

/// What is measured picture by picture between a subject and the base model; kept beside the facts.
pub(super) fn beside_base(
    plan: &Plan,
    kit: &Kit,
    gallery: &Gallery,
    folder: &Path,
    listener: &dyn Listener,
    known: &mut [Known],
) -> Result<(), Failure> {
    for i in 0..known.len() {
        let Some(base) = base_of(plan, i).filter(|_| !listener.interrupted()) else {
            continue;
        };
        for one in kit.beside() {
            for concept in plan
                .concepts
                .iter()
                .map(|name| Some(name.as_str()))
                .chain([None])
            {
                let asked = paired_shots(plan, known, i, base, concept);
                let shots: Vec<Shot> = asked.iter().map(|asked| Shot::of(asked)).collect();
                let name = |subject: usize, shot: &Shot| {
                    gallery.picture_name(&plan.subjects[subject].hash, shot)
                };
                let pairs: Option<Vec<_>> = shots
                    .iter()
                    .map(|shot| {
                        Some((
                            gallery.picture(&name(base, shot))?,
                            gallery.picture(&name(i, shot))?,
                        ))
                    })
                    .collect();
                let Some((theirs, own)) = pairs
                    .filter(|pairs| !pairs.is_empty())
                    .map(|pairs| pairs.into_iter().unzip::<_, _, Vec<_>, Vec<_>>())
                else {
                    continue;
                };
                let shot_names: String = shots.iter().map(|shot| name(i, shot)).collect();
                let key = digest(&[one.metric, one.hash, &plan.subjects[base].hash, &shot_names]);
                let path = folder.join("facts").join(format!("beside-{key}.json"));
                let stored = fs_err::read(&path)
                    .ok()
                    .and_then(|bytes| serde_json::from_slice::<Vec<f32>>(&bytes).ok());
                let values = match stored {
                    Some(values) if values.len() == shots.len() => values,
                    _ => {
                        let values = (one.measure)(&theirs, &own)?;
                        write_file(
                            &path,
                            serde_json::to_string(&values)
                                .unwrap_or_default()
                                .as_bytes(),
                        )?;
                        values
                    }
                };
                let values: Vec<f64> = values.into_iter().map(f64::from).collect();
                let mean = statistics::mean(
                    &values,
                    &Clusters::by(asked.iter().map(|asked| &asked.prompt)),
                    0,
                )?;
                known[i].rows.push(Measured {
                    concept: concept.map(Into::into),
                    metric: one.metric.into(),
                    value: mean.value,
                    n: values.len(),
                    interval: Some((mean.low, mean.high)),
                    seeds: shots.iter().map(|shot| shot.seed).collect(),
                    note: None,
                });
            }
        }
    }
    Ok(())
}

/// FID and KID under the user's Inception: against the reference, and against the base model's
/// pictures of the same prompts.
pub(super) fn inception_distances(
    request: &EvaluateRequest,
    plan: &Plan,
    kit: &Kit,
    folder: &Path,
    known: &mut [Known],
) -> Result<(), Failure> {
    let Some(features) = kit.features() else {
        return Ok(());
    };
    let reference = request
        .reference
        .as_deref()
        .map(|path| Reference::open(path, &features))
        .transpose()?;
    for i in 0..known.len() {
        let mut found = Vec::new();
        for concept in plan
            .concepts
            .iter()
            .map(|name| Some(name.as_str()))
            .chain([None])
        {
            let set = if concept.is_some() {
                Set::Others
            } else {
                Set::Prompts
            };
            for convention in Convention::ALL {
                let column = inception::column(convention);
                let rows = known[i]
                    .sheet
                    .as_ref()
                    .map(|sheet| sheet.rows(&column, set, concept))
                    .unwrap_or_default();
                if rows.len() < 2 {
                    continue;
                }
                let own = Both::of(&rows, &rows);
                let mut add =
                    |metric: String, both: &Both, statistic: &Statistic| -> Result<(), Failure> {
                        found.push(Measured {
                            concept: concept.map(Into::into),
                            metric,
                            ..both.measured(statistic)?
                        });
                        Ok(())
                    };
                let id = convention.id();
                if let Some((statistics, features)) =
                    reference.as_ref().and_then(|r| r.of(convention))
                {
                    add(format!("fid-{id}:reference"), &own, &|_, y| {
                        distribution::frechet_to(statistics, y).map(of_frechet)
                    })?;
                    if let Some(theirs) = features {
                        add(format!("kid-{id}:reference"), &own, &|_, y| {
                            Ok((distribution::kid(theirs, y)?.value, false))
                        })?;
                    }
                }
                if let Some(base) = base_of(plan, i) {
                    let theirs = known[base]
                        .sheet
                        .as_ref()
                        .map(|sheet| sheet.rows(&column, set, concept))
                        .unwrap_or_default();
                    let both = Both::of(&theirs, &rows);
                    if both.x.len() >= 2 {
                        let fid = |x: &[Vec<f32>], y: &[Vec<f32>]| {
                            distribution::frechet_to(&Gaussian::of(x)?, y).map(of_frechet)
                        };
                        add(format!("fid-{id}:base"), &both, &fid)?;
                        add(format!("kid-{id}:base"), &both, &|x, y| {
                            Ok((distribution::kid(x, y)?.value, false))
                        })?;
                    }
                }
                if request.save_stats {
                    let name = format!(
                        "{}-{}-{id}.npz",
                        slug(&plan.subjects[i].label),
                        slug(concept.unwrap_or("prompts"))
                    );
                    let place = folder.join("stats");
                    fs_err::create_dir_all(&place)?;
                    write_file(&place.join(name), &npz::bytes(&Gaussian::of(&own.y)?)?)?;
                }
            }
        }
        known[i].rows.extend(found);
    }
    Ok(())
}

/// A number of two sets of features, and whether it is a Fréchet distance of covariances without
/// full rank.
type Statistic<'a> = dyn Fn(&[Vec<f32>], &[Vec<f32>]) -> scumble_eval::Result<(f64, bool)> + 'a;

/// What is said of a distance whose covariances cannot have full rank.
const SINGULAR: &str = "singular: no more pictures than features, so the distance is biased upwards by an amount that depends on n; compare it only with distances of as many pictures";

fn of_frechet(found: distribution::Frechet) -> (f64, bool) {
    (found.distance, found.singular)
}

/// The features that two subjects have of the same shots.
struct Both {
    x: Vec<Vec<f32>>,
    y: Vec<Vec<f32>>,
    seeds: Vec<u64>,
    prompts: Clusters,
}

impl Both {
    fn of(a: &[(Place<'_>, &[f32])], b: &[(Place<'_>, &[f32])]) -> Self {
        let of: BTreeMap<Place<'_>, &[f32]> = a.iter().copied().collect();
        let shared: Vec<_> = b
            .iter()
            .filter_map(|(shot, row)| Some((*shot, *of.get(shot)?, *row)))
            .collect();
        Self {
            x: shared.iter().map(|(_, x, _)| x.to_vec()).collect(),
            y: shared.iter().map(|(_, _, y)| y.to_vec()).collect(),
            seeds: shared.iter().map(|((_, seed), ..)| *seed).collect(),
            prompts: Clusters::by(shared.iter().map(|((prompt, _), ..)| *prompt)),
        }
    }

    /// A statistic, and its interval where there are enough pictures and prompts for one.
    fn measured(&self, statistic: &Statistic) -> Result<Measured, Failure> {
        let chosen = |set: &[Vec<f32>], kept: &[usize]| {
            kept.iter().map(|&i| set[i].clone()).collect::<Vec<_>>()
        };
        let (value, singular, interval) =
            if self.y.len() < 2 * GROUPS || self.prompts.len() < GROUPS {
                let (value, singular) = statistic(&self.x, &self.y)?;
                (value, singular, None)
            } else {
                let mut singular = false;
                let (value, interval) = statistics::jackknife(&self.prompts, |kept| {
                    let (value, alone) = statistic(&chosen(&self.x, kept), &chosen(&self.y, kept))?;
                    singular |= alone && kept.len() == self.y.len();
                    Ok(value)
                })?;
                (value, singular, interval)
            };
        Ok(Measured {
            value,
            n: self.y.len(),
            interval: interval.map(|i| (i.low, i.high)),
            seeds: self.seeds.clone(),
            note: singular.then(|| SINGULAR.to_owned()),
            ..Measured::default()
        })
    }
}

/// The unconditional drift of every edit of the miniature; for larger models only where it was
/// computed before.
pub(super) fn drifts(
    plan: &Plan,
    folder: &Path,
    listener: &dyn Listener,
    evaluation: &mut Evaluation,
    known: &mut [Known],
) -> Result<(), Failure> {
    for (i, subject) in plan.subjects.iter().enumerate() {
        let base = &plan.bases[subject.base];
        if subject.kind == Kind::Base {
            continue;
        }
        let path = folder
            .join("facts")
            .join(format!("drift-{}.json", subject.hash));
        let stored = fs_err::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse::<f64>().ok());
        let value = match stored {
            Some(value) => value,
            None if listener.interrupted() || !base.small => continue,
            None => {
                // An oracle's frozen counterpart is the model that learned everything.
                let frozen = &plan.bases[if subject.kind == Kind::Oracle {
                    0
                } else {
                    subject.base
                }]
                .pipeline;
                let value = drift::unconditional(frozen, &subject.pipeline(&plan.bases)?)?;
                write_file(&path, value.to_string().as_bytes())?;
                value
            }
        };
        if value.is_finite() {
            known[i].rows.push(Measured {
                metric: "drift".into(),
                value,
                n: TRAJECTORIES,
                ..Measured::default()
            });
        } else {
            missing(
                evaluation,
                subject,
                None,
                Some("drift"),
                "the prediction without a prompt is of numbers that are not finite",
            );
        }
    }
    Ok(())
}
