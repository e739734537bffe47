//! The loop that every part is trained by: f32 masters, AdamW, a moving average, and a state that a
//! stopped run continues from with the same bits.

use std::{
    ops::Range,
    path::PathBuf,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use scumble_erase::{
    Error, Result,
    training::snapshot::{Snapshot, Stored},
};
use scumble_nn::{
    Weights,
    files::safetensors::{self, TensorFile},
};

use crate::{job::Job, recipe::Training, watcher::Watcher};

/// AdamW's decays of the means of the gradient and of its square, and what is added to the root.
const BETAS: (f32, f32) = (0.9, 0.99);
const EPS: f32 = 1e-8;
/// Between two stored states at least this much time passes, and storing takes at most a twentieth
/// of it.
const STORE_EVERY: Duration = Duration::from_secs(20);
/// Numbers that are stored for each that moves: it, both means, the moving average.
const KINDS: usize = 4;
/// Numbers that one task updates.
const CHUNK: usize = 1 << 14;

/// One tensor that moves, with all that belongs to it. Everything lies in the memory of the
/// processor, so that a device holds the network and its gradients alone.
struct Master {
    name: String,
    decays: bool,
    value: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    ema: Vec<f32>,
    gradient: Vec<f32>,
}

/// A network in training.
pub(crate) struct Fit<'a> {
    training: &'a Training,
    /// What it is called, on the screen and in its state.
    part: String,
    state: PathBuf,
    trial: bool,
    masters: Vec<Master>,
    step: usize,
    /// Time that it has taken, those of earlier runs included.
    spent: f64,
    /// Time after which it ends.
    most: Option<f64>,
    device: Device,
}

/// The mean loss of some examples: of a network's tensors, the number of the step, and those of the
/// examples.
type Loss<'a> = dyn FnMut(&Weights, usize, Range<usize>) -> Result<Tensor<1>> + 'a;

/// How a part's training ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Steps that were done.
    pub(crate) steps: usize,
    /// Seconds that they took.
    pub(crate) seconds: f64,
    /// The mean loss of the last steps.
    pub(crate) loss: f64,
}

impl Outcome {
    /// This and another network's together; the loss is that of the later one.
    pub(crate) fn and(&self, later: &Self) -> Self {
        Self {
            steps: self.steps + later.steps,
            seconds: self.seconds + later.seconds,
            loss: later.loss,
        }
    }
}

impl<'a> Fit<'a> {
    /// The tensors of a network that begins to be trained, or goes on.
    ///
    /// # Errors
    /// If a stored state is there and cannot be continued.
    pub(crate) fn new(
        part: &str,
        training: &'a Training,
        weights: &Weights,
        job: &Job<'_>,
        most: Option<f64>,
    ) -> Result<Self> {
        Self::of_some(part, training, weights, &|_| true, job, most)
    }

