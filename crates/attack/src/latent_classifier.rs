//! A classifier of noisy latents that leads a sampler: classifier guidance (Dhariwal and Nichol,
//! arXiv 2105.05233) with the time-conditioned network of "When Are Concepts Erased From Diffusion
//! Models?".
//!
//! With `z` flat latents and `a` their signal's share, the published network
//! (`create_latent_classifier.py`, 9a03e07) is
//!
//! `logit = L1(drop(silu(L512(drop(silu(Lx z + Lt (sqrt a, sqrt(1 - a))))))))`,  widths 1024 and
//! 512, dropout 0.3.
//!
//! It learns from noised latents of pictures with and without the concept by cross-entropy;
//! timesteps are drawn as `u^(1/3)` of the whole, more of them noisy. The published one learns from
//! ImageNet's photographs and keeps the epoch of the least validation loss; here the unedited model
//! draws both kinds of pictures, and training ends after a fixed number of steps. It never sees the
//! edited model.

use burn::tensor::{Device, Tensor, TensorData, activation::silu};
use scumble_diffusion::{Noise, Pipeline, Timestep, TorchRng};
use scumble_erase::{
    Error, Event, Result,
    seeds::{draw as epochs, stream},
    training::adam::{Adam, Moments},
    training::gradients::{Gradients, clipped},
    training::snapshot::{Snapshot, Stored},
};
use serde::{Deserialize, Serialize};

use crate::{job::Job, lessons, reused};

/// Widths of the two hidden layers.
const WIDE: usize = 1024;
const NARROW: usize = 512;
/// The share of numbers that training drops.
const DROPOUT: f32 = 0.3;
/// Noisings of each picture in a step, and their timesteps' power: published.
const NOISINGS: usize = 7;
const POWER: f64 = 3.0;

/// How a classifier is taught.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Teaching {
    /// Pictures with the concept, and as many without.
    pub pictures: usize,
    /// Training steps.
    pub iterations: usize,
    /// Pictures a step, each noised seven times.
    pub batch: usize,
    /// AdamW's step size; its weight decay is 1e-3.
    pub lr: f64,
    /// Seed of its pictures and of its training.
    pub seed: u64,
}

/// The network.
#[derive(Clone, Debug)]
pub struct LatentClassifier {
    values: Gradients,
}

