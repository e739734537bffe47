//! The order of the parts, and which of them are done.

use scumble_erase::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    fit::Outcome,
    job::Job,
    part::Part,
    parts::{clip, denoiser, judge, tokenizer, vae},
    watcher::Watcher,
};

/// What came of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Which it is.
    pub part: Part,
    /// Steps that were done.
    pub steps: usize,
    /// Seconds that they took, in all runs together.
    pub seconds: f64,
    /// Seconds that it was given, if they were limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<f64>,
    /// Mean loss of the last steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

/// Whether nothing more is to be done: each of these parts has done all steps of the recipe, or has
/// had the time that it is given.
pub fn enough(job: &Job<'_>, trained: &[Trained]) -> bool {
    job.parts.iter().all(|part| {
        let of = trained.iter().find(|trained| trained.part == *part);
        of.is_some_and(|trained| trained.is_enough(job))
    })
}

impl Trained {
    fn is_enough(&self, job: &Job<'_>) -> bool {
        let all = match self.part {
            Part::Tokenizer => 0,
            Part::Clip => job.recipe.clip.training.steps,
            Part::Vae => job.recipe.vae.training.steps,
            Part::Denoiser => job.recipe.denoiser.training.steps,
            Part::Judge => job.recipe.judge.training.steps * judge::networks(job),
        };
        let had = self.given.unwrap_or(self.seconds);
        let had_its_time = seconds_of(job, self.part).is_some_and(|most| had >= most);
        self.steps >= all || had_its_time
    }
}

/// A part's share of the time, if there is a limit.
fn seconds_of(job: &Job<'_>, part: Part) -> Option<f64> {
    let shares: f64 = job.parts.iter().map(|part| part.share()).sum();
    let all = job.seconds.filter(|_| shares > 0.0);
    all.map(|seconds| seconds * part.share() / shares)
}

/// Trains the parts that are not done, and says what came of all that were asked for.
///
/// # Errors
/// If a part needs one that is not there, its loss is not finite, its data cannot be read, or
/// somebody asks to stop; the same call continues then.
pub fn train(job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<Vec<Trained>> {
    fs_err::create_dir_all(job.state()).map_err(scumble_nn::Error::from)?;
    let mut all = Vec::new();
    for &part in job.parts {
        let done = job.state().join(format!("{}.json", part.name()));
        if let Ok(text) = fs_err::read_to_string(&done)
            && let Ok(trained) = serde_json::from_str::<Trained>(&text)
            && trained.is_enough(job)
        {
            all.push(trained);
            continue;
        }
        for (file, of) in part.needs() {
            if !job.folder.join(&file).exists() {
                return Err(Error::input(format!(
                    "--part {}: {} is not there",
                    part.name(),
                    job.folder.join(&file).display()
                ))
                .with_hint(format!(
                    "train it first, with --part {}, or all parts",
                    of.name()
                )));
            }
        }
        let job = Job {
            most: seconds_of(job, part),
            ..*job
        };
        let outcome = match part {
            Part::Tokenizer => tokenizer::train(&job).map(|()| Outcome {
                steps: 0,
                seconds: 0.0,
                loss: f64::NAN,
            }),
            Part::Clip => clip::train(&job, watcher),
            Part::Vae => vae::train(&job, watcher),
            Part::Denoiser => denoiser::train(&job, watcher),
            Part::Judge => judge::train(&job, watcher),
        }?;
        let trained = Trained {
            part,
            steps: outcome.steps,
            seconds: outcome.seconds,
            given: job.most,
            loss: Some(outcome.loss).filter(|loss| loss.is_finite()),
        };
        job.layout().json(
            &format!("train/state/{}.json", part.name()),
            &json!(trained),
        )?;
        all.push(trained);
    }
    Ok(all)
}