    /// The same where only some tensors move, by their names.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of_some(
        part: &str,
        training: &'a Training,
        weights: &Weights,
        moves: &dyn Fn(&str) -> bool,
        job: &Job<'_>,
        most: Option<f64>,
    ) -> Result<Self> {
        let state = job.state().join(format!("{part}.safetensors"));
        let moving = weights.iter().filter(|(name, _)| moves(name));
        let masters = moving.map(|(name, weight)| {
            let value = weight.numbers();
            let zeros = vec![0.0; value.len()];
            Master {
                name: name.clone(),
                // A matrix or a kernel pulls towards 0; a bias, a norm or a table of words does not.
                decays: weight.shape.len() > 1 && !name.contains("embedding"),
                m: zeros.clone(),
                v: zeros.clone(),
                gradient: zeros,
                ema: value.clone(),
                value,
            }
        });
        let mut fit = Self {
            training,
            part: part.to_owned(),
            masters: masters.collect(),
            step: 0,
            spent: 0.0,
            most,
            device: weights.device().clone(),
            state,
            trial: job.trial,
        };
        fit.take_up()?;
        Ok(fit)
    }

    /// Trains to the end. `loss` is given the network's tensors, tracked, the step's number from 0
    /// and the numbers of the examples to look at, and answers the mean loss of these.
    ///
    /// `weights` holds the moving average afterwards.
    ///
    /// # Errors
    /// If `loss` fails, is not finite, or somebody asks to stop; the state stored last stays.
    pub(crate) fn run(
        &mut self,
        weights: &mut Weights,
        watcher: &mut dyn Watcher,
        loss: &mut Loss<'_>,
        look: &mut dyn FnMut(&Weights, usize, &mut dyn Watcher) -> Result<()>,
    ) -> Result<Outcome> {
        watcher.stage(&self.part, self.training.steps, self.step);
        let (mut stored_at, mut pause) = (Instant::now(), STORE_EVERY);
        let mut mean = None;
        while !self.finished() {
            let began = Instant::now();
            let value = self.advance(weights, loss)?;
            self.spent += began.elapsed().as_secs_f64();
            let smooth = mean.map_or(value, |mean: f64| 0.98 * mean + 0.02 * value);
            mean = Some(smooth);
            watcher.loss(&self.part, self.step, value, self.factor());
            let going = watcher.step(self.step, self.progress(), &format!("loss {smooth:.4}"));
            if going.is_continue() && watcher.wants_look(&self.part, self.step) {
                let mut average = weights.clone();
                self.put(&mut average, |master| &master.ema)?;
                average.count_apart();
                look(&average, self.step, watcher)?;
            }
            if going.is_break() || stored_at.elapsed() >= pause || self.finished() {
                let began = Instant::now();
                self.keep()?;
                pause = STORE_EVERY.max(began.elapsed() * 20);
                stored_at = Instant::now();
            }
            if going.is_break() {
                return Err(Error::Interrupted);
            }
        }
        self.put(weights, |master| &master.ema)?;
        Ok(Outcome {
            steps: self.step,
            seconds: self.spent,
            loss: mean.unwrap_or(f64::NAN),
        })
    }

    fn finished(&self) -> bool {
        self.step >= self.training.steps || self.most.is_some_and(|most| self.spent >= most)
    }

    /// How much of the training is done: by its steps, or by its time where that ends it earlier.
    fn progress(&self) -> f64 {
        let by_steps = self.step as f64 / self.training.steps as f64;
        let by_time = self.most.map_or(0.0, |most| self.spent / most.max(1e-9));
        by_steps.max(by_time).min(1.0)
    }

    /// The share of the largest step size that holds now.
    fn factor(&self) -> f64 {
        let rise = (self.step + 1) as f64 / (self.training.warm_up + 1) as f64;
        let fall = (1.0 - self.progress()) / self.training.decay.max(1e-9);
        rise.min(fall).min(1.0)
    }

    /// Puts numbers of the masters in the place of the network's.
    fn put(&self, weights: &mut Weights, which: impl Fn(&Master) -> &Vec<f32>) -> Result<()> {
        for master in &self.masters {
            weights.replace(&master.name, self.tensor(which(master)))?;
        }
        Ok(())
    }

    fn tensor(&self, numbers: &[f32]) -> Tensor<1> {
        let data = TensorData::new(numbers.to_vec(), [numbers.len()]);
        Tensor::from_data(data, &self.device)
    }

    /// One step, and its loss.
    fn advance(&mut self, weights: &mut Weights, loss: &mut Loss<'_>) -> Result<f64> {
        let (batch, micro) = (self.training.batch, self.training.micro());
        let parts = batch / micro;
        let mut sum = 0.0;
        for part in 0..parts {
            let mut leaves = Vec::with_capacity(self.masters.len());
            for master in &self.masters {
                let leaf = self.tensor(&master.value).autodiff().require_grad();
                weights.replace(&master.name, leaf.clone())?;
                leaves.push(leaf);
            }
            let from = self.step * batch + part * micro;
            let value = loss(weights, self.step, from..from + micro)?;
            let found: f32 = value.clone().inner().into_scalar();
            if !found.is_finite() {
                return Err(self.diverged(found));
            }
            sum += f64::from(found);
            let mut gradients = value.backward();
            for (master, leaf) in self.masters.iter_mut().zip(leaves) {
                let found = leaf.grad_remove(&mut gradients);
                let found = found.map(|gradient| gradient.into_data());
                let found = found.as_ref().and_then(|data| data.as_slice::<f32>().ok());
                add(&mut master.gradient, found, part == 0, 1.0 / parts as f32);
            }
        }
        weights.untrack();
        let norm = self.norm();
        if !norm.is_finite() {
            return Err(self.diverged(norm as f32));
        }
        let shorter = (self.training.clip / (norm + 1e-6)).min(1.0) as f32;
        let lr = (self.training.lr * self.factor()) as f32;
        self.step += 1;
        let step = Step::new(self.training, lr, shorter, self.step);
        self.masters.iter_mut().for_each(|master| step.take(master));
        Ok(sum / parts as f64)
    }

    fn diverged(&self, loss: f32) -> Error {
        Error::Diverged {
            step: self.step + 1,
            loss,
        }
    }

    /// The norm of the whole gradient, its sums taken in an order that no number of threads changes.
    fn norm(&self) -> f64 {
        let squares = |master: &Master| {
            let chunks = master.gradient.par_chunks(CHUNK);
            let sums: Vec<f64> = chunks
                .map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum())
                .collect();
            sums.iter().sum::<f64>()
        };
        self.masters.iter().map(squares).sum::<f64>().sqrt()
    }

    /// Stores all that the next step depends on.
    fn keep(&self) -> Result<()> {
        if self.trial {
            // A file of that size which takes no room.
            let numbers: usize = self.masters.iter().map(|master| master.value.len()).sum();
            let file = fs_err::File::create(&self.state).map_err(scumble_nn::Error::from)?;
            let size = (KINDS * size_of::<f32>() * numbers) as u64;
            file.set_len(size).map_err(scumble_nn::Error::from)?;
            return Ok(());
        }
        let mut state = Snapshot::new();
        state.count("step", self.step as u64);
        state.whole("spent", &[self.spent.to_bits()]);
        for master in &self.masters {
            let kinds = [
                ("value", &master.value),
                ("m", &master.m),
                ("v", &master.v),
                ("ema", &master.ema),
            ];
            for (kind, numbers) in kinds {
                state.numbers(&format!("{kind}.{}", master.name), numbers);
            }
        }
        safetensors::write(&self.state, state.into_tensors(), &Default::default())?;
        Ok(())
    }

    /// Goes on from a stored state, if there is one.
    fn take_up(&mut self) -> Result<()> {
        if !self.state.exists() {
            return Ok(());
        }
        let file = TensorFile::open(&self.state)?;
        let mut state = Stored::of(&self.part, file.tensors);
        self.step = state.count("step")? as usize;
        self.spent = f64::from_bits(state.count("spent")?);
        for master in &mut self.masters {
            let n = master.value.len();
            let kinds = [
                ("value", &mut master.value),
                ("m", &mut master.m),
                ("v", &mut master.v),
                ("ema", &mut master.ema),
            ];
            for (kind, numbers) in kinds {
                *numbers = state.numbers(&format!("{kind}.{}", master.name), n)?;
            }
        }
        state.end()
    }
}

