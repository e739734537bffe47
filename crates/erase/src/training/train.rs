//! The loop that every trained method shares: fp32 masters, Adam, a callback, and a state that can
//! be stored and taken up again.
//!
//! A step has one loss or several. Several are differentiated one by one, so that a method may look
//! at their gradients before they become one ([`gradients`](crate::training::gradients)).

use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use burn::tensor::Tensor;
use scumble_diffusion::Pipeline;
use scumble_nn::files::Tensors;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    job::{Event, Halfway, Job},
    training::adam::{Adam, Moments},
    training::gradients::{self, Gradients},
    training::snapshot::{Snapshot, Stored},
    training::trainable::Trainable,
};

/// How long to train, how fast, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// What moves.
    pub trainable: Trainable,
    /// Number of steps.
    pub iterations: usize,
    /// Step size of Adam at the first step.
    pub lr: f64,
    /// How the step size goes on.
    pub schedule: LrSchedule,
    /// The name under which the state is stored.
    pub state: &'a str,
    /// Adam's other settings.
    pub adam: Adam,
    /// What else the loss carries from step to step: stored with the state, and put back here when
    /// it is taken up again.
    pub carried: Option<&'a RefCell<Tensors>>,
    /// The model whose tensors begin to move, where it is not the frozen one: one with adapters, or
    /// a first stage's result.
    pub start: Option<&'a Pipeline>,
    /// Which numbers move: each gradient is multiplied by the tensor of its name.
    pub mask: Option<&'a Gradients>,
    /// The largest norm of a step's whole gradient; it is shortened to it.
    pub clip: Option<f64>,
    /// Whether each step's gradient is added to those of all steps before, as in code that never
    /// zeroes it.
    pub accumulate: bool,
    /// Steps over which the step size rises from 0.
    pub warm_up: usize,
    /// How often a cosine begins anew.
    pub cycles: usize,
}

impl<'a> Train<'a> {
    /// Adam as it is by default, and nothing carried along.
    pub fn new(
        trainable: Trainable,
        iterations: usize,
        lr: f64,
        schedule: LrSchedule,
        state: &'a str,
    ) -> Self {
        Self {
            trainable,
            iterations,
            lr,
            schedule,
            state,
            adam: Adam::default(),
            carried: None,
            start: None,
            mask: None,
            clip: None,
            accumulate: false,
            warm_up: 0,
            cycles: 1,
        }
    }
}

/// How the step size changes over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// It stays, as in the published code of most methods.
    Constant,
    /// It falls to 0 in a straight line: the last steps settle instead of wandering, which spares
    /// what is not to be erased.
    Linear,
    /// It falls to 0 along half a cosine, some times anew (`cosine_with_restarts` of transformers).
    Cosine,
}

impl LrSchedule {
    /// The step size at `step`, counted from 0.
    fn at(self, options: &Train<'_>, step: usize) -> f64 {
        let Train {
            lr,
            iterations,
            warm_up,
            cycles,
            ..
        } = *options;
        if step < warm_up {
            return lr * step as f64 / warm_up as f64;
        }
        let progress = (step - warm_up) as f64 / iterations.saturating_sub(warm_up).max(1) as f64;
        match self {
            Self::Constant => lr,
            Self::Linear => lr * (1.0 - progress),
            Self::Cosine => {
                lr * 0.5 * (1.0 + (std::f64::consts::PI * (cycles as f64 * progress).fract()).cos())
            }
        }
    }
}

/// The tensors that move: f32 whatever the model's dtype, with Adam's moments.
struct Masters {
    component: &'static str,
    step: usize,
    tensors: BTreeMap<String, (Tensor<1>, Moments)>,
    /// What gradients have added up to, where they do.
    sums: Option<Gradients>,
}

/// Between two stored states at least this much time passes, and storing takes at most a twentieth
/// of it.
const STORE_EVERY: Duration = Duration::from_secs(10);

/// Runs the loop and returns the final values, by name.
///
/// `loss` gets the pipeline with its moving tensors tracked and the step's number, counted from 0,
/// and returns one number. The graph lives for one step. A stored state of the same job is taken up
/// where it stopped, with the same bits.
///
/// # Errors
/// If nothing may move, the loss or a value is not finite (a state stored before stays as it is), `loss` fails, or the caller interrupts.
pub fn train(
    job: &mut Job<'_>,
    options: Train<'_>,
    loss: &mut dyn FnMut(&Pipeline, usize) -> Result<Tensor<1>>,
) -> Result<Gradients> {
    train_several(
        job,
        options,
        1,
        &mut |edited, step, _| loss(edited, step),
        &mut |mut gradients| gradients.remove(0),
    )
}

