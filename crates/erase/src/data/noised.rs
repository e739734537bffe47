//! Noisy examples of pictures: what methods learn from that do not follow a sampler's trajectory.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Interpolant, Noise, Pipeline, Timestep};
use scumble_nn::Context;

use crate::{
    error::{Error, Result},
    seeds::{draw, stream},
};

/// Latents of pictures, from which every step draws some and adds noise.
#[derive(Clone, Debug)]
pub struct Noised {
    /// `[pictures, channels, h, w]`
    latents: Tensor<4>,
    /// The lowest and the highest timestep.
    range: (usize, usize),
}

/// Some noisy pictures.
#[derive(Clone, Debug)]
pub struct Noisy {
    /// Which pictures they are of.
    pub rows: Vec<usize>,
    /// The pictures' latents, `[n, channels, h, w]`.
    pub x0: Tensor<4>,
    /// The noise, like `x0`.
    pub noise: Tensor<4>,
    /// `sqrt(abar_t) x0 + sqrt(1 - abar_t) noise`.
    pub x: Tensor<4>,
    /// The timestep of each.
    pub t: Vec<Timestep>,
}

impl Noised {
    /// Examples of these latents at any timestep.
    pub fn new(pipeline: &Pipeline, latents: Tensor<4>) -> Self {
        Self {
            latents,
            range: (0, pipeline.schedule.num_train_timesteps() - 1),
        }
    }

    /// The same with timesteps from `least` to `most`.
    ///
    /// # Errors
    /// If that is no range within the schedule.
    pub fn within(self, pipeline: &Pipeline, least: usize, most: usize) -> Result<Self> {
        Self::check_range(pipeline, least, most)?;
        Ok(Self {
            range: (least, most),
            ..self
        })
    }

    /// Whether these are the ends of a range of timesteps.
    ///
    /// # Errors
    /// If that is no range within the schedule.
    pub(crate) fn check_range(pipeline: &Pipeline, least: usize, most: usize) -> Result<()> {
        let last = pipeline.schedule.num_train_timesteps() - 1;
        if least > most || most > last {
            return Err(Error::input(format!(
                "t_min {least} and t_max {most} are no range within 0 to {last}"
            )));
        }
        Ok(())
    }

    /// One of the pictures alone.
    #[must_use]
    pub fn only(&self, picture: usize) -> Self {
        Self {
            latents: self.latents.clone().narrow(0, picture, 1),
            range: self.range,
        }
    }

    /// Some of the pictures.
    #[must_use]
    pub(crate) fn some(&self, rows: &[usize]) -> Self {
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &self.latents.device());
        Self {
            latents: self.latents.clone().select(0, index),
            range: self.range,
        }
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.latents.dims()[0]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `n` examples for a step: pictures in shuffled epochs; one timestep from each of n equal
    /// parts of the range, so that a step of few examples still sees early and late ones; noise
    /// that depends on the seed and the step alone.
    ///
    /// # Errors
    /// If the schedule has no such timestep.
    pub fn draw(&self, pipeline: &Pipeline, n: usize, seed: u64, step: usize) -> Result<Noisy> {
        self.draw_changed(pipeline, n, seed, step, &mut |latents| latents)
    }

    /// The same, with latents that `change` makes of the drawn pictures', `[n, channels, h, w]`.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    pub(crate) fn draw_changed(
        &self,
        pipeline: &Pipeline,
        n: usize,
        seed: u64,
        step: usize,
        change: &mut dyn FnMut(Tensor<4>) -> Tensor<4>,
    ) -> Result<Noisy> {
        let mut rng = stream(seed, "noised/times and noise").rng(step);
        let rows = draw(self.len(), n, stream(seed, "noised/rows").seed(), step);
        let (least, most) = self.range;
        let width = (most + 1 - least) as f64 / n as f64;
        let within = rng.uniform(n);
        let at = |i: usize| {
            ((least as f64 + (i as f64 + f64::from(within[i])) * width) as usize).min(most)
        };
        let t: Vec<Timestep> = rng
            .permutation(n)
            .iter()
            .map(|&i| Ok(pipeline.schedule.timestep(at(i))?))
            .collect::<Result<_>>()?;
        let seeds: Vec<u64> = rng
            .integers(n, 0, i64::from(i32::MAX))
            .iter()
            .map(|&s| s as u64)
            .collect();
        let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
        let x0 = change(self.latents.clone().select(
            0,
            Tensor::from_data(TensorData::new(index, [n]), pipeline.device()),
        ));
        let noise = Noise::seeds(&seeds).draw(x0.dims(), pipeline.device());
        let x = pipeline.schedule.add_noise(x0.clone(), noise.clone(), &t)?;
        Ok(Noisy {
            rows,
            x0,
            noise,
            x,
            t,
        })
    }
}

impl Noisy {
    /// What a model predicts for them (epsilon or v, as it was trained).
    ///
    /// # Errors
    /// If the context does not fit the network.
    pub fn predicted(&self, model: &Pipeline, context: &Context) -> Result<Tensor<4>> {
        Ok(model.predict(self.x.clone(), &self.t, context, None)?.raw())
    }

    /// What the network was trained to predict for them.
    ///
    /// # Errors
    /// If the schedule cannot say.
    pub fn target(&self, pipeline: &Pipeline) -> Result<Tensor<4>> {
        Ok(pipeline
            .schedule
            .regression_target(self.x0.clone(), self.noise.clone(), &self.t)?)
    }
}

/// The mean squared difference of each example, `[n]`.
pub fn squared_error(a: Tensor<4>, b: Tensor<4>) -> Tensor<1> {
    let [n, channels, h, w] = a.dims();
    (a - b)
        .powi_scalar(2)
        .reshape([n, channels * h * w])
        .mean_dim(1)
        .reshape([n])
}