/// The layers by name, with inputs and outputs; latents have `flat` numbers.
fn layers(flat: usize) -> [(&'static str, usize, usize); 4] {
    [
        ("x", flat, WIDE),
        ("t", 2, WIDE),
        ("hidden", WIDE, NARROW),
        ("logit", NARROW, 1),
    ]
}

impl LatentClassifier {
    /// A fresh one for latents of `flat` numbers, its numbers uniform within one over the root of a
    /// layer's inputs, as PyTorch's.
    pub fn fresh(flat: usize, seed: u64, device: &Device) -> Self {
        let mut rng = stream(seed, "latent classifier/start").rng(0);
        let mut values = Gradients::new();
        for (name, input, output) in layers(flat) {
            let bound = 1.0 / (input as f32).sqrt();
            for (part, n) in [("weight", input * output), ("bias", output)] {
                let drawn: Vec<f32> = rng
                    .uniform(n)
                    .into_iter()
                    .map(|u| (2.0 * u - 1.0) * bound)
                    .collect();
                values.insert(
                    format!("{name}.{part}"),
                    Tensor::from_data(TensorData::new(drawn, [n]), device),
                );
            }
        }
        Self { values }
    }

    /// The logits of noisy latents, `[n]`, for each its signal's share `alpha_bar`.
    ///
    /// # Shapes
    /// - z: `[n, channels, h, w]`
    pub fn logits(&self, z: Tensor<4>, alpha_bar: &[f64]) -> Tensor<1> {
        forward(&self.values, z, alpha_bar, None)
    }

    /// The gradient of the logarithm of the probability that latents are of the concept, like `z`.
    pub fn gradient(&self, z: &Tensor<4>, alpha_bar: f64) -> Tensor<4> {
        let leaf = z.clone().autodiff().require_grad();
        let n = z.dims()[0];
        let sum = log_sigmoid(self.logits(leaf.clone(), &vec![alpha_bar; n])).sum();
        leaf.grad_remove(&mut sum.backward())
            .unwrap_or_else(|| z.zeros_like())
    }
}

fn forward(
    values: &Gradients,
    z: Tensor<4>,
    alpha_bar: &[f64],
    mut dropped: Option<&mut TorchRng>,
) -> Tensor<1> {
    let [n, c, h, w] = z.dims();
    let flat = c * h * w;
    let device = z.device();
    let linear = |x: Tensor<2>, name: &str| {
        let [_, input] = x.dims();
        let bias = values[&format!("{name}.bias")].clone();
        let output = bias.dims()[0];
        let weight = values[&format!("{name}.weight")]
            .clone()
            .reshape([output, input]);
        x.matmul(weight.transpose()) + bias.reshape([1, output])
    };
    let time: Vec<f32> = alpha_bar
        .iter()
        .flat_map(|a| [a.sqrt() as f32, (1.0 - a).sqrt() as f32])
        .collect();
    let time: Tensor<2> = Tensor::from_data(TensorData::new(time, [n, 2]), &device);
    let mut drop = |x: Tensor<2>| {
        let Some(rng) = dropped.as_deref_mut() else {
            return x;
        };
        let [n, width] = x.dims();
        let keep = |u: f32| {
            if u < DROPOUT {
                0.0
            } else {
                1.0 / (1.0 - DROPOUT)
            }
        };
        let kept: Vec<f32> = rng.uniform(n * width).into_iter().map(keep).collect();
        x * Tensor::<2>::from_data(TensorData::new(kept, [n, width]), &device)
    };
    let first = drop(silu(linear(z.reshape([n, flat]), "x") + linear(time, "t")));
    let second = drop(silu(linear(first, "hidden")));
    linear(second, "logit").reshape([n])
}

/// `log(1 / (1 + exp(-z)))`, without overflow.
fn log_sigmoid(z: Tensor<1>) -> Tensor<1> {
    z.clone().clamp_max(0.0) - (z.abs() * -1.0).exp().log1p()
}

/// The classifier of the job's concept that this teaching makes: from the cache, or taught on
/// pictures that the unedited model draws.
///
/// # Errors
/// If the unedited model draws no picture to learn from, a loss is not finite, or the caller interrupts.
pub fn taught(job: &mut Job<'_>, teaching: &Teaching) -> Result<LatentClassifier> {
    let [_, c, h, w] = job.base.latent_shape(1, None, None)?;
    let flat = c * h * w;
    let sampler = job.sampler()?.to_string();
    let told = (
        teaching,
        job.checkpoint.hash,
        job.concept,
        job.word,
        job.drawing,
        sampler,
        job.shows.is_some(),
    );
    let key = reused::key("latent-classifier-1", &told, &[]);
    if let Some(known) = kept(job, &key, flat)? {
        return Ok(known);
    }
    let (_, with) = lessons::lessons(job, teaching.pictures, "")?;
    let without = lessons::others(job, teaching.pictures)?;
    let classifier = learnt(job, teaching, &with, &without, flat)?;
    let mut snapshot = Snapshot::new();
    classifier
        .values
        .iter()
        .for_each(|(name, value)| snapshot.tensor(name, value));
    job.store.put_shared(&key, snapshot.into_tensors())?;
    Ok(classifier)
}

fn kept(job: &mut Job<'_>, key: &str, flat: usize) -> Result<Option<LatentClassifier>> {
    let Some(tensors) = job.store.get_shared(key)? else {
        return Ok(None);
    };
    let mut stored = Stored::of("latent classifier", tensors);
    let mut read = || -> Result<Gradients> {
        let mut values = Gradients::new();
        for (name, input, output) in layers(flat) {
            for (part, n) in [("weight", input * output), ("bias", output)] {
                let name = format!("{name}.{part}");
                values.insert(name.clone(), stored.tensor(&name, n, job.base.device())?);
            }
        }
        Ok(values)
    };
    match read() {
        Ok(values) => Ok(Some(LatentClassifier { values })),
        Err(damaged) => {
            job.tell(Event::Note(&format!(
                "teaching the classifier anew: the cache is no help, {damaged}"
            )))?;
            Ok(None)
        }
    }
}

fn learnt(
    job: &mut Job<'_>,
    teaching: &Teaching,
    with: &Tensor<4>,
    without: &Tensor<4>,
    flat: usize,
) -> Result<LatentClassifier> {
    let base = job.base;
    let (yes, no) = (with.dims()[0], without.dims()[0]);
    let latents = Tensor::cat(vec![with.clone(), without.clone()], 0);
    // The published weight of the rarer class.
    let weight = no as f64 / yes as f64;
    let mut classifier = LatentClassifier::fresh(flat, teaching.seed, base.device());
    let mut moments: std::collections::BTreeMap<String, Moments> = classifier
        .values
        .iter()
        .map(|(name, value)| (name.clone(), Moments::zeros_like(value)))
        .collect();
    let adam = Adam {
        weight_decay: 1e-3,
        ..Adam::decoupled()
    };
    job.tell(Event::Stage {
        name: "teaching a classifier",
        total: teaching.iterations,
        done: 0,
    })?;
    for step in 0..teaching.iterations {
        let mut rng = stream(teaching.seed, "latent classifier/steps").rng(step);
        let rows = epochs(
            yes + no,
            teaching.batch,
            stream(teaching.seed, "latent classifier/rows").seed(),
            step,
        );
        let rows: Vec<usize> = std::iter::repeat_n(rows, NOISINGS).flatten().collect();
        let (z, bars) = noised(base, &latents, &rows, &mut rng)?;
        let leaves: Gradients = classifier
            .values
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().autodiff().require_grad()))
            .collect();
        let logits = forward(&leaves, z, &bars, Some(&mut rng));
        let label: Vec<f32> = rows
            .iter()
            .map(|&row| f32::from(u8::from(row < yes)))
            .collect();
        let label: Tensor<1> =
            Tensor::from_data(TensorData::new(label, [rows.len()]), base.device());
        let right = log_sigmoid(logits.clone()) * label.clone() * weight
            + log_sigmoid(logits * -1.0) * (label * -1.0 + 1.0);
        let loss = right.mean() * -1.0;
        let value: f32 = loss.clone().inner().into_scalar();
        if !value.is_finite() {
            return Err(Error::Diverged {
                step: step + 1,
                loss: value,
            });
        }
        let mut graph = loss.backward();
        let gradients: Gradients = leaves
            .into_iter()
            .filter_map(|(name, leaf)| Some((name, leaf.grad_remove(&mut graph)?)))
            .collect();
        for (name, gradient) in clipped(gradients, 1.0) {
            if let (Some(value), Some(moments)) =
                (classifier.values.get_mut(&name), moments.get_mut(&name))
            {
                *value = moments.step_with(adam, value.clone(), gradient, teaching.lr, step + 1);
            }
        }
        job.tell(Event::Step {
            done: step + 1,
            loss: Some(value),
        })?;
    }
    Ok(classifier)
}

