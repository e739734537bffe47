//! From noise to latents: what is asked for, and the run that a guidance leads.

use std::ops::{ControlFlow, Range};

use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    denoiser::Denoiser,
    error::{Error, Result},
    guidance::{At, Guidance},
    model::Model,
    prediction::Prediction,
    rng::TorchRng,
    sampler::Sampler,
    samplers::{Predict, Progress, Run, Step},
};

impl Model {
    /// Final latents for a request, `[n, channels, h, w]`, as a guidance leads to them.
    /// `request.guidance_scale` and its prompts are not looked at, but for their number.
    ///
    /// # Errors
    /// If the request does not fit the model.
    pub fn sample_guided(
        &self,
        request: &Request,
        guidance: &mut dyn Guidance,
        callback: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Tensor<4>> {
        let shape = self.latent_shape(request.prompts.len(), request.height, request.width)?;
        let mut noise = request.noise.clone();
        noise.expect(request.prompts.len())?;
        let denoiser = self.denoiser();
        let mut run = Run::new(&self.schedule, request.steps);
        run.eta = request.eta;
        let start = match &request.latents {
            Some(latents) if latents.dims() == shape => latents.clone(),
            Some(latents) => {
                return Err(Error::input(format!(
                    "latents are {:?}, the request asks for {shape:?}",
                    latents.dims()
                )));
            }
            None => noise.draw(shape, self.device()),
        };
        let sampler = request.sampler.map_or_else(|| self.own_sampler(), Ok)?;
        let device = self.device();
        self.let_others_rest(self.denoiser.id);
        sampler.sample::<Error>(
            &run,
            start,
            &mut Asked {
                denoiser: &denoiser,
                guidance,
            },
            &mut |shape| noise.draw(shape, device),
            callback,
        )
    }
}

/// A guidance with the network that it asks.
struct Asked<'a> {
    denoiser: &'a Denoiser<'a>,
    guidance: &'a mut dyn Guidance,
}

impl Predict<Error> for Asked<'_> {
    fn predict(&mut self, x: Tensor<4>, step: Step) -> Result<Prediction> {
        self.guidance.predict(&At::step(self.denoiser, step), x)
    }

    fn moves_latents(&self) -> bool {
        self.guidance.moves_latents()
    }

    fn latents(&mut self, x: Tensor<4>, step: Step) -> Result<Tensor<4>> {
        self.guidance.latents(&At::step(self.denoiser, step), x)
    }
}

/// What to draw, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// One prompt for each picture.
    pub prompts: Vec<String>,
    /// What to steer away from; empty for plain guidance.
    pub negative_prompt: String,
    /// Height in pixels; the model's own if `None`.
    pub height: Option<usize>,
    /// Width in pixels; the model's own if `None`.
    pub width: Option<usize>,
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance; 1 or less switches it off.
    pub guidance_scale: f64,
    /// The sampler; the checkpoint's own if `None`.
    pub sampler: Option<Sampler>,
    /// DDIM's share of fresh noise.
    pub eta: f64,
    /// Where the noise comes from.
    pub noise: Noise,
    /// The starting noise itself, `[n, channels, h, w]`, instead of drawn numbers.
    pub latents: Option<Tensor<4>>,
}

impl Request {
    /// One picture of each prompt in the model's own size, picture i from seed `seed + i`.
    pub fn new(prompts: Vec<String>, seed: u64, steps: usize, guidance_scale: f64) -> Self {
        let noise = Noise::each(seed, prompts.len());
        Self {
            prompts,
            negative_prompt: String::new(),
            height: None,
            width: None,
            steps,
            guidance_scale,
            sampler: None,
            eta: 0.0,
            noise,
            latents: None,
        }
    }
}

/// Random generators and the pictures each draws for; a sampler's step noise continues the same
/// generators.
#[derive(Clone)]
pub struct Noise {
    generators: Vec<Generator>,
}

/// A generator that draws for `of` pictures at once, of which those in `part` are wanted.
#[derive(Clone)]
struct Generator {
    rng: TorchRng,
    of: usize,
    part: Range<usize>,
}

impl std::fmt::Debug for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.generators.iter().map(|g| &g.part))
            .finish()
    }
}

impl Noise {
    /// `n` generators seeded `seed`, `seed + 1`, ..., one for each picture: diffusers' list of
    /// generators.
    pub fn each(seed: u64, n: usize) -> Self {
        let seeds: Vec<u64> = (0..n as u64).map(|i| seed.wrapping_add(i)).collect();
        Self::seeds(&seeds)
    }

    /// One generator for each seed and each picture.
    pub fn seeds(seeds: &[u64]) -> Self {
        seeds.iter().fold(
            Self {
                generators: Vec::new(),
            },
            |all, &seed| all.and(Self::block(seed, 1)),
        )
    }

    /// One generator that draws a block of `n` pictures at once: a row of a prompt file.
    pub fn block(seed: u64, n: usize) -> Self {
        Self::part_of_block(seed, n, 0..n)
    }

    /// Some pictures of such a block, with exactly the numbers they have in the whole of it.
    ///
    /// # Panics
    /// If `part` reaches past `n`.
    pub fn part_of_block(seed: u64, n: usize, part: Range<usize>) -> Self {
        assert!(
            part.start <= part.end && part.end <= n,
            "a part of the block"
        );
        Self {
            generators: vec![Generator {
                rng: TorchRng::new(seed),
                of: n,
                part,
            }],
        }
    }

    /// These pictures and then the others.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.generators.extend(other.generators);
        self
    }

    fn expect(&self, n: usize) -> Result<()> {
        let drawn: usize = self.generators.iter().map(|g| g.part.len()).sum();
        if drawn == n {
            Ok(())
        } else {
            Err(Error::input(format!(
                "noise for {drawn} pictures, prompts for {n}"
            )))
        }
    }

    /// The next normal numbers of every generator, in f32 whatever the model's dtype.
    pub fn draw(&mut self, shape: [usize; 4], device: &Device) -> Tensor<4> {
        let each = shape[1] * shape[2] * shape[3];
        let mut values = Vec::with_capacity(shape[0] * each);
        for Generator { rng, of, part } in &mut self.generators {
            values.extend_from_slice(&rng.normal(*of * each)[part.start * each..part.end * each]);
        }
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}
