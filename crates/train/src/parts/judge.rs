//! Judges: `ViTForImageClassification` (Dosovitskiy et al. 2021, arXiv 2010.11929) that may also say
//! none of these.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rayon::prelude::*;
use scumble_diffusion::Picture;
use scumble_erase::Result;
use scumble_nn::{Vit, Weights, config::VitConfig};

use super::{HELD_OUT, measured_on};
use crate::{
    calibration::{Answered, error},
    fit::{Fit, Outcome},
    init::Init,
    job::Job,
    watcher::Watcher,
};

/// Held-out pictures that it is measured on, and others that its temperature is found on.
const MEASURED: usize = 512;
const CALIBRATED: usize = 1024;
/// Pictures that are looked at together.
const AT_ONCE: usize = 64;

/// Pictures of these numbers, and the right answer to each.
type Batch<'a> = dyn Fn(Range<usize>) -> Result<(Tensor<4>, Vec<usize>)> + 'a;

/// Trains a judge for each question and writes `judges/NAME`.
pub(crate) fn train(job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<Outcome> {
    let mut all = Outcome {
        steps: 0,
        seconds: 0.0,
        loss: f64::NAN,
    };
    let questions = job.data.questions().len();
    for question in 0..questions {
        let most = job.most.map(|most| most / questions as f64);
        let one = of(job, question, most, watcher)?;
        all = Outcome {
            steps: all.steps + one.steps,
            seconds: all.seconds + one.seconds,
            loss: one.loss,
        };
    }
    Ok(all)
}

fn of(
    job: &Job<'_>,
    which: usize,
    most: Option<f64>,
    watcher: &mut dyn Watcher,
) -> Result<Outcome> {
    let question = &job.data.questions()[which];
    let reject = if job.data.rejects() {
        job.recipe.judge.reject
    } else {
        0.0
    };
    let layout = job.layout();
    let place = format!("judges/{}", question.name);
    let config = job.recipe.judge_config(question, reject > 0.0);
    let network = VitConfig::read(&layout.at(&format!("{place}/config.json")), &config)?;
    let init = Init::Transformer {
        layers: job.recipe.judge.num_hidden_layers,
    };
    let mut weights = init.weights(&Vit::manifest(&network), job.seed, job.device);
    let training = &job.recipe.judge.training;
    let state = format!("judge-{}", question.name);
    let mut fit = Fit::new(&state, training, &weights, &job.state(), most)?;
    let batch = |numbers: Range<usize>| -> Result<(Tensor<4>, Vec<usize>)> {
        let drawn: Vec<(Picture, usize)> = numbers
            .into_par_iter()
            .map(|i| job.data.judged(which, i, reject))
            .collect::<Result<_>>()?;
        let (pictures, answers): (Vec<_>, Vec<_>) = drawn.into_iter().unzip();
        let pictures = Picture::to_batch(&pictures, [0.5; 3], [0.5; 3], job.device);
        Ok((pictures, answers))
    };
    let outcome = fit.run(
        &mut weights,
        watcher,
        &mut |weights, _, numbers| {
            let (pictures, answers) = batch(numbers)?;
            let logits = Vit::new(&network, weights).logits(pictures);
            Ok(cross_entropy(logits, &answers))
        },
        &mut |weights, step, watcher| {
            let vit = Vit::new(&network, weights);
            let (all, of) = measured_on(job.data, MEASURED, 1);
            let mut right = 0;
            for start in all.clone().step_by(AT_ONCE) {
                let (pictures, answers) = batch(start..(start + AT_ONCE).min(all.end))?;
                right += hits(vit.logits(pictures), &answers);
            }
            let name = format!("right {}{of}", question.name);
            watcher.measured(&state, step, &name, right as f64 / all.len() as f64);
            Ok(())
        },
    )?;
    // Of a folder too few pictures are held out to find a temperature on.
    if job.data.count().is_none() {
        calibrate(
            &mut weights,
            &network,
            &batch,
            &state,
            outcome.steps,
            watcher,
        )?;
    }
    layout.json(&format!("{place}/config.json"), &config)?;
    layout.json(
        &format!("{place}/preprocessor_config.json"),
        &job.recipe.judge_preprocessor(),
    )?;
    layout.weights(&format!("{place}/model.safetensors"), &weights)?;
    Ok(outcome)
}

/// Divides a judge's logits by the temperature that suits examples which nothing else is measured on, and says how
/// reliable it is then, on those that everything is measured on.
fn calibrate(
    weights: &mut Weights,
    network: &VitConfig,
    batch: &Batch<'_>,
    state: &str,
    step: usize,
    watcher: &mut dyn Watcher,
) -> Result<()> {
    let vit = Vit::new(network, weights);
    let answered = |from: usize, n: usize| -> Result<Answered> {
        let mut all = Answered {
            logits: Vec::new(),
            right: Vec::new(),
            classes: network.labels.len(),
        };
        for start in (from..from + n).step_by(AT_ONCE) {
            let (pictures, right) = batch(start..start + AT_ONCE)?;
            all.logits
                .extend(vit.logits(pictures).into_data().iter::<f32>());
            all.right.extend(right);
        }
        Ok(all)
    };
    let temperature = answered(HELD_OUT + MEASURED, CALIBRATED)?.temperature();
    let measured = answered(HELD_OUT, MEASURED)?;
    let (before, after) = (measured.reliability(1.0), measured.reliability(temperature));
    for (name, value) in [
        ("temperature", temperature),
        ("calibration error before", error(&before)),
        ("calibration error", error(&after)),
    ] {
        watcher.measured(state, step, name, value);
    }
    watcher.reliability(state, step, &after);
    for name in ["classifier.weight", "classifier.bias"] {
        if let Some(weight) = weights.get(name) {
            let cooled = weight.flat() / temperature;
            weights.replace(name, cooled)?;
        }
    }
    Ok(())
}

/// The mean of minus the logarithm of the right answer's probability.
fn cross_entropy(logits: Tensor<2>, answers: &[usize]) -> Tensor<1> {
    let n = answers.len();
    let index: Vec<i64> = answers.iter().map(|&a| a as i64).collect();
    let device = logits.device().without_autodiff();
    let index = Tensor::<2, Int>::from_data(TensorData::new(index, [n, 1]), &device);
    -log_softmax(logits, 1).gather(1, index).mean()
}

/// How many rows are largest at their answer.
fn hits(logits: Tensor<2>, answers: &[usize]) -> usize {
    let classes = logits.dims()[1];
    let rows: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let best = |row: &[f32]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    rows.chunks_exact(classes)
        .zip(answers)
        .filter(|(row, answer)| best(row) == Some(**answer))
        .count()
}
