//! From what was drawn, seen and attacked to rows and everything a report shows.

use std::{collections::BTreeMap, path::Path};

use scumble_erase::drift;
use scumble_eval::{
    Rate,
    distribution::{self, Gaussian, npz},
    inception::Convention,
    instruments::{CLIP, CLIP_SCORE},
    metrics,
    protocol::Set,
    rates::Z95,
    statistics::{self, Paired},
    tally::{About, Measured, Sheet, Shot as Place},
};
use scumble_report::{Evaluation, evaluation as out};
use serde_json::Value;

use super::{
    gallery::{Gallery, Shot},
    inception::{self, Reference},
    kit::Kit,
    plan::{AttackItem, Plan, kind_of},
    subjects::{Kind, Subject, digest},
};
use crate::{args::EvaluateArgs, failure::Failure, output, progress, store::RECORD};

/// Metrics whose answers are compared between subjects, picture by picture.
const COMPARED: [&str; 9] =
    ["target", "others", "binding", "pairs", "background", "paraphrase", "implicit", "category-word", "scene"];
/// Groups of pictures that the jackknife leaves out in turn.
const GROUPS: usize = 10;
/// Pictures of each set and concept that a report may choose from.
const SHOWN: usize = 12;

/// What is known about one subject.
struct Known {
    sheet: Option<Sheet>,
    rows: Vec<Measured>,
}

/// Everything that has run, as an evaluation; what has not is said in its `missing`.
pub(crate) fn gather(
    args: &EvaluateArgs,
    plan: &Plan,
    kit: &Kit,
    folder: &Path,
    gallery: &Gallery,
) -> Result<Evaluation, Failure> {
    let mut evaluation = Evaluation {
        model: plan.bases[0].model.checkpoint.name.clone(),
        concepts: plan
            .concepts
            .iter()
            .map(|name| out::Concept { name: name.clone(), kind: kind_of(kit.world.as_ref(), name).map(Into::into) })
            .collect(),
        subjects: plan.subjects.iter().map(|subject| described(subject, plan)).collect(),
        ..Evaluation::default()
    };
    let mut known: Vec<Known> = Vec::new();
    for (i, subject) in plan.subjects.iter().enumerate() {
        let sheet = sheet(plan, kit, gallery, i);
        if sheet.is_none() {
            missing(&mut evaluation, subject, None, None, "its pictures have not all been drawn");
        }
        let mut rows = Vec::new();
        if let Some(sheet) = &sheet {
            rows.extend(sheet.rates());
            rows.extend(sheet.detections());
            if let Some((_, name)) = kit.clip() {
                for set in [Set::Target, Set::Others, Set::Prompts] {
                    rows.extend(sheet.means(CLIP_SCORE, set, &format!("clip-score-{name}:{}", set.id()))?);
                }
            }
        }
        rows.extend(cost(subject));
        known.push(Known { sheet, rows });
    }
    against_base(plan, kit, &mut evaluation, &mut known)?;
    beside_base(plan, kit, gallery, folder, &mut known)?;
    inception_distances(args, plan, kit, folder, &mut known)?;
    drifts(plan, folder, &mut known)?;
    attacks(plan, kit, folder, &mut evaluation, &mut known)?;
    compare(plan, &known, &mut evaluation)?;
    chance(plan, kit, &known, &mut evaluation);
    for (subject, known) in plan.subjects.iter().zip(&known) {
        for measured in &known.rows {
            evaluation.rows.push(row(subject, measured, plan));
        }
        if let Some(sheet) = &known.sheet {
            show(gallery, subject, sheet, &mut evaluation);
        }
    }
    matrix(plan, kit, folder, gallery, &mut evaluation);
    let used: std::collections::BTreeSet<&str> = evaluation.rows.iter().map(|row| row.metric.as_str()).collect();
    evaluation.metrics = described_metrics(used, plan, &kit.names().sensitive);
    Ok(evaluation)
}

fn missing(evaluation: &mut Evaluation, subject: &Subject, concept: Option<&str>, metric: Option<&str>, why: &str) {
    evaluation.missing.push(out::Missing {
        subject: Some(subject.id.clone()),
        concept: concept.map(Into::into),
        metric: metric.map(Into::into),
        why: why.to_owned(),
    });
}

