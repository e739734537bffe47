//! Pictures of what is to be drawn instead, each with a pair of prompts: the one it was drawn from,
//! and the one that asks for the concept. Ablating Concepts and DoCo learn from them. With equal
//! prompts on both sides they show what is to be kept, or the concept itself.

use burn::tensor::Tensor;
use scumble_diffusion::{Conditioning, Pipeline};
use scumble_nn::Context;

use crate::{
    concepts::concept::Concept,
    data::augment::{Augment, Change},
    data::noised::{Noised, Noisy},
    data::pictures::{self, Drawing},
    data::retain::Retain,
    data::start,
    error::Result,
    job::Job,
    seeds::{Stream, stream},
};

/// The prompts beside one picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Prompts that ask for the concept, of which every use takes one; at least one.
    pub targets: Vec<String>,
    /// What the picture was drawn from.
    pub anchor: String,
}

impl Pair {
    /// Every prompt of the concepts, and what is drawn instead: its anchor, or nothing in
    /// particular.
    pub fn of(concepts: &[Concept]) -> Vec<Self> {
        let prompts = concepts.iter().flat_map(|concept| &concept.prompts);
        prompts
            .map(|p| Self {
                targets: vec![p.asks().to_owned()],
                anchor: p.instead(),
            })
            .collect()
    }

    /// The same prompt on both sides.
    pub fn same(text: String) -> Self {
        Self {
            targets: vec![text.clone()],
            anchor: text,
        }
    }

    /// About `n` prompts that are to stay as they are: all that the user named, then captions, and
    /// after every seventh the empty prompt, which guidance asks at every step of sampling. None if
    /// there is nothing to keep.
    pub fn kept(job: &Job<'_>, n: usize) -> Vec<Self> {
        let some = Retain::of(job).some((n - n / 8).max(1));
        let with_empty = some.chunks(7).flat_map(|seven| {
            seven
                .iter()
                .cloned()
                .chain((seven.len() == 7).then(String::new))
        });
        with_empty.map(Self::same).collect()
    }
}

/// Pictures with their pairs of prompts.
#[derive(Clone, Debug)]
pub struct Anchors {
    noised: Noised,
    /// Picture i belongs to pair i modulo their number.
    pairs: Vec<Pair>,
    /// Where each pair's targets begin among all.
    first: Vec<usize>,
    /// All targets' prompts.
    targets: Conditioning,
    /// The anchors' prompts, one for each pair.
    anchors: Conditioning,
    seed: u64,
    augment: Augment,
}

/// Some of them with noise.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The noisy pictures.
    pub noisy: Noisy,
    /// The pair of each.
    pub pairs: Vec<usize>,
    /// The prompts that ask for the concept, n of them.
    pub asks: Vec<String>,
    /// The same, encoded.
    pub target: Conditioning,
    /// The prompts the pictures were drawn from.
    pub instead: Vec<String>,
    /// The same, encoded.
    pub anchor: Conditioning,
    /// 1 where a picture that was made smaller is, 0 around it, `[n, 1, h, w]`; `None` if all are
    /// whole.
    pub valid: Option<Tensor<4>>,
}

/// The noise of the anchors' pictures: one stream for the methods that draw them alike.
pub(crate) fn shown(seed: u64) -> Stream {
    stream(seed, "anchors")
}

/// The noise of pictures of what is kept.
pub(crate) fn kept(seed: u64) -> Stream {
    stream(seed, "anchors/kept")
}

impl Anchors {
    /// Pictures drawn by the frozen model: at least one for every pair, of which there is at least
    /// one. `of` tells one set of pictures of a job from another.
    ///
    /// # Errors
    /// If the model cannot sample, or the caller interrupts.
    pub fn drawn(
        job: &mut Job<'_>,
        pairs: &[Pair],
        pictures: usize,
        drawing: Drawing,
        of: Stream,
    ) -> Result<Self> {
        let count = pictures.max(pairs.len());
        let prompts: Vec<String> = pairs
            .iter()
            .cycle()
            .take(count)
            .map(|pair| pair.anchor.clone())
            .collect();
        let seeds: Vec<u64> = (0..count).map(|i| of.at(i)).collect();
        let latents = pictures::drawn(job, &prompts, &seeds, drawing)?;
        Ok(Self::of(job, pairs, latents, of.seed()))
    }

    /// The user's pictures, `None` if there are none; each belongs to one of the pairs, of which
    /// there is at least one.
    pub fn given(job: &Job<'_>, pairs: &[Pair], of: Stream) -> Option<Self> {
        Some(Self::of(job, pairs, pictures::given(job)?, of.seed()))
    }

    fn of(job: &Job<'_>, pairs: &[Pair], latents: Tensor<4>, seed: u64) -> Self {
        let targets: Vec<String> = pairs.iter().flat_map(|pair| pair.targets.clone()).collect();
        let anchors: Vec<String> = pairs.iter().map(|pair| pair.anchor.clone()).collect();
        let first = pairs.iter().scan(0, |next, pair| {
            Some(std::mem::replace(next, *next + pair.targets.len()))
        });
        Self {
            noised: Noised::new(job.pipeline, latents),
            first: first.collect(),
            pairs: pairs.to_vec(),
            targets: job.pipeline.encode(&targets),
            anchors: job.pipeline.encode(&anchors),
            seed,
            augment: Augment::None,
        }
    }

