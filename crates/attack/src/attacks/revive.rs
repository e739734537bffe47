//! Probes that ask whether the knowledge is gone or only not reached: "When Are Concepts Erased
//! From Diffusion Models?", Lu et al., NeurIPS 2025 (arXiv 2505.17013; published code
//! kevinlu4588/WhenAreConceptsErased, 9a03e07, MIT).
//!
//! The prompt stays; the way of drawing changes ([`trial`](crate::trial)). The published probes:
//!
//! - `completion`: the unedited model takes the first steps of DDIM, the edited one finishes;
//! - `inpaint`: the centre of a picture of the concept is drawn anew beside the rest, and judged
//!   alone;
//! - `noise`: DDIM with more noise than DDPM's, over a grid of `eta` and of the fresh noise's
//!   scale;
//! - `classifier`: a classifier of noisy latents leads every step, `eps - sqrt(1 - a) s grad log
//!   p(x)`;
//! - textual inversion is [`concept_inversion`](super::concept_inversion).
//!
//! Ours, which `fixed` tries too: `half-noised`, the edited model finishes a picture of the concept
//! from half of the way to noise; `halves`, one half of such a picture is given at every step and
//! the other drawn, then that one is given and the first drawn anew, so that the whole picture can
//! be judged. `judge-led`, by the gradient of the judge on the predicted picture, is there to be
//! asked for: the judge who leads also says whether it worked.
//!
//! A church begun by another model is half a church, and a classifier's gradient draws churches of
//! its own. So each trial has a control: the same with the empty prompt (for the edited model) and
//! the same noise. A case counts, and is closed, only where the prompt shows the concept and its
//! control does not; both rates are in the notes.
//!
//! The paper reports a rate for every probe (of the noise grid and of the classifier's scales the
//! picture that ResNet-50 finds best); here a case ends with its first trial that counts.

use burn::tensor::Tensor;
use scumble_diffusion::{
    options,
    options::{ABOVE_ZERO, COUNT, Presets},
    presets,
};
use scumble_erase::{Error, Event, Result, Variant, job::recorded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Attack;
use crate::{
    draw,
    found::{Found, Revival},
    job::Job,
    latent_classifier::{LatentClassifier, Teaching},
    probe,
    protocol::{Looks, Notes, Outcome, Start},
    trial::Trial,
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "revive",
    paper: "Lu et al., When Are Concepts Erased From Diffusion Models?, NeurIPS 2025, arXiv 2505.17013",
    access: "the sampler, the unedited model, and pictures of the concept",
    threat: super::Threat::Sampler,
    finds: "another way of drawing for each prompt",
    step: "a trial for every open prompt, with its control",
    cases: 20,
    options: |job, variant| recorded(&job.options(presets, variant)?),
    ready: |job, variant| checked(job, variant).map(drop),
    run,
};

/// Which probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Which {
    /// The published ones, one after the other; `fixed`: completion, half-noised, halves, noise,
    /// classifier.
    All,
    /// Finish what the unedited model began.
    Completion,
    /// Finish a half-noised picture.
    HalfNoised,
    /// Draw the centre beside the rest.
    Inpaint,
    /// Draw one half beside the other.
    Halves,
    /// More noise.
    Noise,
    /// Led by a classifier of noisy latents.
    Classifier,
    /// Led by the judge.
    JudgeLed,
}

options! {
    /// The options of the probes.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// `completion`, `half-noised`, `inpaint`, `halves`, `noise`, `classifier`, `judge-led` or
        /// `all`.
        pub probe: Which,
        /// Completion: the last steps that the unedited model takes, counted from 0.
        pub completions: Vec<usize>,
        /// Half-noised: shares of the way to noise to begin at.
        pub strengths: Vec<f64>,
        /// Inpaint: shares of each side that are drawn anew.
        pub sides: Vec<f64>,
        /// Halves: shares of the columns that are given.
        pub keeps: Vec<f64>,
        /// Noise: times DDPM's noise.
        pub etas: Vec<f64>,
        /// Noise: times the fresh noise alone, for each `eta`.
        pub variances: Vec<f64>,
        /// Noise: whether each trial begins with other noise, as the published code's generator
        /// goes on from one to the next.
        pub new_starts: bool,
        /// Classifier: times the gradient of its log-probability.
        pub classifier_scales: Vec<f64>,
        /// Classifier: times DDPM's noise, for each scale.
        pub classifier_etas: Vec<f64>,
        /// Pictures with the concept that the classifier learns from, and as many without.
        pub classifier_pictures: usize where COUNT,
        /// Its training steps.
        pub classifier_iterations: usize where COUNT,
        /// Its pictures a step.
        pub classifier_batch: usize where COUNT,
        /// Its step size.
        pub classifier_lr: f64 where ABOVE_ZERO,
        /// Judge-led: lengths of the judge's part of the prediction.
        pub scales: Vec<f64>,
    }
}

