//! The trajectory bank: what guided sampling with the frozen model has computed anyway.
//!
//! Published ESD samples a new partial trajectory for every training step, then evaluates the frozen network again for the
//! target. But each step of guided sampling already holds the latent, its timestep, and the frozen predictions for the
//! prompt and for the empty prompt. The bank keeps them all: every step of every trajectory is one training example, from
//! the same distribution as the published ones, and every timestep is used equally often.

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{
    Denoiser, Noise, Pipeline, Timestep,
    guidance::guided,
    samplers::{self, Run, Sampler},
};
use scumble_nn::{
    Context,
    files::{HostTensor, Tensors},
};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    job::{Event, Job},
    seeds::{Stream, stream},
};

/// One trajectory to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// The prompt that guides it.
    pub prompt: String,
    /// Other prompts whose frozen predictions are wanted along the way.
    pub also: Vec<String>,
    /// Seed of its starting noise.
    pub seed: u64,
}

/// The start noise of trajectories along a concept's prompts: one stream for all methods, so that a bank recorded for one of them
/// serves the next.
pub fn trajectories(seed: u64) -> Stream {
    stream(seed, "trajectories")
}

/// How trajectories are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sampling {
    /// DDIM steps of a whole trajectory.
    pub steps: usize,
    /// Strength of classifier-free guidance on the way ("start guidance").
    pub guidance: f64,
}

/// Recorded examples, all on the device.
#[derive(Debug)]
pub struct Bank {
    /// Noisy latents, `[examples, channels, h, w]`.
    x: Tensor<4>,
    /// The timestep of each.
    t: Vec<Timestep>,
    /// The path each was recorded on.
    path: Vec<usize>,
    /// Frozen epsilons: for the path's prompt, for the empty prompt, then for the others; each like `x`.
    eps: Vec<Tensor<4>>,
}

/// Some examples of a bank.
#[derive(Debug)]
pub struct Examples {
    /// Noisy latents, `[n, channels, h, w]`.
    pub x: Tensor<4>,
    /// The timestep of each.
    pub t: Vec<Timestep>,
    /// The path each was recorded on.
    pub path: Vec<usize>,
    /// Frozen epsilon for the path's prompt.
    pub eps_prompt: Tensor<4>,
    /// Frozen epsilon for the empty prompt.
    pub eps_empty: Tensor<4>,
    /// Frozen epsilons for the path's other prompts.
    pub eps_also: Vec<Tensor<4>>,
}

/// Latent pixels that go through the network at once; more only costs memory.
const PIXELS_AT_ONCE: usize = 1024;

impl Bank {
    /// Records the paths (at least one), or takes from the store what was recorded before. All paths have equally many other prompts.
    ///
    /// Trajectories are kept in groups under the hash of the model, the sampling and the group's paths, so that an interrupted
    /// recording continues and other methods on the same concept find them.
    ///
    /// # Errors
    /// If the paths differ in how many other prompts they have, sampling fails, or the caller interrupts.
    pub fn record(job: &mut Job<'_>, paths: &[Path], sampling: Sampling) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::input("a bank needs at least one trajectory"));
        }
        if paths.windows(2).any(|pair| pair[0].also.len() != pair[1].also.len()) {
            return Err(Error::input("all trajectories of a bank need the same number of further prompts"));
        }
        let [_, _, h, w] = job.pipeline.latent_shape(1, None, None)?;
        let group = (PIXELS_AT_ONCE / (h * w)).clamp(1, paths.len().max(1));
        let total = paths.len() * sampling.steps;
        job.tell(Event::Stage { name: "recording trajectories", total, done: 0 })?;
        let mut groups = Vec::new();
        for (i, chunk) in paths.chunks(group).enumerate() {
            let hash = key(job.base_hash, chunk, sampling);
            let done = i * group * sampling.steps;
            let tensors = match job.store.get_shared(&hash)? {
                Some(tensors) => tensors,
                None => {
                    let tensors = record_group(job, chunk, sampling, done)?;
                    job.store.put_shared(&hash, tensors.clone())?;
                    tensors
                }
            };
            job.tell(Event::Step { done: done + chunk.len() * sampling.steps, loss: None })?;
            groups.push(tensors);
        }
        let also = paths.first().map_or(0, |p| p.also.len());
        Self::assemble(job.pipeline, &groups, paths.len(), also, group)
    }

    /// How many examples it holds.
    pub fn len(&self) -> usize {
        self.t.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.t.is_empty()
    }

    /// The positions of the examples that `keep` wants, by their timestep and path.
    pub fn positions(&self, mut keep: impl FnMut(Timestep, usize) -> bool) -> Vec<usize> {
        (0..self.len()).filter(|&i| keep(self.t[i], self.path[i])).collect()
    }

    /// The positions of one path's examples, noisiest first.
    pub fn of_path(&self, path: usize) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.path[i] == path).collect()
    }

    /// The examples at these positions.
    pub fn examples(&self, at: &[usize]) -> Examples {
        let index: Vec<i64> = at.iter().map(|&i| i as i64).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [at.len()]), &self.x.device());
        let pick = |from: &Tensor<4>| from.clone().select(0, index.clone());
        let mut eps = self.eps.iter().map(pick);
        let (eps_prompt, eps_empty) = (eps.next(), eps.next());
        Examples {
            x: pick(&self.x),
            t: at.iter().map(|&i| self.t[i]).collect(),
            path: at.iter().map(|&i| self.path[i]).collect(),
            eps_prompt: eps_prompt.unwrap_or_else(|| pick(&self.x)),
            eps_empty: eps_empty.unwrap_or_else(|| pick(&self.x)),
            eps_also: eps.collect(),
        }
    }

    /// `also` is the number of further prompts, `group` how many paths each of the groups has (the last may have fewer).
    fn assemble(pipeline: &Pipeline, groups: &[Tensors], paths: usize, also: usize, group: usize) -> Result<Self> {
        let damaged = || Error::input("a stored trajectory is damaged").with_hint("remove the cache folder and run again");
        let [_, channels, h, w] = pipeline.latent_shape(1, None, None)?;
        let device = pipeline.device();
        let mut x = Vec::new();
        let mut eps = vec![Vec::new(); 2 + also];
        let (mut t, mut path) = (Vec::new(), Vec::new());
        for (i, tensors) in groups.iter().enumerate() {
            let labels = tensors.get("t").and_then(HostTensor::to_f32).ok_or_else(damaged)?;
            let of = tensors.get("path").and_then(HostTensor::to_i64).ok_or_else(damaged)?;
            let n = labels.len();
            let read = |name: &str| -> Result<Tensor<4>> {
                let host = tensors.get(name).filter(|host| host.shape() == [n, channels, h, w]).ok_or_else(damaged)?;
                Ok(Tensor::from_data(TensorData::new(host.to_f32().ok_or_else(damaged)?, [n, channels, h, w]), device))
            };
            x.push(read("x")?);
            for (k, list) in eps.iter_mut().enumerate() {
                list.push(read(&format!("eps.{k}"))?);
            }
            if of.len() != n {
                return Err(damaged());
            }
            for (label, p) in labels.into_iter().zip(of) {
                t.push(Timestep::new(label).ok_or_else(damaged)?);
                let p = usize::try_from(p).ok().map(|p| i * group + p).filter(|&p| p < paths);
                path.push(p.ok_or_else(damaged)?);
            }
        }
        Ok(Self { x: Tensor::cat(x, 0), t, path, eps: eps.into_iter().map(|list| Tensor::cat(list, 0)).collect() })
    }
}

