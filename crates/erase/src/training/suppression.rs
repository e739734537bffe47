//! Adapters that take a network's attention from a concept's words at the places where pictures
//! show it: the second of MACE's three stages (section 3.2 and `src/cfr_lora_training.py`).
//!
//! With `A_l` the maps of cross-attention `l` of the network being trained, `[heads, places,
//! tokens]`, on a noisy picture `z_t` of the concept, `M_l` the picture's mask at the layer's size
//! and `S` the positions of the concept's tokens:
//!
//! ```text
//! loss = sum_l |A_l[:, M_l, S]|_F
//! ```
//!
//! No noise is predicted. The norm is not squared, as in the published code. Timesteps are drawn
//! where the concept forms ("concept-focal importance sampling"): `p(t) ~ s(0.05 (t - 200)) -
//! s(0.05 (t - 400))`, `s` the logistic function.

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{Conditioning, Noise, Pipeline, Timestep, TorchRng};
use scumble_nn::{Context, Watch};
use serde::{Deserialize, Serialize};

use crate::{
    data::masks::{resized, sides},
    error::{Error, Result},
    job::Job,
    seeds::{draw, stream},
    training::adam::Adam,
    training::gradients::Gradients,
    training::lora::{LORA, Layers, attached_from},
    training::snapshot::{Snapshot, Stored},
    training::train::{LrSchedule, Train, train},
};

/// Which end tokens belong to the concept: a prompt's meaning gathers in the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ends {
    /// None.
    None,
    /// The one after the last word.
    First,
    /// Every token of its id: in SD 1.x all of the padding.
    All,
}

/// How an adapter is trained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) iterations: usize,
    pub(crate) lr: f64,
    pub(crate) lr_schedule: LrSchedule,
    /// Examples a step; published is 1.
    pub(crate) batch: usize,
    /// Whether timesteps are drawn where the concept forms, or all alike.
    pub(crate) focal: bool,
}

/// What one concept's adapter learns from.
pub(crate) struct Lesson {
    /// Pictures that show the concept, `[n, channels, h, w]`.
    pub(crate) latents: Tensor<4>,
    /// Where they show it, `[n, 1, mask h, mask w]`; everywhere if `None`.
    pub(crate) masks: Option<Tensor<4>>,
    /// Prompts that ask for it.
    pub(crate) asks: Conditioning,
    /// 1 at their tokens that are the concept, `[prompts, tokens]`.
    pub(crate) marks: Tensor<2>,
    /// Whether picture i was drawn from prompt i modulo their number and is asked with it;
    /// otherwise any prompt fits any picture.
    pub(crate) own_prompts: bool,
}

/// The model with fresh adapters beside the keys and values of its cross-attention: `down` normal
/// with deviation `1 / rank`, as diffusers' `LoRALinearLayer` began in the published code, `up`
/// zero. At the published step size of 1e-5 an adapter that begins as small as PyTorch's linear
/// layers do (0.02 in SD 1.x) would move 50 times less.
///
/// # Errors
/// If the rank is 0 or there is no cross-attention.
pub(crate) fn attached(
    start: &Pipeline,
    rank: usize,
    seed: u64,
    concept: usize,
) -> Result<Pipeline> {
    attached_from(start, Layers::KeysValues, rank, |i, input| {
        let mut values = stream(seed, "suppression/down")
            .within(concept)
            .rng(i)
            .normal((rank * input).max(16));
        values.truncate(rank * input);
        values.iter_mut().for_each(|value| *value /= rank as f32);
        values
    })
}