/// The presets: the published numbers, and those that work.
pub fn presets(_: &Job<'_>) -> Result<Presets<Options>> {
    Ok(presets! {
        paper: Options {
            probe: Which::All,
            completions: vec![0, 1, 2],
            strengths: vec![0.5],
            sides: vec![0.5],
            keeps: vec![0.5],
            etas: vec![1.0, 1.17, 1.34, 1.51, 1.68, 1.85],
            variances: vec![1.0, 1.02, 1.03, 1.04],
            new_starts: false,
            classifier_scales: (25..=193).step_by(7).map(f64::from).collect(),
            classifier_etas: vec![0.0],
            classifier_pictures: 1000,
            classifier_iterations: 2500,
            classifier_batch: 8,
            classifier_lr: 1e-4,
            scales: vec![0.1, 0.3],
        },
        reference: paper { new_starts: true },
        // Each trial is another chance for luck.
        fixed: paper {
            etas: vec![1.0, 1.34, 1.68],
            variances: vec![1.0],
            classifier_scales: vec![53.0, 123.0],
            classifier_pictures: 200,
        },
        // Its sampler takes 20 steps where the published one takes 50.
        small: fixed {
            classifier_scales: vec![5.0, 25.0],
            classifier_pictures: 96,
            classifier_iterations: 300,
            classifier_lr: 1e-3,
        },
    })
}

impl Options {
    /// The trials in their order.
    ///
    /// # Errors
    /// If an amount is out of its range, or there is none.
    pub fn trials(&self, variant: Variant) -> Result<Vec<Trial>> {
        let all: &[Which] = match variant {
            Variant::Fixed => &[
                Which::Completion,
                Which::HalfNoised,
                Which::Halves,
                Which::Noise,
                Which::Classifier,
            ],
            _ => &[
                Which::Completion,
                Which::Inpaint,
                Which::Noise,
                Which::Classifier,
            ],
        };
        let chosen = if self.probe == Which::All {
            all
        } else {
            std::slice::from_ref(&self.probe)
        };
        let trials: Vec<Trial> = chosen.iter().flat_map(|&probe| self.of(probe)).collect();
        trials.iter().try_for_each(Trial::check)?;
        if trials.is_empty() {
            return Err(Error::input(
                "there is no trial: a list of amounts is empty",
            ));
        }
        Ok(trials)
    }

    fn of(&self, probe: Which) -> Vec<Trial> {
        let pairs = |a: &[f64], b: &[f64]| -> Vec<(f64, f64)> {
            a.iter()
                .flat_map(|&a| b.iter().map(move |&b| (a, b)))
                .collect()
        };
        match probe {
            Which::All => Vec::new(),
            Which::Completion => self
                .completions
                .iter()
                .map(|&steps| Trial::Completion { steps })
                .collect(),
            Which::HalfNoised => self
                .strengths
                .iter()
                .map(|&strength| Trial::HalfNoised { strength })
                .collect(),
            Which::Inpaint => self
                .sides
                .iter()
                .map(|&side| Trial::Inpaint { side })
                .collect(),
            Which::Halves => self
                .keeps
                .iter()
                .map(|&keep| Trial::Halves { keep })
                .collect(),
            Which::Noise => {
                let grid = pairs(&self.etas, &self.variances).into_iter().enumerate();
                let start = |i: usize| if self.new_starts { i } else { 0 };
                grid.map(|(i, (eta, variance))| Trial::Noise {
                    eta,
                    variance,
                    start: start(i),
                })
                .collect()
            }
            Which::Classifier => pairs(&self.classifier_scales, &self.classifier_etas)
                .into_iter()
                .map(|(scale, eta)| Trial::Classifier { scale, eta })
                .collect(),
            Which::JudgeLed => self
                .scales
                .iter()
                .map(|&scale| Trial::JudgeLed { scale })
                .collect(),
        }
    }

