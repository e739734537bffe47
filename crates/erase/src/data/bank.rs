//! The trajectory bank: what guided sampling with the frozen model has computed anyway.
//!
//! Published ESD samples a new partial trajectory for every training step, then evaluates the
//! frozen network again for the target. But each step of guided sampling already holds the latent,
//! its timestep, and the frozen predictions for the prompt and for the empty prompt. The bank keeps
//! them all: every step of every trajectory is one training example, from the same distribution as
//! the published ones, and every timestep is used equally often.

use std::time::{Duration, Instant};

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{
    Conditioning, Interpolant, Noise, Output, Pipeline, Prediction, Timestep,
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

/// The start noise of trajectories along a concept's prompts: one stream for all methods, so that a
/// bank recorded for one of them serves the next.
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
    /// What the frozen network answered (epsilon, v or a velocity): to the path's prompt, to the
    /// empty prompt, then to the others; each like `x`.
    raw: Vec<Tensor<4>>,
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
    /// What the frozen network answered to the path's prompt: epsilon, v or a velocity.
    pub raw_prompt: Tensor<4>,
    /// Its answer to the empty prompt.
    pub raw_empty: Tensor<4>,
    /// Its answers to the path's other prompts.
    pub raw_also: Vec<Tensor<4>>,
}

impl Examples {
    /// The noise in them according to an answer of a network like `model`.
    ///
    /// # Errors
    /// If the answer is not like `x`.
    pub fn epsilon(&self, model: &Pipeline, raw: Tensor<4>) -> Result<Tensor<4>> {
        let scales = model.schedule.all_scales(&self.t);
        let output = model.schedule.output();
        Ok(Prediction::new(raw, self.x.clone(), scales, output)?.epsilon()?)
    }
}

/// Latent pixels that go through the network at once; more only costs memory.
const PIXELS_AT_ONCE: usize = 1024;

impl Bank {
    /// Records the paths (at least one), or takes from the store what was recorded before. All
    /// paths have equally many other prompts.
    ///
    /// Trajectories are kept in groups under the hash of the model, the sampling and the group's
    /// paths, so that other methods on the same concept find them. The steps of a group that is
    /// interrupted are kept in the job's own state, and the recording goes on after them with the
    /// same bits: a group on the miniature, one trajectory on a full-size model.
    ///
    /// # Errors
    /// If the paths differ in how many other prompts they have, sampling fails, or the caller interrupts.
    pub fn record(job: &mut Job<'_>, paths: &[Path], sampling: Sampling) -> Result<Self> {
        Self::record_by(job, paths, sampling, Sampler::Ddim)
    }

    /// The same by another sampler than DDIM, of those that draw no noise on the way.
    ///
    /// # Errors
    /// As [`record`](Self::record), and if the sampler draws noise.
    pub(crate) fn record_by(
        job: &mut Job<'_>,
        paths: &[Path],
        sampling: Sampling,
        sampler: Sampler,
    ) -> Result<Self> {
        if matches!(sampler, Sampler::Ddpm | Sampler::EulerAncestral) {
            return Err(Error::input(format!(
                "{sampler} draws noise at every step, so its trajectories are not their start's"
            ))
            .with_hint("record them with ddim or pndm"));
        }
        if paths.is_empty() {
            return Err(Error::input("a bank needs at least one trajectory"));
        }
        if paths
            .windows(2)
            .any(|pair| pair[0].also.len() != pair[1].also.len())
        {
            return Err(Error::input(
                "all trajectories of a bank need the same number of further prompts",
            ));
        }
        let [_, _, h, w] = job.pipeline.latent_shape(1, None, None)?;
        let group = (PIXELS_AT_ONCE / (h * w)).clamp(1, paths.len().max(1));
        // PNDM asks more than once at some of its steps.
        let each = samplers::timesteps(sampler, &job.pipeline.schedule, sampling.steps)?.len();
        let hashes: Vec<String> = paths
            .chunks(group)
            .map(|chunk| key(job, chunk, sampling, sampler))
            .collect();
        let mut groups: Vec<Option<Tensors>> = hashes
            .iter()
            .map(|hash| job.store.get_shared(hash))
            .collect::<Result<_>>()?;
        let steps_of = |chunk: &[Path]| chunk.len() * each;
        let mut done: usize = paths
            .chunks(group)
            .zip(&groups)
            .filter(|(_, there)| there.is_some())
            .map(|(chunk, _)| steps_of(chunk))
            .sum();
        let begun = hashes
            .iter()
            .zip(&groups)
            .find(|(_, there)| there.is_none())
            .map(|(hash, _)| hash);
        let mut partial = match begun {
            Some(hash) => Recording::stored(job, hash)?,
            None => None,
        };
        let total = paths.len() * each;
        let taken_up = done
            + partial
                .as_ref()
                .map_or(0, |recording| recording.labels.len());
        job.tell(Event::Stage {
            name: "recording trajectories",
            total,
            done: taken_up,
        })?;
        for ((chunk, hash), place) in paths.chunks(group).zip(&hashes).zip(&mut groups) {
            if place.is_none() {
                let tensors =
                    record_group(job, chunk, sampling, sampler, hash, partial.take(), done)?;
                job.store.put_shared(hash, tensors.clone())?;
                *place = Some(tensors);
                done += steps_of(chunk);
                job.tell(Event::Step { done, loss: None })?;
            }
        }
        let groups: Vec<Tensors> = groups.into_iter().flatten().collect();
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
        (0..self.len())
            .filter(|&i| keep(self.t[i], self.path[i]))
            .collect()
    }

