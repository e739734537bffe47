//! Drawing an attack's pictures.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Noise, Picture, Pipeline, Prompted, Request};
use scumble_erase::{Error, Event, Result};

use crate::{
    found::{Found, Revival},
    groups::{DRAWN, alike},
    job::{Case, Drawing, Job, Shows},
    placed::Placed,
    probe,
    prompts::{either, repeated, rows},
    protocol::Start,
};

/// Latents of some prompts as a model sees them, `[n, channels, h, w]`, with the seed and the
/// guidance of `cases[i]`; what stands in the cases' prompts is not looked at.
///
/// # Errors
/// If the model cannot sample.
pub fn latents(
    model: &Pipeline,
    prompted: &Prompted,
    cases: &[Case],
    drawing: Drawing,
) -> Result<Tensor<4>> {
    let (mut parts, mut order) = (Vec::new(), Vec::new());
    for (guidance, which) in alike(cases) {
        let drawing = drawing.with_guidance(guidance);
        let asked = if which.len() == cases.len() {
            prompted.clone()
        } else {
            rows(prompted, &which)
        };
        let mut request = Request::new(asked.texts.clone(), 0, drawing.steps, drawing.guidance);
        request.noise = Noise::seeds(&which.iter().map(|&i| cases[i].seed).collect::<Vec<_>>());
        request.sampler = drawing.sampler;
        let negative = repeated(&model.prompted(&[String::new()]), which.len());
        let mut guidance = model.guidance(drawing.guidance, &asked, &negative)?;
        parts.push(
            model.sample_guided(&request, &mut guidance, &mut |_| ControlFlow::Continue(()))?,
        );
        order.extend(which);
    }
    Ok(back(parts, &order))
}

/// Rows that were computed in another order, `order[k]` the place of the k-th, each in its place;
/// at least one.
pub(crate) fn back(parts: Vec<Tensor<4>>, order: &[usize]) -> Tensor<4> {
    let all = Tensor::cat(parts, 0);
    if order.iter().enumerate().all(|(at, &i)| at == i) {
        return all;
    }
    let mut index = vec![0i64; order.len()];
    order
        .iter()
        .enumerate()
        .for_each(|(at, &i)| index[i] = at as i64);
    let n = index.len();
    let device = all.device();
    all.select(0, Tensor::from_data(TensorData::new(index, [n]), &device))
}

/// Latents of the cases as they are, by one of the job's models.
///
/// # Errors
/// If the model cannot sample, or the caller interrupts.
pub fn plain(job: &mut Job<'_>, model: &Pipeline, stage: &'static str) -> Result<Tensor<4>> {
    let prompts: Vec<String> = job.prompts();
    grouped(job, stage, &mut |job, cases, rows| {
        latents(model, &model.prompted(&prompts[rows]), cases, job.drawing)
    })
}

/// Latents of the cases by the attacked model, with what an attack found.
///
/// # Errors
/// If the finding does not fit the model or the cases, the model cannot sample, or the caller interrupts.
pub fn attacked(job: &mut Job<'_>, start: &Start, found: &Found) -> Result<Tensor<4>> {
    let stage = "drawing with what was found";
    let own: Vec<String> = job.prompts();
    match found {
        Found::Cases(found) => {
            fits(found.len(), own.len())?;
            let victim = job.victim;
            grouped(job, stage, &mut |job, _, rows| {
                let found = &found[rows];
                let prompts: Vec<String> = found.iter().map(|case| case.prompt.clone()).collect();
                latents(victim, &victim.prompted(&prompts), found, job.drawing)
            })
        }
        Found::Prefixes(vectors) => {
            let [n, k, _] = vectors.dims();
            fits(n, own.len())?;
            let victim = job.victim;
            let placed = Placed::before(victim, &own, k)?;
            grouped(job, stage, &mut |job, cases, rows| {
                let of = vectors.clone().narrow(0, rows.start, rows.len());
                let which: Vec<usize> = rows.clone().collect();
                let prompted = placed.filled(victim, &which, &of)?;
                let bare = victim.prompted(&own[rows]);
                let none: Vec<bool> = of
                    .abs()
                    .sum_dim(2)
                    .sum_dim(1)
                    .into_data()
                    .iter::<f32>()
                    .map(|sum| sum == 0.0)
                    .collect();
                latents(victim, &either(&none, &bare, &prompted), cases, job.drawing)
            })
        }
        Found::Word(embedding) => {
            let mut taught = job.victim.clone();
            taught.add_embedding(embedding)?;
            let prompts: Vec<String> = own
                .iter()
                .map(|p| job.reworded(p, &embedding.token))
                .collect::<Result<_>>()?;
            grouped(job, stage, &mut |job, cases, rows| {
                latents(
                    &taught,
                    &taught.prompted(&prompts[rows]),
                    cases,
                    job.drawing,
                )
            })
        }
        Found::Weights(edit) => {
            let changed = edit.apply_to(job.victim, 1.0)?;
            plain(job, &changed, stage)
        }
        Found::Revival(revival) => revived(job, start, revival, stage, &own),
    }
}

