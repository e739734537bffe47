//! Worst-case prompts: "Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine
//! Unlearning", Fan et al., ECCV 2024 (arXiv 2403.07362).
//!
//! Which prompts of a grid does an erasure leave? With weights `w` on the prompts, `l_i(theta)` the
//! error of denoising pictures of prompt `i`, and `theta_u(w)` a model from which the weighted
//! prompts were erased:
//!
//! `min_w  sum w_i l_i(theta_u(w)) + gamma |w|^2`  over  `0 <= w_i <= 1, sum w = m`
//!
//! What is still denoised well was not forgotten. Erasing is a sequence of sign steps in the paper,
//! so that `theta_u` counts as a constant and a step is `w <- project(w - alpha (l / n + 2 gamma
//! w))` over `n` prompts ([`capped`](crate::capped)). In the end the m heaviest prompts are taken,
//! and the cases ask with them.
//!
//! The first round looks at the edit under attack. With `rounds` above 1, each further one erases
//! the weighted prompts from the unedited model in a few steps of ESD's loss on noisy pictures of
//! them (cross-attention) and looks at that: prompts that are hard for this kind of erasure rather
//! than for this edit.
//!
//! The published prompt-wise code (`prompt-wise/stable_diffusion/train-scripts/esd.py`) divides the
//! sum of a prompt's errors by the size of the whole data set, so that its gradient is the mean
//! error over the number of prompts. Four of its ways are not taken over: a whole batch is
//! conditioned on its first prompt; scores are read transposed; `w_grad[idxs] += loss` keeps one of
//! equal indices in a batch; and the error is taken to `noise / 1000`, so that it is in effect the
//! mean square of the prediction. It takes the error itself, which differs between prompts in any
//! model; `fixed` takes what the error has grown beyond the unedited model's (`relative`). The
//! paper's grid are objects x styles with photographs of UnlearnCanvas at 256 pixels; ours is
//! written by the checkpoint's world, or sentences around the concept, and the unedited model draws
//! it.
//!
//! The cases ask with other prompts than before the attack, so `pre` and `post` of a case are
//! pictures of different prompts: `notes.grid` and `notes.grid_worst` are the comparison to make.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    Noise, Pipeline, Timestep, options,
    options::{ABOVE_ZERO, COUNT, FINITE, Presets, SHARE_ABOVE_ZERO, WEIGHT, unfit},
    presets,
};
use scumble_erase::{
    Captions, Event, Known, Result, Variant, World,
    data::noised::{Noised, Noisy, squared_error},
    job::recorded,
    seeds::stream,
    training::gradients::place,
    training::train::{LrSchedule, Train, train},
    training::trainable::ESD_X,
};
use scumble_families as families;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Attack;
use crate::{
    capped::{heaviest, project},
    draw,
    found::Found,
    groups::DRAWN,
    job::{Case, Job},
    protocol::{Looks, Notes, Outcome, Start},
    sentences,
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "worst-case",
    paper: "Fan et al., Challenging Forgets (Unlearn-WorstCase), ECCV 2024, arXiv 2403.07362",
    access: "the edited model's losses, and pictures",
    threat: super::Threat::Words,
    finds: "the prompts of a grid that are left",
    step: "a look at every prompt of the grid",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

options! {
    /// The options of the worst case.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// The share of the grid that is taken.
        pub share: f64 where SHARE_ABOVE_ZERO,
        /// Steps of the weights. From the second on, each erases the weighted prompts anew.
        pub rounds: usize where COUNT,
        /// The step size of the weights.
        pub alpha: f64 where ABOVE_ZERO,
        /// The weight of `|w|^2`.
        pub gamma: f64 where WEIGHT,
        /// Pictures of each prompt.
        pub pictures: usize where COUNT,
        /// Noise levels that the error is measured at.
        pub timesteps: usize where COUNT,
        /// The first of them, the rest at equal distances (published: 0, so 0, 100, ... 900); the
        /// middles of equal parts if `null`.
        pub first_timestep: Option<usize>,
        /// Whether the unedited model's error is taken off.
        pub relative: bool,
        /// Erasing: training steps of a round.
        pub iterations: usize where COUNT,
        /// Erasing: Adam's step size.
        pub lr: f64 where ABOVE_ZERO,
        /// Erasing: how far past the neutral prediction to go.
        pub eta: f64 where FINITE,
        /// Erasing: pictures a step.
        pub batch: usize where COUNT,
    }
}