/// [`train`] with several losses a step. `loss` is asked for each by its number, one after the
/// other; `combine` gets their gradients in that order and makes one. What is reported is the sum
/// of the losses.
///
/// # Errors
/// As [`train`].
pub(crate) fn train_several(
    job: &mut Job<'_>,
    options: Train<'_>,
    losses: usize,
    loss: &mut dyn FnMut(&Pipeline, usize, usize) -> Result<Tensor<1>>,
    combine: &mut dyn FnMut(Vec<Gradients>) -> Gradients,
) -> Result<Gradients> {
    let start = options.start.unwrap_or(job.pipeline);
    let names = options.trainable.pick_in(start)?;
    let mut masters = match Stored::get(job.store, options.state)? {
        Some(mut stored) => {
            if let Some(place) = options.carried {
                place.replace(stored.split(CARRIED));
            }
            Masters::from_stored(stored, &names, start, &options)?
        }
        None => Masters::fresh(
            &names,
            options.trainable.component(start),
            start,
            options.accumulate,
        )?,
    };
    job.tell(Event::Stage {
        name: "training",
        total: options.iterations,
        done: masters.step,
    })?;

    let mut stored_at = Instant::now();
    let mut pause = STORE_EVERY;
    let mut last = f32::NAN;
    while masters.step < options.iterations {
        let lr = options.schedule.at(&options, masters.step);
        let value = masters.advance(start, &options, lr, losses, loss, combine)?;
        last = value;
        let mut going = job.tell(Event::Step {
            done: masters.step,
            loss: Some(value),
        });
        if going.is_ok() {
            going = job.tell(Event::Halfway(Halfway(&|| masters.model(start))));
        }
        if going.is_err() || stored_at.elapsed() >= pause {
            masters.finite(value)?;
            let began = Instant::now();
            let mut stored = masters.to_stored();
            if let Some(place) = options.carried {
                stored.extend(CARRIED, place.borrow().clone());
            }
            stored.keep(job.store, options.state)?;
            pause = STORE_EVERY.max(began.elapsed() * 20);
            stored_at = Instant::now();
        }
        going?;
    }
    masters.finite(last)?;
    Ok(masters
        .tensors
        .into_iter()
        .map(|(name, (value, _))| (name, value))
        .collect())
}

/// How the names of carried tensors begin in a stored state.
const CARRIED: &str = "carried.";

/// What was carried with the state of this name, to be read as it is.
pub(crate) fn carried(state: &str, tensors: &RefCell<Tensors>) -> Stored {
    Stored::part(state, CARRIED, tensors.borrow().clone())
}

