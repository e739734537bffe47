//! Other ways to draw a picture of a prompt: begun by another model, beside a part of a picture,
//! with more noise, or led by a classifier.

use std::{collections::BTreeMap, ops::ControlFlow};

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{
    At, Denoiser, Guidance, Noise, Pipeline, Prediction, Prompted, Sampler, Scales,
    samplers::{Predict, Run, Step, timesteps},
    time::StepIndex,
};
use scumble_erase::{Error, Result, seeds::stream};

use crate::{
    draw::back,
    groups::DRAWN,
    job::{Case, Drawing, Job, Likely},
    latent_classifier::LatentClassifier,
    noisy_ddim::{Noisiness, noisy_ddim},
    prompts::repeated,
};

pub use crate::trial::Trial;

/// What a trial may need beside the model.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The cases: their prompts and their noise.
    pub cases: &'a [Case],
    /// A picture of the concept for each, latents `[n, channels, h, w]`.
    pub targets: &'a Tensor<4>,
    /// A classifier of noisy latents.
    pub classifier: Option<&'a LatentClassifier>,
}

/// Latents of prompts drawn under a trial, `[n, channels, h, w]`, picture i with the noise of case
/// i.
///
/// # Errors
/// If the model cannot sample, or the trial wants a classifier or a judge with gradients and there is none.
pub fn latents(
    job: &Job<'_>,
    drawing: Drawing,
    trial: Trial,
    prompted: &Prompted,
    given: Given<'_>,
) -> Result<Tensor<4>> {
    trial.check()?;
    let model = job.victim;
    let targets = given.targets;
    let seeds: Vec<u64> = given.cases.iter().map(|case| case.seed).collect();
    let noise = Noise::seeds(&seeds);
    let plain = Drawn {
        model,
        drawing,
        prompted,
        hook: Hook::None,
        start: None,
    };
    let ddim = Drawing {
        sampler: Some(Sampler::Ddim),
        ..drawing
    };
    let first = |noise: &Noise| noise.clone().draw(targets.dims(), model.device());
    match trial {
        Trial::Completion { steps } => {
            let len = timesteps(Sampler::Ddim, &model.schedule, drawing.steps)?.len();
            if steps + 1 >= len {
                return Err(Error::input(format!(
                    "{trial}: expected less than {}, the last of the {len} steps",
                    len - 1
                )));
            }
            let own: Vec<String> = given.cases.iter().map(|case| case.prompt.clone()).collect();
            let asked = job.base.prompted(&own);
            let begun = Drawn {
                model: job.base,
                drawing: ddim,
                prompted: &asked,
                hook: Hook::None,
                start: None,
            };
            let x = begun.draw_until(first(&noise), noise.clone(), Some(steps))?;
            Drawn {
                drawing: ddim,
                start: Some(StepIndex(steps + 1)),
                ..plain
            }
            .draw(x, noise)
        }
        Trial::HalfNoised { strength } => {
            let list = timesteps(job.sampler()?, &model.schedule, drawing.steps)?;
            let at = (((1.0 - strength) * list.len() as f64).round() as usize).min(list.len() - 1);
            let x = model.schedule.add_noise(
                targets.clone(),
                first(&noise),
                &vec![list[at]; seeds.len()],
            )?;
            Drawn {
                start: Some(StepIndex(at)),
                ..plain
            }
            .draw(x, noise)
        }
        Trial::Inpaint { side } => {
            let [_, _, h, w] = targets.dims();
            let (rows, columns) = (Trial::centre(h, side), Trial::centre(w, side));
            let kept = |i: usize| !(rows.contains(&(i / w)) && columns.contains(&(i % w)));
            let mask = mask(model, [h, w], &kept);
            // The published pipeline begins with noise everywhere, and pastes the picture after
            // every step.
            let hook = Hook::Given {
                mask: mask.clone(),
                picture: targets.clone(),
                noise: first(&noise),
                from: 1,
            };
            let drawn = Drawn { hook, ..plain }.draw(first(&noise), noise)?;
            Ok(targets.clone() * mask.clone() + drawn * (mask.neg() + 1.0))
        }
        Trial::Halves { keep } => {
            let [_, _, h, w] = targets.dims();
            let columns = ((keep * w as f64).round() as usize).clamp(1, w - 1);
            let mask = mask(model, [h, w], &|i| i % w < columns);
            let other = Noise::seeds(
                &seeds
                    .iter()
                    .map(|&seed| stream(seed, "revive/other half").seed())
                    .collect::<Vec<_>>(),
            );
            let mut picture = targets.clone();
            for (mask, noise) in [(mask.clone(), noise), (mask.neg() + 1.0, other)] {
                let x = first(&noise);
                let hook = Hook::Given {
                    mask: mask.clone(),
                    picture: picture.clone(),
                    noise: x.clone(),
                    from: 0,
                };
                let drawn = Drawn {
                    hook,
                    ..plain.clone()
                }
                .draw(x, noise)?;
                picture = picture * mask.clone() + drawn * (mask.neg() + 1.0);
            }
            Ok(picture)
        }
        Trial::Noise {
            eta,
            variance,
            start,
        } => {
            let begin = match start {
                0 => noise,
                _ => Noise::seeds(
                    &seeds
                        .iter()
                        .map(|&seed| stream(seed, "revive/other start").at(start))
                        .collect::<Vec<_>>(),
                ),
            };
            Drawn {
                drawing: ddim,
                ..plain
            }
            .noisy(first(&begin), &seeds, Noisiness { eta, variance })
        }
        Trial::Classifier { scale, eta } => {
            let classifier = given.classifier.ok_or_else(|| {
                Error::input(format!("{trial}: there is no classifier of noisy latents"))
            })?;
            let hook = Hook::Classified { scale, classifier };
            Drawn {
                drawing: ddim,
                hook,
                ..plain
            }
            .noisy(first(&noise), &seeds, Noisiness { eta, variance: 1.0 })
        }
        Trial::JudgeLed { scale } => {
            let likely = job.likely.ok_or_else(without_gradients)?;
            Drawn {
                hook: Hook::Led {
                    scale,
                    likely,
                    model,
                },
                ..plain
            }
            .draw(first(&noise), noise)
        }
    }
}