    /// The positions of one path's examples, noisiest first.
    pub fn of_path(&self, path: usize) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.path[i] == path).collect()
    }

    /// The timestep of the example at a position.
    pub fn timestep(&self, at: usize) -> Timestep {
        self.t[at]
    }

    /// The examples at these positions.
    pub fn examples(&self, at: &[usize]) -> Examples {
        let index: Vec<i64> = at.iter().map(|&i| i as i64).collect();
        let index =
            Tensor::<1, Int>::from_data(TensorData::new(index, [at.len()]), &self.x.device());
        let pick = |from: &Tensor<4>| from.clone().select(0, index.clone());
        let mut raw = self.raw.iter().map(pick);
        let (raw_prompt, raw_empty) = (raw.next(), raw.next());
        Examples {
            x: pick(&self.x),
            t: at.iter().map(|&i| self.t[i]).collect(),
            path: at.iter().map(|&i| self.path[i]).collect(),
            raw_prompt: raw_prompt.unwrap_or_else(|| pick(&self.x)),
            raw_empty: raw_empty.unwrap_or_else(|| pick(&self.x)),
            raw_also: raw.collect(),
        }
    }

    /// `also` is the number of further prompts, `group` how many paths each of the groups has (the
    /// last may have fewer).
    fn assemble(
        pipeline: &Pipeline,
        groups: &[Tensors],
        paths: usize,
        also: usize,
        group: usize,
    ) -> Result<Self> {
        let damaged = || {
            Error::input("a stored trajectory is damaged")
                .with_hint("remove the cache folder and run again")
        };
        let [_, channels, h, w] = pipeline.latent_shape(1, None, None)?;
        let device = pipeline.device();
        let mut x = Vec::new();
        let mut raw = vec![Vec::new(); 2 + also];
        let (mut t, mut path) = (Vec::new(), Vec::new());
        for (i, tensors) in groups.iter().enumerate() {
            let labels = tensors
                .get("t")
                .and_then(HostTensor::to_f32)
                .ok_or_else(damaged)?;
            let of = tensors
                .get("path")
                .and_then(HostTensor::to_i64)
                .ok_or_else(damaged)?;
            let n = labels.len();
            let read = |name: &str| -> Result<Tensor<4>> {
                let host = tensors
                    .get(name)
                    .filter(|host| host.shape() == [n, channels, h, w])
                    .ok_or_else(damaged)?;
                Ok(Tensor::from_data(
                    TensorData::new(host.to_f32().ok_or_else(damaged)?, [n, channels, h, w]),
                    device,
                ))
            };
            x.push(read("x")?);
            for (k, list) in raw.iter_mut().enumerate() {
                list.push(read(&format!("eps.{k}"))?);
            }
            if of.len() != n {
                return Err(damaged());
            }
            for (label, p) in labels.into_iter().zip(of) {
                t.push(Timestep::new(label).ok_or_else(damaged)?);
                let p = usize::try_from(p)
                    .ok()
                    .map(|p| i * group + p)
                    .filter(|&p| p < paths);
                path.push(p.ok_or_else(damaged)?);
            }
        }
        Ok(Self {
            x: Tensor::cat(x, 0),
            t,
            path,
            raw: raw.into_iter().map(|list| Tensor::cat(list, 0)).collect(),
        })
    }
}

