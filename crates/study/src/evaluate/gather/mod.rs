//! From what was drawn, seen and attacked to rows and everything a report shows.

mod attacked;
mod compared;
mod distances;
mod shown;

use std::path::Path;

use scumble_eval::{
    instruments::CLIP_SCORE,
    protocol::Set,
    tally::{Measured, Sheet},
};
use scumble_report::{Evaluation, evaluation as out};

use crate::evaluate::{
    gallery::Gallery,
    kit::Kit,
    plan::{Plan, kind_of},
    subjects::{Kind, Subject, digest},
};
use crate::{failure::Failure, listener::Listener, request::EvaluateRequest};

/// What is known about one subject.
struct Known {
    sheet: Option<Sheet>,
    rows: Vec<Measured>,
}

/// Everything that has run, as an evaluation; what has not is said in its `missing`.
///
/// # Errors
/// If what a run has left is damaged, or a number cannot be computed.
pub(crate) fn gather(
    request: &EvaluateRequest,
    plan: &Plan,
    kit: &Kit,
    folder: &Path,
    gallery: &Gallery,
    listener: &dyn Listener,
) -> Result<Evaluation, Failure> {
    let mut evaluation = Evaluation {
        model: plan.bases[0].checkpoint.name.clone(),
        concepts: plan
            .concepts
            .iter()
            .map(|name| out::Concept {
                name: name.clone(),
                kind: kind_of(kit.world.as_ref(), name).map(Into::into),
            })
            .collect(),
        subjects: plan
            .subjects
            .iter()
            .map(|subject| described(subject, plan))
            .collect(),
        drawing: plan.setting.drawing(),
        ..Evaluation::default()
    };
    for unknown in &plan.unknown {
        let metric = Some(format!("prompts:{}", unknown.column));
        evaluation.missing.push(out::Missing {
            metric,
            why: unknown.why(),
            ..out::Missing::default()
        });
    }
    let mut known: Vec<Known> = Vec::new();
    for (i, subject) in plan.subjects.iter().enumerate() {
        let sheet = sheet(plan, kit, gallery, i);
        if sheet.is_none() {
            missing(
                &mut evaluation,
                subject,
                None,
                None,
                "its pictures have not all been drawn",
            );
        }
        let mut rows = Vec::new();
        if let Some(sheet) = &sheet {
            let (bad, drawn) = sheet.not_finite();
            if bad > 0 {
                let why = format!(
                    "{bad} of {drawn} pictures are of numbers that are not finite (NaN or infinite), which is a broken model and no erasure: they are black, and nobody judges them"
                );
                missing(&mut evaluation, subject, None, None, &why);
            }
            unjudged(plan, subject, sheet, &mut evaluation);
            rows.extend(sheet.rates()?);
            rows.extend(sheet.detections()?);
            if let Some((_, name)) = kit.clip() {
                for set in [Set::Target, Set::Others, Set::Prompts] {
                    rows.extend(sheet.means(
                        CLIP_SCORE,
                        set,
                        &format!("clip-score-{name}:{}", set.id()),
                    )?);
                }
            }
        }
        rows.extend(cost(subject));
        known.push(Known { sheet, rows });
    }
    distances::against_base(plan, kit, &mut evaluation, &mut known)?;
    distances::beside_base(plan, kit, gallery, folder, listener, &mut known)?;
    distances::inception_distances(request, plan, kit, folder, &mut known)?;
    distances::drifts(plan, folder, listener, &mut evaluation, &mut known)?;
    attacked::attacks(plan, kit, folder, &mut evaluation, &mut known)?;
    compared::compare(plan, &known, &mut evaluation)?;
    compared::chance(plan, kit, &known, &mut evaluation);
    for (subject, known) in plan.subjects.iter().zip(&known) {
        for measured in &known.rows {
            evaluation.rows.push(row(subject, measured, plan));
            if let Some(text) = &measured.note {
                let (concept, metric) = (measured.concept.clone(), Some(measured.metric.clone()));
                evaluation.notes.push(out::Note {
                    subject: Some(subject.id.clone()),
                    concept,
                    metric,
                    text: text.clone(),
                });
            }
        }
        if let Some(sheet) = &known.sheet {
            shown::show(gallery, subject, kit, sheet, &mut evaluation);
        }
    }
    shown::matrix(plan, kit, folder, gallery, &mut evaluation)?;
    let used: std::collections::BTreeSet<&str> = evaluation
        .rows
        .iter()
        .map(|row| row.metric.as_str())
        .collect();
    evaluation.metrics = shown::described_metrics(used, plan, &kit.names().sensitive);
    Ok(evaluation)
}

/// Says of which concepts nobody can tell whether pictures that ask for them show them.
fn unjudged(plan: &Plan, subject: &Subject, sheet: &Sheet, evaluation: &mut Evaluation) {
    for concept in &plan.concepts {
        let own = || {
            sheet.asked.iter().filter(|(asked, _)| {
                asked.concept.as_ref() == Some(concept) && asked.set == Set::Target
            })
        };
        if own().next().is_some() && own().all(|(asked, _)| asked.asks.is_empty()) {
            let why = format!(
                "no judge knows `{concept}`: look at the pictures; what a --detector sees on them is said by its own name"
            );
            missing(evaluation, subject, Some(concept), Some("target"), &why);
        }
    }
}

fn missing(
    evaluation: &mut Evaluation,
    subject: &Subject,
    concept: Option<&str>,
    metric: Option<&str>,
    why: &str,
) {
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
        model: Some(plan.bases[subject.base].checkpoint.name.clone()),
        path: subject
            .argument
            .clone()
            .filter(|_| subject.kind == Kind::Edit),
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
    Some(Sheet {
        asked: album.asked.clone(),
        facts,
        names: kit.names(),
    })
}

fn cost(subject: &Subject) -> Vec<Measured> {
    let one = |metric: &str, value: f64| Measured {
        metric: metric.into(),
        value,
        n: 1,
        ..Measured::default()
    };
    let seconds = subject.seconds.map(|seconds| one("seconds", seconds));
    let memory = subject.memory.map(|bytes| one("memory", bytes as f64));
    seconds
        .into_iter()
        .chain(memory)
        .chain(subject.size.map(|size| one("size", size as f64)))
        .collect()
}

/// The base model that a subject is compared with: the plain one of the same checkpoint, for an
/// oracle the first.
fn base_of(plan: &Plan, i: usize) -> Option<usize> {
    let subject = &plan.subjects[i];
    let wanted = if subject.kind == Kind::Oracle {
        0
    } else {
        subject.base
    };
    (subject.kind != Kind::Base).then(|| {
        plan.subjects
            .iter()
            .position(|s| s.kind == Kind::Base && s.base == wanted)
    })?
}