/// Why nobody can lead a drawing.
pub(crate) fn without_gradients() -> Error {
    Error::input("--set probe=judge-led needs gradients of every judge of the concept, and there are none")
        .with_hint(
            "the miniature's judges have them, and each --detector that is a folder (a ViT, a CLIP) or a ResNet; an ONNX file has none. --set probe=classifier teaches a classifier of its own",
        )
}

/// 1 where `kept` says so of a place, counted by rows: `[1, 1, h, w]`.
fn mask(model: &Pipeline, [h, w]: [usize; 2], kept: &dyn Fn(usize) -> bool) -> Tensor<4> {
    let values: Vec<f32> = (0..h * w).map(|i| f32::from(u8::from(kept(i)))).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, h, w]), model.device())
}

/// Latents of some cases, each under its own trial, by prompts `texts`.
///
/// # Errors
/// As [`latents`].
pub fn mixed(
    job: &Job<'_>,
    trials: &[Trial],
    texts: &[String],
    rows: &[usize],
    targets: &Tensor<4>,
    classifier: Option<&LatentClassifier>,
) -> Result<Tensor<4>> {
    let mut groups: BTreeMap<(String, u64), Vec<usize>> = BTreeMap::new();
    for (i, trial) in trials.iter().enumerate() {
        let guidance = job
            .drawing
            .with_guidance(job.cases[rows[i]].guidance)
            .guidance;
        groups
            .entry((trial.to_string(), guidance.to_bits()))
            .or_default()
            .push(i);
    }
    let (mut parts, mut order) = (Vec::new(), Vec::new());
    for group in groups.values().flat_map(|group| group.chunks(DRAWN)) {
        let prompted = job
            .victim
            .prompted(&group.iter().map(|&i| texts[i].clone()).collect::<Vec<_>>());
        let cases: Vec<Case> = group.iter().map(|&i| job.cases[rows[i]].clone()).collect();
        let own = Tensor::cat(
            group
                .iter()
                .map(|&i| targets.clone().narrow(0, rows[i], 1))
                .collect(),
            0,
        );
        let drawing = job.drawing.with_guidance(cases[0].guidance);
        let given = Given {
            cases: &cases,
            targets: &own,
            classifier,
        };
        parts.push(latents(job, drawing, trials[group[0]], &prompted, given)?);
        order.extend_from_slice(group);
    }
    Ok(back(parts, &order))
}

/// One run of a sampler.
#[derive(Clone)]
struct Drawn<'a> {
    model: &'a Pipeline,
    drawing: Drawing,
    prompted: &'a Prompted,
    hook: Hook<'a>,
    start: Option<StepIndex>,
}

/// What happens at every step.
#[derive(Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one of them in a drawing"
)]
enum Hook<'a> {
    None,
    /// Where the mask is 1, the latents are those of the picture at the step's noise, from a step
    /// on.
    Given {
        mask: Tensor<4>,
        picture: Tensor<4>,
        noise: Tensor<4>,
        from: usize,
    },
    /// `eps - sqrt(1 - a) scale grad log p(x)`.
    Classified {
        scale: f64,
        classifier: &'a LatentClassifier,
    },
    /// The prediction is led towards what the judge wants to see.
    Led {
        scale: f64,
        likely: &'a Likely<'a>,
        model: &'a Pipeline,
    },
}

