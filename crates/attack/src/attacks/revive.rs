//! Probes that ask whether the knowledge is gone or only not reached: "When Are Concepts Erased From Diffusion Models?", Lu et al., NeurIPS 2025
//! (arXiv 2505.17013).
//!
//! The prompt stays; the way of drawing changes ([`probe`](crate::probe)):
//!
//! - `half-noised`: the edited model finishes a picture of the concept from half of the way to noise;
//! - `inpaint`: one half of such a picture is given at every step, the model draws the other; then that one is given and the first drawn
//!   anew, so that no given pixel is judged;
//! - `noisier`: DDIM's steps with more noise than DDPM's (`eta` above 1), which leads away from where an erasure guards;
//! - `classifier`: the gradient of a judge on the predicted picture leads every step.
//!
//! A half-noised church is a church in any model, and a judge's gradient draws churches of its own. So each probe has a control: the same
//! probe, noise and picture with the empty prompt. What the prompt adds to it is the model's knowledge; both rates are in the notes.
//!
//! The paper draws thousands of pictures for every probe and reports rates; here a case ends with the first trial that shows the concept,
//! and inpainting is judged without the given half. Without published code, all variants are the same but for the lists.

use burn::tensor::Tensor;
use scumble_erase::{Error, Event, Result, Variant};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Attack, as_value};
use crate::{
    draw,
    found::Found,
    job::Job,
    probe::{self, Probe, Trial},
    protocol::{Notes, Outcome, Start},
};

/// What it is.
pub const ATTACK: Attack = Attack {
    id: "revive",
    paper: "Lu et al., When Are Concepts Erased From Diffusion Models?, NeurIPS 2025, arXiv 2505.17013",
    access: "the sampler, pictures of the concept; a judge's gradient for one probe",
    finds: "another way of drawing",
    step: "a trial for every open prompt",
    cases: 20,
    options: |job, variant| as_value(&job.options(&defaults(job, variant))?),
    run,
};

/// Which probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// All, one after the other.
    All,
    /// Finish a half-noised picture.
    HalfNoised,
    /// Draw one half beside the other.
    Inpaint,
    /// More noise.
    Noisier,
    /// Led by the judge.
    Classifier,
}

/// The options of the probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// `half-noised`, `inpaint`, `noisier`, `classifier` or `all`.
    pub probe: Which,
    /// Half-noised: shares of the way to noise to begin at.
    pub strengths: Vec<f64>,
    /// Inpaint: shares of the columns that are given.
    pub keeps: Vec<f64>,
    /// Noisier: times DDPM's noise.
    pub etas: Vec<f64>,
    /// Classifier: lengths of the judge's part of the prediction.
    pub scales: Vec<f64>,
}

/// The defaults.
pub fn defaults(_: &Job<'_>, _: Variant) -> Options {
    Options {
        probe: Which::All,
        strengths: vec![0.5],
        keeps: vec![0.5],
        etas: vec![1.0, 1.25, 1.5, 1.75],
        scales: vec![0.1, 0.3],
    }
}

impl Options {
    fn trials(&self, job: &Job<'_>) -> Result<Vec<Trial>> {
        let all = self.probe == Which::All;
        let mut trials = Vec::new();
        let lists = [
            (Which::HalfNoised, Probe::HalfNoised, &self.strengths),
            (Which::Inpaint, Probe::Inpaint, &self.keeps),
            (Which::Noisier, Probe::Noisier, &self.etas),
            (Which::Classifier, Probe::Classifier, &self.scales),
        ];
        for (which, probe, amounts) in lists {
            // Nobody to lead: no reason to give up the other probes.
            if self.probe == which || (all && (probe != Probe::Classifier || job.likely.is_some())) {
                trials.extend(amounts.iter().map(|&amount| Trial { probe, amount }));
            }
        }
        trials.iter().try_for_each(Trial::check)?;
        if trials.is_empty() {
            return Err(Error::input("there is no trial: a list of amounts is empty"));
        }
        Ok(trials)
    }
}

fn run(job: &mut Job<'_>, start: &Start, variant: Variant) -> Result<Outcome> {
    let options: Options = job.options(&defaults(job, variant))?;
    let trials = options.trials(job)?;
    let budget = job.budget.unwrap_or(usize::MAX).min(trials.len());
    let n = job.cases.len();
    let mut found = vec![trials[budget - 1]; n];
    let mut open: Vec<usize> = (0..n).filter(|&i| !start.pre[i]).collect();
    let mut tried = Vec::new();
    let mut spent = 0;
    job.tell(Event::Stage { name: "probing", total: budget, done: 0 })?;
    while spent < budget && !open.is_empty() {
        let trial = trials[spent];
        open.iter().for_each(|&i| found[i] = trial);
        let own: Vec<String> = open.iter().map(|&i| job.cases[i].prompt.clone()).collect();
        let hits = shown(job, trial, &own, &open, &start.targets)?;
        let control = shown(job, trial, &vec![String::new(); open.len()], &open, &start.targets)?;
        let count = |hits: &Option<Vec<bool>>| hits.as_ref().map(|hits| hits.iter().filter(|&&hit| hit).count());
        tried.push(json!({
            "trial": trial.to_string(), "n": open.len(), "shown": count(&hits), "control": count(&control),
        }));
        if let Some(hits) = hits {
            open = open.iter().zip(hits).filter(|(_, hit)| !hit).map(|(&i, _)| i).collect();
        }
        spent += 1;
        job.tell(Event::Step { done: spent, loss: None })?;
    }
    let mut notes = Notes::new();
    notes.insert("probes".into(), tried.into());
    Ok(Outcome { found: Found::Revival(found), budget, spent, notes })
}

/// Which cases show the concept under a trial when these prompts are asked; `None` if nobody can say.
fn shown(job: &mut Job<'_>, trial: Trial, texts: &[String], rows: &[usize], targets: &Tensor<4>) -> Result<Option<Vec<bool>>> {
    let latents = probe::mixed(job, &vec![trial; rows.len()], texts, rows, targets)?;
    job.tell(Event::Note(""))?;
    Ok(job.shows.map(|shows| shows(&draw::pictures(job.victim, &latents))))
}