fn described(subject: &Subject, plan: &Plan) -> out::Subject {
    out::Subject {
        id: subject.id.clone(),
        label: subject.label.clone(),
        kind: subject.kind.name().into(),
        model: Some(plan.bases[subject.base].model.checkpoint.name.clone()),
        path: subject.argument.clone().filter(|_| subject.kind == Kind::Edit),
        method: subject.method.clone(),
        concepts: subject.erased.clone(),
        hash: subject.hash.clone(),
        settings: subject.settings.clone(),
        seconds: subject.seconds,
        size: subject.size,
    }
}

fn row(subject: &Subject, measured: &Measured, plan: &Plan) -> out::Row {
    let finite = |value: f64| value.is_finite().then_some(value);
    let seeds = format!("{:?}", measured.seeds);
    out::Row {
        subject: subject.id.clone(),
        concept: measured.concept.clone(),
        metric: measured.metric.clone(),
        value: finite(measured.value),
        n: Some(measured.n as u64),
        low: measured.interval.and_then(|(low, _)| finite(low)),
        high: measured.interval.and_then(|(_, high)| finite(high)),
        seeds: measured.seeds.clone(),
        hash: digest(&[
            &subject.hash,
            &plan.instruments,
            &format!("{:?}", plan.drawing),
            measured.concept.as_deref().unwrap_or_default(),
            &measured.metric,
            &seeds,
        ])[..16]
            .to_owned(),
    }
}

/// The questions and the facts of a subject, if all its pictures have been looked at.
fn sheet(plan: &Plan, kit: &Kit, gallery: &Gallery, i: usize) -> Option<Sheet> {
    let (subject, album) = (&plan.subjects[i], &plan.albums[i]);
    let facts = gallery.all_facts(&subject.hash, &album.shots, plan.batch)?;
    Some(Sheet { asked: album.asked.clone(), facts, names: kit.names() })
}

fn cost(subject: &Subject) -> Vec<Measured> {
    let one =
        |metric: &str, value: f64| Measured { concept: None, metric: metric.into(), value, n: 1, interval: None, seeds: vec![] };
    let seconds = subject.seconds.map(|seconds| one("seconds", seconds));
    let memory = subject.memory.map(|bytes| one("memory", bytes as f64));
    seconds.into_iter().chain(memory).chain(subject.size.map(|size| one("size", size as f64))).collect()
}

/// The base model that a subject is compared with: the plain one of the same checkpoint, for an oracle the first.
fn base_of(plan: &Plan, i: usize) -> Option<usize> {
    let subject = &plan.subjects[i];
    let wanted = if subject.kind == Kind::Oracle { 0 } else { subject.base };
    (subject.kind != Kind::Base).then(|| plan.subjects.iter().position(|s| s.kind == Kind::Base && s.base == wanted))?
}

