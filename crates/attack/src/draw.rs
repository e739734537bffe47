//! Drawing an attack's pictures.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Noise, Picture, Pipeline, Prompted, Request};
use scumble_erase::{Error, Event, Result};

use crate::{
    groups::{DRAWN, alike},
    job::{Case, Drawing, Job, Shows},
    prompts::{repeated, rows},
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

/// Draws one group: its cases, and their places among all.
pub(crate) type Group<'a> =
    dyn FnMut(&Job<'_>, &[Case], std::ops::Range<usize>) -> Result<Tensor<4>> + 'a;

/// Latents of all cases, drawn group by group, with the caller told of each.
pub(crate) fn grouped(
    job: &mut Job<'_>,
    stage: &'static str,
    draw: &mut Group<'_>,
) -> Result<Tensor<4>> {
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
