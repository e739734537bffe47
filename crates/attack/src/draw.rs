//! Drawing an attack's pictures.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use scumble_diffusion::{Noise, Picture, Pipeline, Prompted, Request};
use scumble_erase::{Error, Event, Result};

use crate::{
    found::Found,
    job::{Case, Drawing, Job, Shows},
    placed::Placed,
    probe,
    prompts::{either, repeated},
    protocol::Start,
};

/// Pictures drawn at once.
const AT_ONCE: usize = 16;

/// Latents of some prompts as a model sees them, `[n, channels, h, w]`, picture i from `seeds[i]`.
///
/// # Errors
/// If the model cannot sample.
pub fn latents(model: &Pipeline, prompted: &Prompted, seeds: &[u64], drawing: Drawing) -> Result<Tensor<4>> {
    let mut request = Request::new(prompted.texts.clone(), 0, drawing.steps, drawing.guidance);
    request.noise = Noise::seeds(seeds);
    request.sampler = drawing.sampler;
    let negative = repeated(&model.prompted(&[String::new()]), seeds.len());
    let mut guidance = model.guidance(drawing.guidance, prompted, &negative)?;
    Ok(model.sample_guided(&request, &mut guidance, &mut |_| ControlFlow::Continue(()))?)
}

/// Latents of the cases as they are, by one of the job's models.
///
/// # Errors
/// If the model cannot sample, or the caller interrupts.
pub fn plain(job: &mut Job<'_>, model: &Pipeline, stage: &'static str) -> Result<Tensor<4>> {
    let prompts: Vec<String> = job.prompts();
    grouped(job, stage, &mut |job, cases, rows| latents(model, &model.prompted(&prompts[rows]), &seeds(cases), job.drawing))
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
                let (prompts, seeds): (Vec<String>, Vec<u64>) =
                    found[rows].iter().map(|case| (case.prompt.clone(), case.seed)).unzip();
                latents(victim, &victim.prompted(&prompts), &seeds, job.drawing)
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
                let none: Vec<bool> = of.abs().sum_dim(2).sum_dim(1).into_data().iter::<f32>().map(|sum| sum == 0.0).collect();
                latents(victim, &either(&none, &bare, &prompted), &seeds(cases), job.drawing)
            })
        }
        Found::Word(embedding) => {
            let mut taught = job.victim.clone();
            taught.add_word(&embedding.token, &embedding.vectors)?;
            let prompts: Vec<String> = own.iter().map(|p| job.reworded(p, &embedding.token)).collect::<Result<_>>()?;
            grouped(job, stage, &mut |job, cases, rows| {
                latents(&taught, &taught.prompted(&prompts[rows]), &seeds(cases), job.drawing)
            })
        }
        Found::Weights(edit) => {
            let changed = edit.apply_to(job.victim, 1.0)?;
            plain(job, &changed, stage)
        }
        Found::Revival(trials) => {
            fits(trials.len(), own.len())?;
            grouped(job, stage, &mut |job, _, rows| {
                let which: Vec<usize> = rows.clone().collect();
                probe::mixed(job, &trials[rows.clone()], &own[rows], &which, &start.targets)
            })
        }
    }
}

fn fits(found: usize, cases: usize) -> Result<()> {
    if found == cases {
        return Ok(());
    }
    Err(Error::input(format!("the finding is for {found} cases, here are {cases}"))
        .with_hint("give the same --n, --prompts and --concept as the attack that found it"))
}

fn seeds(cases: &[Case]) -> Vec<u64> {
    cases.iter().map(|case| case.seed).collect()
}

type Group<'a> = dyn FnMut(&Job<'_>, &[Case], std::ops::Range<usize>) -> Result<Tensor<4>> + 'a;

fn grouped(job: &mut Job<'_>, stage: &'static str, draw: &mut Group<'_>) -> Result<Tensor<4>> {
    let cases = job.cases;
    job.tell(Event::Stage { name: stage, total: cases.len(), done: 0 })?;
    let mut parts = Vec::new();
    for (i, group) in cases.chunks(AT_ONCE).enumerate() {
        let start = i * AT_ONCE;
        parts.push(draw(job, group, start..start + group.len())?);
        job.tell(Event::Step { done: start + group.len(), loss: None })?;
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
    for group in cases.chunks(AT_ONCE) {
        let prompts: Vec<String> = group.iter().map(|case| case.prompt.clone()).collect();
        let latents = latents(job.victim, &job.victim.prompted(&prompts), &seeds(group), job.drawing)?;
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
        .step_by(AT_ONCE)
        .flat_map(|start| {
            let part = latents.clone().narrow(0, start, AT_ONCE.min(n - start));
            Picture::from_batch(model.decode(part))
        })
        .collect()
}
