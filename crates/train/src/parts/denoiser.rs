//! The denoiser (Ho et al. 2020, arXiv 2006.11239; Rombach et al. 2022, arXiv 2112.10752): noise is
//! mixed into latents, and the network says what was mixed in, the caption before it.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Interpolant as _, Output, Pipeline, Timestep};
use scumble_erase::{
    Result,
    seeds::{draw, stream},
};
use scumble_families::sd::{
    SD,
    sizes::{model_index, scheduler},
};
use scumble_nn::{
    Weights,
    files::{Checkpoint, OpenOptions, Source},
};

use super::latents::Latents;
use crate::{
    fit::{Fit, Outcome},
    init::Init,
    job::Job,
    layout::DIFFUSION_MODEL,
    part::{CONFIG, Part},
    recipe::DenoiserRecipe,
    watcher::Watcher,
};

/// Trains it and writes `unet/`, which makes the folder a whole model.
pub(crate) fn train(job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<Outcome> {
    begin(job)?;
    let layout = job.layout();
    let source = Source::dir(layout.at(""));
    let checkpoint = Checkpoint::read(&source, &OpenOptions::default())?;
    let pipeline = scumble_families::load(&checkpoint, job.device)?;
    let (outcome, weights) = learn(job, &pipeline, &|_| true, watcher)?;
    layout.weights(&format!("{}/{DIFFUSION_MODEL}", SD.denoiser()), &weights)?;
    Ok(outcome)
}

/// Trains those tensors of a model's denoiser that move; all of its tensors afterwards.
pub(crate) fn learn(
    job: &Job<'_>,
    pipeline: &Pipeline,
    moves: &dyn Fn(&str) -> bool,
    watcher: &mut dyn Watcher,
) -> Result<(Outcome, Weights)> {
    let (latents, seconds) = Latents::of(job, pipeline, watcher)?;
    // Encoding them is part of the time that the denoiser has.
    let most = job.most.map(|most| (most - seconds).max(0.5 * most));
    let recipe = &job.recipe.denoiser;
    let mut weights = pipeline.denoiser.weights.clone();
    let name = Part::Denoiser.name();
    let mut fit = Fit::of_some(name, &recipe.training, &weights, moves, job, most)?;
    let order = stream(job.seed, "train/order").seed();
    let outcome = fit.run(
        &mut weights,
        watcher,
        &mut |weights, step, numbers| {
            let mut model = pipeline.clone();
            model.denoiser.weights = weights.clone();
            let all = draw(latents.count(), recipe.training.batch, order, step);
            let part = numbers.start % recipe.training.batch;
            let chosen = &all[part..part + numbers.len()];
            let x0 = latents.select(chosen, job)?;
            let captions: Vec<String> = chosen.iter().map(|&i| job.data.caption(i)).collect();
            loss(
                &model,
                recipe,
                x0,
                captions,
                Draws::of(job.seed, step, part),
            )
        },
        &mut |weights, step, watcher| {
            let mut drawn = pipeline.clone();
            drawn.denoiser.weights = weights.clone();
            watcher.model(step, &drawn)
        },
    )?;
    Ok((outcome, weights))
}

/// Writes the parts that a model is recognised by, and the denoiser's first numbers, unless its
/// training goes on.
fn begin(job: &Job<'_>) -> Result<()> {
    let layout = job.layout();
    let (sizes, id) = (job.recipe.denoiser_sizes(), SD.denoiser());
    let answer = job.recipe.denoiser.prediction.prediction_type();
    layout.json("model_index.json", &model_index())?;
    layout.json("scheduler/scheduler_config.json", &scheduler(answer))?;
    layout.json(&format!("{id}/{CONFIG}"), &sizes.config())?;
    let weights = format!("{id}/{DIFFUSION_MODEL}");
    if !job.state().join("denoiser.safetensors").exists() {
        let first = Init::Residual.weights(&sizes.manifest()?, job.seed, job.device);
        layout.weights(&weights, &first)?;
    }
    Ok(())
}

/// The random numbers of one part of a step.
struct Draws {
    noise: scumble_diffusion::TorchRng,
    times: scumble_diffusion::TorchRng,
    dropped: scumble_diffusion::TorchRng,
}

impl Draws {
    fn of(seed: u64, step: usize, part: usize) -> Self {
        Self {
            noise: stream(seed, "train/noise").within(step).rng(part),
            times: stream(seed, "train/times").within(step).rng(part),
            dropped: stream(seed, "train/dropped").within(step).rng(part),
        }
    }
}

/// The mean squared error of the answer, [weighted](weight) as min-SNR says (Hang et al. 2023, arXiv
/// 2303.09556): a timestep with little noise counts no more than one with `gamma` times as much
/// signal as noise; and one that is nearly all noise no less than a floor.
fn loss(
    model: &Pipeline,
    recipe: &DenoiserRecipe,
    x0: Tensor<4>,
    mut captions: Vec<String>,
    mut draws: Draws,
) -> Result<Tensor<1>> {
    let n = captions.len();
    let shape = x0.dims();
    let numbers = draws.noise.normal(shape.iter().product());
    let noise = Tensor::<4>::from_data(TensorData::new(numbers, shape), &x0.device());
    let steps = model.schedule.num_train_timesteps();
    let t = draws.times.integers(n, 0, steps as i64);
    let t: Vec<Timestep> = t
        .iter()
        .map(|&t| model.schedule.timestep(t as usize))
        .collect::<Result<_, _>>()?;
    for (caption, u) in captions.iter_mut().zip(draws.dropped.uniform(n)) {
        if f64::from(u) < recipe.caption_dropout {
            caption.clear();
        }
    }
    let context = model.context(&captions);
    let x = model.schedule.add_noise(x0, noise.clone(), &t)?;
    let answer = model.predict(x.clone(), &t, &context, None)?.raw();
    let scales = model.schedule.all_scales(&t);
    let target = model
        .schedule
        .output()
        .raw_from_epsilon(noise, x, &scales)?;
    let weights: Vec<f32> = scales
        .iter()
        .map(|scales| {
            let snr = (scales.alpha / scales.sigma).powi(2);
            weight(model.schedule.output(), snr, recipe)
        })
        .collect();
    let weights = Tensor::<4>::from_data(TensorData::new(weights, [n, 1, 1, 1]), &answer.device());
    Ok(((answer - target).powi_scalar(2) * weights).mean())
}

/// The weight of a squared error, by what the network answers. The error of x_0 counts the error of
/// the noise over SNR, and that of v over SNR + 1; here it counts `min(SNR, gamma)`, min-SNR's
/// weight, and never less than the floor, as in truncated SNR weighting (Salimans and Ho 2022, arXiv
/// 2202.00512, section 4, where the floor is 1).
fn weight(output: Output, snr: f64, recipe: &DenoiserRecipe) -> f32 {
    let of = match output {
        Output::Epsilon => snr,
        Output::V | Output::Velocity => snr + 1.0,
    };
    // Without a gamma the answer's own error counts, whatever it is.
    let counts = match recipe.min_snr_gamma {
        0.0 => of,
        gamma => snr.min(gamma),
    };
    (counts.max(recipe.snr_floor) / of) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_weighed_as_published() {
        let of = |gamma, floor| DenoiserRecipe {
            min_snr_gamma: gamma,
            snr_floor: floor,
            ..crate::Recipe::emoji().unwrap().denoiser
        };
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6 * b.abs().max(1.0), "{a} {b}");
        // With little noise the error of epsilon counts gamma / SNR, with much noise 1.
        near(weight(Output::Epsilon, 50.0, &of(5.0, 0.0)), 0.1);
        near(weight(Output::Epsilon, 0.3, &of(5.0, 0.0)), 1.0);
        near(weight(Output::V, 50.0, &of(5.0, 0.0)), 5.0 / 51.0);
        near(weight(Output::Epsilon, 50.0, &of(0.0, 0.0)), 1.0);
        near(weight(Output::V, 50.0, &of(0.0, 0.0)), 1.0);
        // Where nearly all is noise, that of x_0 counts the floor.
        near(weight(Output::Epsilon, 0.005, &of(5.0, 0.2)), 40.0);
        near(weight(Output::V, 0.005, &of(5.0, 1.0)), 1.0 / 1.005);
        near(weight(Output::Epsilon, 3.0, &of(5.0, 0.2)), 1.0);
    }
}
