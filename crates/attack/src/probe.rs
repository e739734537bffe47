//! Other ways to draw a picture of a prompt: with a part of a picture of the concept given, with more noise, or led by a judge.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    At, Denoiser, Guidance, Noise, Pipeline, Prompted, Sampler,
    samplers::{Predict, Run, Step, timesteps},
    time::StepIndex,
};
use scumble_erase::{Error, Result, seeds::stream};
use serde::{Deserialize, Serialize};

use crate::{
    job::{Drawing, Job, Likely},
    prompts::repeated,
};

/// What is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// It begins with a noisy picture of the concept in the place of noise (SDEdit, Meng et al., arXiv 2108.01073).
    HalfNoised,
    /// A part of a picture of the concept is given at every step and the rest drawn; then that is given and the first part drawn anew, so
    /// that nothing of the given picture is left.
    Inpaint,
    /// Every step adds more noise than the sampler would.
    Noisier,
    /// The judge's gradient leads every step (Dhariwal and Nichol, arXiv 2105.05233).
    Classifier,
}

/// A probe and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What is different.
    pub probe: Probe,
    /// Half-noised: the share of the way from picture to noise. Inpaint: the share of the columns that is given. Noisier: eta, 1 for
    /// DDPM's noise. Classifier: the length of the judge's part, where that of the prediction is 1.
    pub amount: f64,
}

impl Trial {
    /// Whether the amount is in its range.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self) -> Result<()> {
        let (ok, expected) = match self.probe {
            Probe::HalfNoised => (self.amount > 0.0 && self.amount <= 1.0, "more than 0, at most 1"),
            Probe::Inpaint => (self.amount > 0.0 && self.amount < 1.0, "more than 0, less than 1"),
            Probe::Noisier => ((1.0..=10.0).contains(&self.amount), "1 to 10"),
            Probe::Classifier => (self.amount > 0.0 && self.amount <= 100.0, "more than 0, at most 100"),
        };
        if ok { Ok(()) } else { Err(Error::input(format!("{self}: expected {expected}"))) }
    }
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.probe {
            Probe::HalfNoised => "half-noised",
            Probe::Inpaint => "inpaint",
            Probe::Noisier => "noisier",
            Probe::Classifier => "classifier",
        };
        write!(f, "{name} {}", self.amount)
    }
}

/// Pictures drawn at once.
const AT_ONCE: usize = 16;

/// Latents of prompts drawn under a trial, `[n, channels, h, w]`, picture i from `seeds[i]` and, where the probe wants one, the picture
/// `targets[i]`, latents like the result.
///
/// # Errors
/// If the model cannot sample, or the trial wants a judge with gradients and there is none.
pub fn latents(job: &Job<'_>, trial: Trial, prompted: &Prompted, seeds: &[u64], targets: &Tensor<4>) -> Result<Tensor<4>> {
    trial.check()?;
    let model = job.victim;
    let noise = Noise::seeds(seeds);
    let plain = Drawn { model, drawing: job.drawing, prompted, hook: Hook::None, eta: 0.0, start: None };
    let first = |noise: &Noise| noise.clone().draw(targets.dims(), model.device());
    match trial.probe {
        Probe::HalfNoised => {
            let list = timesteps(job.sampler()?, &model.schedule, job.drawing.steps)?;
            let at = (((1.0 - trial.amount) * list.len() as f64).round() as usize).min(list.len() - 1);
            let x = model.schedule.add_noise(targets.clone(), first(&noise), &vec![list[at]; seeds.len()])?;
            Drawn { start: Some(StepIndex(at)), ..plain }.draw(x, noise)
        }
        Probe::Inpaint => {
            let [_, _, h, w] = targets.dims();
            let columns = ((trial.amount * w as f64).round() as usize).clamp(1, w - 1);
            let values: Vec<f32> = (0..h * w).map(|i| f32::from(u8::from(i % w < columns))).collect();
            let mask: Tensor<4> = Tensor::from_data(TensorData::new(values, [1, 1, h, w]), model.device());
            let other = Noise::seeds(&seeds.iter().map(|&seed| stream(seed, "revive/other half").seed()).collect::<Vec<_>>());
            let mut given = targets.clone();
            for (mask, noise) in [(mask.clone(), noise), (mask.neg() + 1.0, other)] {
                let x = first(&noise);
                let hook = Hook::Given { mask: mask.clone(), picture: given.clone(), noise: x.clone() };
                let drawn = Drawn { hook, ..plain.clone() }.draw(x, noise)?;
                given = given * mask.clone() + drawn * (mask.neg() + 1.0);
            }
            Ok(given)
        }
        Probe::Noisier => {
            let fresh = Noise::seeds(&seeds.iter().map(|&seed| stream(seed, "revive/fresh noise").seed()).collect::<Vec<_>>());
            let drawing = Drawing { sampler: Some(Sampler::Ddim), ..job.drawing };
            let hook = Hook::Noisier { eta: trial.amount, fresh, before: None };
            Drawn { drawing, hook, eta: 1.0, ..plain }.draw(first(&noise), noise)
        }
        Probe::Classifier => {
            let likely = job.likely.ok_or_else(|| {
                Error::input("classifier guidance needs a judge that knows the concept, with gradients")
                    .with_hint("the miniature's judges are such; choose another probe with --set probe=half-noised")
            })?;
            let hook = Hook::Led { scale: trial.amount, likely, model };
            Drawn { hook, ..plain }.draw(first(&noise), noise)
        }
    }
}