/// What is measured between a subject's others and the base model's on the same prompts and seeds.
fn against_base(plan: &Plan, kit: &Kit, evaluation: &mut Evaluation, known: &mut [Known]) -> Result<(), Failure> {
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

/// Says where the base model itself does no better than chance: nothing can be lost there, and the rates of edits mean nothing.
fn chance(plan: &Plan, kit: &Kit, known: &[Known], evaluation: &mut Evaluation) {
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

/// The pictures that a subject has in common with the base model, of the others and of the user's prompts.
fn paired_shots(plan: &Plan, i: usize, concept: Option<&str>) -> Vec<Shot> {
    let set = if concept.is_some() { Set::Others } else { Set::Prompts };
    let of = plan.albums[i].asked.iter().filter(|(asked, _)| asked.set == set && asked.concept.as_deref() == concept);
    of.map(|(asked, _)| Shot::of(asked)).collect()
}

/// What is measured picture by picture between a subject and the base model; kept beside the facts.
fn beside_base(plan: &Plan, kit: &Kit, gallery: &Gallery, folder: &Path, known: &mut [Known]) -> Result<(), Failure> {
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
fn inception_distances(args: &EvaluateArgs, plan: &Plan, kit: &Kit, folder: &Path, known: &mut [Known]) -> Result<(), Failure> {
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
                if let Some(reference) = reference.as_ref().filter(|r| r.is_of(convention)) {
                    let fid = |_: &[Vec<f32>], y: &[Vec<f32>]| reference.fid(convention, y);
                    add(format!("fid-{id}:reference"), spread(&own, &own, &fid)?);
                    if let Some(theirs) = reference.pictures(convention) {
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
fn drifts(plan: &Plan, folder: &Path, known: &mut [Known]) -> Result<(), Failure> {
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

fn attacks(plan: &Plan, kit: &Kit, folder: &Path, evaluation: &mut Evaluation, known: &mut [Known]) -> Result<(), Failure> {
    let doubtful = !kit.names().sensitive.is_empty();
    let mut unedited = std::collections::BTreeSet::new();
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

/// A subject's answers, by what was asked and which picture was asked about.
type Hits<'a> = BTreeMap<About, BTreeMap<Place<'a>, bool>>;

fn hits(known: &Known) -> Hits<'_> {
    let all = known.sheet.as_ref().map(Sheet::answers).unwrap_or_default();
    all.into_iter().map(|(about, answers)| (about, answers.into_iter().collect())).collect()
}

/// Every two subjects on the same pictures; and against the oracle, the gap as a row.
fn compare(plan: &Plan, known: &[Known], evaluation: &mut Evaluation) -> Result<(), Failure> {
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

/// Pictures, curves and confusion of one subject.
fn show(gallery: &Gallery, subject: &Subject, sheet: &Sheet, evaluation: &mut Evaluation) {
    let mut sizes: BTreeMap<(Option<&str>, &str), (usize, usize)> = BTreeMap::new();
    for (asked, _) in &sheet.asked {
        sizes.entry((asked.concept.as_deref(), asked.set.id())).or_default().0 += 1;
    }
    for (asked, picture) in &sheet.asked {
        // At equal steps through each set, whatever they show.
        let (n, place) = sizes.entry((asked.concept.as_deref(), asked.set.id())).or_default();
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
            hit: asked.asks.first().and_then(|ask| sheet.shows(*picture, &ask.wanted)),
            seen: Some(sheet.seen(*picture)).filter(|seen| !seen.is_empty()),
            sensitive: sheet.is_sensitive(*picture),
        });
    }
    for curve in sheet.curves() {
        evaluation.curves.push(out::Curve {
            subject: subject.id.clone(),
            name: format!("{}, {}", curve.metric, curve.concept.as_deref().unwrap_or("all prompts")),
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
            counts: counts.into_iter().map(|row| row.into_iter().map(Some).collect()).collect(),
        });
    }
}

fn matrix(plan: &Plan, kit: &Kit, folder: &Path, gallery: &Gallery, evaluation: &mut Evaluation) {
    let Some(impact) = &plan.impact else { return };
    let plan_hash = plan.hash();
    let (before, after) = impact.rates(folder, &plan.bases[0], gallery, kit);
    for (erased, row) in impact.erased.iter().zip(&after) {
        if row.iter().all(Option::is_none) {
            let why = "has not run".into();
            let metric = Some("impact".into());
            evaluation.missing.push(out::Missing { subject: None, concept: Some(erased.clone()), metric, why });
        }
        for (affected, value) in impact.affected.iter().zip(row) {
            let Some(value) = value else { continue };
            let styles = kit.world.as_ref().is_some_and(|world| world.styles.contains(affected));
            let n = if styles { impact.album.shots.len() / 6 } else { 6 };
            let (low, high) = Rate { hits: (value * n as f64).round() as usize, n }.wilson(Z95);
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
        similarity: impact.similarity.iter().map(|row| row.iter().copied().map(Some).collect()).collect(),
    });
}

fn described_metrics(used: std::collections::BTreeSet<&str>, plan: &Plan, sensitive: &[String]) -> Vec<out::Metric> {
    let mut all: Vec<out::Metric> = Vec::new();
    let mut order: Vec<&str> = used.into_iter().collect();
    order.sort_by_key(|id| metrics::of(id).and_then(|m| metrics::ALL.iter().position(|other| other.id == m.id)));
    let drawn = format!("; {} steps, guidance {}", plan.drawing.steps, plan.drawing.guidance);
    for id in order {
        let Some(metric) = metrics::of(id) else { continue };
        // One entry for a family, under the name that its rows begin with.
        let own = id.split(':').next().unwrap_or(id);
        if all.iter().any(|known| known.id == own) {
            continue;
        }
        let drawing = if metric.axis == "cost" || metric.convention.contains("steps") { "" } else { drawn.as_str() };
        all.push(out::Metric {
            id: own.into(),
            name: metric.name.into(),
            meaning: metric.meaning.into(),
            unit: metric.unit.into(),
            better: metric.better.into(),
            axis: metric.axis.into(),
            convention: format!("{}{drawing}", metric.convention),
            source: metric.source.into(),
            sensitive: sensitive.iter().any(|name| own.ends_with(&format!("-{name}"))),
        });
    }
    all
}