/// Some pictures' latents, noised, and the signal's share in each.
fn noised(
    base: &Pipeline,
    latents: &Tensor<4>,
    rows: &[usize],
    rng: &mut TorchRng,
) -> Result<(Tensor<4>, Vec<f64>)> {
    let n = rows.len();
    let last = (base.schedule.num_train_timesteps() - 1) as f64;
    let label = |u: f32| {
        base.schedule
            .timestep((f64::from(u).powf(1.0 / POWER) * last) as usize)
    };
    let t: Vec<Timestep> = rng
        .uniform(n)
        .into_iter()
        .map(|u| Ok(label(u)?))
        .collect::<Result<_>>()?;
    let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let x0 = latents.clone().select(
        0,
        Tensor::from_data(TensorData::new(index, [n]), base.device()),
    );
    let seeds: Vec<u64> = rng
        .integers(n, 0, i64::from(i32::MAX))
        .iter()
        .map(|&seed| seed as u64)
        .collect();
    let noise = Noise::seeds(&seeds).draw(x0.dims(), base.device());
    Ok((
        base.schedule.add_noise(x0, noise, &t)?,
        base.schedule.alpha_bars(&t),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    /// Numbers that PyTorch can make too.
    fn wave(n: usize, phase: f64, scale: f64) -> Tensor<1> {
        let values: Vec<f32> = (0..n)
            .map(|k| (scale * (k as f64 * 0.7 + phase).sin()) as f32)
            .collect();
        Tensor::from_data(TensorData::new(values, [n]), &Device::flex())
    }

    fn small() -> LatentClassifier {
        let mut values = Gradients::new();
        for (i, (name, input, output)) in layers(16).into_iter().enumerate() {
            values.insert(
                format!("{name}.weight"),
                wave(input * output, i as f64, 0.1),
            );
            values.insert(format!("{name}.bias"), wave(output, i as f64 + 0.5, 0.1));
        }
        LatentClassifier { values }
    }

    // Expected numbers: torch 2.15, float64.
    //
    // def wave(n, p, s): return torch.sin(torch.arange(n, dtype=torch.float64) * .7 + p) * s sizes
    // = [(16, 1024), (2, 1024), (1024, 512), (512, 1)] W = [wave(a * b, i, .1).reshape(b, a) for i,
    // (a, b) in enumerate(sizes)]; B = [wave(b, i + .5, .1) for i, (_, b) in enumerate(sizes)] z =
    // wave(32, .3, 1.).reshape(2, 16).requires_grad_(); a = torch.tensor([.25, .25],
    // dtype=torch.float64) t = torch.stack([a.sqrt(), (1 - a).sqrt()], -1); lin =
    // torch.nn.functional.linear; silu = torch.nn.functional.silu y = lin(silu(lin(silu(lin(z,
    // W[0], B[0]) + lin(t, W[1], B[1])), W[2], B[2])), W[3], B[3]).squeeze(-1)
    // torch.nn.functional.logsigmoid(y).sum().backward(); print(y, z.grad[0, :3], z.grad[1, 13:])
    #[test]
    fn logits_and_gradients_are_pytorchs() {
        let z = wave(32, 0.3, 1.0).reshape([2, 1, 4, 4]);
        let logits = read(small().logits(z.clone(), &[0.25, 0.25]));
        let gradient = read(small().gradient(&z, 0.25));
        let found: Vec<f32> = [&logits[..], &gradient[..3], &gradient[29..]].concat();
        let expected = [
            0.8063669306,
            0.8012702946,
            2.1413231409e-04,
            2.6179481007e-06,
            -2.1012767979e-04,
            -3.4035517903e-04,
            -2.0122662212e-04,
            3.2541959422e-05,
        ];
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let close = (f64::from(*found) - expected).abs() < 1e-3 * expected.abs() + 3e-7;
            assert!(close, "{i}: {found}, expected {expected}");
        }
    }
}