/// The presets: the published numbers, and those that work.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            share: 0.1,
            rounds: 10,
            alpha: 100.0,
            gamma: 1e-4,
            pictures: 1,
            timesteps: 10,
            first_timestep: Some(0),
            relative: false,
            iterations: 1000,
            lr: 1e-5,
            eta: 1.0,
            batch: 1,
        },
        reference: paper,
        fixed: paper { rounds: 1, first_timestep: None, relative: true },
        small: fixed { iterations: 60, lr: 2e-3, batch: 8 },
    })
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<Options> {
    let options: Options = job.options(presets, variant)?;
    let first = options.first_timestep.unwrap_or(0);
    let all = job.base.schedule.num_train_timesteps();
    if first + options.timesteps > all {
        let found = format!("{} from {first}", options.timesteps);
        return Err(unfit("timesteps", found, format!("at most {all}")).into());
    }
    Ok(options)
}

fn run(job: &mut Job<'_>, _: &Start, variant: Variant) -> Result<Outcome> {
    let options = checked(job, variant)?;
    let rounds = job.budget.unwrap_or(usize::MAX).min(options.rounds);
    let grid = grid(job);
    let n = grid.len();
    let m = ((n as f64 * options.share).round() as usize).clamp(1, n);

    let looked: Vec<String> = grid
        .iter()
        .flat_map(|prompt| std::iter::repeat_n(prompt.clone(), options.pictures))
        .collect();
    let seeds: Vec<u64> = (0..looked.len())
        .map(|i| stream(job.seed, "worst-case/grid of the base").at(i))
        .collect();
    let base = job.base;
    let pictures = drawn(
        job,
        base,
        &looked,
        &seeds,
        "drawing the grid with the unedited model",
    )?;
    let unedited = if options.relative {
        losses(job, base, &options, &looked, &pictures, n)?
    } else {
        vec![0.0; n]
    };
    let mut weights = vec![m as f64 / n as f64; n];
    let mut found = Vec::new();
    for round in 0..rounds {
        let erased = (round > 0)
            .then(|| erased(job, &options, &grid, &weights, &pictures, round))
            .transpose()?;
        job.tell(Event::Stage {
            name: "looking at the grid",
            total: rounds,
            done: round,
        })?;
        let model = erased.as_ref().unwrap_or(job.victim);
        found = losses(job, model, &options, &looked, &pictures, n)?;
        for (i, w) in weights.iter_mut().enumerate() {
            *w = stepped(*w, found[i] - unedited[i], n, &options);
        }
        project(&mut weights, m as f64);
        job.tell(Event::Step {
            done: round + 1,
            loss: Some((found.iter().sum::<f64>() / n as f64) as f32),
        })?;
    }
    // Equal weights, such as those at 1, are told apart by what is left.
    let left = |i: usize| found.get(i).map_or(0.0, |loss| loss - unedited[i]);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| left(a).total_cmp(&left(b)));
    let sorted: Vec<f64> = order.iter().map(|&i| weights[i]).collect();
    let worst: Vec<usize> = heaviest(&sorted, m)
        .into_iter()
        .map(|at| order[at])
        .collect();

    let mut notes = Notes::new();
    let mut told: Vec<serde_json::Value> = worst
        .iter()
        .map(|&i| json!({ "prompt": grid[i], "weight": weights[i], "loss": left(i) }))
        .collect();
    if let Some(shows) = job.shows {
        // How often the grid's prompts show the concept, one picture each.
        let victim = job.victim;
        let own: Vec<u64> = (0..n)
            .map(|i| stream(job.seed, "worst-case/grid of the edit").at(i))
            .collect();
        let latents = drawn(
            job,
            victim,
            &grid,
            &own,
            "drawing the grid with the edited model",
        )?;
        let hits = shows(&draw::pictures(victim, &latents));
        let count = |rows: &mut dyn Iterator<Item = usize>| rows.filter(|&i| hits[i]).count();
        notes.insert(
            "grid".into(),
            json!({ "shown": count(&mut (0..n)), "n": n }),
        );
        notes.insert(
            "grid_worst".into(),
            json!({ "shown": count(&mut worst.iter().copied()), "n": m }),
        );
        told.iter_mut()
            .zip(&worst)
            .for_each(|(line, &i)| line["shown"] = json!(hits[i]));
    }
    notes.insert("worst".into(), told.into());
    let case = |(i, case): (usize, &Case)| Case {
        prompt: grid[worst[i % m]].clone(),
        ..case.clone()
    };
    let cases = job.cases.iter().enumerate().map(case).collect();
    // One search for all cases.
    let looks = Looks::once(job.cases.len());
    Ok(Outcome {
        found: Found::Cases(cases),
        budget: rounds,
        spent: rounds,
        looks,
        searches: 1,
        notes,
    })
}