fn key(job: &Job<'_>, paths: &[Path], sampling: Sampling, sampler: Sampler) -> String {
    let mut content = serde_json::json!({ "kind": "bank-1", "base": job.base_hash, "paths": paths, "sampling": sampling });
    if sampler != Sampler::Ddim {
        content["sampler"] = sampler.to_string().into();
    }
    // Banks of v models used to hold the epsilon that their answers mean.
    if job.pipeline.schedule.output() != Output::Epsilon {
        content["answers"] = "raw".into();
    }
    blake3::hash(content.to_string().as_bytes())
        .to_hex()
        .to_string()
}

/// The name under which a job keeps the steps of a group that is not finished.
const STATE: &str = "trajectories";
/// How the tensor begins that says which group they are of.
const OF: &str = "group.";
/// Between two stored states at least this much time passes, and storing takes at most a twentieth
/// of it.
const STORE_EVERY: Duration = Duration::from_secs(10);

/// What a group's steps have given so far, step by step; each tensor `[n, channels, h, w]`.
struct Recording {
    /// Noisy latents.
    x: Vec<Tensor<4>>,
    /// What the frozen network answered: to the paths' prompts, to the empty prompt, then to the
    /// others.
    raw: Vec<Vec<Tensor<4>>>,
    /// The timestep of each latent, n for each step.
    labels: Vec<f32>,
}

impl Recording {
    /// Nothing yet, for paths with so many other prompts.
    fn new(also: usize) -> Self {
        Self {
            x: Vec::new(),
            raw: vec![Vec::new(); 2 + also],
            labels: Vec::new(),
        }
    }

    /// What an interrupted run of this job kept of the group with this hash.
    fn stored(job: &Job<'_>, hash: &str) -> Result<Option<Self>> {
        let damaged = || {
            Error::input("the stored trajectories are damaged")
                .with_hint("start again with --overwrite")
        };
        let Some(tensors) = job.store.get(STATE)? else {
            return Ok(None);
        };
        // What lies there may be another bank's: its name says which.
        if !tensors.contains_key(&format!("{OF}{hash}")) {
            return Ok(None);
        }
        let [_, channels, h, w] = job.pipeline.latent_shape(1, None, None)?;
        let labels = tensors
            .get("t")
            .and_then(HostTensor::to_f32)
            .ok_or_else(damaged)?;
        let of = tensors
            .get("path")
            .and_then(HostTensor::to_i64)
            .filter(|of| of.len() == labels.len())
            .ok_or_else(damaged)?;
        let n = of
            .iter()
            .max()
            .and_then(|&most| usize::try_from(most).ok())
            .ok_or_else(damaged)?
            + 1;
        if !labels.len().is_multiple_of(n) {
            return Err(damaged());
        }
        let read = |name: &str| -> Result<Vec<Tensor<4>>> {
            let host = tensors
                .get(name)
                .filter(|host| host.shape() == [labels.len(), channels, h, w])
                .ok_or_else(damaged)?;
            let values = host.to_f32().ok_or_else(damaged)?;
            let step = |part: &[f32]| {
                Tensor::from_data(
                    TensorData::new(part.to_vec(), [n, channels, h, w]),
                    job.pipeline.device(),
                )
            };
            Ok(values
                .chunks_exact(n * channels * h * w)
                .map(step)
                .collect())
        };
        let kinds = tensors
            .keys()
            .filter(|name| name.starts_with("eps."))
            .count();
        let raw = (0..kinds)
            .map(|k| read(&format!("eps.{k}")))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Self {
            x: read("x")?,
            raw,
            labels,
        }))
    }

    /// As it is stored: `x`, the answers as `eps.0`, `eps.1` and so on, whatever they are, `t`, and `path`, the position of each
    /// among the group's `n` paths.
    fn tensors(&self, n: usize) -> Tensors {
        let host = |list: &[Tensor<4>]| {
            let all = Tensor::cat(list.to_vec(), 0);
            let values: Vec<f32> = all.clone().into_data().iter::<f32>().collect();
            HostTensor::from_f32(all.dims(), &values)
        };
        let mut tensors = Tensors::from([("x".to_owned(), host(&self.x))]);
        tensors.extend(
            self.raw
                .iter()
                .enumerate()
                .map(|(k, list)| (format!("eps.{k}"), host(list))),
        );
        tensors.insert(
            "t".into(),
            HostTensor::from_f32([self.labels.len()], &self.labels),
        );
        let path: Vec<i64> = (0..self.x.len()).flat_map(|_| 0..n as i64).collect();
        tensors.insert("path".into(), HostTensor::from_i64([path.len()], &path));
        tensors
    }

    /// The answers of a step that was recorded, in the order of [`raw`](Self::raw).
    fn step(&self, step: usize) -> Option<Vec<Tensor<4>>> {
        self.raw
            .iter()
            .map(|list| list.get(step).cloned())
            .collect()
    }
}