/// Latents of some cases, each under its own trial, by prompts `texts`.
///
/// # Errors
/// As [`latents`].
pub fn mixed(job: &Job<'_>, trials: &[Trial], texts: &[String], rows: &[usize], targets: &Tensor<4>) -> Result<Tensor<4>> {
    let mut groups: BTreeMap<(Probe, u64), Vec<usize>> = BTreeMap::new();
    for (i, trial) in trials.iter().enumerate() {
        groups.entry((trial.probe, trial.amount.to_bits())).or_default().push(i);
    }
    let (mut parts, mut order) = (Vec::new(), Vec::new());
    for group in groups.values().flat_map(|group| group.chunks(AT_ONCE)) {
        let prompted = job.victim.prompted(&group.iter().map(|&i| texts[i].clone()).collect::<Vec<_>>());
        let seeds: Vec<u64> = group.iter().map(|&i| job.cases[rows[i]].seed).collect();
        let own = group.iter().map(|&i| targets.clone().narrow(0, rows[i], 1)).collect();
        parts.push(latents(job, trials[group[0]], &prompted, &seeds, &Tensor::cat(own, 0))?);
        order.extend_from_slice(group);
    }
    let mut back = vec![0i64; order.len()];
    order.iter().enumerate().for_each(|(at, &i)| back[i] = at as i64);
    let n = back.len();
    Ok(Tensor::cat(parts, 0).select(0, Tensor::from_data(TensorData::new(back, [n]), job.victim.device())))
}

/// One run of a sampler.
#[derive(Clone)]
struct Drawn<'a> {
    model: &'a Pipeline,
    drawing: Drawing,
    prompted: &'a Prompted,
    hook: Hook<'a>,
    eta: f64,
    start: Option<StepIndex>,
}

/// What happens at every step.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one of them in a drawing")]
enum Hook<'a> {
    None,
    /// Where the mask is 1, the latents are those of the picture at the step's noise.
    Given {
        mask: Tensor<4>,
        picture: Tensor<4>,
        noise: Tensor<4>,
    },
    /// DDPM's noise of the step before becomes `eta` times as large.
    Noisier {
        eta: f64,
        fresh: Noise,
        before: Option<f64>,
    },
    /// The prediction is led towards what the judge wants to see.
    Led {
        scale: f64,
        likely: &'a Likely<'a>,
        model: &'a Pipeline,
    },
}

impl Drawn<'_> {
    fn draw(self, x: Tensor<4>, mut noise: Noise) -> Result<Tensor<4>> {
        let model = self.model;
        // The start has used up the first numbers, as in any other run.
        noise.draw(x.dims(), model.device());
        let unet = model.unet_network();
        let n = self.prompted.len();
        let mut guidance =
            model.guidance(self.drawing.guidance, self.prompted, &repeated(&model.prompted(&[String::new()]), n))?;
        let sampler = self.drawing.sampler.map_or_else(|| model.own_sampler(), Ok)?;
        let mut run = Run::new(&model.schedule, self.drawing.steps);
        (run.eta, run.start) = (self.eta, self.start);
        let denoiser = Denoiser { unet: &unet, schedule: &model.schedule };
        let mut asked = Asked { denoiser, guidance: &mut guidance, hook: self.hook };
        let device = model.device();
        sampler.sample::<Error>(&run, x, &mut asked, &mut |shape| noise.draw(shape, device), &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
    }
}

struct Asked<'a, 'b> {
    denoiser: Denoiser<'a>,
    guidance: &'a mut dyn Guidance,
    hook: Hook<'b>,
}

impl Predict<Error> for Asked<'_, '_> {
    fn epsilon(&mut self, x: Tensor<4>, step: Step) -> Result<Tensor<4>> {
        let epsilon = self.guidance.epsilon(&At::step(self.denoiser, step), x.clone())?;
        let Hook::Led { scale, likely, model } = &self.hook else { return Ok(epsilon) };
        let x0 = self.denoiser.schedule.x0_from_epsilon(epsilon.clone(), x, &[step.alpha_bar])?;
        let leaf = x0.autodiff().require_grad();
        let mut gradients = likely(model.decode(leaf.clone()))?.sum().backward();
        let Some(gradient) = leaf.grad_remove(&mut gradients) else { return Ok(epsilon) };
        let length = |x: &Tensor<4>| x.clone().powi_scalar(2).sum_dim(3).sum_dim(2).sum_dim(1).sqrt();
        let unit = gradient.clone() / length(&gradient).clamp_min(1e-12);
        Ok(epsilon.clone() - unit * length(&epsilon) * *scale)
    }

    fn moves_latents(&self) -> bool {
        self.guidance.moves_latents() || matches!(self.hook, Hook::Given { .. } | Hook::Noisier { .. })
    }

    fn latents(&mut self, x: Tensor<4>, step: Step) -> Result<Tensor<4>> {
        let x = if self.guidance.moves_latents() { self.guidance.latents(&At::step(self.denoiser, step), x)? } else { x };
        Ok(match &mut self.hook {
            Hook::None | Hook::Led { .. } => x,
            Hook::Given { mask, picture, noise } => {
                let a = step.alpha_bar;
                let noisy = picture.clone() * a.sqrt() + noise.clone() * (1.0 - a).sqrt();
                noisy * mask.clone() + x * (mask.clone().neg() + 1.0)
            }
            Hook::Noisier { eta, fresh, before } => match before.replace(step.alpha_bar) {
                None => x,
                Some(a) => {
                    // Equation 16 of DDIM for the step just taken, with eta = 1; what is missing to `eta` times that.
                    let now = step.alpha_bar;
                    let sigma = ((1.0 - now) / (1.0 - a) * (1.0 - a / now)).max(0.0).sqrt();
                    let more = sigma * (*eta * *eta - 1.0).max(0.0).sqrt();
                    let device = x.device();
                    let drawn = fresh.draw(x.dims(), &device);
                    x + drawn * more
                }
            },
        })
    }
}