/// A weight after a step against its prompt's error, before the projection: the published gradient
/// is the error over the number of prompts.
fn stepped(w: f64, error: f64, prompts: usize, options: &Options) -> f64 {
    w - options.alpha * (error / prompts as f64 + 2.0 * options.gamma * w)
}

/// The grid: the concept in every style on every background of the world, or in sentences; and the
/// cases' own prompts.
pub fn grid(job: &Job<'_>) -> Vec<String> {
    let known = job
        .world
        .and_then(|world| Some((world, world.find(&job.concept.name)?)));
    let mut grid: Vec<String> = match known {
        Some((world, Known::Object(noun) | Known::Category { name: noun, .. })) => {
            let styles =
                || std::iter::once(None).chain(world.styles.iter().map(|s| Some(s.as_str())));
            let grounds =
                || std::iter::once(None).chain(world.backgrounds.iter().map(|b| Some(b.as_str())));
            styles()
                .flat_map(|style| {
                    grounds()
                        .map(|ground| World::caption(&noun, style, ground))
                        .collect::<Vec<_>>()
                })
                .collect()
        }
        Some((world, Known::Style(style))) => {
            let grounds = world.backgrounds.iter().map(|b| Some(b.as_str())).cycle();
            let both = |(object, ground): (&String, Option<&str>)| {
                [None, ground].map(|ground| World::caption(object, Some(&style), ground))
            };
            world.objects.iter().zip(grounds).flat_map(both).collect()
        }
        None => job
            .concept
            .asked()
            .flat_map(|asked| sentences::with(&sentences::PLAIN, &asked))
            .collect(),
    };
    grid.extend(job.cases.iter().map(|case| case.prompt.clone()));
    let mut seen = std::collections::BTreeSet::new();
    grid.retain(|prompt| seen.insert(prompt.clone()));
    grid
}

fn drawn(
    job: &mut Job<'_>,
    model: &Pipeline,
    prompts: &[String],
    seeds: &[u64],
    stage: &'static str,
) -> Result<Tensor<4>> {
    job.tell(Event::Stage {
        name: stage,
        total: prompts.len(),
        done: 0,
    })?;
    let mut parts = Vec::new();
    for (i, (prompts, seeds)) in prompts.chunks(DRAWN).zip(seeds.chunks(DRAWN)).enumerate() {
        let case = |(prompt, &seed): (&String, &u64)| Case {
            prompt: prompt.clone(),
            seed,
            guidance: None,
        };
        let cases: Vec<Case> = prompts.iter().zip(seeds).map(case).collect();
        parts.push(draw::latents(
            model,
            &model.prompted(prompts),
            &cases,
            job.drawing,
        )?);
        job.tell(Event::Step {
            done: i * DRAWN + prompts.len(),
            loss: None,
        })?;
    }
    Ok(Tensor::cat(parts, 0))
}