/// Samples some trajectories together and keeps every step of them; `earlier` are the steps that
/// were recorded before. These are walked through again without the network: the sampler has no
/// noise of its own, so it arrives at the same bits.
fn record_group(
    job: &mut Job<'_>,
    paths: &[Path],
    sampling: Sampling,
    sampler: Sampler,
    hash: &str,
    earlier: Option<Recording>,
    done: usize,
) -> Result<Tensors> {
    let pipeline = job.pipeline;
    let n = paths.len();
    let also = paths.first().map_or(0, |p| p.also.len());
    let contexts = Context::from(contexts(pipeline, paths));
    let denoiser = pipeline.denoiser();
    let seeds: Vec<u64> = paths.iter().map(|p| p.seed).collect();
    let start = Noise::seeds(&seeds).draw(pipeline.latent_shape(n, None, None)?, pipeline.device());

    let fits = |r: &Recording| r.raw.len() == 2 + also && r.labels.len() == r.x.len() * n;
    let mut recording = earlier.filter(fits).unwrap_or_else(|| Recording::new(also));
    let known = recording.x.len();
    let (mut at, mut stored_at, mut pause) = (0, Instant::now(), STORE_EVERY);
    let output = pipeline.schedule.output();
    let mut model = |x: Tensor<4>, step: samplers::Step| -> Result<Prediction> {
        at += 1;
        if at <= known
            && let Some(parts) = recording.step(at - 1)
        {
            let raw = guided(sampling.guidance, parts[1].clone(), parts[0].clone());
            return Ok(Prediction::new(raw, x, vec![step.scales], output)?);
        }
        let parts = denoiser
            .predict_at(x.clone().repeat_dim(0, 2 + also), step, &contexts, None)?
            .split(2 + also)?;
        let raw = guided(sampling.guidance, parts[1].raw(), parts[0].raw());
        let prediction = parts[0].clone().with_raw(raw)?;
        recording.x.push(x);
        recording
            .raw
            .iter_mut()
            .zip(parts)
            .for_each(|(list, part)| list.push(part.raw()));
        recording
            .labels
            .extend(std::iter::repeat_n(step.timestep.get(), n));
        let going = job.tell(Event::Step {
            done: done + recording.labels.len(),
            loss: None,
        });
        if going.is_err() || stored_at.elapsed() >= pause {
            let began = Instant::now();
            let mut tensors = recording.tensors(n);
            tensors.insert(
                format!("{OF}{hash}"),
                HostTensor::from_i64([1], &[recording.x.len() as i64]),
            );
            job.store.put(STATE, tensors)?;
            pause = STORE_EVERY.max(began.elapsed() * 20);
            stored_at = Instant::now();
        }
        going?;
        Ok(prediction)
    };
    let run = Run::new(&pipeline.schedule, sampling.steps);
    let mut none = |shape: [usize; 4]| Tensor::zeros(shape, pipeline.device());
    sampler.sample::<Error>(&run, start, &mut model, &mut none, &mut |_| {
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(recording.tensors(n))
}

/// The conditioning that a group needs, stacked: the paths' prompts, empty prompts, then each further
/// prompt.
fn contexts(pipeline: &Pipeline, paths: &[Path]) -> Conditioning {
    let mut prompts: Vec<String> = paths.iter().map(|p| p.prompt.clone()).collect();
    prompts.extend(std::iter::repeat_n(String::new(), paths.len()));
    for k in 0..paths.first().map_or(0, |p| p.also.len()) {
        prompts.extend(
            paths
                .iter()
                .map(|p| p.also.get(k).cloned().unwrap_or_default()),
        );
    }
    pipeline.encode(&prompts)
}