/// `sum += gradient factor`, from 0 at the first part of a step.
fn add(sum: &mut [f32], gradient: Option<&[f32]>, first: bool, factor: f32) {
    if first {
        sum.fill(0.0);
    }
    if let Some(gradient) = gradient {
        let pairs = sum.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
        pairs.for_each(|(sum, gradient)| {
            sum.iter_mut()
                .zip(gradient)
                .for_each(|(sum, g)| *sum += g * factor);
        });
    }
}

/// A step of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2) and of the moving
/// average, for every number in one pass.
struct Step {
    lr: f32,
    shorter: f32,
    weight_decay: f32,
    corrected: (f32, f32),
    ema: f32,
}

impl Step {
    fn new(training: &Training, lr: f32, shorter: f32, step: usize) -> Self {
        let t = step as i32;
        // The average forgets its first, bad numbers quickly.
        let warm = (1.0 + step as f64) / (10.0 + step as f64);
        Self {
            lr,
            shorter,
            weight_decay: training.weight_decay as f32,
            corrected: (
                (1.0 - f64::from(BETAS.0).powi(t)) as f32,
                (1.0 - f64::from(BETAS.1).powi(t)).sqrt() as f32,
            ),
            ema: training.ema.min(warm) as f32,
        }
    }

    fn take(&self, master: &mut Master) {
        let decay = if master.decays {
            self.lr * self.weight_decay
        } else {
            0.0
        };
        let (size, root) = (self.lr / self.corrected.0, self.corrected.1);
        let numbers = master
            .value
            .par_chunks_mut(CHUNK)
            .zip(master.m.par_chunks_mut(CHUNK))
            .zip(master.v.par_chunks_mut(CHUNK))
            .zip(master.ema.par_chunks_mut(CHUNK))
            .zip(master.gradient.par_chunks(CHUNK));
        numbers.for_each(|((((x, m), v), ema), gradient)| {
            for i in 0..x.len() {
                let g = gradient[i] * self.shorter;
                m[i] = BETAS.0 * m[i] + (1.0 - BETAS.0) * g;
                v[i] = BETAS.1 * v[i] + (1.0 - BETAS.1) * g * g;
                x[i] -= x[i] * decay + size * m[i] / (v[i].sqrt() / root + EPS);
                ema[i] = self.ema * ema[i] + (1.0 - self.ema) * x[i];
            }
        });
    }
}