/// The trained factors of concept number `concept`, by name. `adapted` is the model that
/// [`attached`] them; what an earlier run of the job has finished is taken from the store.
///
/// # Errors
/// If the loss diverges or the caller interrupts.
pub(crate) fn trained(
    job: &mut Job<'_>,
    adapted: &Pipeline,
    plan: Plan,
    lesson: &Lesson,
    concept: usize,
) -> Result<Gradients> {
    let (state, done) = (
        format!("suppression-{concept}"),
        format!("suppression-{concept}-done"),
    );
    if let Some(stored) = Stored::get(job.store, &done)? {
        return read(stored, adapted);
    }
    let (pipeline, seed) = (job.pipeline, job.seed);
    let examples = Examples::new(lesson, pipeline, plan, seed, concept);
    let steps = Train {
        start: Some(adapted),
        adam: Adam::decoupled(),
        clip: Some(1.0),
        ..Train::new(LORA, plan.iterations, plan.lr, plan.lr_schedule, &state)
    };
    let values = train(job, steps, &mut |edited, step| {
        let batch = examples.at(step)?;
        let mut watch = Watch::maps();
        let [_, _, h, w] = batch.x.dims();
        let context = Context::from(batch.asks);
        edited.predict(batch.x, &batch.t, &context, Some(&mut watch))?;
        loss(watch.maps, &batch.marks, batch.masks.as_ref(), [h, w])
    })?;
    let mut kept = Snapshot::new();
    values
        .iter()
        .for_each(|(name, value)| kept.tensor(name, value));
    kept.keep(job.store, &done)?;
    Ok(values)
}

fn read(mut stored: Stored, adapted: &Pipeline) -> Result<Gradients> {
    let mut values = Gradients::new();
    for name in LORA.pick_in(adapted)? {
        let weight = adapted.denoiser.weights.get(&name);
        let n = weight.map_or(0, |w| w.shape.iter().product());
        values.insert(name.clone(), stored.tensor(&name, n, adapted.device())?);
    }
    stored.end()?;
    Ok(values)
}

/// The mean over examples of the sum over layers of the norm of what lies at marked tokens within
/// the mask.
///
/// # Shapes
/// - maps: `[n, heads, places, tokens]`
/// - marks: `[n, tokens]`
/// - masks: `[n, 1, mask h, mask w]`
///
/// # Errors
/// If there is no map.
pub(crate) fn loss(
    maps: Vec<Tensor<4>>,
    marks: &Tensor<2>,
    masks: Option<&Tensor<4>>,
    latents: [usize; 2],
) -> Result<Tensor<1>> {
    let [n, tokens] = marks.dims();
    let marks = marks.clone().reshape([n, 1, 1, tokens]);
    let norm = |map: Tensor<4>| -> Tensor<1> {
        let places = map.dims()[2];
        let map = match masks {
            Some(masks) => map * resized(masks, sides(latents, places)).reshape([n, 1, places, 1]),
            None => map,
        };
        let square: Tensor<1> = (map * marks.clone())
            .powi_scalar(2)
            .sum_dim(3)
            .sum_dim(2)
            .sum_dim(1)
            .reshape([n]);
        // A root has no slope at 0.
        (square + 1e-12).sqrt()
    };
    let total = maps.into_iter().map(norm).reduce(|a, b| a + b);
    Ok(total
        .ok_or_else(|| Error::input("the network has no cross-attention"))?
        .mean())
}

/// The weight of each timestep of a schedule of `steps`, which is stretched to the published 1000.
fn focal(steps: usize) -> Vec<f64> {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let weight = |t: usize| {
        let t = t as f64 * 1000.0 / steps as f64;
        logistic(0.05 * (t - 200.0)) - logistic(0.05 * (t - 400.0))
    };
    (0..steps).map(weight).collect()
}

/// The place in `weights` at which their running sum passes the share `at` of it, from 0 to less
/// than 1.
fn place(weights: &[f64], at: f64) -> usize {
    let mut left = at * weights.iter().sum::<f64>();
    let found = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    found.unwrap_or(weights.len().saturating_sub(1))
}

/// Draws a step's examples: they depend on the seed, the concept and the step alone.
struct Examples<'a> {
    lesson: &'a Lesson,
    pipeline: &'a Pipeline,
    batch: usize,
    times: Vec<f64>,
    seed: u64,
}

