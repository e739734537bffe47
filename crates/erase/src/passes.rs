//! Passes over examples that add up gradients of the frozen model: salience, sensitivity, Fisher
//! information.

use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::Pipeline;
use scumble_nn::files::{HostTensor, Tensors};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    gradients::{Gradients, plus},
    job::{Event, Job},
    train::to_host,
    trainable::Trainable,
};

/// Between two stored states of an unfinished pass at least this much time passes.
const STORE_EVERY: Duration = Duration::from_secs(10);
/// Under which name an unfinished pass is kept. A job runs one after the other.
const STATE: &str = "pass";
/// How many parts are done, beside the sums.
const DONE: &str = "pass.done";

/// The numbers that a choice of tensors holds in a model, by name.
///
/// # Errors
/// If it picks none.
pub fn values(pipeline: &Pipeline, trainable: Trainable) -> Result<Gradients> {
    let names = trainable.pick_in(pipeline)?;
    let weights = pipeline.weights(trainable.component(pipeline));
    let value = |name: String| Some((name.clone(), weights?.get(&name)?.flat()));
    Ok(names.into_iter().filter_map(value).collect())
}

/// The sum of what `part` returns for 0 to `parts`, by tensor name.
///
/// `content` is all that decides the parts: the sum is kept under its hash, for every job. An
/// unfinished sum is kept with the run and taken up again with the same bits.
///
/// # Errors
/// If `part` fails, something is not finite, or the caller interrupts.
pub fn sum(
    job: &mut Job<'_>,
    name: &'static str,
    content: &Value,
    parts: usize,
    part: &mut dyn FnMut(usize) -> Result<Gradients>,
) -> Result<Gradients> {
    let content = serde_json::json!({ "kind": name, "version": 1, "base": job.base_hash, "parts": parts, "content": content });
    let hash = blake3::hash(content.to_string().as_bytes())
        .to_hex()
        .to_string();
    let device = job.pipeline.device().clone();
    let read = |tensors: Tensors| -> Option<Gradients> {
        let one = |(name, host): (String, HostTensor)| {
            let values = host.to_f32()?;
            let count = values.len();
            Some((
                name,
                Tensor::from_data(TensorData::new(values, [count]), &device),
            ))
        };
        tensors.into_iter().map(one).collect()
    };
    let write = |sums: &Gradients| -> Tensors {
        sums.iter()
            .map(|(name, sum)| (name.clone(), to_host(sum.clone())))
            .collect()
    };

    if let Some(found) = job.store.get_shared(&hash)?.and_then(read) {
        job.tell(Event::Stage {
            name,
            total: parts,
            done: parts,
        })?;
        return Ok(found);
    }
    let (mut done, mut sums) = (0, Gradients::new());
    // What lies there may be another pass of the same job: its key says which.
    if let Some(mut stored) = job.store.get(STATE)? {
        let at = stored
            .remove(&format!("{DONE}.{hash}"))
            .and_then(|host| host.to_i64())
            .and_then(|v| v.first().copied());
        if let Some(at) = at
            .and_then(|at| usize::try_from(at).ok())
            .filter(|&at| at <= parts)
        {
            let damaged = || {
                Error::input("the stored state is damaged")
                    .with_hint("start again with --overwrite")
            };
            (done, sums) = (at, read(stored).ok_or_else(damaged)?);
        }
    }
    job.tell(Event::Stage {
        name,
        total: parts,
        done,
    })?;
    let mut stored_at = Instant::now();
    while done < parts {
        sums = plus(sums, part(done)?, 1.0);
        done += 1;
        let going = job.tell(Event::Step { done, loss: None });
        if going.is_err() || stored_at.elapsed() >= STORE_EVERY {
            let mut stored = write(&sums);
            stored.insert(
                format!("{DONE}.{hash}"),
                HostTensor::from_i64([1], &[done as i64]),
            );
            job.store.put(STATE, stored)?;
            stored_at = Instant::now();
        }
        going?;
    }
    for (name, sum) in &sums {
        let zero: f32 = (sum.clone() * 0.0).sum().into_scalar();
        if zero != 0.0 || zero.is_nan() {
            return Err(Error::input(format!(
                "the gradients of {name} are not finite in the frozen model"
            )));
        }
    }
    job.store.put_shared(&hash, write(&sums))?;
    Ok(sums)
}
