//! What a judge is shown: drawings, and drawings that went through the model's autoencoder, since
//! those that it is asked about did too.
//!
//! A picture that comes out of a diffusion model is a decoded one, a little off. A judge that has
//! only seen drawings takes what the autoencoder does to them for another style, or for nothing.

use std::{ops::Range, time::Instant};

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use scumble_diffusion::Picture;
use scumble_erase::{
    Result,
    seeds::{Stream, stream},
};
use scumble_nn::{Vae, Weights, config::VaeConfig, files::Source};

use crate::{
    examples::{JudgeExample, every},
    job::Job,
    layout::DIFFUSION_MODEL,
    part::{CONFIG, Part},
    watcher::Watcher,
};

/// Pictures that go through the autoencoder at once.
const AT_ONCE: usize = 32;
/// Most noise in the latents of what is to be recognised, of unit variance as they are; and the
/// noise in those that nobody can: half-way through the sampler.
const LITTLE: f32 = 0.3;
const MUCH: Range<f32> = 1.2..3.0;

/// Pictures to be looked at, and the number of the right answer to each.
pub(super) type Batch = (Tensor<4>, Vec<usize>);

/// Where a judge's pictures come from.
pub(super) struct Pictures<'a> {
    job: &'a Job<'a>,
    question: usize,
    reject: f64,
    /// None where the folder holds none yet.
    autoencoder: Option<Autoencoder>,
    noise: Stream,
    kept: Vec<(Picture, usize)>,
    /// Seconds that it took to make them.
    pub(super) seconds: f64,
}

impl<'a> Pictures<'a> {
    /// Pictures of a question, drawn; [`decode`](Self::decode) makes the others.
    pub(super) fn new(job: &'a Job<'a>, question: usize, reject: f64) -> Result<Self> {
        let autoencoder = match job.recipe.judge.decoded > 0.0 {
            true => Autoencoder::of(job)?,
            false => None,
        };
        Ok(Self {
            job,
            question,
            reject,
            autoencoder,
            noise: stream(job.seed, "train/decoded"),
            kept: Vec::new(),
            seconds: 0.0,
        })
    }

    /// Makes the pictures that are shown decoded, where there is something to decode by.
    ///
    /// # Errors
    /// If a picture cannot be read, or somebody asks to stop.
    pub(super) fn decode(&mut self, watcher: &mut dyn Watcher) -> Result<()> {
        if self.autoencoder.is_some() {
            let began = Instant::now();
            let count = self.job.recipe.judge.decoded_pictures();
            watcher.stage("decoded", count, 0);
            for start in (0..count).step_by(AT_ONCE) {
                let numbers = start..(start + AT_ONCE).min(count);
                let end = numbers.end;
                self.kept.extend(self.decoded(numbers)?);
                if watcher.step(end, end as f64 / count as f64, "").is_break() {
                    return Err(scumble_erase::Error::Interrupted);
                }
            }
            self.seconds = began.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// The examples of these numbers as a training sees them: some drawn, some of those that are kept
    /// decoded.
    pub(super) fn mixed(&self, numbers: Range<usize>) -> Result<Batch> {
        let share = match self.kept.len() {
            0 => 0.0,
            _ => self.job.recipe.judge.decoded,
        };
        let one = |i| -> Result<(Picture, usize)> {
            // Each kind is counted by itself: what is to be refused comes as often in both.
            let decoded = (i as f64 * share) as usize;
            match every(share, i) {
                true => Ok(self.kept[decoded % self.kept.len()].clone()),
                false => self.drawn_one(i - decoded),
            }
        };
        self.batch(numbers.into_par_iter().map(one).collect::<Result<_>>()?)
    }

    /// As they are drawn.
    pub(super) fn drawn(&self, numbers: Range<usize>) -> Result<Batch> {
        let numbers = numbers.into_par_iter();
        self.batch(numbers.map(|i| self.drawn_one(i)).collect::<Result<_>>()?)
    }

    /// As they are decoded; `None` where there is nothing to decode by.
    pub(super) fn out_of_latents(&self, numbers: Range<usize>) -> Option<Result<Batch>> {
        self.autoencoder.as_ref()?;
        Some(
            self.decoded(numbers)
                .and_then(|decoded| self.batch(decoded)),
        )
    }

    fn drawn_one(&self, i: usize) -> Result<(Picture, usize)> {
        let judged = self.job.data.judged(self.question, i, self.reject)?;
        Ok((through(&judged, judged.picture.clone()), judged.answer))
    }

    fn batch(&self, pictures: Vec<(Picture, usize)>) -> Result<Batch> {
        let (pictures, answers): (Vec<_>, Vec<_>) = pictures.into_iter().unzip();
        let pictures = Picture::to_batch(&pictures, [0.5; 3], [0.5; 3], self.job.device);
        Ok((pictures, answers))
    }

    /// Examples through the autoencoder, with noise on the way: a little, as a sampler leaves it; so
    /// much that nothing is left to see where no answer is to fit.
    fn decoded(&self, numbers: Range<usize>) -> Result<Vec<(Picture, usize)>> {
        let Some(autoencoder) = &self.autoencoder else {
            return Ok(Vec::new());
        };
        let answers = self.job.data.questions()[self.question].labels.len();
        let judged: Vec<JudgeExample> = numbers
            .clone()
            .into_par_iter()
            .map(|i| self.job.data.judged(self.question, i, self.reject))
            .collect::<Result<_>>()?;
        let pictures: Vec<Picture> = judged.iter().map(|one| one.picture.clone()).collect();
        let pictures = Picture::to_batch(&pictures, [0.5; 3], [0.5; 3], self.job.device);
        let latents = autoencoder.network.encode(pictures) * autoencoder.scale;
        let [n, c, h, w] = latents.dims();
        let mut noise = Vec::with_capacity(n * c * h * w);
        for (i, one) in numbers.zip(&judged) {
            let mut rng = self.noise.rng(i);
            let u = rng.uniform(2);
            let much = one.answer == answers && one.window.is_none() && u[0] < 0.5;
            let deviation = match much {
                true => MUCH.start + u[1] * (MUCH.end - MUCH.start),
                false => u[1] * LITTLE,
            };
            let normal = rng.normal((c * h * w).max(16));
            noise.extend(normal[..c * h * w].iter().map(|z| z * deviation));
        }
        let noise = Tensor::from_data(TensorData::new(noise, [n, c, h, w]), &latents.device());
        let latents = (latents + noise) / autoencoder.scale;
        let pictures = Picture::from_batch(autoencoder.network.decode(latents));
        let seen = pictures.into_iter().zip(&judged);
        Ok(seen
            .map(|(picture, judged)| (through(judged, picture), judged.answer))
            .collect())
    }
}

/// The autoencoder that was trained before.
struct Autoencoder {
    network: Vae,
    scale: f64,
}

impl Autoencoder {
    fn of(job: &Job<'_>) -> Result<Option<Self>> {
        let source = Source::dir(job.layout().at(Part::Vae.name()));
        let Some(file) = source.tensors(DIFFUSION_MODEL)? else {
            return Ok(None);
        };
        let config = VaeConfig::read(&source.path(CONFIG), &source.need_json(CONFIG)?)?;
        let component = file.path.display().to_string();
        let manifest = Vae::manifest(&config);
        let weights = Weights::load(&component, &file.tensors, &manifest, job.device)?;
        Ok(Some(Self {
            network: Vae::new(&config, &weights),
            scale: config.scaling_factor,
        }))
    }
}

fn through(judged: &JudgeExample, picture: Picture) -> Picture {
    match &judged.window {
        Some(window) => window.through(&picture),
        None => picture,
    }
}