    /// The same pictures, changed anew for every use.
    #[must_use]
    pub(crate) fn augmented(self, augment: Augment) -> Self {
        Self { augment, ..self }
    }

    /// The same pictures with other prompts that ask for the concept: one for each pair.
    #[must_use]
    pub(crate) fn with_targets(self, targets: Conditioning) -> Self {
        Self {
            first: (0..self.pairs.len()).collect(),
            targets,
            ..self
        }
    }

    /// The pictures that belong to some of the pairs.
    pub(crate) fn noised_of(&self, pairs: &[usize]) -> Noised {
        let rows: Vec<usize> = (0..self.noised.len())
            .filter(|row| pairs.contains(&(row % self.pairs.len())))
            .collect();
        self.noised.some(&rows)
    }

    /// `n` examples for a step.
    ///
    /// # Errors
    /// If the schedule has no such timestep.
    pub fn batch(&self, pipeline: &Pipeline, n: usize, step: usize) -> Result<Batch> {
        let mut rng = stream(self.seed, "anchors/changes").rng(step);
        let changes: Vec<Change> = (0..n)
            .map(|_| Change::drawn(self.augment, &mut rng))
            .collect();
        let mut valid = None;
        let noisy = self
            .noised
            .draw_changed(pipeline, n, self.seed, step, &mut |latents| {
                if self.augment == Augment::None {
                    return latents;
                }
                let changed = changes
                    .iter()
                    .enumerate()
                    .map(|(i, change)| change.apply(pipeline, latents.clone().narrow(0, i, 1)));
                let (latents, masks): (Vec<_>, Vec<_>) = changed.unzip();
                valid = (self.augment == Augment::Resize).then(|| Tensor::cat(masks, 0));
                Tensor::cat(latents, 0)
            })?;
        let pairs: Vec<usize> = noisy
            .rows
            .iter()
            .map(|row| row % self.pairs.len())
            .collect();
        let chosen = stream(self.seed, "anchors/wordings").rng(step).uniform(n);
        let one = |(&pair, u): (&usize, f32)| {
            ((u * self.pairs[pair].targets.len() as f32) as usize, pair)
        };
        let wording: Vec<(usize, usize)> = pairs.iter().zip(chosen).map(one).collect();
        let said = wording
            .iter()
            .zip(&changes)
            .map(|(&(k, pair), c)| format!("{}{}", c.says, self.pairs[pair].targets[k]));
        let asks: Vec<String> = said.collect();
        let target = if changes.iter().any(|change| !change.says.is_empty()) {
            pipeline.encode(&asks)
        } else {
            let rows = wording.iter().map(|&(k, pair)| self.first[pair] + k);
            self.targets.select(&rows.collect::<Vec<_>>())
        };
        Ok(Batch {
            asks,
            target,
            instead: pairs
                .iter()
                .map(|&pair| self.pairs[pair].anchor.clone())
                .collect(),
            anchor: self.anchors.select(&pairs),
            pairs,
            noisy,
            valid,
        })
    }
}

/// The mean squared difference of predictions, `[n, channels, h, w]`, over what is valid of each
/// example.
pub(crate) fn masked_error(a: Tensor<4>, b: Tensor<4>, valid: Option<&Tensor<4>>) -> Tensor<1> {
    let [n, channels, h, w] = a.dims();
    let squares = (a - b).powi_scalar(2);
    let Some(valid) = valid else {
        return squares.mean();
    };
    let sum = |x: Tensor<4>, each: usize| x.reshape([n, each]).sum_dim(1);
    let whole = sum(squares * valid.clone(), channels * h * w);
    (whole / (sum(valid.clone(), h * w) * channels as f64)).mean()
}

impl Batch {
    /// The same with all prompts as another text encoder says them: one that is being trained.
    #[must_use]
    pub(crate) fn said_by(&self, model: &Pipeline) -> Self {
        Self {
            target: model.encode(&self.asks),
            anchor: model.encode(&self.instead),
            ..self.clone()
        }
    }

    /// What a model predicts for the anchors' prompts, or past that: `net(z_t, a) - eta (net(z_t,
    /// c) - net(z_t, a))`.
    ///
    /// # Errors
    /// If a prompt does not fit the network.
    pub fn anchored(&self, model: &Pipeline, eta: f64) -> Result<Tensor<4>> {
        let anchored = self.noisy.predicted(model, &Context::from(&self.anchor))?;
        if eta == 0.0 {
            return Ok(anchored);
        }
        let target = self.noisy.predicted(model, &Context::from(&self.target))?;
        Ok(anchored * (1.0 + eta) - target * eta)
    }

    /// The mean squared error of denoising the pictures with the prompts they were drawn from;
    /// `detach` leaves the start token without a gradient.
    ///
    /// # Errors
    /// If the schedule cannot say what the network should predict.
    pub(crate) fn denoising(&self, model: &Pipeline, detach: bool) -> Result<Tensor<1>> {
        let context = start::context(&self.anchor, detach);
        let prediction = self.noisy.predicted(model, &context)?;
        Ok((prediction - self.noisy.target(model)?)
            .powi_scalar(2)
            .mean())
    }
}
