//! Pictures of what is to be drawn instead, each with a pair of prompts: the one it was drawn from, and the one that asks for
//! the concept. Ablating Concepts and DoCo learn from them. With equal prompts on both sides they show what is to be kept, or the
//! concept itself.

use burn::tensor::Tensor;
use scumble_diffusion::Pipeline;
use scumble_nn::Context;

use crate::{
    concept::Concept,
    error::Result,
    job::Job,
    methods::esd::select,
    noised::{Noised, Noisy},
    pictures::{self, Drawing},
    retain::Retain,
    seeds::{Stream, stream},
};

/// Two prompts beside one picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Asks for the concept.
    pub target: String,
    /// What the picture was drawn from.
    pub anchor: String,
}

impl Pair {
    /// Every prompt of the concepts, and what is drawn instead: its anchor, or nothing in particular.
    pub fn of(concepts: &[Concept]) -> Vec<Self> {
        let prompts = concepts.iter().flat_map(|concept| &concept.prompts);
        prompts.map(|p| Self { target: p.asks().to_owned(), anchor: p.instead() }).collect()
    }

    /// Every prompt of the concepts beside pictures of the concepts themselves.
    pub fn asked(concepts: &[Concept]) -> Vec<Self> {
        concepts.iter().flat_map(Concept::asked).map(Self::same).collect()
    }

    fn same(text: String) -> Self {
        Self { target: text.clone(), anchor: text }
    }

    /// About `n` prompts that are to stay as they are: what the user named, then captions, and after every seventh the empty prompt,
    /// which guidance asks at every step of sampling. None if there is nothing to keep.
    pub fn kept(job: &Job<'_>, n: usize) -> Vec<Self> {
        let some = Retain::of(job).some((n - n / 8).max(1));
        let with_empty = some.chunks(7).flat_map(|seven| seven.iter().cloned().chain((seven.len() == 7).then(String::new)));
        with_empty.map(Self::same).collect()
    }
}

/// Pictures with their pairs of prompts.
#[derive(Clone, Debug)]
pub struct Anchors {
    noised: Noised,
    /// How many pairs there are; picture i belongs to pair i modulo that.
    pairs: usize,
    /// Hidden states, `[pairs, tokens, width]`.
    targets: Tensor<3>,
    anchors: Tensor<3>,
    seed: u64,
}

/// Some of them with noise.
#[derive(Debug)]
pub struct Batch {
    /// The noisy pictures.
    pub noisy: Noisy,
    /// The pair of each.
    pub pairs: Vec<usize>,
    /// Hidden states of the prompts that ask for the concept, `[n, tokens, width]`.
    pub target: Tensor<3>,
    /// Hidden states of the prompts the pictures were drawn from, like `target`.
    pub anchor: Tensor<3>,
}

/// The noise of the anchors' pictures: one stream for the methods that draw them alike.
pub fn shown(seed: u64) -> Stream {
    stream(seed, "anchors")
}

/// The noise of pictures of what is kept.
pub fn kept(seed: u64) -> Stream {
    stream(seed, "anchors/kept")
}

impl Anchors {
    /// Pictures drawn by the frozen model: at least one for every pair, of which there is at least one. `of` tells one set of
    /// pictures of a job from another.
    ///
    /// # Errors
    /// If the model cannot sample, or the caller interrupts.
    pub fn drawn(job: &mut Job<'_>, pairs: &[Pair], pictures: usize, drawing: Drawing, of: Stream) -> Result<Self> {
        let count = pictures.max(pairs.len());
        let prompts: Vec<String> = pairs.iter().cycle().take(count).map(|pair| pair.anchor.clone()).collect();
        let seeds: Vec<u64> = (0..count).map(|i| of.at(i)).collect();
        let latents = pictures::drawn(job, &prompts, &seeds, drawing)?;
        Ok(Self::of(job, pairs, latents, of.seed()))
    }

    /// The user's pictures, `None` if there are none; each belongs to one of the pairs, of which there is at least one.
    pub fn given(job: &Job<'_>, pairs: &[Pair], of: Stream) -> Option<Self> {
        Some(Self::of(job, pairs, pictures::given(job)?, of.seed()))
    }

    fn of(job: &Job<'_>, pairs: &[Pair], latents: Tensor<4>, seed: u64) -> Self {
        let side =
            |text: &dyn Fn(&Pair) -> &String| job.pipeline.encode(&pairs.iter().map(|p| text(p).clone()).collect::<Vec<_>>());
        Self {
            noised: Noised::new(job.pipeline, latents),
            pairs: pairs.len(),
            targets: side(&|pair| &pair.target),
            anchors: side(&|pair| &pair.anchor),
            seed,
        }
    }

    /// `n` examples for a step.
    ///
    /// # Errors
    /// If the schedule has no such timestep.
    pub fn batch(&self, pipeline: &Pipeline, n: usize, step: usize) -> Result<Batch> {
        let noisy = self.noised.draw(pipeline, n, self.seed, step)?;
        let pairs: Vec<usize> = noisy.rows.iter().map(|row| row % self.pairs).collect();
        Ok(Batch { target: select(&self.targets, &pairs), anchor: select(&self.anchors, &pairs), pairs, noisy })
    }
}

impl Batch {
    /// What a model predicts for the anchors' prompts, or past that: `net(z_t, a) - eta (net(z_t, c) - net(z_t, a))`.
    pub fn anchored(&self, model: &Pipeline, eta: f64) -> Tensor<4> {
        let anchored = self.noisy.predicted(model, &Context::from(&self.anchor));
        if eta == 0.0 {
            return anchored;
        }
        anchored.clone() * (1.0 + eta) - self.noisy.predicted(model, &Context::from(&self.target)) * eta
    }

    /// The mean squared error of denoising the pictures with the prompts they were drawn from.
    ///
    /// # Errors
    /// If the schedule cannot say what the network should predict.
    pub fn denoising(&self, model: &Pipeline) -> Result<Tensor<1>> {
        let prediction = self.noisy.predicted(model, &Context::from(&self.anchor));
        Ok((prediction - self.noisy.target(model)?).powi_scalar(2).mean())
    }
}
