//! Pictures of a concept for methods that learn from some: drawn by the model itself, or given by
//! the user.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Noise, Request, Sampler};
use scumble_nn::files::{HostTensor, Tensors};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    job::{Event, Job},
};

/// Pictures drawn at once.
const AT_ONCE: usize = 16;

/// How the model draws them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drawing {
    /// Steps.
    pub steps: usize,
    /// Strength of classifier-free guidance.
    pub guidance: f64,
    /// The sampler.
    #[serde(skip_serializing_if = "is_ddim", serialize_with = "by_name")]
    pub sampler: Sampler,
    /// DDIM's share of fresh noise.
    #[serde(skip_serializing_if = "is_zero")]
    pub noise: f64,
}

impl Drawing {
    /// With DDIM, without fresh noise.
    pub fn new(steps: usize, guidance: f64) -> Self {
        Self {
            steps,
            guidance,
            sampler: Sampler::Ddim,
            noise: 0.0,
        }
    }
}

// What is as it always was is not written, so that pictures kept under the hash of a drawing stay
// theirs.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_ddim(sampler: &Sampler) -> bool {
    *sampler == Sampler::Ddim
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(noise: &f64) -> bool {
    *noise == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn by_name<S: serde::Serializer>(sampler: &Sampler, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(sampler)
}

/// Latents of pictures of these prompts, `[prompts, channels, h, w]`, picture i from seed
/// `seeds[i]`; drawn by the frozen model, or taken from the store where an earlier run left them.
///
/// # Errors
/// If the model cannot sample, there are not as many seeds as prompts, or the caller interrupts.
pub fn drawn(
    job: &mut Job<'_>,
    prompts: &[String],
    seeds: &[u64],
    drawing: Drawing,
) -> Result<Tensor<4>> {
    if prompts.len() != seeds.len() || prompts.is_empty() {
        return Err(Error::input(format!(
            "{} prompts and {} seeds do not make pictures",
            prompts.len(),
            seeds.len()
        )));
    }
    job.tell(Event::Stage {
        name: "drawing pictures",
        total: prompts.len(),
        done: 0,
    })?;
    let mut parts = Vec::new();
    for (i, (prompts, seeds)) in prompts
        .chunks(AT_ONCE)
        .zip(seeds.chunks(AT_ONCE))
        .enumerate()
    {
        parts.push(group(job, prompts, seeds, drawing, i * AT_ONCE)?);
        job.tell(Event::Step {
            done: i * AT_ONCE + prompts.len(),
            loss: None,
        })?;
    }
    Ok(Tensor::cat(parts, 0))
}

/// Some pictures that are drawn together, after `done` others.
fn group(
    job: &mut Job<'_>,
    prompts: &[String],
    seeds: &[u64],
    drawing: Drawing,
    done: usize,
) -> Result<Tensor<4>> {
    let content = serde_json::json!({ "kind": "drawn-1", "base": job.base_hash, "prompts": prompts, "seeds": seeds, "drawing": drawing });
    let hash = blake3::hash(content.to_string().as_bytes())
        .to_hex()
        .to_string();
    let shape = job.pipeline.latent_shape(prompts.len(), None, None)?;
    let kept = job
        .store
        .get_shared(&hash)?
        .and_then(|mut tensors| tensors.remove("latents"));
    if let Some(values) = kept
        .filter(|host| host.shape() == shape)
        .and_then(|host| host.to_f32())
    {
        return Ok(Tensor::from_data(
            TensorData::new(values, shape),
            job.pipeline.device(),
        ));
    }
    let mut request = Request::new(prompts.to_vec(), 0, drawing.steps, drawing.guidance);
    request.noise = Noise::seeds(seeds);
    request.eta = drawing.noise;
    request.sampler = Some(drawing.sampler);
    let (pipeline, mut going) = (job.pipeline, Ok(()));
    let latents = pipeline.sample(&request, &mut |_| {
        going = job.tell(Event::Step { done, loss: None });
        if going.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    going?;
    let values: Vec<f32> = latents.clone().into_data().iter::<f32>().collect();
    job.store.put_shared(
        &hash,
        Tensors::from([("latents".to_owned(), HostTensor::from_f32(shape, &values))]),
    )?;
    Ok(latents)
}

/// Latents of the user's pictures, `[n, channels, h, w]`; `None` if the user gave none.
pub fn given(job: &Job<'_>) -> Option<Tensor<4>> {
    job.pictures
        .map(|pictures| job.pipeline.encode_pictures(pictures.clone()))
}