impl Masters {
    fn fresh(
        names: &[String],
        component: &'static str,
        pipeline: &Pipeline,
        accumulate: bool,
    ) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for name in names {
            let value = pipeline
                .weights(component)
                .and_then(|w| w.get(name))
                .map(|w| w.flat());
            let value = value.ok_or_else(|| {
                Error::input(format!("there is no tensor `{name}` in {component}"))
            })?;
            let moments = Moments::zeros_like(&value);
            tensors.insert(name.clone(), (value, moments));
        }
        let sums = accumulate.then(|| {
            tensors
                .iter()
                .map(|(name, (value, _))| (name.clone(), value.zeros_like()))
                .collect()
        });
        Ok(Self {
            component,
            step: 0,
            tensors,
            sums,
        })
    }

    /// One step: the gradient of every loss, their combination, Adam. Nothing changes if a loss is
    /// not finite.
    fn advance(
        &mut self,
        start: &Pipeline,
        options: &Train<'_>,
        lr: f64,
        losses: usize,
        loss: &mut dyn FnMut(&Pipeline, usize, usize) -> Result<Tensor<1>>,
        combine: &mut dyn FnMut(Vec<Gradients>) -> Gradients,
    ) -> Result<f32> {
        let values: Gradients = self
            .tensors
            .iter()
            .map(|(name, (value, _))| (name.clone(), value.clone()))
            .collect();
        let mut all = Vec::new();
        let mut sum = 0.0;
        for k in 0..losses {
            let (value, found) = gradients::of(start, self.component, &values, &mut |edited| {
                loss(edited, self.step, k)
            })?;
            if !value.is_finite() {
                return Err(Error::Diverged {
                    step: self.step + 1,
                    loss: value,
                });
            }
            sum += value;
            all.push(found);
        }
        let mut gradients = combine(all);
        if let Some(sums) = &mut self.sums {
            *sums = gradients::plus(std::mem::take(sums), gradients, 1.0);
            gradients = sums.clone();
        }
        if let Some(mask) = options.mask {
            gradients = gradients::masked(gradients, mask);
        }
        if let Some(most) = options.clip {
            gradients = gradients::clipped(gradients, most);
        }
        self.step += 1;
        for (name, gradient) in gradients {
            if let Some((value, moments)) = self.tensors.get_mut(&name) {
                *value = moments.step_with(options.adam, value.clone(), gradient, lr, self.step);
            }
        }
        Ok(sum)
    }

    /// The model with the numbers as they are.
    fn model(&self, start: &Pipeline) -> Pipeline {
        let mut model = start.clone();
        if let Some(weights) = model.weights_mut(self.component) {
            for (name, (value, _)) in &self.tensors {
                // It was taken from there, so it fits.
                let _ = weights.replace(name, value.clone());
            }
        }
        model
    }

    /// An error unless all numbers are finite. A loss only shows what the steps before it did:
    /// after the last one, and before a state is stored, the numbers themselves are looked at.
    fn finite(&self, loss: f32) -> Result<()> {
        let broken = |value: &Tensor<1>| {
            // Zero, unless a number is infinite or none at all.
            let zero: f32 = (value.clone() * 0.0).sum().into_scalar();
            zero != 0.0 || zero.is_nan()
        };
        if self.tensors.values().any(|(value, _)| broken(value)) {
            return Err(Error::Diverged {
                step: self.step,
                loss,
            });
        }
        Ok(())
    }

    fn to_stored(&self) -> Snapshot {
        let mut stored = Snapshot::new();
        stored.count("step", self.step as u64);
        for (name, (value, moments)) in &self.tensors {
            for (kind, tensor) in [("value", value), ("m", &moments.m), ("v", &moments.v)] {
                stored.tensor(&format!("{kind}.{name}"), tensor);
            }
        }
        for (name, sum) in self.sums.iter().flatten() {
            stored.tensor(&format!("sum.{name}"), sum);
        }
        stored
    }

    fn from_stored(
        mut stored: Stored,
        names: &[String],
        pipeline: &Pipeline,
        options: &Train<'_>,
    ) -> Result<Self> {
        let component = options.trainable.component(pipeline);
        let step = stored.below("step", 1, options.iterations as u64 + 1)?[0];
        let mut tensors = BTreeMap::new();
        let mut sums = options.accumulate.then(Gradients::new);
        for name in names {
            let weight = pipeline.weights(component).and_then(|w| w.get(name));
            let n = weight.map_or(0, |w| w.shape.iter().product::<usize>());
            let mut read =
                |kind: &str| stored.tensor(&format!("{kind}.{name}"), n, pipeline.device());
            let moments = Moments {
                m: read("m")?,
                v: read("v")?,
            };
            if let Some(sums) = &mut sums {
                sums.insert(name.to_owned(), read("sum")?);
            }
            tensors.insert(name.to_owned(), (read("value")?, moments));
        }
        stored.end()?;
        Ok(Self {
            component,
            step: step as usize,
            tensors,
            sums,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::trainable::ESD_X;

    fn at(schedule: LrSchedule, warm_up: usize, step: usize) -> f64 {
        let options = Train {
            warm_up,
            cycles: 3,
            ..Train::new(ESD_X, 3000, 1e-4, schedule, "state")
        };
        schedule.at(&options, step) / 1e-4
    }

    // transformers 5.23: o = torch.optim.AdamW([torch.zeros(1)], lr=1.) s =
    // get_cosine_with_hard_restarts_schedule_with_warmup(o, 500, 3000, num_cycles=3);
    // [s.lr_lambdas[0](k) for k in (...)] which is max(0, .5 * (1 + cos(pi * ((3 * (k - 500) /
    // 2500) % 1)))) from step 500 on, k / 500 before.
    #[test]
    fn a_cosine_with_restarts_is_transformers() {
        for (step, expected) in [
            (0, 0.0),
            (250, 0.5),
            (500, 1.0),
            (1000, 0.34549150281252633),
            (1334, 0.999998420864127),
            (2000, 0.09549150281252627),
            (2999, 3.5530533763483696e-6),
        ] {
            let found = at(LrSchedule::Cosine, 500, step);
            assert!(
                (found - expected).abs() < 1e-9,
                "step {step}: {found} {expected}"
            );
        }
        assert!((at(LrSchedule::Linear, 0, 1500) - 0.5).abs() < 1e-12);
        assert!(
            (at(LrSchedule::Constant, 100, 50) - 0.5).abs() < 1e-12
                && (at(LrSchedule::Constant, 100, 2000) - 1.0).abs() < 1e-12
        );
    }
}