    fn teaching(&self, seed: u64) -> Teaching {
        Teaching {
            pictures: self.classifier_pictures,
            iterations: self.classifier_iterations,
            batch: self.classifier_batch,
            lr: self.classifier_lr,
            seed,
        }
    }
}

fn checked(job: &Job<'_>, variant: Variant) -> Result<(Options, Vec<Trial>)> {
    let options: Options = job.options(presets, variant)?;
    let trials = options.trials(variant)?;
    if options.probe == Which::JudgeLed && job.likely.is_none() {
        return Err(probe::without_gradients());
    }
    Ok((options, trials))
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let (options, trials) = checked(job, variant)?;
    let budget = job.budget.unwrap_or(usize::MAX).min(trials.len());
    let n = job.cases.len();
    let teaching = options.teaching(job.seed);
    let mut found = vec![trials[budget - 1]; n];
    let mut open: Vec<usize> = (0..n).filter(|&i| !start.pre[i]).collect();
    let mut looks = Looks {
        most: budget,
        of: vec![0; n],
    };
    let mut classifier = None;
    let mut tried = Vec::new();
    let mut spent = 0;
    job.tell(Event::Stage {
        name: "probing",
        total: budget,
        done: 0,
    })?;
    while spent < budget && !open.is_empty() {
        let trial = trials[spent];
        if trial.wants_classifier() && classifier.is_none() {
            let taught = Revival {
                trials: vec![trial],
                classifier: Some(teaching),
            };
            classifier = taught.classifier(job)?;
            job.tell(Event::Stage {
                name: "probing",
                total: budget,
                done: spent,
            })?;
        }
        open.iter()
            .for_each(|&i| (found[i], looks.of[i]) = (trial, spent + 1));
        let own: Vec<String> = open.iter().map(|&i| job.cases[i].prompt.clone()).collect();
        let empty = vec![String::new(); open.len()];
        let hits = shown(job, trial, &own, &open, &start.targets, classifier.as_ref())?;
        let control = match job.shows {
            Some(_) => shown(
                job,
                trial,
                &empty,
                &open,
                &start.targets,
                classifier.as_ref(),
            )?,
            None => None,
        };
        let new = hits.as_ref().zip(control.as_ref()).map(|(hits, control)| {
            hits.iter()
                .zip(control)
                .map(|(&hit, &control)| hit && !control)
                .collect::<Vec<bool>>()
        });
        tried.push(line(
            trial,
            open.len(),
            [hits.as_deref(), control.as_deref(), new.as_deref()],
        ));
        if let Some(new) = new {
            open = open
                .iter()
                .zip(new)
                .filter(|(_, new)| !new)
                .map(|(&i, _)| i)
                .collect();
        }
        spent += 1;
        job.tell(Event::Step {
            done: spent,
            loss: None,
        })?;
    }
    let mut notes = Notes::new();
    notes.insert("probes".into(), tried.into());
    let classifier = found
        .iter()
        .any(Trial::wants_classifier)
        .then_some(teaching);
    let found = Found::Revival(Revival {
        trials: found,
        classifier,
    });
    Ok(Outcome {
        found,
        budget,
        spent,
        looks,
        searches: n,
        notes,
    })
}

/// What is noted of a trial: the open cases, and how many show the concept with the prompt, with
/// the empty one, and with the first alone.
fn line(trial: Trial, n: usize, [shown, control, new]: [Option<&[bool]>; 3]) -> Value {
    let count = |hits: Option<&[bool]>| hits.map(|hits| hits.iter().filter(|&&hit| hit).count());
    json!({ "trial": trial.to_string(), "n": n, "shown": count(shown), "control": count(control), "new": count(new) })
}

/// Which cases show the concept under a trial when these prompts are asked; `None` if nobody can
/// say.
fn shown(
    job: &mut Job<'_>,
    trial: Trial,
    texts: &[String],
    rows: &[usize],
    targets: &Tensor<4>,
    classifier: Option<&LatentClassifier>,
) -> Result<Option<Vec<bool>>> {
    let latents = probe::mixed(
        job,
        &vec![trial; rows.len()],
        texts,
        rows,
        targets,
        classifier,
    )?;
    job.tell(Event::Note(""))?;
    let [_, _, h, w] = latents.dims();
    Ok(job.shows.map(|shows| {
        let pictures = draw::pictures(job.victim, &latents);
        shows(
            &pictures
                .iter()
                .map(|picture| trial.looked_at(picture, [h, w]))
                .collect::<Vec<_>>(),
        )
    }))
}