/// The examples of a step.
struct Batch {
    x: Tensor<4>,
    t: Vec<Timestep>,
    asks: Conditioning,
    marks: Tensor<2>,
    masks: Option<Tensor<4>>,
}

impl<'a> Examples<'a> {
    fn new(
        lesson: &'a Lesson,
        pipeline: &'a Pipeline,
        plan: Plan,
        seed: u64,
        concept: usize,
    ) -> Self {
        let steps = pipeline.schedule.num_train_timesteps();
        let times = if plan.focal {
            focal(steps)
        } else {
            vec![1.0; steps]
        };
        Self {
            lesson,
            pipeline,
            batch: plan.batch,
            times,
            seed: stream(seed, "suppression/examples").within(concept).seed(),
        }
    }

    fn at(&self, step: usize) -> Result<Batch> {
        let (lesson, device) = (self.lesson, self.pipeline.device());
        let pictures = draw(lesson.latents.dims()[0], self.batch, self.seed, step);
        let mut rng = stream(self.seed, "suppression/times, prompts and noise").rng(step);
        let prompts = lesson.asks.len();
        let prompts: Vec<usize> = match lesson.own_prompts {
            true => pictures.iter().map(|picture| picture % prompts).collect(),
            false => rng
                .integers(self.batch, 0, prompts as i64)
                .into_iter()
                .map(|i| i as usize)
                .collect(),
        };
        let t = self.times(&mut rng)?;
        let seeds: Vec<u64> = rng
            .integers(self.batch, 0, i64::from(i32::MAX))
            .iter()
            .map(|&s| s as u64)
            .collect();
        let index = |of: &[usize]| {
            let rows: Vec<i64> = of.iter().map(|&i| i as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(rows, [of.len()]), device)
        };
        let x0 = lesson.latents.clone().select(0, index(&pictures));
        let noise = Noise::seeds(&seeds).draw(x0.dims(), device);
        Ok(Batch {
            x: self.pipeline.schedule.add_noise(x0, noise, &t)?,
            t,
            asks: lesson.asks.select(&prompts),
            marks: lesson.marks.clone().select(0, index(&prompts)),
            masks: lesson
                .masks
                .clone()
                .map(|masks| masks.select(0, index(&pictures))),
        })
    }