fn key(base_hash: &str, paths: &[Path], sampling: Sampling) -> String {
    let content = serde_json::json!({ "kind": "bank-1", "base": base_hash, "paths": paths, "sampling": sampling });
    blake3::hash(content.to_string().as_bytes()).to_hex().to_string()
}

/// Samples some trajectories together and keeps every step of them.
fn record_group(job: &mut Job<'_>, paths: &[Path], sampling: Sampling, done: usize) -> Result<Tensors> {
    let pipeline = job.pipeline;
    let n = paths.len();
    let also = paths.first().map_or(0, |p| p.also.len());
    let contexts = Context::from(contexts(pipeline, paths));
    let unet = pipeline.unet_network();
    let denoiser = Denoiser { unet: &unet, schedule: &pipeline.schedule };
    let seeds: Vec<u64> = paths.iter().map(|p| p.seed).collect();
    let start = Noise::seeds(&seeds).draw(pipeline.latent_shape(n, None, None)?, pipeline.device());

    let mut xs = Vec::new();
    let mut eps = vec![Vec::new(); 2 + also];
    let mut labels = Vec::new();
    let mut model = |x: Tensor<4>, step: samplers::Step| -> Result<Tensor<4>> {
        let stacked = denoiser.epsilon_at(x.clone().repeat_dim(0, 2 + also), step, &contexts)?;
        let parts: Vec<Tensor<4>> = (0..2 + also).map(|k| stacked.clone().narrow(0, k * n, n)).collect();
        let prediction = guided(sampling.guidance, parts[1].clone(), parts[0].clone());
        xs.push(x);
        for (list, part) in eps.iter_mut().zip(parts) {
            list.push(part);
        }
        labels.extend(std::iter::repeat_n(step.timestep.get(), n));
        job.tell(Event::Step { done: done + xs.len() * n, loss: None })?;
        Ok(prediction)
    };
    let run = Run::new(&pipeline.schedule, sampling.steps);
    let mut none = |shape: [usize; 4]| Tensor::zeros(shape, pipeline.device());
    Sampler::Ddim.sample::<Error>(&run, start, &mut model, &mut none, &mut |_| std::ops::ControlFlow::Continue(()))?;

    let host = |list: Vec<Tensor<4>>| {
        let all = Tensor::cat(list, 0);
        let values: Vec<f32> = all.clone().into_data().iter::<f32>().collect();
        HostTensor::from_f32(all.dims(), &values)
    };
    let mut tensors = Tensors::new();
    let steps = xs.len();
    tensors.insert("x".into(), host(xs));
    for (k, list) in eps.into_iter().enumerate() {
        tensors.insert(format!("eps.{k}"), host(list));
    }
    tensors.insert("t".into(), HostTensor::from_f32([labels.len()], &labels));
    let path: Vec<i64> = (0..steps).flat_map(|_| 0..n as i64).collect();
    tensors.insert("path".into(), HostTensor::from_i64([path.len()], &path));
    Ok(tensors)
}

/// The hidden states a group needs, stacked: the paths' prompts, empty prompts, then each further prompt.
fn contexts(pipeline: &Pipeline, paths: &[Path]) -> Tensor<3> {
    let mut prompts: Vec<String> = paths.iter().map(|p| p.prompt.clone()).collect();
    prompts.extend(std::iter::repeat_n(String::new(), paths.len()));
    for k in 0..paths.first().map_or(0, |p| p.also.len()) {
        prompts.extend(paths.iter().map(|p| p.also.get(k).cloned().unwrap_or_default()));
    }
    pipeline.encode(&prompts)
}