impl Drawn<'_> {
    fn draw(self, x: Tensor<4>, noise: Noise) -> Result<Tensor<4>> {
        self.draw_until(x, noise, None)
    }

    /// Draws up to a step and including it, or to the end.
    fn draw_until(self, x: Tensor<4>, mut noise: Noise, last: Option<usize>) -> Result<Tensor<4>> {
        let (model, drawing, start) = (self.model, self.drawing, self.start);
        // The start has used up the first numbers, as in any other run.
        noise.draw(x.dims(), model.device());
        let sampler = drawing.sampler.map_or_else(|| model.own_sampler(), Ok)?;
        let mut run = Run::new(&model.schedule, drawing.steps);
        run.start = start;
        let device = model.device();
        self.asked(&mut |asked| {
            sampler.sample::<Error>(
                &run,
                x.clone(),
                asked,
                &mut |shape| noise.draw(shape, device),
                &mut |progress| {
                    if last == Some(progress.index.0) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            )
        })
    }

    /// Draws by DDIM with more noise than it has.
    fn noisy(self, x: Tensor<4>, seeds: &[u64], noisiness: Noisiness) -> Result<Tensor<4>> {
        let (model, steps) = (self.model, self.drawing.steps);
        let mut fresh = Noise::seeds(
            &seeds
                .iter()
                .map(|&seed| stream(seed, "revive/fresh noise").seed())
                .collect::<Vec<_>>(),
        );
        self.asked(&mut |asked| {
            noisy_ddim(model, steps, noisiness, x.clone(), asked, &mut |shape| {
                fresh.draw(shape, model.device())
            })
        })
    }

    /// Does something with what a sampler asks.
    fn asked(
        self,
        sampled: &mut dyn FnMut(&mut Asked<'_, '_>) -> Result<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let model = self.model;
        let denoiser = model.denoiser();
        let negative = repeated(&model.prompted(&[String::new()]), self.prompted.len());
        let mut guidance = model.guidance(self.drawing.guidance, self.prompted, &negative)?;
        sampled(&mut Asked {
            denoiser: &denoiser,
            guidance: &mut guidance,
            hook: self.hook,
        })
    }
}

struct Asked<'a, 'b> {
    denoiser: &'a Denoiser<'a>,
    guidance: &'a mut dyn Guidance,
    hook: Hook<'b>,
}

impl Predict<Error> for Asked<'_, '_> {
    fn predict(&mut self, x: Tensor<4>, step: Step) -> Result<Prediction> {
        let prediction = self
            .guidance
            .predict(&At::step(self.denoiser, step), x.clone())?;
        match &self.hook {
            Hook::None | Hook::Given { .. } => Ok(prediction),
            Hook::Classified { scale, classifier } => {
                let gradient = classifier.gradient(&x, step.alpha_bar);
                let epsilon = prediction.epsilon()? - gradient * (step.scales.sigma * scale);
                Ok(prediction.with_epsilon(epsilon)?)
            }
            Hook::Led {
                scale,
                likely,
                model,
            } => {
                let leaf = prediction.x0()?.autodiff().require_grad();
                let mut gradients = likely(model.decode(leaf.clone()))?.sum().backward();
                let Some(gradient) = leaf.grad_remove(&mut gradients) else {
                    return Ok(prediction);
                };
                let length = |x: &Tensor<4>| {
                    x.clone()
                        .powi_scalar(2)
                        .sum_dim(3)
                        .sum_dim(2)
                        .sum_dim(1)
                        .sqrt()
                };
                let unit = gradient.clone() / length(&gradient).clamp_min(1e-12);
                let epsilon = prediction.epsilon()?;
                let led = epsilon.clone() - unit * length(&epsilon) * *scale;
                Ok(prediction.with_epsilon(led)?)
            }
        }
    }

    fn moves_latents(&self) -> bool {
        self.guidance.moves_latents() || matches!(self.hook, Hook::Given { .. })
    }

    fn latents(&mut self, x: Tensor<4>, step: Step) -> Result<Tensor<4>> {
        let x = if self.guidance.moves_latents() {
            self.guidance.latents(&At::step(self.denoiser, step), x)?
        } else {
            x
        };
        Ok(match &self.hook {
            Hook::Given {
                mask,
                picture,
                noise,
                from,
            } if step.index.0 >= *from => {
                let Scales { alpha, sigma } = step.scales;
                let noisy = picture.clone() * alpha + noise.clone() * sigma;
                noisy * mask.clone() + x * (mask.clone().neg() + 1.0)
            }
            _ => x,
        })
    }
}