    fn times(&self, rng: &mut TorchRng) -> Result<Vec<Timestep>> {
        let uniform = rng.uniform(self.batch);
        let one = |u: f32| {
            Ok(self
                .pipeline
                .schedule
                .timestep(place(&self.times, f64::from(u)))?)
        };
        uniform.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn value(loss: Tensor<1>) -> f32 {
        loss.into_scalar()
    }

    /// Against the definition, on numbers. `torch.norm` of the picked numbers, summed over layers:
    ///
    /// ```python
    /// a = torch.arange(1., 17.).view(1, 1, 4, 4) / 10       # one head, 2 x 2 places, four tokens
    /// b = torch.tensor([3., 4., 5., 6.]).view(1, 1, 1, 4)   # a layer of one place
    /// m = torch.tensor([[1., 0.], [0., 1.]])                # the first and the last place
    /// s = [1, 2]
    /// torch.norm(a[0][:, m.view(-1) > 0.5][:, :, s]) + torch.norm(b[0][:, torch.tensor([True])][:, :, s])
    /// # (0.2^2 + 0.3^2 + 1.4^2 + 1.5^2)^0.5 + (4^2 + 5^2)^0.5 = 2.083267 + 6.403124
    /// ```
    #[test]
    fn the_loss_is_the_norm_of_marked_columns_within_the_mask() {
        let a = || {
            tensor(
                &(1..17).map(|i| i as f32 / 10.0).collect::<Vec<_>>(),
                [1, 1, 4, 4],
            )
        };
        let b = || tensor(&[3.0, 4.0, 5.0, 6.0], [1, 1, 1, 4]);
        let marks = tensor(&[0.0, 1.0, 1.0, 0.0], [1, 4]);
        let mask = tensor(&[1.0, 0.0, 0.0, 1.0], [1, 1, 2, 2]);
        let found = value(loss(vec![a(), b()], &marks, Some(&mask), [2, 2]).unwrap());
        assert!((found - 8.486_391).abs() < 1e-5, "{found}");
        // Without a mask all places count: (2^2 + 3^2 + 6^2 + 7^2 + 10^2 + 11^2 + 14^2 + 15^2)^0.5
        // / 10 of the first.
        let found = value(loss(vec![a()], &marks, None, [2, 2]).unwrap());
        assert!((found - 740.0f32.sqrt() / 10.0).abs() < 1e-5, "{found}");
        assert!(loss(vec![], &marks, None, [2, 2]).is_err());
    }

    #[test]
    fn places_outside_the_mask_have_no_gradient() {
        let map = tensor(&(1..17).map(|i| i as f32).collect::<Vec<_>>(), [1, 1, 4, 4])
            .autodiff()
            .require_grad();
        let marks = tensor(&[0.0, 1.0, 0.0, 0.0], [1, 4]);
        let mask = tensor(&[0.0, 0.0, 1.0, 0.0], [1, 1, 2, 2]);
        let gradients = loss(vec![map.clone()], &marks, Some(&mask), [2, 2])
            .unwrap()
            .backward();
        let found: Vec<f32> = map
            .grad(&gradients)
            .unwrap()
            .into_data()
            .iter::<f32>()
            .collect();
        let expected: Vec<f32> = (0..16).map(|i| if i == 9 { 1.0 } else { 0.0 }).collect();
        assert!(
            found
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?}"
        );
    }

    #[test]
    fn each_example_has_its_own_mask_and_marks() {
        let one = [1.0, 2.0, 3.0, 4.0];
        let maps = |n: usize| tensor(&one.repeat(n), [n, 1, 2, 2]);
        let marks = tensor(&[1.0, 0.0, 0.0, 1.0], [2, 2]);
        let masks = tensor(&[1.0, 0.0, 0.0, 1.0], [2, 1, 2, 1]);
        // The first sees 1 (place 0, token 0), the second 4 (place 1, token 1).
        let both = value(loss(vec![maps(2)], &marks, Some(&masks), [2, 1]).unwrap());
        assert!((both - 2.5).abs() < 1e-6, "{both}");
        let first = value(
            loss(
                vec![maps(1)],
                &marks.narrow(0, 0, 1),
                Some(&masks.narrow(0, 0, 1)),
                [2, 1],
            )
            .unwrap(),
        );
        assert!((first - 1.0).abs() < 1e-6, "{first}");
    }

    #[test]
    fn timesteps_gather_where_the_concept_forms() {
        let weights = focal(1000);
        // The printed function at three places.
        for (t, expected) in [(300, 0.986_614_3), (200, 0.499_954_6), (900, 0.0)] {
            assert!((weights[t] - expected).abs() < 1e-6, "{t}: {}", weights[t]);
        }
        let drawn: Vec<usize> = (0..100)
            .map(|i| place(&weights, (i as f64 + 0.5) / 100.0))
            .collect();
        assert!(
            drawn.is_sorted() && drawn.iter().filter(|t| (150..450).contains(*t)).count() > 90,
            "{drawn:?}"
        );
        // A schedule of other length is stretched.
        assert!((focal(500)[150] - weights[300]).abs() < 1e-12);
        assert_eq!(
            (
                place(&[1.0, 0.0, 3.0], 0.2),
                place(&[1.0, 0.0, 3.0], 0.25),
                place(&[1.0, 1.0], 1.0)
            ),
            (0, 2, 1)
        );
    }
}
