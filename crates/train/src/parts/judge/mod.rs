//! Judges, which may also say none of these: a ViT for every question, and beside that of the first
//! one a ResNet that has to agree.

mod network;
mod pictures;

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use scumble_erase::Result;
use scumble_nn::Weights;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::{
    network::Network,
    pictures::{Batch, Pictures},
};
use super::{HELD_OUT, measured_on};
use crate::{
    calibration::{Answered, error},
    fit::{Fit, Outcome},
    job::Job,
    recipe::Training,
    watcher::Watcher,
};

/// Held-out pictures that it is measured on, and others that its temperature is found on; no more than
/// it learned from.
const MEASURED: usize = 512;
const CALIBRATED: usize = 1024;
/// Pictures that are looked at together.
const AT_ONCE: usize = 64;
/// Batches that the statistics of batch norms are of, when it is looked at and in the end.
const SETTLED: [usize; 2] = [8, 40];

/// Trains a judge for each question and writes `judges/NAME`, and `judges/NAME/second` for the first.
pub(crate) fn train(job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<Outcome> {
    let mut all = Outcome {
        steps: 0,
        seconds: 0.0,
        loss: f64::NAN,
    };
    let questions = job.data.questions();
    let reject = match job.data.rejects() {
        true => job.recipe.judge.reject,
        false => 0.0,
    };
    let has_second = has_second(job);
    let most = job.most.map(|most| most / networks(job).max(1) as f64);
    for (which, question) in questions.iter().enumerate() {
        let mut examples = Pictures::new(job, which, reject)?;
        let place = format!("judges/{}", question.name);
        let (network, config) = Network::vit(job, question, &place, reject > 0.0)?;
        let state = format!("judge-{}", question.name);
        let mut own = vec![(network, config, place.clone(), state.clone())];
        let second_place = format!("{place}/second");
        if which == 0 && has_second {
            let second = Network::resnet(job, question, &second_place)?;
            let state = format!("{state}-second");
            own.extend(second.map(|(net, config)| (net, config, second_place.clone(), state)));
        } else {
            // One of an earlier recipe would have to agree all the same.
            let before = job.layout().at(&second_place);
            if before.exists() {
                fs_err::remove_dir_all(before).map_err(scumble_nn::Error::from)?;
            }
        }
        // Those that have had all their steps or their time are not begun again.
        own.retain(|(_, _, place, state)| match Done::of(job, place, state) {
            Some(done) if done.is_enough(job, most) => {
                all = all.and(&done.outcome());
                false
            }
            _ => true,
        });
        if own.is_empty() {
            continue;
        }
        examples.decode(watcher)?;
        // Decoding is part of the time that the question has.
        let own_share = |most: f64| (most - examples.seconds / own.len() as f64).max(0.5 * most);
        let given = most.map(own_share);
        let mut taught = Vec::new();
        for (network, config, place, state) in own {
            let pupil = Pupil {
                job,
                examples: &examples,
                name: &question.name,
                network,
                state,
            };
            let (one, weights) = pupil.train(given, watcher)?;
            let layout = job.layout();
            layout.json(&format!("{place}/config.json"), &config)?;
            layout.json(
                &format!("{place}/preprocessor_config.json"),
                &job.recipe.judge_preprocessor(),
            )?;
            layout.weights(&format!("{place}/model.safetensors"), &weights)?;
            Done::note(job, &pupil.state, &one, most)?;
            all = all.and(&one);
            taught.push((pupil, weights));
        }
        if let [first, second] = &taught[..] {
            both(first, second, all.steps, watcher)?;
        }
    }
    Ok(all)
}

/// What came of a network, beside its state.
#[derive(Serialize, Deserialize)]
struct Done {
    steps: usize,
    seconds: f64,
    /// None where a run found all its steps done.
    loss: Option<f64>,
    /// Seconds that it was given, if they were limited.
    given: Option<f64>,
}

impl Done {
    /// Where it stands, in the model's folder.
    fn place(state: &str) -> String {
        format!("train/state/{state}.json")
    }

    /// That of a network whose files are there.
    fn of(job: &Job<'_>, place: &str, state: &str) -> Option<Self> {
        let there = job
            .layout()
            .at(&format!("{place}/model.safetensors"))
            .exists();
        let text = fs_err::read_to_string(job.layout().at(&Self::place(state))).ok();
        text.filter(|_| there)
            .and_then(|text| serde_json::from_str(&text).ok())
    }

    fn note(job: &Job<'_>, state: &str, one: &Outcome, given: Option<f64>) -> Result<()> {
        let done = Self {
            steps: one.steps,
            seconds: one.seconds,
            loss: Some(one.loss).filter(|loss| loss.is_finite()),
            given,
        };
        job.layout().json(&Self::place(state), &json!(done))
    }

    fn is_enough(&self, job: &Job<'_>, most: Option<f64>) -> bool {
        let had = self.given.unwrap_or(self.seconds);
        self.steps >= job.recipe.judge.training.steps || most.is_some_and(|most| had >= most)
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            steps: self.steps,
            seconds: self.seconds,
            loss: self.loss.unwrap_or(f64::NAN),
        }
    }
}

