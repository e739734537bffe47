//! Drawing again with what an attack found.

use burn::tensor::Tensor;
use scumble_erase::{Error, Result};

use crate::{
    attack::Start,
    draw::{grouped, latents, plain},
    found::{Found, Revival},
    job::Job,
    placed::Placed,
    probe,
    prompts::either,
};

/// Latents of the cases by the attacked model, with what an attack found.
///
/// # Errors
/// If the finding does not fit the model or the cases, the model cannot sample, or the caller interrupts.
pub(crate) fn attacked(job: &mut Job<'_>, start: &Start, found: &Found) -> Result<Tensor<4>> {
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
pub(crate) fn control(
    job: &mut Job<'_>,
    start: &Start,
    found: &Found,
) -> Result<Option<Tensor<4>>> {
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