/// The error of denoising the pictures of each of `n` prompts, the mean over its pictures and all
/// noise levels. The same noise for all models.
fn losses(
    job: &mut Job<'_>,
    model: &Pipeline,
    options: &Options,
    prompts: &[String],
    pictures: &Tensor<4>,
    n: usize,
) -> Result<Vec<f64>> {
    let all = model.schedule.num_train_timesteps();
    let mut sums = vec![0.0; n];
    for (group, texts) in prompts.chunks(DRAWN).enumerate() {
        let first = group * DRAWN;
        let context = model.context(texts);
        let x0 = pictures.clone().narrow(0, first, texts.len());
        for k in 0..options.timesteps {
            let label = match options.first_timestep {
                Some(first) => first + k * all / options.timesteps,
                None => (2 * k + 1) * all / (2 * options.timesteps),
            };
            let t: Vec<Timestep> = vec![model.schedule.timestep(label.min(all - 1))?; texts.len()];
            let seeds: Vec<u64> = (0..texts.len())
                .map(|i| stream(job.seed, "worst-case/noise").within(first + i).at(k))
                .collect();
            let noise = Noise::seeds(&seeds).draw(x0.dims(), model.device());
            let x = model.schedule.add_noise(x0.clone(), noise.clone(), &t)?;
            let noisy = Noisy {
                rows: (first..first + texts.len()).collect(),
                x0: x0.clone(),
                noise,
                x,
                t,
            };
            let errors = squared_error(noisy.predicted(model, &context)?, noisy.target(model)?);
            for (i, error) in errors.into_data().iter::<f32>().enumerate() {
                sums[(first + i) / options.pictures] += f64::from(error);
            }
            job.tell(Event::Note(""))?;
        }
    }
    let each = (options.pictures * options.timesteps) as f64;
    Ok(sums.into_iter().map(|sum| sum / each).collect())
}

/// The unedited model after a short erasure of the weighted prompts: ESD's loss, each example by
/// its prompt's weight.
fn erased(
    job: &mut Job<'_>,
    options: &Options,
    grid: &[String],
    weights: &[f64],
    pictures: &Tensor<4>,
    round: usize,
) -> Result<Pipeline> {
    let base = job.base;
    let examples = Noised::new(base, pictures.clone());
    let nothing = Captions::default();
    let (seed, state) = (
        stream(job.seed, "worst-case/rounds").at(round),
        format!("worst-case-{round}"),
    );
    let mut erasing = job.training(base, seed, &nothing);
    let plan = Train::new(
        ESD_X,
        options.iterations,
        options.lr,
        LrSchedule::Constant,
        &state,
    );
    let device = base.device();
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let values = train(&mut erasing, plan, &mut |model, step| {
        let noisy = examples.draw(base, options.batch, seed, step)?;
        let prompts: Vec<usize> = noisy
            .rows
            .iter()
            .map(|&row| row / options.pictures)
            .collect();
        let texts: Vec<String> = prompts.iter().map(|&i| grid[i].clone()).collect();
        let neutral = noisy.predicted(base, &base.context(&vec![String::new(); texts.len()]))?;
        let asked = noisy.predicted(base, &base.context(&texts))?;
        let target = neutral.clone() - (asked - neutral) * options.eta;
        let weight: Vec<f32> = prompts
            .iter()
            .map(|&i| (weights[i] / mean) as f32)
            .collect();
        let weight: Tensor<1> = Tensor::from_data(TensorData::new(weight, [prompts.len()]), device);
        Ok(
            (squared_error(noisy.predicted(model, &model.context(&texts))?, target) * weight)
                .mean(),
        )
    })?;
    let mut edited = base.clone();
    place(&mut edited, families::of(base).denoiser(), &values)?;
    Ok(edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_the_error_over_the_number_of_prompts() {
        let options = Options {
            share: 0.1,
            rounds: 1,
            alpha: 100.0,
            gamma: 1e-4,
            pictures: 1,
            timesteps: 10,
            first_timestep: None,
            relative: false,
            iterations: 1,
            lr: 1.0,
            eta: 1.0,
            batch: 1,
        };
        // w - 100 (0.02 / 100 + 2e-4 * 0.1): errors that differ by a hundredth move their weights a
        // hundredth apart, and the projection keeps a mixture of prompts.
        let w = stepped(0.1, 0.02, 100, &options);
        assert!((w - (0.1 - 0.02 - 0.002)).abs() < 1e-12, "{w}");
        let mut weights: Vec<f64> = (0..100)
            .map(|i| stepped(0.1, 0.01 * f64::from(i % 10), 100, &options))
            .collect();
        project(&mut weights, 10.0);
        let between = weights.iter().filter(|w| **w > 0.01 && **w < 0.99).count();
        assert!(between > 50, "{between}: {weights:?}");
    }
}