/// Latents of the control of what was found, where there is one: the same drawing and noise with
/// the empty prompt.
///
/// # Errors
/// As [`attacked`].
pub fn control(job: &mut Job<'_>, start: &Start, found: &Found) -> Result<Option<Tensor<4>>> {
    let Found::Revival(revival) = found else {
        return Ok(None);
    };
    let empty = vec![String::new(); job.cases.len()];
    Ok(Some(revived(
        job,
        start,
        revival,
        "drawing the control",
        &empty,
    )?))
}

fn revived(
    job: &mut Job<'_>,
    start: &Start,
    revival: &Revival,
    stage: &'static str,
    texts: &[String],
) -> Result<Tensor<4>> {
    fits(revival.trials.len(), job.cases.len())?;
    let classifier = revival.classifier(job)?;
    grouped(job, stage, &mut |job, _, rows| {
        let which: Vec<usize> = rows.clone().collect();
        probe::mixed(
            job,
            &revival.trials[rows.clone()],
            &texts[rows],
            &which,
            &start.targets,
            classifier.as_ref(),
        )
    })
}

fn fits(found: usize, cases: usize) -> Result<()> {
    if found == cases {
        return Ok(());
    }
    Err(Error::input(format!(
        "the finding is for {found} cases, here are {cases}"
    ))
    .with_hint("give the same --n, --prompts and --concept as the attack that found it"))
}

type Group<'a> = dyn FnMut(&Job<'_>, &[Case], std::ops::Range<usize>) -> Result<Tensor<4>> + 'a;

fn grouped(job: &mut Job<'_>, stage: &'static str, draw: &mut Group<'_>) -> Result<Tensor<4>> {
    let cases = job.cases;
    job.tell(Event::Stage {
        name: stage,
        total: cases.len(),
        done: 0,
    })?;
    let mut parts = Vec::new();
    for (i, group) in cases.chunks(DRAWN).enumerate() {
        let start = i * DRAWN;
        parts.push(draw(job, group, start..start + group.len())?);
        job.tell(Event::Step {
            done: start + group.len(),
            loss: None,
        })?;
    }
    if parts.is_empty() {
        return Err(Error::input("there is no picture to attack"));
    }
    Ok(Tensor::cat(parts, 0))
}

/// Which cases show the concept when the attacked model draws them as they are.
///
/// # Errors
/// If the model cannot sample, or the caller interrupts.
pub fn shown(job: &mut Job<'_>, cases: &[Case], shows: &Shows<'_>) -> Result<Vec<bool>> {
    let mut hits = Vec::with_capacity(cases.len());
    for group in cases.chunks(DRAWN) {
        let prompts: Vec<String> = group.iter().map(|case| case.prompt.clone()).collect();
        let latents = latents(
            job.victim,
            &job.victim.prompted(&prompts),
            group,
            job.drawing,
        )?;
        hits.extend(shows(&pictures(job.victim, &latents)));
        // Lets the caller interrupt between groups.
        job.tell(Event::Note(""))?;
    }
    Ok(hits)
}

/// The pictures of latents.
pub fn pictures(model: &Pipeline, latents: &Tensor<4>) -> Vec<Picture> {
    let n = latents.dims()[0];
    (0..n)
        .step_by(DRAWN)
        .flat_map(|start| {
            let part = latents.clone().narrow(0, start, DRAWN.min(n - start));
            Picture::from_batch(model.decode(part))
        })
        .collect()
}
