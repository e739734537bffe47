//! Passes over examples that add up gradients of the frozen model: salience, sensitivity, Fisher
//! information.

use std::time::{Duration, Instant};

use scumble_diffusion::Pipeline;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    job::{Event, Job},
    training::gradients::{Gradients, plus},
    training::snapshot::{Snapshot, Stored},
    training::trainable::Trainable,
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
    let write = |sums: &Gradients| {
        let mut snapshot = Snapshot::new();
        sums.iter()
            .for_each(|(name, sum)| snapshot.tensor(name, sum));
        snapshot
    };

    if let Some(tensors) = job.store.get_shared(&hash)? {
        let n = tensors.len();
        let found = Stored::of(name, tensors).rest(n, &device)?;
        job.tell(Event::Stage {
            name,
            total: parts,
            done: parts,
        })?;
        return Ok(found);
    }
    let (mut done, mut sums) = (0, Gradients::new());
    // What lies there may be another pass of the same job: its key says which.
    let own = format!("{DONE}.{hash}");
    if let Some(tensors) = job.store.get(STATE)?.filter(|t| t.contains_key(&own)) {
        let mut stored = Stored::of(STATE, tensors);
        let [at, sizes] = stored.whole(&own, 2)?[..] else {
            return Err(stored.damaged(&own, "holds no counters"));
        };
        if at > parts as u64 {
            return Err(stored.damaged(&own, &format!("holds {at}, expected at most {parts}")));
        }
        (done, sums) = (at as usize, stored.rest(sizes as usize, &device)?);
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
            stored.whole(&own, &[done as u64, sums.len() as u64]);
            stored.keep(job.store, STATE)?;
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
    job.store.put_shared(&hash, write(&sums).into_tensors())?;
    Ok(sums)
}