/// Whether the first question has a second judge: it is for what is refused, and for the question that
/// is asked most.
fn has_second(job: &Job<'_>) -> bool {
    let judge = &job.recipe.judge;
    job.data.rejects() && judge.reject > 0.0 && judge.second.is_some()
}

/// How many networks are trained.
pub(crate) fn networks(job: &Job<'_>) -> usize {
    job.data.questions().len() + usize::from(has_second(job))
}

/// One network that learns to answer a question.
struct Pupil<'a> {
    job: &'a Job<'a>,
    examples: &'a Pictures<'a>,
    name: &'a str,
    network: Network,
    state: String,
}

impl Pupil<'_> {
    fn train(&self, most: Option<f64>, watcher: &mut dyn Watcher) -> Result<(Outcome, Weights)> {
        let (job, network, examples) = (self.job, &self.network, self.examples);
        let mut weights = network
            .init()
            .weights(&network.manifest(), job.seed, job.device);
        // A batch norm sees a batch: parts of one would each be another.
        let training = &Training {
            micro_batch: match network {
                Network::Vit(_) => job.recipe.judge.training.micro_batch,
                Network::ResNet(_) => None,
            },
            ..job.recipe.judge.training.clone()
        };
        let mut fit = Fit::of_some(&self.state, training, &weights, &Network::moves, job, most)?;
        let outcome = fit.run(
            &mut weights,
            watcher,
            &mut |weights, _, numbers| {
                let (pictures, answers) = examples.mixed(numbers)?;
                Ok(cross_entropy(network.trained(weights, pictures), &answers))
            },
            &mut |weights, step, watcher| {
                let mut weights = weights.clone();
                self.settle(&mut weights, SETTLED[0])?;
                self.measure(&weights, step, watcher)
            },
        )?;
        self.settle(&mut weights, SETTLED[1])?;
        // Of a folder too few pictures are held out to find a temperature on.
        if job.data.count().is_none() {
            self.calibrate(&mut weights, outcome.steps, watcher)?;
        }
        self.measure(&weights, outcome.steps, watcher)?;
        Ok((outcome, weights))
    }

    /// How many of so many examples are used where a training has but few.
    fn few(&self, wanted: usize) -> usize {
        let training = &self.job.recipe.judge.training;
        wanted.min(training.steps.saturating_mul(training.batch))
    }

    /// The statistics of batch norms, over the first examples.
    fn settle(&self, weights: &mut Weights, batches: usize) -> Result<()> {
        let batches = self.few(batches * AT_ONCE).div_ceil(AT_ONCE);
        let starts = (0..batches).map(|batch| batch * AT_ONCE);
        let batches = starts.map(|from| Ok(self.examples.mixed(from..from + AT_ONCE)?.0));
        self.network.settle(weights, batches)
    }

    /// How often it is right on pictures that nothing was learned from, drawn and decoded.
    fn measure(&self, weights: &Weights, step: usize, watcher: &mut dyn Watcher) -> Result<()> {
        let (all, of) = measured_on(self.job.data, self.few(MEASURED), 1);
        let mut right = [0, 0];
        let mut decodes = true;
        for start in all.clone().step_by(AT_ONCE) {
            let numbers = start..(start + AT_ONCE).min(all.end);
            let (pictures, answers) = self.examples.drawn(numbers.clone())?;
            right[0] += hits(self.network.scores(weights, pictures), &answers);
            match self.examples.out_of_latents(numbers) {
                None => decodes = false,
                Some(decoded) => {
                    let (pictures, answers) = decoded?;
                    right[1] += hits(self.network.scores(weights, pictures), &answers);
                }
            }
        }
        let share = |right: usize| right as f64 / all.len() as f64;
        let name = format!("right {}{of}", self.name);
        watcher.measured(&self.state, step, &name, share(right[0]));
        if decodes {
            let name = format!("right {} of decoded{of}", self.name);
            watcher.measured(&self.state, step, &name, share(right[1]));
        }
        Ok(())
    }

    /// Divides its logits by the temperature that suits examples which nothing else is measured on,
    /// and says how reliable it is then, on those that everything is measured on.
    fn calibrate(
        &self,
        weights: &mut Weights,
        step: usize,
        watcher: &mut dyn Watcher,
    ) -> Result<()> {
        let answered = |from: usize, n: usize| -> Result<Answered> {
            let mut all = Answered {
                logits: Vec::new(),
                right: Vec::new(),
                classes: 0,
            };
            let end = from + self.few(n);
            for start in (from..end).step_by(AT_ONCE) {
                let (pictures, right) = self.decoded_or_drawn(start..(start + AT_ONCE).min(end))?;
                let scores = self.network.scores(weights, pictures);
                all.classes = scores.dims()[1];
                all.logits.extend(scores.into_data().iter::<f32>());
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
            watcher.measured(&self.state, step, name, value);
        }
        watcher.reliability(&self.state, step, &after);
        for name in ["weight", "bias"] {
            for head in ["classifier", "classifier.1"] {
                let name = format!("{head}.{name}");
                if let Some(weight) = weights.get(&name) {
                    let cooled = weight.flat() / temperature;
                    weights.replace(&name, cooled)?;
                }
            }
        }
        Ok(())
    }

    /// Held-out pictures as it will be asked about: decoded where that can be.
    fn decoded_or_drawn(&self, numbers: Range<usize>) -> Result<Batch> {
        match self.examples.out_of_latents(numbers.clone()) {
            Some(decoded) => decoded,
            None => self.examples.drawn(numbers),
        }
    }
}

/// How often two networks are right together, of decoded pictures and of those that are to be refused
/// among them, and how reliable what they say is: of each class the smaller of both probabilities, of
/// none what is missing from 1.
fn both(
    (first, weights): &(Pupil<'_>, Weights),
    (second, others): &(Pupil<'_>, Weights),
    step: usize,
    watcher: &mut dyn Watcher,
) -> Result<()> {
    let mut all = Answered {
        logits: Vec::new(),
        right: Vec::new(),
        classes: 0,
    };
    let end = HELD_OUT + first.few(MEASURED);
    for start in (HELD_OUT..end).step_by(AT_ONCE) {
        let (pictures, right) = first.decoded_or_drawn(start..(start + AT_ONCE).min(end))?;
        let scores = [(first, weights), (second, others)]
            .map(|(pupil, weights)| pupil.network.scores(weights, pictures.clone()));
        all.classes = scores[0].dims()[1];
        let shares = scores.map(|scores| -> Vec<f32> {
            log_softmax(scores, 1)
                .exp()
                .into_data()
                .iter::<f32>()
                .collect()
        });
        let rows = shares[0]
            .chunks_exact(all.classes)
            .zip(shares[1].chunks_exact(all.classes));
        for (a, b) in rows {
            let mut row: Vec<f32> = a.iter().zip(b).map(|(a, b)| a.min(*b)).collect();
            // None of these comes last.
            let none = row.len() - 1;
            row[none] = (1.0 - row[..none].iter().sum::<f32>()).max(1e-12);
            all.logits
                .extend(row.iter().map(|share| share.max(1e-12).ln()));
        }
        all.right.extend(right);
    }
    let none = all.classes.saturating_sub(1);
    let (mut right, mut refused, mut to_refuse) = (0, 0, 0);
    for (row, &answer) in all.logits.chunks_exact(all.classes).zip(&all.right) {
        let said = (0..all.classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        right += usize::from(said == Some(answer));
        to_refuse += usize::from(answer == none);
        refused += usize::from(answer == none && said == Some(none));
    }
    let of = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    for (name, value) in [
        ("right object of decoded, both", of(right, all.right.len())),
        ("right to refuse, both", of(refused, to_refuse)),
        ("calibration error, both", error(&all.reliability(1.0))),
    ] {
        watcher.measured(&first.state, step, name, value);
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
